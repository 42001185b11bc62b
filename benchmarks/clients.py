"""What the clients of the gateway benchmark ask, over and over, each on a connection of its own."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec

from benchmarks.fake_upstream import CHUNKS, REPLY
from benchmarks.load import Answer, Connection, FailedError, Script, Server

FIXED, PACED = "fake-fixed", "fake-50x20ms"
TALK = 11  # turns of a conversation: the prompt holds 0, 2 … 20 earlier messages, 10 on average
QUESTION = (
    "Please tell me in one short paragraph what happens to a message on its way through the server, from the "
    "moment that it arrives until the moment that the whole reply has been written down."
)
_ASKED = {"role": "user", "content": QUESTION}
_PROMPT = [{"role": "assistant", "content": REPLY + " "} if number % 2 else _ASKED for number in range(TALK)]
CONVERSATION = b"x-baatcheet-conversation"


def body(**members: Any) -> bytes:
    """The JSON of a request; members that are None are left out."""
    return msgspec.json.encode({name: value for name, value in members.items() if value is not None})


WHOLE_BODY = body(model=FIXED, messages=_PROMPT)  # the prompt of an average turn of a `Talk`


def stateless(server: Server, *, stream: bool = False) -> Script:
    """Send the prompt of an average turn whole, each time."""
    request = server.post(body(model=FIXED, messages=_PROMPT, stream=True) if stream else WHOLE_BODY)

    async def ask(connection: Connection) -> None:
        _checked(await connection.ask(request))

    return ask


class Talk:
    """A client in a conversation of its own, which begins a new one after TALK turns."""

    def __init__(self, server: Server, *, model: str = FIXED, stream: bool = False) -> None:
        self._server = server
        self._model = model
        self._stream = stream or None
        self._turns = 0
        self._request = b""

    async def __call__(self, connection: Connection) -> None:
        await self.turn(connection)

    async def turn(self, connection: Connection, *, stamped: bool = False) -> Answer:
        begins = self._turns % TALK == 0
        if begins:
            self._request = self._asking("new")
        answer = _checked(await connection.ask(self._request, stamped=stamped))
        if begins:
            self._request = self._asking(answer.headers[CONVERSATION].decode())
        self._turns += 1
        return answer

    def _asking(self, conversation: str) -> bytes:
        return self._server.post(
            body(model=self._model, messages=[_ASKED], conversation=conversation, stream=self._stream)
        )


@dataclass
class Delays:
    """How the chunks of paced streams came, ms."""

    transit: list[float] = field(default_factory=list)  # from the upstream's write to the client's read
    gaps: list[float] = field(default_factory=list)  # between two chunks at the client
    added: list[float] = field(default_factory=list)  # those gaps beyond the upstream's own

    @property
    def chunks(self) -> int:
        return len(self.transit)

    def take(self, stamps: Sequence[tuple[int, int]]) -> None:
        """The chunks of one stream: when each was written upstream and when it came, ns."""
        self.transit += [(came - left) / 1e6 for left, came in stamps]
        for (left, came), (next_left, next_came) in pairwise(stamps):
            gap = next_came - came
            self.gaps.append(gap / 1e6)
            self.added.append((gap - (next_left - left)) / 1e6)


class PacedStream:
    """A client that follows one paced stream after another: in conversations, or sending the whole prompt."""

    def __init__(self, server: Server, delays: Delays, *, stateful: bool, wait: float) -> None:
        self._delays = delays
        self._talk = Talk(server, model=PACED, stream=True) if stateful else None
        self._request = server.post(body(model=PACED, messages=_PROMPT, stream=True))
        self._wait = wait  # seconds before the first, so that the streams don't beat as one

    async def __call__(self, connection: Connection) -> None:
        if self._wait:
            await asyncio.sleep(self._wait)
            self._wait = 0.0
        if self._talk is not None:
            answer = await self._talk.turn(connection, stamped=True)
        else:
            answer = _checked(await connection.ask(self._request, stamped=True))
        if len(answer.stamps) != CHUNKS:
            raise FailedError(f"{len(answer.stamps)} of {CHUNKS} chunks came")
        self._delays.take(answer.stamps)


def _checked(answer: Answer) -> Answer:
    if answer.status != 200:
        raise FailedError(f"answered {answer.status}: {answer.body[:300].decode(errors='replace')}")
    return answer
