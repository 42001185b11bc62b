"""Errors of the Messages API, in OpenAI's terms. Source: platform.claude.com/docs/en/api/errors."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from baatcheet.providers.adapters.errors import Reporter
from baatcheet.providers.model import FailureKind

# What an error inside a stream would have been answered with.
STATUSES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "invalid_request_error": 400,
        "authentication_error": 401,
        "billing_error": 402,
        "permission_error": 403,
        "not_found_error": 404,
        "conflict_error": 409,
        "request_too_large": 413,
        "rate_limit_error": 429,
        "api_error": 500,
        "timeout_error": 504,
        "overloaded_error": 529,
    }
)

# Answered with 400, though it is the account that is at fault and not the request.
_ACCOUNT = re.compile(r"credit balance is too low|organization has been disabled", re.IGNORECASE)
_ACCOUNT_CODES = frozenset({"organization_on_hold", "claude_code_key_creator_not_member"})


class MessagesReporter(Reporter):
    """Makes the ProviderErrors of one provider that speaks the Messages API."""

    def read(self, said: Mapping[str, Any]) -> Mapping[str, Any]:
        details = said.get("details")
        code = details.get("error_code") if isinstance(details, Mapping) else None
        return {"message": said.get("message"), "type": said.get("type"), "code": code}

    def status_in(self, said: Mapping[str, Any]) -> int | None:
        return STATUSES.get(str(said.get("type")))

    def judged(self, status: int, said: Mapping[str, Any], message: str) -> FailureKind:
        if status == 400 and (said.get("code") in _ACCOUNT_CODES or _ACCOUNT.search(message)):
            return "unauthorized"
        return super().judged(status, said, message)
