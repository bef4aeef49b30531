"""What went wrong with an S3 store, in one line that names the setting and the remedy."""

from __future__ import annotations

from typing import Any

ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})


def status(error: Any) -> int:
    """The HTTP status of a `ClientError`."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code(error: Any) -> str:
    """S3's own name for a `ClientError`."""
    return str(error.response.get("Error", {}).get("Code", ""))


def diagnose(error: Exception, *, bucket: str, url: str, place: str) -> str:
    """`url`: the setting's value; `place`: the endpoint."""
    from botocore import exceptions as boto

    setting = f"PROMPTMILL_STORAGE_URL ({url})"
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return f"{setting} needs credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if not isinstance(error, boto.ClientError):
        return (
            f"no answer from {place} for {setting}: check PROMPTMILL_S3_ENDPOINT_URL"
            f" and that the store runs ({error})"
        )
    number, name = status(error), code(error)
    if name == "NoSuchBucket" or (number == 404 and name not in ABSENT):
        return f"bucket {bucket} is not at {place}: create it, or correct {setting}"
    if number in (401, 403):
        return (
            f"{place} forbids access to bucket {bucket} ({name}): check"
            f" AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, its policy, or {setting}"
        )
    return f"{place} answered {number} {name} for {setting}: {error}"
