"""Choosing what goes into the window: pure, no I/O.

Laid out so that a provider's prompt cache keeps hitting: the system prompt first, then the recent messages, then
the new ones. Invariants, for any history and any budget that holds the system prompt: the plan's tokens are within
the budget; the system prompt and the newest message are in it; order is kept; a tool call and its results stay
together. A message that is larger than what is left for it is cut in its middle, with a marker.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from baatcheet.context.counting import MESSAGE_OVERHEAD, REPLY_PRIMING

SMALLEST_CUT = 64  # tokens: less of a message than this says nothing


class ContextTooSmall(ValueError):
    """The fixed parts alone do not fit the budget."""

    def __init__(self, needed: int, budget: int) -> None:
        super().__init__(f"the system prompt and the tools need {needed} tokens; the budget is {budget}")
        self.needed = needed
        self.budget = budget


class OrphanToolResult(ValueError):
    """A new tool result answers no call of the message before it."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__(f"no open tool call for tool_call_id {', '.join(ids)} in the message before")


class Item(NamedTuple):
    """One message as the planner sees it. `tokens` includes the chat format's own."""

    wire: dict[str, Any]  # in OpenAI's form
    tokens: int
    id: UUID | None = None
    cut: bool = False  # whether its middle was left out


Cut = Callable[[Item, int], Item]
"""Shortens a message to at most so many tokens, by leaving out its middle."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a turn carries, and the account of it."""

    messages: tuple[dict[str, Any], ...]
    tokens: int
    budget: int
    system_tokens: int
    tool_tokens: int
    recent_tokens: int
    new_tokens: int
    chosen: tuple[Item, ...] = ()  # recent and new, in their order
    left_out: int = 0  # messages of the history that was at hand

    def receipt(self, *, tokenizer: str, exact: bool) -> dict[str, Any]:
        """The turn's account, as stored and shown."""
        return {
            "budget": self.budget,
            "tokens": self.tokens,
            "parts": {
                "system": self.system_tokens,
                "tools": self.tool_tokens,
                "recent": self.recent_tokens,
                "new": self.new_tokens,
            },
            "tokenizer": tokenizer,
            "exact": exact,
            "whole": [item.id for item in self.chosen if not item.cut],
            "cut": [item.id for item in self.chosen if item.cut],
            "left_out": self.left_out,
        }


def plan(
    *,
    system: Item | None,
    history: Sequence[Item],
    new: Sequence[Item],
    tool_tokens: int,
    budget: int,
    max_messages: int,
    cut: Cut,
) -> Plan:
    """Fit `system`, as much of the end of `history` (oldest first) as goes in, and `new` (oldest first) into `budget`.

    `max_messages` bounds history and new messages together. Raises ContextTooSmall when the system prompt and the
    tools leave no room for the newest message, OrphanToolResult when a new tool result answers no call at the end of
    `history`, and ValueError when there is no new message.
    """
    if not new:
        raise ValueError("there is nothing to answer")
    history, new = _with_their_call(history, new)
    system_tokens = system.tokens if system else 0
    fixed = system_tokens + tool_tokens + REPLY_PRIMING
    room = budget - fixed
    if room < min(new[-1].tokens, SMALLEST_CUT):
        raise ContextTooSmall(fixed + min(new[-1].tokens, SMALLEST_CUT), budget)
    kept_new, room = _fit_new(new, room, cut)
    if room < 0:  # what can't be cut, such as a tool call's arguments, is more than there is room for
        raise ContextTooSmall(budget - room, budget)
    recent = _recent(history, room, max_messages - len(kept_new), cut)
    recent_tokens = sum([item.tokens for item in recent])
    new_tokens = sum([item.tokens for item in kept_new])
    chosen = (*recent, *kept_new)
    messages = [item.wire for item in chosen]
    return Plan(
        messages=(system.wire, *messages) if system else tuple(messages),
        tokens=fixed + recent_tokens + new_tokens,
        budget=budget,
        system_tokens=system_tokens,
        tool_tokens=tool_tokens,
        recent_tokens=recent_tokens,
        new_tokens=new_tokens,
        chosen=chosen,
        left_out=len(history) - len(recent),
    )


