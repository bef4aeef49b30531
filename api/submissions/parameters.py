"""The parameters of a submission, one reader each: from text of a query or JSON values to
what a job holds. Each refuses a bad value by the parameter's name."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from api.submissions import fields
from api.submissions.readers import refuse_nul
from promptmill import errors, records

MAX_METADATA = 8_192  # bytes of JSON
_WINDOW = re.compile(r"([0-9]{1,9})([smhd]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_PREFIX = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*", re.ASCII)


def text(params: Mapping[str, Any], name: str, most: int) -> str | None:
    """A string of at most `most` characters; an empty one counts as not given."""
    value = params.get(name)
    if value is None or value == "":
        return None
    return fields.string(value, name=name, most=most)


def choice(params: Mapping[str, Any], name: str, known: Sequence[str], usual: str) -> str:
    """One of `known`; `usual` when it is not given."""
    value = params.get(name, usual)
    if value not in known:
        raise errors.BadRequest(f"{name} must be one of {', '.join(known)}", param=name)
    return str(value)


def flag(params: Mapping[str, Any], name: str, textual: bool) -> bool:
    """A boolean, as text when `textual`; false when it is not given."""
    return fields.flag(params.get(name, False), name=name, textual=textual)


def output(params: Mapping[str, Any], prefixes: Sequence[str]) -> records.Output:
    """format, packing, and a prefix that is one of `prefixes` or lies below one."""
    prefix = text(params, "prefix", 200) or ""
    if prefix:
        allowed = any(prefix == p or prefix.startswith(p.rstrip("/") + "/") for p in prefixes if p)
        if not allowed or not _PREFIX.fullmatch(prefix):
            raise errors.BadRequest("this output prefix is not allowed here", param="prefix")
    return records.Output(
        format=choice(params, "format", ("png", "webp", "jpeg"), "png"),
        packing=choice(params, "packing", ("image", "tar"), "image"),
        prefix=prefix,
    )


def metadata(value: Any, textual: bool) -> dict[str, Any]:
    """The job's own metadata: a JSON object, as text when `textual`."""
    if value is None:
        return {}
    if textual and isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise errors.BadRequest("metadata must be a JSON object", param="metadata") from error
    if not isinstance(value, dict):
        raise errors.BadRequest("metadata must be a JSON object", param="metadata")
    refuse_nul(value, line=None, param="metadata")
    if len(orjson.dumps(value)) > MAX_METADATA:
        raise errors.BadRequest(f"metadata is over {MAX_METADATA} bytes", param="metadata")
    return value


def webhook(params: Mapping[str, Any]) -> str | None:
    """An http or https URL; whether it may be called is decided by who calls it. Parsers
    differ about white space and control characters, so there are none."""
    url = text(params, "webhook", 2048)
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        ported = parts.port != 0
    except ValueError:
        parts, ported = urlsplit(""), False
    if parts.scheme not in ("http", "https") or not parts.hostname or not ported:
        raise errors.BadRequest("webhook must be an http or https URL", param="webhook")
    if not url.isprintable() or " " in url or "\\" in url:
        raise errors.BadRequest("webhook holds what no URL may hold", param="webhook")
    return url


def expires(params: Mapping[str, Any], textual: bool) -> float | None:
    """Unix seconds, from `expires_at` or from `window` (`30m`, `24h`, `7d`) from now on."""
    if "expires_at" in params and "window" in params:
        raise errors.BadRequest("give expires_at or window, not both", param="window")
    now = time.time()
    if "expires_at" in params:
        at = fields.number(params["expires_at"], name="expires_at", textual=textual)
        if at <= now:
            raise errors.BadRequest("expires_at is in the past", param="expires_at")
        return at
    if "window" not in params:
        return None
    return now + window(str(params["window"]))


def window(text: str) -> float:
    """Seconds of a window: `30m`, `24h`, `7d`."""
    match = _WINDOW.fullmatch(text)
    if match is None or not int(match[1]):
        raise errors.BadRequest("window must be like 30m, 24h or 7d", param="window")
    return float(int(match[1]) * _SECONDS[match[2]])


def columns(value: Any) -> dict[str, str]:
    """{column: field} from {"prompt": "caption"} or "prompt=caption,seed=my_seed"."""
    if value is None:
        return {}
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        pairs = [pair.partition("=") for part in value for pair in part.split(",")]
        value = {field.strip(): column.strip() for field, _, column in pairs}
    if not isinstance(value, dict):
        raise errors.BadRequest("map must be like prompt=caption,seed=my_seed", param="map")
    found: dict[str, str] = {}
    for name, column in value.items():
        if name not in fields.NAMES:
            raise errors.BadRequest(f"map knows no field {name[:100]!r}", param="map")
        if not isinstance(column, str) or not column or column in found:
            raise errors.BadRequest(f"map needs one column for {name}", param="map")
        found[column] = name
    return found
