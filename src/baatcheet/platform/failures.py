"""From an exception to an answer: problem details under `/api`, OpenAI's envelope under `/v1`."""

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from baatcheet.kit.pagination import BadCursor
from baatcheet.kit.text import storable
from baatcheet.platform.errors import (
    PROBLEM_JSON,
    BadRequest,
    Invalid,
    MethodNotAllowed,
    NotFound,
    Problem,
    ServerFault,
    TooLarge,
    UnsupportedMediaType,
    bad_header,
)
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

SHOWN_ERRORS = 20
SHOWN_ADDRESS = 200  # characters


def problem_response(problem: Problem, path: str) -> Response:
    """`problem` in the shape of the surface that `path` belongs to."""
    if path == "/v1" or path.startswith("/v1/"):
        return JSONResponse(problem.envelope(), problem.status, problem.headers)
    return JSONResponse(problem.document(), problem.status, problem.headers, media_type=PROBLEM_JSON)


def install(app: FastAPI) -> None:
    """Make `app` answer every exception as above."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(BadCursor, _bad_cursor)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _fault)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_response(error, request.url.path)


async def _bad_cursor(request: Request, error: Exception) -> Response:
    return problem_response(BadRequest(f"cursor {error}", param="cursor"), request.url.path)


async def _unreadable(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_response(_refusal(request, error.errors()), request.url.path)


def _refusal(request: Request, errors: Sequence[dict[str, Any]]) -> Problem:
    if any(error["loc"][0] == "path" for error in errors):
        return NotFound("There is nothing with that id.")
    for error in errors:
        if error["loc"][0] == "header":
            return bad_header(str(error["loc"][-1]))
    if any(error["type"] == "json_invalid" for error in errors):
        cause = errors[0].get("ctx", {}).get("error", "can't be read")
        return BadRequest(f"The body is not JSON: {cause} at character {errors[0]['loc'][-1]}.")
    if any(tuple(error["loc"]) == ("body",) for error in errors) and not _is_json(request):
        return UnsupportedMediaType("The body must be JSON, sent with content-type: application/json.")
    shown = [{"field": _field(error["loc"]), "problem": _words(error)} for error in errors[:SHOWN_ERRORS]]
    detail = "; ".join(f"{one['field']}: {one['problem']}" for one in shown)
    return Invalid(detail, param=shown[0]["field"], errors=shown)


def _is_json(request: Request) -> bool:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


def _field(location: Iterable[Any]) -> str:
    source, *rest = location
    return storable(".".join(str(part) for part in rest))[:200] or str(source)


def _words(error: dict[str, Any]) -> str:
    return storable(str(error["msg"])).removeprefix("Value error, ")


async def _http(request: Request, error: Exception) -> Response:
    """What the router itself refuses."""
    assert isinstance(error, HTTPException)
    problem: Problem
    match error.status_code:
        case 404:
            address = storable(f"{request.method} {request.url.path}")[:SHOWN_ADDRESS]
            problem = NotFound(f"There is no {address} here. What there is: /api/docs.")
        case 405:
            allowed = ", ".join(sorted(_methods_at(request)))
            problem = MethodNotAllowed(f"This address takes: {allowed}.", headers={"allow": allowed})
        case 413:
            problem = TooLarge()
        case status if status < 500:
            problem = BadRequest(str(error.detail))
        case _:
            problem = ServerFault()
    return problem_response(problem, request.url.path)


def _methods_at(request: Request) -> set[str]:
    """Every method that some route at this address takes: the router names only the first route's."""
    found: set[str] = set()
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        scope = dict(request.scope) | {"method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes):
            found.add(method)
    return found


async def _fault(request: Request, error: Exception) -> Response:
    log.error("request.failed", error=error, method=request.method, path=request.url.path)
    return problem_response(ServerFault("The error has been logged."), request.url.path)