def _recent(history: Sequence[Item], room: int, places: int, cut: Cut) -> list[Item]:
    """As much of the end of `history` as goes into `room` tokens and `places` messages."""
    kept: list[list[Item]] = []
    for group in reversed(_groups(history)):
        size = group[0].tokens if len(group) == 1 else sum([item.tokens for item in group])
        if len(group) > places:
            break
        if size > room:
            if shortened := _shorten(group, room, cut):
                kept.append(shortened)
            break
        kept.append(group)
        room -= size
        places -= len(group)
    return [item for group in reversed(kept) for item in group]


def _with_their_call(history: Sequence[Item], new: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item]]:
    """Tool results that are new bring the call that they answer, which history's end holds, into what must go in."""
    if new[0].wire["role"] != "tool":
        groups = _groups(new)
        return history, [item for group in groups for item in group] or new
    at = len(history)
    while at > 0 and history[at - 1].wire["role"] == "tool":
        at -= 1
    merged = _groups([*history[at - 1 :], *new]) if at > 0 else []
    must = [item for group in merged for item in group]
    if not {id(item) for item in new} <= {id(item) for item in must}:
        raise OrphanToolResult(
            [str(item.wire.get("tool_call_id")) for item in new if item.wire["role"] == "tool"]
        )
    return history[: at - 1], must


def _fit_new(new: Sequence[Item], room: int, cut: Cut) -> tuple[list[Item], int]:
    """The new messages within `room`: the largest give way first, none disappears while all can be cut small."""
    sizes = [item.tokens for item in new]
    if sum(sizes) > room:
        # The level to which the large ones are lowered so that all fit (water filling).
        left, level = room, 0
        for place, size in enumerate(sorted(sizes)):
            level = left // (len(sizes) - place)
            if size > level:
                break
            left -= size
        sizes = [min(size, level) for size in sizes]
    fitted = [
        item if size >= item.tokens else cut(item, size)._replace(cut=True)
        for item, size in zip(new, sizes, strict=True)
    ]
    return fitted, room - sum([item.tokens for item in fitted])


def _groups(history: Sequence[Item]) -> list[list[Item]]:
    """Messages that stand or fall together: an assistant's tool calls and the results after them.

    A provider refuses a result without its call and a call without its result: either is left out, here and
    nowhere else.
    """
    groups: list[list[Item]] = []
    calling: dict[int, set[str]] = {}  # the calls without a result, by the place of the group that made them
    waiting: set[str] = set()  # those of the newest group
    for item in history:
        if item.wire["role"] == "tool":
            answered = item.wire.get("tool_call_id")
            if isinstance(answered, str) and answered in waiting:
                waiting.discard(answered)
                groups[-1].append(item)
        else:
            waiting = set()
            if "tool_calls" in item.wire:
                waiting = calling[len(groups)] = {call["id"] for call in _calls(item)}
            groups.append([item])
    for place, unanswered in calling.items():
        groups[place] = _answered(groups[place], unanswered)
    return [group for group in groups if group] if calling else groups


def _calls(item: Item) -> list[dict[str, Any]]:
    """The tool calls of a message that a result can name."""
    calls = item.wire.get("tool_calls")
    if not isinstance(calls, list):
        return []
    return [call for call in calls if isinstance(call, dict) and isinstance(call.get("id"), str)]


def _answered(group: list[Item], unanswered: set[str]) -> list[Item]:
    """`group` without the calls that nobody answered; empty when nothing is left of it."""
    first = group[0]
    calls = [call for call in _calls(first) if call["id"] not in unanswered]
    if calls and calls == first.wire["tool_calls"]:
        return group
    wire = {key: value for key, value in first.wire.items() if key != "tool_calls"}
    if calls:
        wire["tool_calls"] = calls
    elif not wire.get("content"):
        return []
    return [Item(wire, first.tokens, first.id), *group[1:]]


def _shorten(group: list[Item], room: int, cut: Cut) -> list[Item]:
    """`group` with its largest message cut so that it fits `room`; nothing when too little of that would be left."""
    largest = max(group, key=lambda item: item.tokens)
    rest = sum([item.tokens for item in group]) - largest.tokens
    if "tool_calls" in largest.wire or room - rest < SMALLEST_CUT + MESSAGE_OVERHEAD:
        return []
    return [cut(item, room - rest)._replace(cut=True) if item is largest else item for item in group]
