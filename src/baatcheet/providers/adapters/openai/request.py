"""What is sent."""

import re
import secrets
from typing import Any

import msgspec

from baatcheet.providers.model import Body, ModelCard, Speech
from baatcheet.providers.profiles import MaxTokensName

# OpenAI's newer models tell no times; they tell how sure they are of each token instead.
_TIMELESS = re.compile(r"gpt-.*transcribe")
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


def transcription(speech: Speech, model: str) -> tuple[bytes, str]:
    """A form with the recording, and its media type."""
    fields = [("model", model)]
    if _TIMELESS.search(model):
        fields += [("response_format", "json"), ("include[]", "logprobs")]
    else:
        fields += [("response_format", "verbose_json"), ("timestamp_granularities[]", "segment")]
        if speech.words:
            fields.append(("timestamp_granularities[]", "word"))
    if speech.language is not None:
        fields.append(("language", speech.language))
    if speech.prompt is not None:
        fields.append(("prompt", speech.prompt))
    if speech.temperature is not None:
        fields.append(("temperature", f"{speech.temperature:g}"))
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields
    ]
    head = (
        f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{speech.filename}"\r\n'
        f"content-type: {speech.media_type}\r\n\r\n"
    )
    body = b"".join((*parts, head.encode(), speech.audio, f"\r\n--{boundary}--\r\n".encode()))
    return body, f"multipart/form-data; boundary={boundary}"
