"""Reading what a model answered when it was asked for notes."""

import re

import msgspec

from baatcheet.context.summaries.clipping import clip
from baatcheet.kit.text import is_invisible, storable

_THOUGHT = r"think|thinking|thought|reasoning|reflection"
_THINKING = re.compile(rf"<({_THOUGHT})>.*?</\1>", re.DOTALL | re.IGNORECASE)
_THINKING_BEGUN = re.compile(rf"<(?:{_THOUGHT})>.*", re.DOTALL | re.IGNORECASE)
_THINKING_ENDED = re.compile(rf"\A.*</(?:{_THOUGHT})>", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"\A```\w*\n(.*?)\n?```\Z", re.DOTALL)
_TAG = re.compile(r"</?conversation-[0-9a-f]{8}>")
_OPENING = re.compile(
    r"\A(?:(?:sure|okay|certainly|of course)\b[^\n]{0,20}\s)?"
    r"(?:here (?:are|is) (?:the|my|your)|(?:the )?(?:notes|summary)\b)[^\n]{0,80}:\s*\n",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\A(?:i'm sorry|i am sorry|sorry|i apologi[sz]e|i can't|i cannot|i can not|i'm unable|i am unable|i won't)\b",
    re.IGNORECASE,
)
_LONGEST_REFUSAL = 400  # characters


class Unusable(ValueError):
    """The reply holds no notes."""


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice]


def notes(raw: bytes, tokens: int) -> str:
    """The notes in the `chat.completion` in `raw`, in at most `tokens` tokens. Raises Unusable."""
    try:
        choice = msgspec.json.decode(raw, type=_Reply).choices[0]
    except (msgspec.DecodeError, IndexError) as error:
        raise Unusable(f"the reply can't be read: {error}") from None
    if choice.message.refusal or choice.finish_reason == "content_filter":
        raise Unusable("the model refused")
    text = _spoken(choice.message.content or "")
    if choice.finish_reason == "length" and "\n" in text:
        text = text[: text.rfind("\n")]  # its last line was cut: half a fact may be a wrong one
    if is_invisible(text):
        raise Unusable("the reply is empty")
    if _REFUSAL.match(text.replace("’", "'")) and len(text) <= _LONGEST_REFUSAL:  # noqa: RUF001 - as models write it
        raise Unusable("the model refused")
    return clip(text, tokens)


def _spoken(content: str) -> str:
    """`content` without what the model thought, and without what it put around its notes."""
    text = _THINKING.sub("", content)
    text = _THINKING_ENDED.sub("", text)  # some templates open it in the prompt
    text = _THINKING_BEGUN.sub("", text)
    text = _TAG.sub("", text).strip()
    if fenced := _FENCE.match(text):
        text = fenced.group(1)
    return storable(_OPENING.sub("", text)).strip()
