"""How much of each prompt a provider's cache has seen: what begins as the prompt before it did."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import msgspec

from baatcheet.context import counting
from baatcheet.context.history import History
from baatcheet.context.manager import Context
from baatcheet.conversations.wire import text_of
from benchmarks.context.measuring import tokens_of
from benchmarks.context.talk import Talk
from benchmarks.context.workplace import Workplace
from benchmarks.evidence import Message
from benchmarks.report import Report, progress

BUDGET = 8_000
STABLE = 0.9  # share that is wanted
SEED = 5
SYSTEM = (
    "You are the assistant of a small publishing house. Answer briefly and in the language of the question. When a "
    "date or a price was agreed on, repeat it exactly. When you are not sure, say so, and say whom to ask."
)
Messages = Sequence[Mapping[str, Any]]


class Prefix:
    """The share of prompts' tokens that are in a prefix of the prompt before."""

    def __init__(self) -> None:
        self._before: Messages | None = None
        self._same = 0
        self._begun = 0
        self._all = 0

    def add(self, prompt: Messages, stable: int | None = None) -> None:
        """The next prompt; of its messages the first `stable` are looked at. The first prompt has none before it."""
        if self._before is not None:
            looked_at = prompt[:stable]
            same = common(self._before, looked_at)
            sizes = [tokens_of(message) for message in looked_at]
            self._same += sum(sizes[:same])
            self._all += sum(sizes)
            if same < min(len(looked_at), len(self._before)):
                self._begun += common_tokens(self._before[same], looked_at[same])
        self._before = prompt

    @property
    def share(self) -> float:
        """Message by message: the first one that differs ends the prefix."""
        return self._same / self._all if self._all else 0.0

    @property
    def share_of_text(self) -> float:
        """Within messages too, as a provider's cache looks at it."""
        return (self._same + self._begun) / self._all if self._all else 0.0


class Stability:
    """One conversation of `turns` turns, each planned, answered and settled before the next."""

    def __init__(self, place: Workplace, report: Report, *, turns: int) -> None:
        self._place = place
        self._report = report
        self._turns = turns
        self._stable, self._whole, self._window = Prefix(), Prefix(), Prefix()

    async def run(self) -> None:
        progress(f"a conversation of {self._turns} turns")
        place, talk = self._place, Talk(SEED)
        manager = place.manager()
        conversation = await place.begin(SYSTEM)
        said: list[dict[str, Any]] = []
        head = None
        for _ in range(self._turns):
            asked, answer = talk.message("user"), talk.message("assistant")
            made = await manager.get_context(conversation, user_id=place.user, message=asked.text)
            self._compare(made, [*said, _wire(asked)])
            rows = await place.add(conversation, [asked, answer], head)
            head = rows[-1].id
            said += [_wire(asked), _wire(answer)]
            history = await manager.known(place.user, conversation) or History(None, 0)
            grown = history.grown([manager.item(row) for row in rows])
            manager.remember(place.user, conversation, grown)
            await manager.settle(conversation)
        version = await place.value("SELECT context_version FROM conversations WHERE id = $1", conversation)
        self._tell(version)

    def _compare(self, made: Context, said: Messages) -> None:
        stable = len(made.messages) - 1 - bool(made.receipt["recalled"])
        self._stable.add(made.messages, stable)
        self._whole.add(made.messages)
        self._window.add([{"role": "system", "content": SYSTEM}, *window(said, BUDGET)])

    def _tell(self, compactions: int) -> None:
        self._report.add("prefix.share", self._stable.share, "of tokens", better="higher", target=STABLE)
        self._report.add("prefix.share.of_text", self._stable.share_of_text, "of tokens", better="higher")
        self._report.add("prefix.share.whole_prompt", self._whole.share, "of tokens", better="higher")
        self._report.add("prefix.share.window", self._window.share, "of tokens", better="higher")
        self._report.add("prefix.compactions_per_turn", compactions / self._turns, "", better="lower")


def common(before: Messages, after: Messages) -> int:
    """How many messages at the beginning are the same, byte for byte."""
    same = 0
    while same < min(len(before), len(after)) and _encoded(before[same]) == _encoded(after[same]):
        same += 1
    return same


def common_tokens(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """The tokens of what two messages begin with alike."""
    if before["role"] != after["role"]:
        return 0
    pairs = zip(text_of(before["content"]), text_of(after["content"]), strict=False)
    return counting.count("".join([one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]))


def _encoded(message: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(message)


def window(said: Messages, budget: int) -> Messages:
    """The newest messages that fit `budget` beside the system prompt, the oldest first."""
    left = budget - tokens_of({"role": "system", "content": SYSTEM})
    at = len(said)
    while at > 0 and (left := left - tokens_of(said[at - 1])) >= 0:
        at -= 1
    return said[at:]


def _wire(message: Message) -> dict[str, Any]:
    return {"role": message.role, "content": message.text}
