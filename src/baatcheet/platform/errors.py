"""Errors that a client is meant to see.

An error is a noun and its docstring is its title. The REST surface renders it as a problem detail
(RFC 9457), the OpenAI surface as OpenAI's envelope; neither shows anything else of an exception.

    Problem
    ├── BadRequest 400 · Unauthenticated 401 · Forbidden 403 · NotFound 404 · MethodNotAllowed 405
    ├── RequestTimeout 408 · Conflict 409 · TooLarge 413 · UnsupportedMediaType 415 · Invalid 422 · RateLimited 429
    └── ServerFault 500 · BadGateway 502 · Unavailable 503 · GatewayTimeout 504
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from baatcheet.platform.logging import request_id

PROBLEM_JSON = "application/problem+json"
KINDS: dict[str, type["Problem"]] = {}  # every kind of problem, by its type


class Problem(Exception):
    """Something is wrong with this request."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "about:blank"
    openai_type: ClassVar[str] = "invalid_request_error"
    openai_code: ClassVar[str | None] = None

    def __init_subclass__(cls) -> None:
        if "type" in vars(cls):
            KINDS[cls.type] = cls

    def __init__(
        self,
        detail: str = "",
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        **extras: Any,
    ) -> None:
        super().__init__(detail or self.title())
        self.detail = detail
        self.param = param
        self.headers = dict(headers or {})
        self.extras = extras

    @classmethod
    def title(cls) -> str:
        return (cls.__doc__ or cls.__name__).strip().splitlines()[0].rstrip(".")

    def document(self) -> dict[str, Any]:
        """The problem detail: its `type`, `title`, `status`, `detail`, the request and the error's own members."""
        document: dict[str, Any] = {"type": self.type, "title": self.title(), "status": self.status}
        if self.detail:
            document["detail"] = self.detail
        if self.param is not None:
            document["param"] = self.param
        if (request := request_id.get()) is not None:
            document["request_id"] = request
        return document | self.extras

    def envelope(self) -> dict[str, Any]:
        """OpenAI's error object, for the surface under `/v1`."""
        return {
            "error": {
                "message": self.detail or self.title() + ".",
                "type": self.openai_type,
                "param": self.param,
                "code": self.openai_code or self.type,
            }
        }


class BadRequest(Problem):
    """The request can't be read."""

    status = 400
    type = "bad-request"
    openai_code = "bad_request"


_HEADERS = {
    "Idempotency-Key": "must be 1 to 255 visible ASCII characters",
    "Last-Event-ID": "must be the number of an event",
}


def bad_header(name: str) -> BadRequest:
    """What a client is told of a header that is not what it must be, on every surface."""
    return BadRequest(f"{name} {_HEADERS.get(name, 'can not be read')}.", param=name)


class Unauthenticated(Problem):
    """A valid token is needed."""

    status = 401
    type = "unauthenticated"
    openai_type = "authentication_error"
    openai_code = "invalid_api_key"

    def __init__(self, detail: str = "", **extras: Any) -> None:
        super().__init__(detail, headers={"www-authenticate": 'Bearer realm="baatcheet"'}, **extras)


class Forbidden(Problem):
    """This token may not do that."""

    status = 403
    type = "forbidden"
    openai_type = "permission_error"
    openai_code = "insufficient_scope"


class NotFound(Problem):
    """There is no such thing here."""

    status = 404
    type = "not-found"
    openai_code = "not_found"


class MethodNotAllowed(Problem):
    """This address does not take that method."""

    status = 405
    type = "method-not-allowed"
    openai_code = "method_not_allowed"


class RequestTimeout(Problem):
    """The request stopped coming."""

    status = 408
    type = "request-timeout"
    openai_code = "request_timeout"


class Conflict(Problem):
    """This clashes with what is there now."""

    status = 409
    type = "conflict"
    openai_type = "conflict_error"
    openai_code = "conflict"


class TooLarge(Problem):
    """The request is too large."""

    status = 413
    type = "too-large"
    openai_code = "request_too_large"


class UnsupportedMediaType(Problem):
    """The body is not of a type that this address takes."""

    status = 415
    type = "unsupported-media-type"
    openai_code = "unsupported_media_type"


class Invalid(Problem):
    """The request was read but some of it is wrong."""

    status = 422
    type = "invalid"
    openai_code = "invalid_value"


class RateLimited(Problem):
    """Too many requests."""

    status = 429
    type = "rate-limited"
    openai_type = "rate_limit_error"
    openai_code = "rate_limit_exceeded"


class ServerFault(Problem):
    """Something went wrong on our side."""

    status = 500
    type = "server-fault"
    openai_type = "server_error"
    openai_code = "server_error"


class BadGateway(Problem):
    """The model provider gave no usable answer."""

    status = 502
    type = "bad-gateway"
    openai_type = "server_error"
    openai_code = "provider_error"


class Unavailable(Problem):
    """A part that is needed is not available now."""

    status = 503
    type = "unavailable"
    openai_type = "server_error"
    openai_code = "unavailable"

    def __init__(self, detail: str = "", *, retry_after: float = 5, **extras: Any) -> None:
        super().__init__(detail, headers={"retry-after": str(max(1, round(retry_after)))}, **extras)


class ShuttingDown(Unavailable):
    """This server is shutting down."""

    type = "shutting-down"
    openai_code = "shutting_down"


class GatewayTimeout(Problem):
    """The model provider took too long."""

    status = 504
    type = "gateway-timeout"
    openai_type = "server_error"
    openai_code = "provider_timeout"
