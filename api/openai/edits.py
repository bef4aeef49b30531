"""Requests to make images from a picture: the form is read, its pictures are checked and
stored for as long as the submission takes (it keeps copies of its own)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from api.farm import Farm
from api.openai import files
from api.openai.shapes import EditRequest
from promptmill import errors, pictures, records
from promptmill.store import files as stored

PICTURES: Final = {"image": "image", "image[]": "image", "mask": "mask"}


@dataclass(frozen=True, slots=True)
class Form:
    """fields: as text; uploads: image and mask."""

    fields: Mapping[str, str]
    uploads: Mapping[str, UploadFile]


@contextlib.asynccontextmanager
async def form_of(request: Request) -> AsyncIterator[Form]:
    """The form of a request; larger pictures wait on disk. Raises `errors.BadRequest` naming
    the field."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise errors.UnsupportedMedia("send multipart/form-data, as HTTP clients make it")
    async with request.form(max_files=4, max_fields=64) as given:
        fields: dict[str, str] = {}
        uploads: dict[str, UploadFile] = {}
        for name, value in given.multi_items():
            known = PICTURES.get(name, name)
            if known in fields or known in uploads:
                raise errors.BadRequest(f"{known[:100]} can be given once", param=known[:100])
            if isinstance(value, UploadFile) != (name in PICTURES):
                what = "a file" if name in PICTURES else "text"
                raise errors.BadRequest(f"{known[:100]} must be {what}", param=known[:100])
            if isinstance(value, UploadFile):
                uploads[known] = value
            else:
                fields[known] = value
        yield Form(fields, uploads)


def prepare(farm: Farm, tenant: records.Tenant, form: Form) -> tuple[EditRequest, dict[str, Any]]:
    """The request, and what its images start from, as the fields of a row. Raises
    `errors.BadRequest`, `errors.BadRow`."""
    try:
        asked = EditRequest.model_validate(form.fields)
    except ValidationError as refused:
        fault = refused.errors(include_url=False, include_input=False)[0]
        param = ".".join(str(part)[:100] for part in fault["loc"])
        raise errors.BadRequest(f"{param}: {fault['msg']}", param=param) from None
    if "image" not in form.uploads:
        raise errors.BadRequest("the form has no image", param="image")
    start: dict[str, Any] = {}
    transparent = False
    try:
        for name, field in (("image", "source"), ("mask", "mask")):
            if (upload := form.uploads.get(name)) is not None:
                data = upload.file.read()
                facts = _check(data, name)
                transparent = transparent or (name == "image" and facts.transparent)
                start[field] = files.keep(farm, tenant, data, upload.filename or name).public_id
    except errors.Error:
        forget(farm, tenant, start)
        raise
    painted = "mask" in start or transparent
    start["task"] = asked.task or ("inpaint" if painted else "img2img")
    if asked.strength is not None:
        start["strength"] = asked.strength
    return asked, start


def _check(data: bytes, name: str) -> pictures.Facts:
    try:
        return pictures.check(data)
    except errors.BadRow as error:
        raise errors.BadRequest(f"{name}: {error.message}", param=name) from error


def forget(farm: Farm, tenant: records.Tenant, start: Mapping[str, Any]) -> None:
    """The pictures are not needed any more; what fails here, their expiry does."""
    for field in ("source", "mask"):
        if field in start:
            with contextlib.suppress(errors.NotFound, errors.Unavailable):
                stored.drop(farm.db, stored.get(farm.db, tenant.id, start[field]))
