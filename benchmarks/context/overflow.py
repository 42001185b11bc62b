"""Whether any plan is larger than its budget, over random histories and budgets, by tiktoken's own count."""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from baatcheet.context import counting
from baatcheet.context.cutting import cut_item
from baatcheet.context.planning import ContextTooSmall, Item, Plan, Recall, Recalled, Summary, plan
from baatcheet.context.recall.query import Query
from baatcheet.context.recall.ranking import Scored
from baatcheet.context.recollection import Recollection
from baatcheet.context.store import PassageText
from baatcheet.context.tokenizers import Tokenizers
from baatcheet.conversations.wire import stored_form
from baatcheet.kit.ids import new_id
from benchmarks.context.measuring import prompt_tokens
from benchmarks.report import Report, progress
from benchmarks.texts import SENTENCES, hostile, mixed, sentences

SEED = 3
LEAST, MOST = 64, 16_000  # tokens of a budget
_BEGUN = datetime(2026, 1, 5, 8, tzinfo=UTC)


class Overflow:
    """One run of so many random plans."""

    def __init__(self, report: Report, *, plans: int) -> None:
        self._report = report
        self._plans = plans

    def run(self) -> None:
        progress(f"{self._plans} random plans")
        chance = random.Random(SEED)
        over = refused = recalled = 0
        fullest = 0.0
        texts = some_texts(chance)
        for _ in range(self._plans):
            made = RandomTurn(chance, texts).plan()
            if made is None:
                refused += 1
                continue
            tokens = prompt_tokens(made.messages, beside=made.tool_tokens)
            over += tokens > made.budget
            recalled += made.recalled is not None
            fullest = max(fullest, tokens / made.budget)
        self._report.add("overflow.plans_over_budget", over, "plans", better="lower", target=0)
        self._report.add("overflow.plans", self._plans, "plans", better="higher")
        self._report.add("overflow.refused", refused, "plans", better="lower")
        self._report.add("overflow.with_excerpts", recalled, "plans", better="higher")
        self._report.add("overflow.fullest", fullest, "of the budget", better="higher")


class RandomTurn:
    """A history, a budget and everything beside them."""

    def __init__(self, chance: random.Random, texts: Sequence[str]) -> None:
        self._chance = chance
        self._texts = texts

    def plan(self) -> Plan | None:
        """What the planner makes of it; None when it says that the fixed parts are too large."""
        chance = self._chance
        covered = chance.choice([0, 0, chance.randint(1, 500)])
        first = covered + chance.choice([0, 0, chance.randint(1, 50)])
        history = self._history()
        new = [self._item("user") for _ in range(chance.choice([1, 1, 1, 2, 3]))]
        try:
            return plan(
                system=self._sometimes(lambda: self._item("system")),
                history=placed(history, first),
                new=placed(new, first + len(history)),
                tool_tokens=chance.choice([0, 0, chance.randint(1, 800)]),
                budget=round(LEAST * (MOST / LEAST) ** chance.random()),
                max_messages=chance.randint(3, 60),
                cut=cut_item,
                summary=Summary(self._item("user"), covered - 1) if covered else None,
                recall=self._sometimes(lambda: self._recall(covered)),
                keep=chance.randint(0, 20),
            )
        except ContextTooSmall:
            return None

    def _history(self) -> list[Item]:
        items: list[Item] = []
        for number in range(self._chance.choice([0, 3, 10, 30, 80])):
            match self._chance.random():
                case draw if draw < 0.1:
                    items += self._calls(number)
                case draw if draw < 0.15:
                    items.append(self._item("user", image=True))
                case _:
                    items.append(self._item("assistant" if number % 2 else "user"))
        return items

    def _calls(self, number: int) -> list[Item]:
        """An assistant's tool calls and their results, of which one may be missing."""
        ids = [f"call_{number}_{place}" for place in range(self._chance.randint(1, 3))]
        function = {"name": "look_up", "arguments": '{"what": "قیمت"}'}
        calls = [{"id": id_, "type": "function", "function": function} for id_ in ids]
        answered = ids if self._chance.random() < 0.9 else ids[1:]
        return [
            _made({"role": "assistant", "content": None, "tool_calls": calls}),
            *[_made({"role": "tool", "content": self._text(), "tool_call_id": id_}) for id_ in answered],
        ]

    def _item(self, role: str, *, image: bool = False) -> Item:
        if not image:
            return _made({"role": role, "content": self._text()})
        picture = {"type": "image_url", "image_url": {"url": "https://example.com/p.png", "detail": "low"}}
        return _made({"role": role, "content": [{"type": "text", "text": self._text()}, picture]})

    def _text(self) -> str:
        return self._chance.choice(self._texts)

    def _recall(self, covered: int) -> Recall:
        """Excerpts as the product makes them, of messages that were never stored."""
        texts = {}
        for place in range(self._chance.randint(0, 60)):
            text = self._text()
            at = _BEGUN + timedelta(minutes=place * self._chance.choice([1, 500]))
            texts[place, 0] = PassageText(
                message_id=new_id(),
                depth=place,
                part=0,
                parts=1,
                role=self._chance.choice(["user", "assistant"]),
                at=at,
                text=text,
                tokens=counting.count(text),
                signals=0,
            )
        ranked = [Scored(place, part, self._chance.random()) for place, part in texts]
        ranked.sort(key=lambda one: -one.score)
        found = Recollection(before=covered, query=Query(), ranked=ranked, texts=texts)

        def recall(tokens: int, before: int) -> Recalled | None:
            return found.excerpts(tokens, before, Tokenizers.stored)

        return recall

    def _sometimes(self, make: Callable[[], Any]) -> Any:
        return make() if self._chance.random() < 0.7 else None


def placed(items: Sequence[Item], first: int) -> list[Item]:
    """`items` one after the other on a branch, from depth `first` on."""
    return [item._replace(depth=first + place) for place, item in enumerate(items)]


def some_texts(chance: random.Random) -> list[str]:
    """Texts of every script and size: most are short, some are empty, hostile or huge."""
    kinds = [*SENTENCES, "code"]
    texts = [sentences(kind, size, chance) for kind in kinds for size in (20, 200, 200, 300, 1_000)]
    texts += [mixed(size, chance) for size in (10_000, 60_000)]
    return [*texts, *hostile(2_000).values(), "", ""]


def _made(wire: dict[str, Any]) -> Item:
    text, beside = counting.countable(*stored_form(wire))
    return Item(wire, counting.count(text) + beside, new_id())
