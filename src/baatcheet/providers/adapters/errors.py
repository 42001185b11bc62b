"""What went wrong at a provider, in its own words, without keys and within bounds."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from baatcheet.platform.redaction import redact
from baatcheet.providers.model import FailureKind, ProviderError

MESSAGE_LIMIT = 500  # characters
BODY_LIMIT = 64 * 1024  # bytes of an error's body that are read

_BAD_KEY = re.compile(
    r"api[ _]key (?:not valid|expired)|api_key_invalid|invalid[ _]api[ _]key", re.IGNORECASE
)
_NOT_THE_KEY = re.compile(
    r"moderat|flagged|content[ _](?:policy|filter)|safety|model_not_found|access to (?:the )?model|blocked model",
    re.IGNORECASE,
)
_NOT_FROM_HERE = re.compile(r"network settings|country|region|territory|ip address", re.IGNORECASE)
_TOO_DEAR = re.compile(r"can only afford|fewer max_tokens", re.IGNORECASE)
_STATUS = re.compile("[45][0-9]{2}")


@dataclass(frozen=True, repr=False)
class Redactor:
    """Takes secrets out of text: each exact value, and its URL-encoded form."""

    secrets: tuple[str, ...] = ()
    _forms: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        forms = {form for secret in self.secrets if secret for form in _spellings(secret)}
        object.__setattr__(self, "_forms", tuple(sorted(forms, key=len, reverse=True)))

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, "[redacted]")
        return text


def _spellings(secret: str) -> Iterable[str]:
    return secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1]


@dataclass(frozen=True)
class Reporter:
    """Makes the ProviderErrors of one provider. What is known or looks to be a key is taken out of its words.

    A protocol whose errors are not of OpenAI's form overrides `read`, `status_in` and `judged`.
    """

    provider: str
    own: Redactor  # of what this provider alone is sent

    def redact(self, text: str) -> str:
        return redact(self.own(text))

    def error(
        self,
        kind: FailureKind,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        said: Mapping[str, Any] | None = None,
    ) -> ProviderError:
        """`said`: OpenAI's `error` object, whose type, param and code are kept."""
        said = said or {}
        return ProviderError(
            provider=self.provider,
            kind=kind,
            message=bounded(self.redact(message)),
            status=status,
            retry_after=retry_after,
            type=self._field(said.get("type")),
            param=self._field(said.get("param")),
            code=self._field(said.get("code")),
        )

    def _field(self, value: object) -> str | None:
        return bounded(self.redact(str(value)), 100) if isinstance(value, str | int) and value != "" else None

    def from_response(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """An answer that is not a 2xx. `headers`: case-insensitive."""
        if 300 <= status < 400:
            return self.error(
                "malformed", f"answered with a redirect ({status}), which is not followed", status=status
            )
        said = self.read(_said(body))
        message = str(said.get("message") or "").strip() or f"answered {status}"
        kind = self.judged(status, said, message)
        return self.error(kind, message, status=status, retry_after=retry_after(headers), said=said)

    def from_event(self, error: object) -> ProviderError:
        """An `error` inside a stream that had begun with 200."""
        said = self.read(_error_object(error))
        status = self.status_in(said)
        message = str(said.get("message") or "").strip() or "broke off with an error"
        kind = self.judged(status or 500, said, message)
        return self.error(kind, message, status=status, said=said)

    def read(self, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """The provider's error object in OpenAI's form."""
        return said

    def status_in(self, said: Mapping[str, Any]) -> int | None:
        """The status that an error inside a stream would have had as an answer; None when it does not say."""
        code = said.get("code")
        return int(code) if isinstance(code, str | int) and _STATUS.fullmatch(str(code)) else None

    def judged(self, status: int, said: Mapping[str, Any], message: str) -> FailureKind:
        """What an answer with `status` and the error `said` means."""
        return kind_of(status, str(said.get("code") or ""), message)


def bounded(text: str, limit: int = MESSAGE_LIMIT) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def kind_of(status: int, code: str, message: str) -> FailureKind:
    """What an HTTP status means, with the corrections that providers make necessary."""
    # Groq answers 413 to a request that exceeds a minute's tokens: a limit, not a fault.
    if status == 429 or code == "rate_limit_exceeded":
        return "rate_limited"
    # What a user wrote, or a model that this account may not use: the next key would be told the same.
    if status == 403 and _NOT_THE_KEY.search(f"{code} {message}"):
        return "rejected"
    # From where it is asked: the same with every key.
    if status == 403 and _NOT_FROM_HERE.search(message):
        return "unreachable"
    # A smaller request could still be paid for.
    if status == 402 and _TOO_DEAR.search(message):
        return "rate_limited"
    # Google answers 400 to a key that it does not know.
    if status in {401, 402, 403} or (status == 400 and _BAD_KEY.search(f"{code} {message}")):
        return "unauthorized"
    if status == 408:
        return "timeout"
    return "rejected" if status < 500 else "overloaded"


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait: `retry-after-ms`, or `Retry-After` as seconds or an HTTP date (RFC 9110 § 10.2.3)."""
    millis = _seconds(headers.get("retry-after-ms"))
    if millis is not None:
        return millis / 1000
    value = headers.get("Retry-After")
    if value is None:
        return None
    seconds = _seconds(value)
    if seconds is not None:
        return seconds
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", value) else None


def _said(body: bytes) -> Mapping[str, Any]:
    """OpenAI's `error` object, as far as `body` has anything like it."""
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace").strip()
        # A page made for people says nothing that a client could use.
        return {} if text.startswith("<") else {"message": text}
    if isinstance(decoded, list) and decoded:  # Google wraps it in a list
        decoded = decoded[0]
    if not isinstance(decoded, dict):
        return {}
    if "error" in decoded:
        return _error_object(decoded["error"])
    for name in ("message", "detail"):
        if name in decoded:
            value = decoded[name]
            return {"message": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}
    return {}


def _error_object(error: object) -> Mapping[str, Any]:
    if isinstance(error, dict):
        return error
    return {"message": str(error)} if error else {}
