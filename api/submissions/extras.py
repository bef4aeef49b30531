"""The fields of a row that are none of promptmill's: kept as metadata, as far as they fit."""

from __future__ import annotations

from typing import Any

import orjson

from api.submissions.readers import refuse_nul
from promptmill import errors

MAX_METADATA = 8_192  # bytes of JSON in one row


def checked(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata as it is kept: an object `metadata` among the fields is opened. Raises
    `errors.BadRow` with `param`."""
    inner = metadata.get("metadata")
    if isinstance(inner, dict):
        metadata = {name: value for name, value in metadata.items() if name != "metadata"}
        for name in inner:
            if name in metadata:
                raise errors.BadRow(f"{name[:100]!r} is given twice", param=name[:100])
        metadata |= inner
    for name, value in metadata.items():
        if isinstance(value, dict | list):
            refuse_nul(value, line=None, param=name)
    try:
        size = len(orjson.dumps(metadata))
    except TypeError as error:
        raise errors.BadRow(f"the metadata is no JSON: {error}", param="metadata") from error
    if size > MAX_METADATA:
        raise errors.BadRow(
            f"the fields kept as metadata are over {MAX_METADATA} bytes", param="metadata"
        )
    return metadata
