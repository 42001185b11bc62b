"""Making pages: the templates, what they may use, and the headers that go with them."""

import hashlib
import http
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import RedirectResponse, Response

from baatcheet.console.sessions import Visitor
from baatcheet.console.static_files import address
from baatcheet.platform.errors import Problem
from baatcheet.platform.logging import request_id
from baatcheet.platform.redaction import redact

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {"content-security-policy": POLICY, "cross-origin-opener-policy": "same-origin"}

SIGN_IN: Final = "/console/sign-in"
HOME: Final = "/console/jobs"
_NOTHING: Final = "\N{EN DASH}"
# Name, address, and the scope without which it is not spoken of.
ROOMS: Final = (("Jobs", "/console/jobs", "read"), ("Keys", "/console/keys", "admin"))


def moment(value: datetime | None, *, age: bool = False) -> Markup:
    """A moment in UTC. With `age`, scripts show how long ago it is instead, and keep that right."""
    if value is None:
        return Markup('<span class="none">{}</span>').format(_NOTHING)
    at = value.astimezone(UTC)
    exact = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    words = f"{at.day} {at:%b %H:%M:%S} UTC"
    mark = Markup(" data-age") if age else ""
    return Markup('<time datetime="{}" title="{}"{}>{}</time>').format(
        exact, exact.replace("T", " ").replace("Z", " UTC"), mark, words
    )


def duration(seconds: float | None) -> str:
    """A length of time, in the two units that matter."""
    if seconds is None:
        return _NOTHING
    if seconds < 0.0995:
        return f"{max(0, round(seconds * 1000))} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, smaller, rest in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            more = whole % size // rest
            return f"{whole // size} {unit}" + (f" {more} {smaller}" if more else "")
    return f"{whole} s"


def count(number: int) -> str:
    return f"{number:,}"


def rate(per_minute: float) -> str:
    """As often in a minute."""
    return f"{per_minute:,.0f}" if per_minute >= 9.95 or per_minute == 0 else f"{per_minute:.1f}"


def query(**fields: Any) -> str:
    """`?a=b&c=d`, without what is None or empty."""
    given = {name: value for name, value in fields.items() if value not in (None, "")}
    return "?" + urlencode(given) if given else ""


_environment = Environment(
    loader=PackageLoader("baatcheet.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_environment.filters |= {
    "moment": moment,
    "duration": duration,
    "count": count,
    "rate": rate,
    "segment": lambda text: quote(text, safe=""),
    "redact": redact,
}
_environment.globals |= {"asset": address, "query": query, "rooms": ROOMS, "sign_in": SIGN_IN}


def render(template: str, **context: Any) -> Markup:
    """A template's text, everything in it escaped but what is markup already."""
    return Markup(_environment.get_template(template).render(**context))  # noqa: S704 - the templates escape


def visitor_of(request: Request) -> Visitor | None:
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    return visitor


def is_part(request: Request) -> bool:
    """Whether a script asks for a part of a page, and not a person for all of it."""
    return request.headers.get("hx-request") == "true"


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **context: Any,
) -> Response:
    """A whole page, or where a script asks for it what is inside of its frame."""
    inside = is_part(request)
    text = render(
        template,
        layout="part.html" if inside else "layout.html",
        inside=inside,
        visitor=visitor_of(request),
        here=request.url.path,
        said=said(request.query_params.get("said"), request.query_params.get("n")),
        **context,
    )
    return HTMLResponse(text, status, {**HEADERS, **(headers or {})})


def tag_of(text: str) -> str:
    """The entity tag of a part of a page (RFC 9110 § 8.8.3)."""
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def part(request: Request, text: str) -> Response:
    """A part of a page; 304 where the one who asks has it."""
    tag = tag_of(text)
    headers = {**HEADERS, "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return HTMLResponse(text, headers=headers)


def done(
    request: Request, word: str, then: str, *, number: int | None = None, leaves: bool = False
) -> Response:
    """Something was done: a script is told in which words to say so, a person sees them at `then`.

    With `leaves` a script goes there too: the page on which it was asked may be of something that is gone now.
    """
    if leaves and is_part(request):
        told = json.dumps({"console:done": {"then": then + query(said=word, n=number)}})
        return Response(status_code=204, headers={**HEADERS, "hx-trigger": told})
    if is_part(request):
        told = json.dumps({"console:done": {"text": said(word, str(number))}})
        return Response(status_code=204, headers={**HEADERS, "hx-trigger": told})
    return leave_for(then + query(said=word, n=number))


def leave_for(address_: str) -> Response:
    """To another page, by GET."""
    return RedirectResponse(address_, 303, headers=HEADERS)


# What is said above a page after something was done. A redirect carries the word, never the text.
_SAID: Final = {
    "cancelled": "The job is cancelled.",
    "cancelling": "The job was asked to stop.",
    "retried": "The job is queued again.",
    "forgotten": "The job is forgotten.",
    "paused": "Paused. What runs goes on; nothing more begins.",
    "resumed": "Resumed.",
    "limited": "The limits are set.",
    "schedule-paused": "The schedule is paused.",
    "schedule-resumed": "The schedule is resumed.",
    "key-rested": "The key rests. Within 5 seconds no process uses it.",
    "key-quarantined": "The key is quarantined. Within 5 seconds no process uses it.",
    "key-restored": "The key is used again.",
    "rotation-begun": "The rotation has begun. How far it has come is shown below.",
    "signed-out": "You are signed out.",
}


_HAPPENED: Final = {"redriven": "queued again", "discarded": "forgotten"}  # to how many jobs


def said(word: str | None, number: str | None = None) -> str | None:
    happened = _HAPPENED.get(word or "")
    if happened is None:
        return _SAID.get(word or "")
    if number is None or not (number.isascii() and number.isdigit() and len(number) < 8):
        return None
    many = int(number)
    return f"1 job is {happened}." if many == 1 else f"{many:,} jobs are {happened}."


def problem_page(request: Request, problem: Problem) -> Response:
    """What went wrong, for people."""
    return page(
        request,
        "problem.html",
        status=problem.status,
        headers={name: value for name, value in problem.headers.items() if name != "www-authenticate"},
        title=problem.title(),
        detail=problem.detail,
        phrase=http.HTTPStatus(problem.status).phrase,
        reference=request_id.get(),
        again=problem.headers.get("retry-after") if request.method == "GET" else None,
        code=problem.status,
    )
