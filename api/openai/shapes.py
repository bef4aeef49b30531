"""The shapes of the OpenAI image endpoints, as the official client (openai 3.x) sends and
reads them; what is ours beside theirs is marked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StrictBool, field_validator

from api.schemas import Shape
from promptmill import jobs

MOST_IMAGES = 10


class ImageRequest(BaseModel):
    """A request for `n` images of one prompt. Unknown fields are refused by name; fields that
    no generator here can honour are accepted only with the values that ask for nothing."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    prompt: Annotated[str, Field(max_length=32_000)]
    model: str | None = None
    n: Annotated[int, Field(ge=1, le=MOST_IMAGES)] | None = None
    size: Annotated[str, Field(max_length=20, description="WIDTHxHEIGHT, or auto")] | None = None
    response_format: Literal["url", "b64_json"] | None = None
    output_format: Literal["png", "webp", "jpeg"] | None = None
    stream: StrictBool | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
    # accepted where they ask for nothing
    quality: Literal["auto", "standard"] | None = None
    background: Literal["auto", "opaque"] | None = None
    moderation: Literal["auto", "low"] | None = None
    output_compression: Literal[100] | None = None
    partial_images: Annotated[int, Field(ge=0, le=3, description="none is ever sent")] | None = None
    # ours, through `extra_body`
    seed: Annotated[int, Field(ge=0, lt=1 << jobs.SEED_BITS)] | None = None
    negative_prompt: str | None = None
    steps: Annotated[
        int | None,
        Field(ge=1, le=100_000, validation_alias=AliasChoices("steps", "num_inference_steps")),
    ] = None
    guidance: Annotated[
        float | None, Field(validation_alias=AliasChoices("guidance", "guidance_scale"))
    ] = None
    lora: Annotated[str, Field(max_length=64, description="an adapter of the model")] | None = None
    metadata: dict[str, Any] | None = None

    def submission(self, **start: Any) -> dict[str, Any]:
        """The same as a document of `POST /v1/jobs`. start: what its row starts from."""
        row = {
            "prompt": self.prompt,
            "n": self.n,
            "size": None if self.size == "auto" else self.size,
            "seed": self.seed,
            "negative_prompt": self.negative_prompt,
            "steps": self.steps,
            "guidance": self.guidance,
            "lora": self.lora,
            **start,
        }
        caller = self.safety_identifier or self.user
        document = {
            "model": self.model,
            "name": self.prompt[:80],
            "priority": "interactive",
            "metadata": {**(self.metadata or {}), **({"user": caller} if caller else {})},
            "output": {"format": self.output_format or "png"},
            "items": [{name: value for name, value in row.items() if value is not None}],
        }
        return {name: value for name, value in document.items() if value is not None}


class EditRequest(ImageRequest):
    """The same for a picture to start from. With a mask, or a picture that is transparent in
    places, what is clear is painted anew (`inpaint`); else the whole (`img2img`)."""

    stream: bool | None = None  # in the text of a form
    input_fidelity: Literal["low"] | None = None
    # ours, through `extra_body`
    task: Annotated[str, Field(max_length=64)] | None = None
    strength: float | None = None

    @field_validator("output_compression", mode="before")
    @classmethod
    def _of_a_form(cls, given: Any) -> Any:
        """All fields of a form are text, which no literal number is."""
        return 100 if given == "100" else given


class ImageData(Shape):
    """One image: its bytes in base64 or where they are."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None
    seed: int = Field(description="ours: the seed that was used")
    id: str = Field(description="ours: the image, as GET /v1/jobs/{id}/images shows it")
    sha256: str | None = Field(description="ours: of the bytes")


class ImagesResponse(Shape):
    """The answer to an image request."""

    created: int
    data: list[ImageData]
    output_format: str
    size: str
    quality: str = "auto"
    background: str = "opaque"
    job_id: str = Field(description="ours: the job that made them")
