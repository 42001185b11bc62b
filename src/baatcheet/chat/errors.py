"""What can go wrong with a turn, in words for its client."""

from typing import Any
from uuid import UUID

from baatcheet.context.planning import ContextTooSmall, OrphanToolResult
from baatcheet.platform.errors import (
    BadGateway,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Problem,
    TooLarge,
    Unavailable,
)
from baatcheet.providers.catalogue import UnknownModel
from baatcheet.providers.model import AllProvidersFailed, ProviderError
from baatcheet.providers.routing.model import RouteUnfit

SHORT_WAIT = 5.0  # seconds
LONG_WAIT = 60.0


class TurnInterrupted(Conflict):
    """This turn was interrupted before its end."""

    type = "turn-interrupted"
    openai_code = "turn_interrupted"

    def __init__(self, turn: UUID) -> None:
        super().__init__(
            f"Turn {turn} was interrupted. What it had answered is kept: GET /api/v1/turns/{turn}. "
            "POST /api/v1/chat/regenerate asks again.",
            turn_id=str(turn),
        )


class TurnNotFound(NotFound):
    """There is no such turn."""

    type = "turn-not-found"
    openai_code = "turn_not_found"


class ModelNotFound(NotFound):
    """There is no such model."""

    type = "model-not-found"
    openai_code = "model_not_found"


def model_not_found(unknown: UnknownModel) -> ModelNotFound:
    """What a client is told when nobody serves the model that it named."""
    if isinstance(unknown, RouteUnfit):
        return ModelNotFound(str(unknown), param="model")
    near = f" Did you mean {unknown.near[0]}?" if unknown.near else ""
    return ModelNotFound(
        f"There is no model {unknown.name!r}.{near} GET /v1/models lists them.", param="model"
    )


class ContextLengthExceeded(BadRequest):
    """The fixed parts of the prompt leave no room for a message."""

    type = "context-length-exceeded"
    openai_code = "context_length_exceeded"


def problem_of_plan(error: ContextTooSmall | OrphanToolResult) -> Problem:
    """What a client is told when its turn can't be fitted into any window."""
    if isinstance(error, ContextTooSmall):
        return ContextLengthExceeded(f"{str(error)[0].upper()}{str(error)[1:]}.")
    return BadRequest(f"There is {error}: send results right after the calls that they answer.")


class ReplyNotSaved(Unavailable):
    """The reply is complete but not yet saved."""

    type = "reply-not-saved"
    openai_code = "reply_not_saved"


_REJECTED: dict[int | None, type[Problem]] = {
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: Invalid,
}


def problem_of_provider(error: ProviderError) -> Problem:
    """What a client is told when one provider refused, or failed in the middle of its answer."""
    if error.kind == "rejected":
        problem = _REJECTED.get(error.status, BadRequest)(error.message, param=error.param)
        problem.openai_code = error.code  # type: ignore[misc]
        problem.openai_type = error.type or problem.openai_type  # type: ignore[misc]
        return problem
    return BadGateway(f"{str(error).rstrip('.')}.", provider=error.provider)


def problem_of_failure(failed: AllProvidersFailed) -> Problem:
    """What a client is told when nobody answered: who was tried, and when to try again.

    It is a 503 whatever the providers said: their limits are ours to live with, a 429 is about the client's own.
    """
    tried: list[dict[str, Any]] = [
        {"provider": a.provider, "model": a.model, "failure": a.kind, "message": a.message}
        for a in failed.attempts
    ]
    detail = f"No provider answered. Tried: {str(failed).rstrip('.')}."
    wait = failed.retry_after
    if wait is None:  # keys that are refused wait for a person
        refused = tried and all(one["failure"] == "unauthorized" for one in tried)
        wait = LONG_WAIT if refused else SHORT_WAIT
    return Unavailable(detail, retry_after=wait, tried=tried)
