"""The error tree. Each class is one thing that can go wrong: its docstring is the
default message, `status` the HTTP status, `code` the stable machine name, `retry`
whether the same call may succeed later.

    Error
    ├── BadRequest 400 ── BadRow (line, param) · UnsupportedParameter · SettingInvalid
    │                   · ModelInvalid
    ├── Unauthorized 401 · Forbidden 403 · NotFound 404 ── ModelNotFound
    ├── Conflict 409 ── InProgress · IdempotencyMismatch · IllegalTransition
    ├── TooLarge 413 · UnsupportedMedia 415 · LimitExceeded 429
    ├── Unavailable 503 ── DatabaseDown · RedisDown · StorageDown
    └── Internal 500
"""

from __future__ import annotations


class Error(Exception):
    """Something went wrong."""

    status = 500
    type = "server_error"
    code = "internal_error"
    retry = False

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        line: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.param = param
        self.line = line
        self.retry_after = retry_after
        super().__init__(self.message)

    @property
    def refuses(self) -> bool:
        """Whether the call itself is wrong: made again, it fails again."""
        return self.status < 500 and not self.retry

    def body(self) -> dict[str, dict[str, object]]:
        """The wire form: `{"error": {"message", "type", "param", "code"[, "line"]}}`."""
        error: dict[str, object] = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        if self.line is not None:
            error["line"] = self.line
        return {"error": error}

    def __str__(self) -> str:
        place = "" if self.line is None else f"line {self.line}: "
        return place + self.message


class Internal(Error):
    """An internal error; the request id finds it in the log."""


class BadRequest(Error):
    """The request is not understood."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class BadRow(BadRequest):
    """A row of the submission is wrong."""

    code = "invalid_row"


class UnsupportedParameter(BadRequest):
    """The model cannot honour this parameter."""

    code = "unsupported_parameter"


class SettingInvalid(BadRequest):
    """A setting is unknown or cannot be parsed."""

    code = "invalid_setting"


class ModelInvalid(BadRequest):
    """The checkpoint cannot be served, however often it is loaded."""

    code = "invalid_model"


class Unauthorized(Error):
    """A valid API key is required: send it as `Authorization: Bearer KEY`."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(Error):
    """This key may not do that."""

    status = 403
    type = "permission_error"
    code = "forbidden"


class NotFound(Error):
    """There is no such thing here."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    """There is no such model."""

    code = "model_not_found"


class Conflict(Error):
    """The state of the thing does not allow this."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"


class InProgress(Conflict):
    """A request with this idempotency key is still being received."""

    code = "in_progress"
    retry = True


class TakenOver(Conflict):
    """Another upload goes on with this idempotency key, or the job was deleted."""


class IdempotencyMismatch(Conflict):
    """This idempotency key was used with another body."""

    code = "idempotency_mismatch"


class IllegalTransition(Conflict):
    """The job's state does not allow this."""

    code = "illegal_transition"


class TooLarge(Error):
    """The body is larger than the limit."""

    status = 413
    type = "invalid_request_error"
    code = "too_large"


class UnsupportedMedia(Error):
    """This content type is not accepted."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class LimitExceeded(Error):
    """A limit of this tenant is reached; try again later."""

    status = 429
    type = "rate_limit_exceeded"
    code = "limit_exceeded"
    retry = True


class Unavailable(Error):
    """A server that promptmill needs is out of reach; try again later."""

    status = 503
    code = "unavailable"
    retry = True


class DatabaseDown(Unavailable):
    """The database is out of reach: check PROMPTMILL_DATABASE_URL."""

    code = "database_unavailable"


class RedisDown(Unavailable):
    """Redis is out of reach: check PROMPTMILL_REDIS_URL."""

    code = "redis_unavailable"


class StorageDown(Unavailable):
    """The object store is out of reach: check PROMPTMILL_STORAGE_URL."""

    code = "storage_unavailable"
