"""A database of many messages, as years of use would leave it: `seed(url, rows)`.

A million messages are one user of 100,000, five of 20,000, twenty of 5,000, and users of 40; other sizes are that
many times the same, or below a million the same in small (the users of 40 stay). Conversations lie on the disk in
the order of their messages' times, mixed, as they would be written. The same `rows` give the same texts.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import asyncpg
import numpy as np
from numpy.typing import NDArray

from baatcheet.kit.ids import new_id
from baatcheet.platform.database import connect
from benchmarks.data.vocabulary import LANGUAGES, Planted, Vocabulary
from benchmarks.report import progress

MILLION: Final = 1_000_000
SIZES: Final[
    Mapping[str, tuple[int, int]]
] = {  # messages of such a user, and how many there are in a million
    "large": (100_000, 1),
    "middle": (20_000, 5),
    "small": (5_000, 20),
}
TINY: Final = 40
MODELS: Final = ("openai/gpt-4o", "anthropic/claude-sonnet-4", "groq/llama-3.3-70b", "openrouter/deepseek-v3")
YEARS: Final = 2.0  # that the messages are spread over
LONGEST: Final = 2_000  # messages of the longest conversation of a user: a fifth of all theirs, and no more
SHORTEST: Final = 200  # … at least: as many as a turn looks at, so that at any size a turn has the same to do
_TALK: Final = 20  # messages of a conversation, on average
_WORDS: Final = {"user": 14, "assistant": 60}  # of a message, on average
_BATCH: Final = 20_000  # rows that are written at a time
_BULK: Final = 200_000  # from so many rows on the indexes are made afterwards
_OURS: Final = {  # triggers whose work is done here
    "messages": ("place_message", "tell_made"),
    "conversations": ("tell_made",),
    "turns": ("tell_recorded",),
}
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


@dataclass(frozen=True)
class SeededUser:
    """A user, and some of what they have."""

    id: UUID
    messages: int
    conversations: tuple[UUID, ...]  # all of them, the oldest first
    longest: UUID  # the conversation with the most messages
    projects: tuple[UUID, ...]


@dataclass(frozen=True)
class SeededUsers:
    """One user of each size, the words that were planted, and how many messages there are."""

    rows: int
    large: SeededUser
    middle: SeededUser
    small: SeededUser
    tiny: SeededUser
    planted: Planted = field(default_factory=Planted)
    seconds: float = 0.0  # that the seeding took

    def by_size(self) -> Mapping[str, SeededUser]:
        return {"large": self.large, "middle": self.middle, "small": self.small, "tiny": self.tiny}


async def seed(url: str, rows: int, *, searched: bool = True) -> SeededUsers:
    """Fill the migrated, otherwise unused database at `url` with about `rows` messages (at least 1,000).

    Without `searched` the new rows are kept from the search: nothing waits to be indexed.
    Raises asyncpg's errors.
    """
    began = time.perf_counter()
    plan = _Plan(max(1_000, rows))
    connection = await connect(url)
    try:
        await connection.execute("SET statement_timeout = 0; SET maintenance_work_mem = '256MB'")
        await connection.execute("SET synchronous_commit = off")
        indexes = await _put_aside(connection) if rows >= _BULK else []
        off = (
            [(table, name) for table, names in _OURS.items() for name in names]
            if searched
            else [(table, "USER") for table in _OURS]
        )
        for table, name in off:
            await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER {name}")
        await _write(connection, plan)
        for table, name in off:
            await connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER {name}")
        if indexes:
            progress(f"{len(indexes)} indexes")
        for statement in indexes:
            await connection.execute(statement)
        for table in ("users", "projects", "conversations", "messages", "turns"):
            await connection.execute(f"VACUUM (ANALYZE) {table}")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
    large, middle, small, tiny = [plan.user(plan.first[name]) for name in (*SIZES, "tiny")]
    return SeededUsers(plan.rows, large, middle, small, tiny, seconds=time.perf_counter() - began)


class _Plan:
    """Which user has which conversations, and when each message was written; numpy arrays, one row a message."""

    def __init__(self, rows: int) -> None:
        chance = np.random.default_rng(rows)
        scale = min(1.0, rows / MILLION)
        sizes: list[int] = []
        self.first: dict[str, int] = {}
        for name, (messages, many) in SIZES.items():
            self.first[name] = len(sizes)
            sizes += [_even(messages * scale)] * (many * max(1, round(rows / MILLION)))
        self.first["tiny"] = len(sizes)
        sizes += [TINY] * max(1, (rows - sum(sizes)) // TINY)
        self.user_ids = [new_id() for _ in sizes]
        self.user_sizes = sizes
        talks = [_talks(size, chance) for size in sizes]
        self.talk_user = np.repeat(np.arange(len(sizes)), [len(each) for each in talks])
        self.talk_size = np.concatenate(talks)
        self.rows = int(self.talk_size.sum())
        count = len(self.talk_size)
        now = int(time.time() * 1000)
        span = int(YEARS * 365 * 86_400_000)
        ends = now - 60_000
        starts = ends - (chance.random(count) * span).astype(np.int64)
        self.talk_language = chance.choice(len(LANGUAGES), count, p=list(LANGUAGES.values()))
        self.talk_archived = chance.random(count) < 0.15
        self.projects = [[new_id() for _ in range(max(1, min(20, size // 250)))] for size in sizes]
        self.talk_project = np.where(chance.random(count) < 0.4, chance.integers(0, 20, count), -1)

        talk = np.repeat(np.arange(count), self.talk_size)
        first_row = np.repeat(np.cumsum(self.talk_size) - self.talk_size, self.talk_size)
        depth = np.arange(self.rows) - first_row
        # A minute or so between messages, but a conversation ends before now.
        pace = np.minimum(60_000, (ends - starts) // (self.talk_size + 1))
        at = starts[talk] + depth * pace[talk]
        order = np.argsort(at, kind="stable")
        place = np.empty(self.rows, dtype=np.int64)
        place[order] = np.arange(self.rows)
        self.talk, self.depth, self.at = talk[order], depth[order], at[order]
        self.parent = np.where(self.depth > 0, place[np.maximum(0, order - 1)], -1)
        self.beginning = place[first_row[order]]
        last_row = np.cumsum(self.talk_size) - 1
        self.talk_head = place[last_row]
        self.talk_starts, self.talk_ends = starts, self.at[self.talk_head]
        self.message_ids = _ids(self.at, 1)
        self.talk_ids = _ids(starts, 2)
        self.turn_ids = _ids(self.at, 3)  # of a turn: at its first message's place

        words = np.where(self.depth % 2 == 0, _WORDS["user"], _WORDS["assistant"])
        self.words = np.clip(words * chance.lognormal(-0.32, 0.8, self.rows), 2, 800).astype(np.int64)
        self.age = self._ages()
        self.chance = chance

    def _ages(self) -> NDArray[np.float32]:
        """Of each message, which part of its user's messages are older."""
        user = self.talk_user[self.talk]
        by_user = np.argsort(user, kind="stable")  # and by time, as the rows are
        sizes = np.bincount(user, minlength=len(self.user_sizes))
        rank = np.arange(self.rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        ages = np.empty(self.rows, dtype=np.float32)
        ages[by_user] = rank / np.repeat(sizes, sizes)
        return ages

    def rare_rows(self) -> NDArray[np.int64]:
        """Three messages of every user that is not tiny."""
        user = self.talk_user[self.talk]
        found = []
        for number in range(self.first["tiny"]):
            rows = np.flatnonzero(user == number)
            found.append(rows[[len(rows) // 7, len(rows) // 2, -max(2, len(rows) // 50)]])
        return np.concatenate(found)

    def user(self, number: int) -> SeededUser:
        talks = np.flatnonzero(self.talk_user == number)
        talks = talks[np.argsort(self.talk_starts[talks], kind="stable")]
        longest = int(talks[np.argmax(self.talk_size[talks])])
        return SeededUser(
            id=self.user_ids[number],
            messages=int(self.talk_size[talks].sum()),
            conversations=tuple(_uuid(self.talk_ids[talk]) for talk in talks),
            longest=_uuid(self.talk_ids[longest]),
            projects=tuple(self.projects[number]),
        )


def _even(number: float) -> int:
    return max(2, 2 * round(number / 2))


def _talks(messages: int, chance: np.random.Generator) -> NDArray[np.int64]:
    """How many messages each conversation of a user with so many has: even numbers, a few large."""
    longest = min(LONGEST, messages // 5)
    sizes: list[int] = [_even(longest)] if longest >= SHORTEST else []
    left = messages - sum(sizes)
    drawn = (2 * np.clip(chance.lognormal(math.log(_TALK / 2) - 0.4, 0.9, left // 4 + 2), 1, 200)).astype(
        np.int64
    )
    for size in (drawn // 2 * 2).tolist():
        if left <= 0:
            break
        sizes.append(min(size, left))
        left -= sizes[-1]
    return np.array(sizes, dtype=np.int64)


def _ids(at: NDArray[np.int64], kind: int) -> NDArray[np.uint8]:
    """UUIDs version 7, one a row: of the time, in the rows' order within a millisecond; `kind` keeps sorts apart."""
    rows = len(at)
    ids = np.zeros((rows, 16), dtype=np.uint8)
    ids[:, :6] = at.astype(">u8").view(np.uint8).reshape(rows, 8)[:, 2:]
    ids[:, 6] = 0x70
    ids[:, 8] = 0x80 | kind
    ids[:, 9:13] = np.arange(rows, dtype=">u4").view(np.uint8).reshape(rows, 4)
    ids[:, 13:] = np.frombuffer(new_id().bytes[-3:], dtype=np.uint8)
    return ids


def _uuid(row: NDArray[np.uint8]) -> UUID:
    return UUID(bytes=row.tobytes())


def _hex(ids: NDArray[np.uint8]) -> list[str]:
    text = np.ascontiguousarray(ids).tobytes().hex()
    return [text[at : at + 32] for at in range(0, len(text), 32)]


def _times(at: NDArray[np.int64]) -> list[str]:
    written: list[str] = np.datetime_as_string(at.astype("datetime64[ms]"), timezone="UTC").tolist()
    return written


async def _put_aside(connection: asyncpg.Connection) -> list[str]:
    """Drop the indexes that no constraint needs; returns the statements that make them again."""
    rows = await connection.fetch(
        """SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS made
           FROM pg_index i WHERE i.indrelid = ANY($1::text[]::regclass[]) AND NOT i.indisprimary
             AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid) ORDER BY i.indexrelid""",
        list(_OURS),
    )
    for row in rows:
        await connection.execute(f"DROP INDEX {row['name']}")
    return [row["made"] for row in rows]


async def _write(connection: asyncpg.Connection, plan: _Plan) -> None:
    users = zip(plan.user_ids, plan.user_sizes, strict=True)
    await connection.copy_records_to_table(
        "users", records=[(one, f"user of {size}") for one, size in users], columns=["id", "name"]
    )
    await connection.copy_records_to_table(
        "projects",
        records=[
            (one, user, f"project {number}")
            for user, projects in zip(plan.user_ids, plan.projects, strict=True)
            for number, one in enumerate(projects)
        ],
        columns=["id", "user_id", "name"],
    )
    planted = Planted()
    writer = _Writer(plan, planted)
    await _copy(connection, "conversations", _TALK_COLUMNS, writer.conversations)
    await _copy(connection, "messages", _MESSAGE_COLUMNS, writer.messages)
    await _copy(connection, "turns", _TURN_COLUMNS, writer.turns)


_TALK_COLUMNS = "id user_id project_id title archived head_id token_total message_count created_at updated_at"
_MESSAGE_COLUMNS = (
    "id conversation_id user_id parent_id turn_id role content model token_count created_at branch_id depth"
)
_TURN_COLUMNS = (
    "id user_id conversation_id input_id reply_id status model answered_by finish_reason prompt_tokens "
    "completion_tokens usage created_at ended_at"
)


async def _copy(connection: asyncpg.Connection, table: str, columns: str, batch: Any) -> None:
    """Write what `batch(start)` returns as lines, until it returns None."""

    async def lines() -> AsyncIterator[bytes]:
        start = 0
        while (made := await asyncio.to_thread(batch, start)) is not None:
            yield made
            start += _BATCH
            if start % 500_000 == 0:
                progress(f"{table}: {start:,}")

    await connection.copy_to_table(table, source=lines(), columns=columns.split(), format="text")


class _Writer:
    """The rows as COPY reads them."""

    def __init__(self, plan: _Plan, planted: Planted) -> None:
        self._plan = plan
        self._planted = planted
        self._vocabularies = [Vocabulary(language, planted) for language in LANGUAGES]
        self._rare = frozenset(plan.rare_rows().tolist())
        self._users = [user.hex for user in plan.user_ids]
        self._projects = [[one.hex for one in projects] for projects in plan.projects]

    def conversations(self, start: int) -> bytes | None:
        plan = self._plan
        if start >= len(plan.talk_size):
            return None
        at = slice(start, start + _BATCH)
        titles = self._texts(plan.talk_language[at], plan.chance.integers(2, 7, len(plan.talk_size[at])))
        columns = zip(
            _hex(plan.talk_ids[at]),
            plan.talk_user[at].tolist(),
            plan.talk_project[at].tolist(),
            titles,
            plan.talk_archived[at].tolist(),
            _hex(plan.message_ids[plan.talk_head[at]]),
            plan.talk_size[at].tolist(),
            _times(plan.talk_starts[at]),
            _times(plan.talk_ends[at]),
            strict=True,
        )
        lines = []
        for id_, user, project, title, archived, head, size, starts, ends in columns:
            of = self._projects[user]
            within = "\\N" if project < 0 else of[project % len(of)]
            flag = "t" if archived else "f"
            lines.append(
                f"{id_}\t{self._users[user]}\t{within}\t{' '.join(title).translate(_ESCAPES)}\t{flag}\t{head}\t"
                f"{size * 60}\t{size}\t{starts}\t{ends}\n"
            )
        return "".join(lines).encode()

    def messages(self, start: int) -> bytes | None:
        plan = self._plan
        if start >= plan.rows:
            return None
        at = slice(start, min(plan.rows, start + _BATCH))
        talk = plan.talk[at]
        texts = self._texts(plan.talk_language[talk], plan.words[at])
        self._plant(texts, at)
        parents = plan.parent[at]
        # The input's place is the turn's: an answer comes after it.
        turns = np.where(plan.depth[at] % 2 == 0, np.arange(at.start, at.stop), parents)
        columns = zip(
            _hex(plan.message_ids[at]),
            _hex(plan.talk_ids[talk]),
            plan.talk_user[talk].tolist(),
            parents.tolist(),
            _hex(plan.message_ids[np.maximum(parents, 0)]),
            _hex(plan.turn_ids[turns]),
            plan.depth[at].tolist(),
            texts,
            _times(plan.at[at]),
            _hex(plan.message_ids[plan.beginning[at]]),
            strict=True,
        )
        lines = []
        for id_, talk_id, user, place, parent, turn, depth, text, when, branch in columns:
            answer = depth % 2 == 1
            content = " ".join(text).translate(_ESCAPES)
            role, model = ("assistant", MODELS[(user + depth) % len(MODELS)]) if answer else ("user", "\\N")
            above = parent if place >= 0 else "\\N"
            lines.append(
                f"{id_}\t{talk_id}\t{self._users[user]}\t{above}\t{turn}\t{role}\t{content}\t{model}\t"
                f"{len(content) // 4 + 1}\t{when}\t{branch}\t{depth}\n"
            )
        return "".join(lines).encode()

    def turns(self, start: int) -> bytes | None:
        plan = self._plan
        if start >= plan.rows:
            return None
        at = slice(start, min(plan.rows, start + _BATCH))
        answers = np.flatnonzero(plan.depth[at] % 2 == 1) + start
        asked = plan.parent[answers]
        talk = plan.talk[answers]
        columns = zip(
            _hex(plan.turn_ids[asked]),
            plan.talk_user[talk].tolist(),
            _hex(plan.talk_ids[talk]),
            _hex(plan.message_ids[asked]),
            _hex(plan.message_ids[answers]),
            plan.depth[answers].tolist(),
            plan.words[answers].tolist(),
            _times(plan.at[asked]),
            _times(plan.at[answers]),
            strict=True,
        )
        lines = []
        for id_, user, talk_id, asking, answer, depth, words, begun, ended in columns:
            model = MODELS[(user + depth) % len(MODELS)]
            prompt, completion = min(depth, 50) * 60 + 20, int(words * 1.4)
            usage = f'{{"prompt_tokens": {prompt}, "completion_tokens": {completion}}}'
            lines.append(
                f"{id_}\t{self._users[user]}\t{talk_id}\t{asking}\t{answer}\tcompleted\t{model}\t{model}\tstop\t"
                f"{prompt}\t{completion}\t{usage}\t{begun}\t{ended}\n"
            )
        return "".join(lines).encode()

    def _texts(self, languages: NDArray[np.int64], words: NDArray[np.int64]) -> list[list[str]]:
        """The words of each text."""
        texts: list[list[str]] = [[] for _ in range(len(words))]
        for number, vocabulary in enumerate(self._vocabularies):
            rows = np.flatnonzero(languages == number)
            drawn = vocabulary.draw(int(words[rows].sum()), self._plan.chance)
            start = 0
            for row, count in zip(rows.tolist(), words[rows].tolist(), strict=True):
                texts[row] = drawn[start : start + count]
                start += count
        return texts

    def _plant(self, texts: Sequence[list[str]], at: slice) -> None:
        chance, planted = self._plan.chance, self._planted
        count = len(texts)
        for word, share in planted.shares():
            for row in np.flatnonzero(chance.random(count) < share).tolist():
                _put(texts[row], word)
        old = (self._plan.age[at] < 0.2) & (chance.random(count) < 1 / 3)
        for row in np.flatnonzero(old).tolist():
            _put(texts[row], planted.long_ago)
        for row in self._rare.intersection(range(at.start, at.stop)):
            _put(texts[row - at.start], planted.rare)


def _put(text: list[str], word: str) -> None:
    """In the middle or so: never the first word, never inside a phrase that was put there as one."""
    text.insert(1 + len(text) // 2, word)
