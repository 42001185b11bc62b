"""BaatCheet's own export format, version 1: whole conversations as JSON, to be kept, read and imported again.

docs/reference/export-format.md describes it. Here are its shapes, the order in which messages stand in it, and the
function that writes it: from a file of lines, in which the database's pages were put down as they came, with no more
than the keys of one conversation in memory.

The order is that of time, but for what a reader must be able to rely on: a message stands after its parent, and among
the answers to one message the one that goes on with its branch stands first. Reading the file in this order and
numbering what is read anew gives a conversation that is written in the same order again.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Final, NamedTuple

import msgspec

FORMAT: Final = "baatcheet.conversations"
VERSION: Final = 1
MEDIA_TYPE: Final = "application/json"
REPORT_EVERY: Final = 500  # messages
NULL: Final = msgspec.Raw(b"null")

Report = Callable[[float, str], None]


class ProjectEntry(msgspec.Struct, frozen=True):
    """The project that a conversation is in. An import finds it by its id, then by its name, else makes it."""

    id: str
    name: str
    description: str = ""


class ConversationEntry(msgspec.Struct, frozen=True):
    """A conversation without its messages, which follow in the member `messages`."""

    id: str
    title: str
    system_prompt: str | None
    model: str | None
    project: ProjectEntry | None
    archived: bool
    pinned: bool
    tags: Sequence[str]
    head_id: str | None
    created_at: datetime
    updated_at: datetime


class MessageEntry(msgspec.Struct, frozen=True):
    """A message. `parts` is the JSON that the database has, as it is."""

    id: str
    parent_id: str | None
    role: str
    content: str
    parts: msgspec.Raw
    model: str | None
    token_count: int
    finish_reason: str | None
    created_at: datetime


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """A line: a message as it is to be written, and what its place is found by. `at` is in microseconds."""

    id: str
    parent: str | None
    branch: str
    at: int
    entry: msgspec.Raw


class Writing(msgspec.Struct, frozen=True):
    """An order: write the conversations whose lines are at `sources` to `target`."""

    sources: tuple[str, ...]
    target: str
    exported_at: datetime
    messages: int  # that there are in all of them, for progress


class Written(msgspec.Struct, frozen=True):
    messages: int
    bytes: int


class Key(NamedTuple):
    """What the place of a message is found by."""

    id: str
    parent: str | None
    branch: str
    at: int


_encoder = msgspec.json.Encoder()


def conversation_line(conversation: ConversationEntry) -> bytes:
    """The first line of a conversation's file."""
    return _encoder.encode(conversation) + b"\n"


def message_line(message: MessageEntry, branch: str, at: int) -> bytes:
    """A further line of it, in any order. A database has no line break in its JSON but escaped."""
    entry = msgspec.Raw(_encoder.encode(message))
    return _encoder.encode(Kept(message.id, message.parent_id, branch, at, entry)) + b"\n"


def placed(keys: Sequence[Key]) -> list[int]:
    """The indexes of `keys` in the order of the format. Whose parent is not among them stands at the top."""
    index = {key.id: place for place, key in enumerate(keys)}
    heirs: dict[int, int] = {}  # the child that goes on with its parent's branch
    children: dict[int, list[int]] = {}
    ready: list[tuple[int, str, int]] = []
    for place, key in enumerate(keys):
        above = index.get(key.parent) if key.parent is not None else None
        if above is None:
            ready.append((key.at, key.id, place))
        elif key.branch == keys[above].branch and above not in heirs:
            heirs[above] = place
        else:
            children.setdefault(above, []).append(place)
    heapq.heapify(ready)
    order: list[int] = []
    # Who stands behind an heir is ready once the heir is placed.
    behind: dict[int, list[int]] = {}
    while ready:
        place = heapq.heappop(ready)[2]
        order.append(place)
        freed = behind.pop(place, [])
        if (heir := heirs.get(place)) is not None:
            freed = [*freed, heir]
            if place in children:
                behind[heir] = children[place]
        else:
            freed = [*freed, *children.get(place, ())]
        for one in freed:
            heapq.heappush(ready, (keys[one].at, keys[one].id, one))
    return order


def write(order: Writing, report: Report) -> Written:
    """Write a whole export file. For a sandbox: it takes its time, and the memory of the keys of one conversation."""
    written = 0
    with Path(order.target).open("wb") as target:
        for _ in write_file(target, map(Path, order.sources), order.exported_at):
            written += 1
            if written % REPORT_EVERY == 0 and order.messages:
                report(100 * written / order.messages, f"Wrote {written:,} of {order.messages:,} messages")
        return Written(written, target.tell())


def write_file(target: IO[bytes], sources: Iterable[Path], exported_at: datetime) -> Iterator[None]:
    """Write the conversations whose lines are at `sources`, one message at every step."""
    at = _encoder.encode(exported_at)
    target.write(
        b'{"format":"%b","version":%d,"exported_at":%b,"conversations":[' % (FORMAT.encode(), VERSION, at)
    )
    for place, source in enumerate(sources):
        target.write(b",\n" if place else b"\n")
        with source.open("rb") as lines:
            yield from _write_conversation(lines, target)
    target.write(b"\n]}\n")


def _write_conversation(lines: IO[bytes], target: IO[bytes]) -> Iterator[None]:
    head = lines.readline().rstrip(b"\n")
    target.write(head[:-1] + b',"messages":[')
    decoder = msgspec.json.Decoder(Kept)
    keys: list[Key] = []
    offsets: list[int] = []
    offset = lines.tell()
    for line in lines:
        kept = decoder.decode(line)
        keys.append(Key(kept.id, kept.parent, kept.branch, kept.at))
        offsets.append(offset)
        offset += len(line)
    for count, place in enumerate(placed(keys)):
        lines.seek(offsets[place])
        kept = decoder.decode(lines.readline())
        target.write(b",\n" if count else b"\n")
        target.write(bytes(kept.entry))
        yield
    target.write(b"]}")
