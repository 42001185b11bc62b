"""Loaded by schemathesis: it must not saw off the branch that it sits on.

An explorer who revokes its own token, or deactivates its own user, finds nothing but 401 from then on.
"""

import os
from typing import Any
from uuid import uuid4

import schemathesis

KEPT = frozenset(os.environ["EXPLORER_KEEPS"].split(","))


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    if case.operation.method.upper() in {"DELETE", "PATCH"} and case.path_parameters:
        for name, value in case.path_parameters.items():
            if str(value).lower() in KEPT:
                case.path_parameters[name] = str(uuid4())
