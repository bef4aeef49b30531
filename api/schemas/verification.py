"""A job rendered again and compared, and what of it was repaired."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from api.schemas.base import Page, Shape


class VerifyRequest(BaseModel):
    """Which images to render again and compare: `sample` of them at random, or all."""

    model_config = ConfigDict(extra="forbid")

    sample: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    all: StrictBool = False
    repair: StrictBool = Field(
        default=False, description="kept with the verification, for the client"
    )
    seed: int | None = Field(default=None, description="chooses the sample; default: random")


VerdictStatus = Literal["ok", "damaged", "missing", "mismatch", "unverifiable", "pending"]


class Verdict(Shape):
    """One image against its second rendering."""

    id: str
    object: Literal["verdict"] = "verdict"
    index: int
    row: int
    status: VerdictStatus = Field(
        description="ok: stored bytes, record and second rendering agree · damaged: the stored "
        "bytes are not those recorded · missing: the object is gone · mismatch: the second "
        "rendering differs · unverifiable: another fingerprint, or it was not rendered · "
        "pending: not rendered again yet"
    )
    repairable: bool | None = Field(description="the good bytes are at hand; null: not known yet")
    sha256: str | None = Field(description="as recorded")
    stored_sha256: str | None = Field(description="of the bytes that are stored now")
    rendered_sha256: str | None = Field(description="of the second rendering")
    fingerprint: str | None
    rendered_fingerprint: str | None


class Verdicts(Page[Verdict]):
    """A page of verdicts. `summary` counts this page's, by status."""

    job_id: str
    verify_job: str
    state: str = Field(description="of the job that renders again")
    next: int | None = Field(description="the `after` of the next page")
    summary: dict[str, int]


class Repaired(Shape):
    """What a repair did."""

    object: Literal["repair"] = "repair"
    job_id: str
    repaired: list[int] = Field(description="indexes whose good bytes are back")
    unrepairable: list[int] = Field(description="indexes that are damaged or missing still")
