"""What attachments bring to a turn: their text to every model, and pictures themselves to those that see.

A message that refers to an attachment of ours is kept with the attachment's text as a text part (so that it is cut,
summarised and found again like any other text) and a `file` part that names it; no picture is in it. Only what a
provider is sent has the picture in place of both, where its model sees.
"""

import asyncio
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from baatcheet.attachments.errors import AttachmentNotFound
from baatcheet.attachments.service import Asked, Attachments, Brought
from baatcheet.auth.principal import Principal
from baatcheet.context.images import TEXT_OF, attachment_of, text_of_attachment
from baatcheet.platform.errors import Invalid

MOST_ATTACHMENTS: Final = 20  # of one message
MOST_OF_REQUEST: Final = 50  # different ones
MOST_PICTURES: Final = 10  # of one prompt that are shown; the newest
# Of more, so many at once go as text from then on: what is before them stays as it was for the next turns, and in the
# provider's cache.
PICTURES_DROPPED: Final = 5
BYTES_A_CHARACTER: Final = 4

Content = str | list[dict[str, Any]]
Message = Mapping[str, Any]


class Attaching:
    """Brings attachments into messages, and shows their pictures. Without attachments there are none to be found."""

    def __init__(self, attachments: Attachments | None, max_message_bytes: int) -> None:
        self._attachments = attachments
        self._max_message_bytes = max_message_bytes

    # Into a message --------------------------------------------------------------------------------------------

    @staticmethod
    def needed(messages: Sequence[Message], ids: Sequence[UUID] = ()) -> bool:
        """Whether `messages` refer to any, or `ids` do."""
        return bool(ids) or any(_refers(message) for message in messages)

    async def content(self, who: Principal, content: Content, ids: Sequence[UUID], *, param: str) -> Content:
        """`content` with what its `file` parts refer to, and then `ids`, bring.

        Raises AttachmentNotFound, AttachmentNotReady, AttachmentUnreadable, Invalid when there are too many.
        """
        parts = list(content) if isinstance(content, list) else [{"type": "text", "text": content}]
        wanted = _wanted(parts, ids, param)
        if not wanted:
            return content
        cut = self._cut(wanted)
        brought = await self._brought(who, {one: Asked(cut, 1, param) for one in wanted}, param)
        return _with(parts if content else [], wanted, lambda one: _parts_of(brought[one], cut))

    async def messages(self, who: Principal, messages: Sequence[Message]) -> Sequence[Message]:
        """`messages`, OpenAI's, with what the `file` parts of the user's refer to. Raises as `content`.

        Each attachment is fetched once, however many messages refer to it.
        """
        referring: dict[int, list[UUID]] = {}
        asked: dict[UUID, Asked] = {}
        for index, message in enumerate(messages):
            if _refers(message):
                param = f"messages[{index}].content"
                referring[index] = _wanted(message["content"], (), param)
                cut = self._cut(referring[index])
                for one in referring[index]:
                    before = asked.get(one, Asked(0, 0, param))
                    asked[one] = Asked(max(cut, before.most), before.times + 1, before.param)
        if not referring:
            return messages
        if len(asked) > MOST_OF_REQUEST:
            raise Invalid(
                f"A request takes {MOST_OF_REQUEST} different attachments; these are {len(asked):,}.",
                param="messages",
            )
        brought = await self._brought(who, asked, "messages")
        parts: dict[tuple[UUID, int], list[dict[str, Any]]] = {}  # the same text is in memory once
        made: list[Message] = []
        for index, message in enumerate(messages):
            wanted = referring.get(index)
            if wanted is None:
                made.append(dict(message))
                continue
            cut = self._cut(wanted)
            for one in wanted:
                if (one, cut) not in parts:
                    parts[one, cut] = _parts_of(brought[one], cut)
            content = _with(message["content"], wanted, lambda one, cut=cut: parts[one, cut])  # type: ignore[misc]
            made.append({**message, "content": content})
        return made

    def _cut(self, wanted: Sequence[UUID]) -> int:
        """Characters, however many bytes they have, that each of a message's attachments may bring."""
        return self._max_message_bytes // BYTES_A_CHARACTER // max(1, len(wanted))

    async def _brought(
        self, who: Principal, asked: Mapping[UUID, Asked], param: str
    ) -> Mapping[UUID, Brought]:
        if self._attachments is None:
            first, how = next(iter(asked.items()))
            raise AttachmentNotFound(first, param=how.param)
        return await self._attachments.brought(who, asked, together=self._max_message_bytes, param=param)

    # Out to a provider -------------------------------------------------------------------------------------------

    async def shown(self, owner: UUID, messages: Sequence[Message], *, sees: bool) -> Sequence[Message]:
        """`messages` as a provider takes them: with pictures where its model `sees`, and with texts only where not."""
        if not any(_is_ours(message) for message in messages):
            return messages
        pictures = await self._pictures(owner, messages) if sees else {}
        return [
            _as_sent(message, pictures.get(index, {})) if _is_ours(message) else message
            for index, message in enumerate(messages)
        ]

    async def _pictures(self, owner: UUID, messages: Sequence[Message]) -> dict[int, dict[UUID, str]]:
        """The newest pictures that messages refer to, as data URLs, by the message's place."""
        named = [
            (index, found.id)
            for index, message in enumerate(messages)
            if _is_ours(message)
            for part in message["content"]
            if (found := attachment_of(part)) is not None and found.size is not None
        ]
        over = max(0, len(named) - MOST_PICTURES)
        loaded: dict[UUID, str | None] = {}
        shown: dict[int, dict[UUID, str]] = {}
        for index, attachment_id in named[-(-over // PICTURES_DROPPED) * PICTURES_DROPPED :]:
            if attachment_id not in loaded:
                picture = await self._attachments.picture(owner, attachment_id) if self._attachments else None
                loaded[attachment_id] = (
                    f"data:image/jpeg;base64,{b64encode(picture).decode()}" if picture is not None else None
                )
                await asyncio.sleep(0)  # a few milliseconds each
            if (url := loaded[attachment_id]) is not None:
                shown.setdefault(index, {})[attachment_id] = url
        return shown


def _wanted(parts: Sequence[Any], ids: Sequence[UUID], param: str) -> list[UUID]:
    """The attachments of one message, each once. Raises Invalid when there are too many."""
    named = [found.id for part in parts if (found := attachment_of(part)) is not None]
    wanted = list(dict.fromkeys([*named, *ids]))
    if len(wanted) > MOST_ATTACHMENTS:
        raise Invalid(
            f"A message takes {MOST_ATTACHMENTS} attachments; these are {len(wanted)}.", param=param
        )
    return wanted


def _with(
    parts: Sequence[dict[str, Any]], wanted: Sequence[UUID], parts_of: Callable[[UUID], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """`parts` with what each of `wanted` brings: where it is named, or else at the end."""
    left = dict.fromkeys(wanted)
    made: list[dict[str, Any]] = []
    for part in parts:
        found = attachment_of(part)
        if found is None and text_of_attachment(part) is None:  # else it is what we brought before, sent back
            made.append(part)
        elif found is not None and found.id in left:  # named twice, it is brought once
            del left[found.id]
            made += parts_of(found.id)
    for one in left:
        made += parts_of(one)
    return made


def _refers(message: Message) -> bool:
    """Whether a message names an attachment whose text it does not bring yet."""
    content = message.get("content")
    return (
        message.get("role") == "user"
        and isinstance(content, list)
        and any(attachment_of(part) is not None for part in content)
    )


def _is_ours(message: Message) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(
        text_of_attachment(part) is not None or attachment_of(part) is not None for part in content
    )


def _parts_of(brought: Brought, most: int) -> list[dict[str, Any]]:
    """The first `most` characters of an attachment's text, marked with its name, and the reference to it."""
    file: dict[str, Any] = {"file_id": str(brought.id), "filename": brought.filename}
    if brought.picture and brought.width and brought.height:
        file["picture"] = {"width": brought.width, "height": brought.height}
    return [
        {"type": "text", "text": _marked(brought, most), TEXT_OF: str(brought.id)},
        {"type": "file", "file": file},
    ]


def _marked(brought: Brought, most: int) -> str:
    if not brought.text.strip():
        return f"[Attachment {brought.filename}: no text was found in it]"
    end = (
        f"[End of {brought.filename}]"
        if brought.complete and len(brought.text) <= most
        else f"[The rest of {brought.filename} is left out]"
    )
    return f"[Attachment {brought.filename}]\n{brought.text[:most]}\n{end}"


def _as_sent(message: Message, pictures: Mapping[UUID, str]) -> dict[str, Any]:
    """A message without marks and references of ours; texts alone are one text, which every provider takes."""
    parts: list[Any] = []
    for part in message["content"]:
        found = attachment_of(part)
        if found is not None:
            if found.id in pictures:
                parts.append({"type": "image_url", "image_url": {"url": pictures[found.id]}})
        elif (read := text_of_attachment(part)) is not None:
            name, text = read
            if not any(str(one) == name for one in pictures):
                parts.append({"type": "text", "text": text})
        else:
            parts.append(part)
    if all(
        isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)
        for part in parts
    ):
        return {**message, "content": "\n".join(part["text"] for part in parts)}
    return {**message, "content": parts}
