"""Loaded by schemathesis: it must not saw off the branch that it sits on.

An explorer who revokes its own token, or deactivates its own user, finds nothing but 401 from then on. One who follows
the events without an end sees nothing else. What belongs to nobody is not for it to steer: a paused queue, or the dead
jobs of others that run once more, are found by the tests that come after; and its webhooks must not call anybody.
"""

import os
from itertools import cycle
from typing import Any
from uuid import uuid4

import schemathesis

KEPT = frozenset(os.environ["EXPLORER_KEEPS"].split(","))
OWN = os.environ["EXPLORER_OWNS"]  # a queue and a schedule of this name are there to be steered
NOBODY = "https://explorer.invalid/"  # a name that no resolver knows (RFC 2606)

_names = cycle([OWN, "unknown"])


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    method = case.operation.method.upper()
    if method in {"DELETE", "PATCH"} and case.path_parameters:
        for name, value in case.path_parameters.items():
            if str(value).lower() in KEPT:
                case.path_parameters[name] = str(uuid4())
    match method, case.operation.path:
        case "GET", "/api/v1/events":
            case.query = {**(case.query or {}), "seconds": "0"}
        case "PATCH", "/api/v1/queues/{name}" | "/api/v1/schedules/{name}":
            case.path_parameters["name"] = next(_names)
        case "POST", "/api/v1/jobs/redrive" if isinstance(case.body, dict):
            case.body["kind"] = OWN
        case "POST" | "PATCH", "/api/v1/webhooks" | "/api/v1/webhooks/{webhook_id}" if _has_address(
            case.body
        ):
            case.body["url"] = NOBODY


def _has_address(body: Any) -> bool:
    return isinstance(body, dict) and str(body.get("url")).lower().startswith(("https:", "http:"))
