"""What is sent."""

from typing import Any

import msgspec

from baatcheet.providers.model import Body, ModelCard
from baatcheet.providers.profiles import MaxTokensName

_NAMES: tuple[MaxTokensName, MaxTokensName] = ("max_tokens", "max_completion_tokens")


def chat(
    body: Body, model: ModelCard, *, stream: bool, usage: bool, max_tokens_name: MaxTokensName | None
) -> bytes:
    """`body` as this provider wants it. `usage`: ask for it in a stream.

    Raises ValueError or TypeError when it can't be written as JSON.
    """
    sent: dict[str, Any] = {**body, "model": model.name}
    sent.pop("stream_options", None)
    sent.pop("stream", None)
    if stream:
        sent["stream"] = True
        options = dict(body.get("stream_options") or {})
        options.pop("include_usage", None)
        if usage:
            options["include_usage"] = True
        if options:
            sent["stream_options"] = options
    if max_tokens_name is not None:
        limits = [sent.pop(name) for name in reversed(_NAMES) if name in sent]
        if limits:
            sent[max_tokens_name] = limits[0]
    return msgspec.json.encode(sent)


def embeddings(body: Body, model: ModelCard) -> bytes:
    """Raises ValueError or TypeError when it can't be written as JSON."""
    return msgspec.json.encode({**body, "model": model.name})
