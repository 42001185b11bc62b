"""What attachments bring to a turn: their text to every model, and pictures themselves to those that see.

A message that refers to an attachment of ours is kept with the attachment's text as a text part (so that it is cut,
summarised and found again like any other text) and a `file` part that names it; no picture is in it. Only what a
provider is sent has the picture in place of both, where its model sees.
"""

import asyncio
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from baatcheet.attachments.errors import AttachmentNotFound
from baatcheet.attachments.service import Attachments, Brought
from baatcheet.auth.principal import Principal
from baatcheet.context.images import attachment_of
from baatcheet.platform.errors import Invalid

MOST_ATTACHMENTS: Final = 20  # of one message
MOST_PICTURES: Final = 10  # of one prompt that are shown; the newest
BYTES_A_CHARACTER: Final = 4
_TEXT_OF: Final = "attachment_id"  # of a text part: the attachment whose text it is; never sent to anybody

Content = str | list[dict[str, Any]]
Message = Mapping[str, Any]


class Attaching:
    """Brings attachments into messages, and shows their pictures. Without attachments there are none to be found."""

    def __init__(self, attachments: Attachments | None, max_message_bytes: int) -> None:
        self._attachments = attachments
        self._max_message_bytes = max_message_bytes

    # Into a message --------------------------------------------------------------------------------------------

    async def content(self, who: Principal, content: Content, ids: Sequence[UUID], *, param: str) -> Content:
        """`content` with what its `file` parts refer to, and then `ids`, bring.

        Raises AttachmentNotFound, AttachmentNotReady, AttachmentUnreadable, Invalid when there are too many.
        """
        parts = list(content) if isinstance(content, list) else [{"type": "text", "text": content}]
        named = [found.id for part in parts if (found := attachment_of(part)) is not None]
        wanted = list(dict.fromkeys([*named, *ids]))
        if not wanted:
            return content
        if len(wanted) > MOST_ATTACHMENTS:
            raise Invalid(
                f"A message takes {MOST_ATTACHMENTS} attachments; these are {len(wanted)}.", param=param
            )
        if self._attachments is None:
            raise AttachmentNotFound(wanted[0], param=param)
        # Characters, however many bytes they have: what the message itself may have as well.
        most = self._max_message_bytes // BYTES_A_CHARACTER // len(wanted)
        brought = {
            one.id: one for one in await self._attachments.brought(who, wanted, most=most, param=param)
        }
        made: list[dict[str, Any]] = []
        for part in parts if content else ():
            found = attachment_of(part)
            if found is None and _TEXT_OF not in part:  # else it is what we brought before, sent back to us
                made.append(part)
            elif found is not None and found.id in brought:  # named twice, it is brought once
                made += _parts_of(brought.pop(found.id))
        for one in brought.values():
            made += _parts_of(one)
        return made

    async def messages(self, who: Principal, messages: Sequence[Message]) -> Sequence[Message]:
        """`messages`, OpenAI's, with what the `file` parts of the user's refer to. Raises as `content`."""
        if not any(_refers(message) for message in messages):
            return messages
        made = []
        for index, message in enumerate(messages):
            if _refers(message):
                param = f"messages[{index}].content"
                content = await self.content(who, list(message["content"]), (), param=param)
                made.append({**message, "content": content})
            else:
                made.append(dict(message))
        return made

    # Out to a provider -------------------------------------------------------------------------------------------

    async def shown(self, owner: UUID, messages: Sequence[Message], *, sees: bool) -> Sequence[Message]:
        """`messages` as a provider takes them: with pictures where its model `sees`, and with texts only where not."""
        if not any(_is_ours(message) for message in messages):
            return messages
        pictures = await self._pictures(owner, messages) if sees else {}
        return [_as_sent(message, pictures) if _is_ours(message) else message for message in messages]

    async def _pictures(self, owner: UUID, messages: Sequence[Message]) -> dict[UUID, str]:
        """The newest pictures that messages refer to, as data URLs."""
        wanted = [
            found.id
            for message in reversed(messages)
            if _is_ours(message)
            for part in message["content"]
            if (found := attachment_of(part)) is not None and found.size is not None
        ]
        shown: dict[UUID, str] = {}
        for attachment_id in list(dict.fromkeys(wanted))[:MOST_PICTURES]:
            picture = await self._attachments.picture(owner, attachment_id) if self._attachments else None
            if picture is not None:
                shown[attachment_id] = f"data:image/jpeg;base64,{b64encode(picture).decode()}"
                await asyncio.sleep(0)  # a few milliseconds each
        return shown


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
        isinstance(part, Mapping) and (_TEXT_OF in part or attachment_of(part) is not None)
        for part in content
    )


def _parts_of(brought: Brought) -> list[dict[str, Any]]:
    """An attachment's text, marked with its name, and the reference to it."""
    file: dict[str, Any] = {"file_id": str(brought.id), "filename": brought.filename}
    if brought.picture and brought.width and brought.height:
        file["picture"] = {"width": brought.width, "height": brought.height}
    return [
        {"type": "text", "text": _marked(brought), _TEXT_OF: str(brought.id)},
        {"type": "file", "file": file},
    ]


def _marked(brought: Brought) -> str:
    if not brought.text.strip():
        return f"[Attachment {brought.filename}: no text was found in it]"
    end = (
        f"[End of {brought.filename}]"
        if brought.complete
        else f"[The rest of {brought.filename} is left out]"
    )
    return f"[Attachment {brought.filename}]\n{brought.text}\n{end}"


def _as_sent(message: Message, pictures: Mapping[UUID, str]) -> dict[str, Any]:
    """A message without marks and references of ours; texts alone are one text, which every provider takes."""
    parts: list[Any] = []
    for part in message["content"]:
        found = attachment_of(part)
        if found is not None:
            if found.id in pictures:
                parts.append({"type": "image_url", "image_url": {"url": pictures[found.id]}})
        elif isinstance(part, Mapping) and _TEXT_OF in part:
            if not any(str(one) == part[_TEXT_OF] for one in pictures):
                parts.append({"type": "text", "text": part["text"]})
        else:
            parts.append(part)
    if all(isinstance(part, Mapping) and part.get("type") == "text" for part in parts):
        return {**message, "content": "\n".join(part["text"] for part in parts)}
    return {**message, "content": parts}
