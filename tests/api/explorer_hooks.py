"""Loaded by schemathesis: it must not saw off the branch that it sits on.

An explorer who revokes its own token, or deactivates its own user, finds nothing but 401 from then on. One who follows
the events without an end sees nothing else. What belongs to nobody is not for it to steer: a paused queue, or the dead
jobs of others that run once more, are found by the tests that come after; and its webhooks must not call anybody.

And it is led to what it would not find by itself: things that only a worker makes, files that are read, their parts.
"""

import json
import os
from itertools import cycle
from typing import Any
from uuid import uuid4

import schemathesis

KEPT = frozenset(os.environ["EXPLORER_KEEPS"].split(","))
OWN = os.environ["EXPLORER_OWNS"]  # a queue and a schedule of this name are there to be steered
THINGS: dict[str, str] = json.loads(os.environ["EXPLORER_THINGS"])  # of its own, by the path parameter's name
NOBODY = "https://explorer.invalid/"  # a name that no resolver knows (RFC 2606)
RECORDING = b"ID3"  # what a recording may begin with

_names = cycle([OWN, "unknown"])
_led = cycle([True, False])
_parts = cycle([None, "bytes=0-", None, "bytes=1000000-"])


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    method, path = case.operation.method.upper(), case.operation.path
    _lead(case, method)
    if method in {"DELETE", "PATCH"}:
        for name, value in (case.path_parameters or {}).items():
            if str(value).lower() in (KEPT if method == "PATCH" else KEPT | set(THINGS.values())):
                case.path_parameters[name] = str(uuid4())
    match method, path:
        case "GET", "/api/v1/events":
            case.query = {**(case.query or {}), "seconds": "0"}
        case "PATCH", "/api/v1/queues/{name}" | "/api/v1/schedules/{name}":
            case.path_parameters["name"] = next(_names)
        case "POST", "/api/v1/jobs/redrive" | "/api/v1/jobs/discard" if isinstance(case.body, dict):
            case.body["kind"] = OWN
        case "POST" | "PATCH", "/api/v1/webhooks" | "/api/v1/webhooks/{webhook_id}" if _has_address(
            case.body
        ):
            case.body["url"] = NOBODY
        case "POST", "/api/v1/audio" if _has_file(case.body) and next(_led):
            file = case.body["file"]
            case.body["file"] = type(file)(RECORDING + file.data)
        case "GET", _ if path.endswith(("/content", "/download")) and (part := next(_parts)) is not None:
            case.headers = {**(case.headers or {}), "Range": part}


def _lead(case: Any, method: str) -> None:
    """Every other time to one of its own things, unless it follows a link. None of them is deleted."""
    follows = case.meta is not None and case.meta.phase.name.value == "stateful"
    if case.path_parameters and method != "DELETE" and not follows and next(_led):
        case.path_parameters |= {name: THINGS[name] for name in case.path_parameters if name in THINGS}


def _has_address(body: Any) -> bool:
    return isinstance(body, dict) and str(body.get("url")).lower().startswith(("https:", "http:"))


def _has_file(body: Any) -> bool:
    return isinstance(body, dict) and hasattr(body.get("file"), "data")
