"""Choosing what goes into the window: pure, no I/O.

Laid out so that a provider's prompt cache keeps hitting: the system prompt, the summary of what was pruned, the recent
messages, excerpts of older ones, the new messages. Invariants, for any history and any budget that holds the system
prompt: the plan's tokens are within the budget; the system prompt and the newest message are in it; order is kept; a
tool call and its results stay together. A message that is larger than what is left for it is cut in its middle, with
a marker.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from baatcheet.context.counting import MESSAGE_OVERHEAD, REPLY_PRIMING

SMALLEST_CUT = 64  # tokens: less of a message than this says nothing
KEEP = 20  # the newest messages that stay word for word whenever they fit

# Shares of the room that is left beside the system prompt, the tools and the new messages.
SUMMARY_MOST = 0.125
RECALL_LEAST = 0.125  # what the newest messages leave to the older ones that the question is about
RECALL_TIGHT = 0.6  # the same, when not even the newest `KEEP` messages fit beside that
RECALL_MOST = 0.9


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
    depth: int = 0  # messages above it on its branch


class Summary(NamedTuple):
    """The rolling summary as a message, and how far it reaches."""

    item: Item
    last: int  # depth of the last message that it covers
    made_by: str = ""


class Recalled(NamedTuple):
    """Excerpts of older messages, as one message."""

    item: Item
    ids: tuple[UUID, ...]  # the messages that they are from, in their order …
    depths: tuple[int, ...]  # … and where these stand


Cut = Callable[[Item, int], Item]
"""Shortens a message to at most so many tokens, by leaving out its middle."""

Recall = Callable[[int, int], Recalled | None]
"""Excerpts in at most so many tokens, of messages above the given depth."""


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
    priming: int = REPLY_PRIMING
    chosen: tuple[Item, ...] = ()  # recent and new, in their order
    left_out: int = 0  # messages of the branch that are in no part of the plan
    summary: Summary | None = None
    recalled: Recalled | None = None

    @property
    def room(self) -> int:
        """Tokens that the system prompt and the tools leave."""
        return self.budget - self.system_tokens - self.tool_tokens - self.priming

    def receipt(self, *, tokenizer: str, exact: bool) -> dict[str, Any]:
        """The turn's account, as stored and shown."""
        return {
            "budget": self.budget,
            "tokens": self.tokens,
            "parts": {
                "system": self.system_tokens,
                "format": self.priming - REPLY_PRIMING,
                "tools": self.tool_tokens,
                "summary": self.summary.item.tokens if self.summary else 0,
                "recent": self.recent_tokens,
                "recalled": self.recalled.item.tokens if self.recalled else 0,
                "new": self.new_tokens,
            },
            "tokenizer": tokenizer,
            "exact": exact,
            "whole": [item.id for item in self.chosen if not item.cut],
            "cut": [item.id for item in self.chosen if item.cut],
            "summarised": self.summary.last + 1 if self.summary else 0,
            "summary_by": self.summary.made_by if self.summary else None,
            "recalled": list(self.recalled.ids) if self.recalled else [],
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
    summary: Summary | None = None,
    recall: Recall | None = None,
    keep: int = KEEP,
    priming: int = REPLY_PRIMING,
    system_room: int = 0,
) -> Plan:
    """Fit a turn into `budget`: `system`, `new` and, of what came before, as much as goes in.

    `history` (oldest first) is what comes after `summary`, or the end of it; the depth of its first item says what it
    lacks. `max_messages` bounds recent and new messages together; the last `keep` of the history stay word for word
    whenever they fit. `system_room` is kept for a system prompt that is larger than `system`. `recall` is asked once,
    if anything is left out of those, and not for nothing. Without `new`: what there would be beside it.

    Raises ContextTooSmall when the system prompt and the tools leave no room for the newest message, OrphanToolResult
    when a new tool result answers no call at the end of `history`.
    """
    above = history[-1].depth + 1 if history else summary.last + 1 if summary else 0
    history, new = _with_their_call(history, new)
    system_tokens = max(system.tokens if system else 0, system_room)
    fixed = system_tokens + tool_tokens + priming
    room = budget - fixed
    least = min(new[-1].tokens if new else 0, SMALLEST_CUT)
    if room < least:
        raise ContextTooSmall(fixed + least, budget)
    kept_new, room = _fit_new(new, room, cut)
    if room < 0:  # what can't be cut, such as a tool call's arguments, is more than there is room for
        raise ContextTooSmall(budget - room, budget)
    groups = _groups(history)
    places = max_messages - len(kept_new)
    recalled = None
    if summary is None and (not history or history[0].depth == 0) and _all_fits(groups, room, places):
        recent = [item for group in groups for item in group]
    else:
        after = summary.last + 1 if summary else 0
        summary = _fit_summary(summary, int(room * SUMMARY_MOST), cut)
        room -= summary.item.tokens if summary else 0
        recent = _recent(groups, room, places, keep=keep, recalls=recall is not None, cut=cut, after=after)
        left = room - sum([item.tokens for item in recent])
        before = min([item.depth for item in (*recent, *kept_new)], default=above)
        if recall is not None and before > 0 and left > SMALLEST_CUT:
            recalled = recall(min(left, int(room * RECALL_MOST)), before)
    chosen = (*recent, *kept_new)
    recent_tokens = sum([item.tokens for item in recent])
    new_tokens = sum([item.tokens for item in kept_new])
    beside = [part.item for part in (summary, recalled) if part is not None]
    return Plan(
        messages=_laid_out(system, summary, recent, recalled, kept_new),
        tokens=fixed + recent_tokens + new_tokens + sum([item.tokens for item in beside]),
        budget=budget,
        system_tokens=system_tokens,
        tool_tokens=tool_tokens,
        recent_tokens=recent_tokens,
        new_tokens=new_tokens,
        priming=priming,
        chosen=chosen,
        left_out=_left_out(above, recent, summary, recalled, kept_new),
        summary=summary,
        recalled=recalled,
    )


def _laid_out(
    system: Item | None,
    summary: Summary | None,
    recent: Sequence[Item],
    recalled: Recalled | None,
    new: Sequence[Item],
) -> tuple[dict[str, Any], ...]:
    """The parts in their order: what changes least comes first."""
    first = [item.wire for item in (system, summary.item if summary else None) if item is not None]
    excerpts = [recalled.item.wire] if recalled else []
    return (*first, *[item.wire for item in recent], *excerpts, *[item.wire for item in new])


def _left_out(
    above: int,
    recent: Sequence[Item],
    summary: Summary | None,
    recalled: Recalled | None,
    new: Sequence[Item],
) -> int:
    """How many of the `above` messages before the new ones are in no part."""
    known = summary.last + 1 if summary else 0
    carried = {item.depth for item in (*recent, *new)} | set(recalled.depths if recalled else ())
    return max(0, above - known - len([depth for depth in carried if known <= depth < above]))


def _fit_summary(summary: Summary | None, room: int, cut: Cut) -> Summary | None:
    """`summary` in at most `room` tokens; None when too little of it would be left."""
    if summary is None or summary.item.tokens <= room:
        return summary
    return summary._replace(item=cut(summary.item, room)) if room >= SMALLEST_CUT else None


def _all_fits(groups: Sequence[Sequence[Item]], room: int, places: int) -> bool:
    return _length(groups) <= places and _size(groups) <= room


def _recent(
    groups: Sequence[list[Item]],
    room: int,
    places: int,
    *,
    keep: int,
    recalls: bool,
    cut: Cut,
    after: int,
) -> list[Item]:
    """The end of the history, word for word.

    The newest `keep` messages leave little to what is recalled; where they don't fit beside even that, they share.
    What the summary covers, above depth `after`, is there only to make the newest `keep` whole.
    """
    newest = _end_of(groups, places=min(keep, places))
    limit = room
    if recalls:
        least = int(room * RECALL_LEAST)
        limit = room - (least if _size(newest) <= room - least else int(room * RECALL_TIGHT))
    uncovered = [group for group in groups if group[-1].depth >= after]
    groups = newest if len(newest) > len(uncovered) and _size(newest) <= limit else uncovered
    chosen = _end_of(groups, places=places, room=limit)
    if len(chosen) < len(groups) and not (recalls and chosen):
        first = groups[len(groups) - len(chosen) - 1]
        if _length(chosen) + len(first) <= places and (
            shortened := _shorten(first, limit - _size(chosen), cut)
        ):
            chosen.insert(0, shortened)
    return [item for group in chosen for item in group]


def _end_of(groups: Sequence[list[Item]], *, places: int, room: int | None = None) -> list[list[Item]]:
    """As many of the newest groups as go into `room` tokens and `places` messages."""
    at = len(groups)
    while at > 0:
        group = groups[at - 1]
        size = _size([group])
        if len(group) > places or (room is not None and size > room):
            break
        at -= 1
        places -= len(group)
        room = room - size if room is not None else None
    return list(groups[at:])


def _length(groups: Sequence[Sequence[Item]]) -> int:
    return sum([len(group) for group in groups])


def _size(groups: Sequence[Sequence[Item]]) -> int:
    return sum([item.tokens for group in groups for item in group])


def _with_their_call(history: Sequence[Item], new: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item]]:
    """Tool results that are new bring the call that they answer, which history's end holds, into what must go in."""
    if not new or new[0].wire["role"] != "tool":
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
        item if size >= item.tokens else _shortened(item, size, cut)
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
    return [first._replace(wire=wire), *group[1:]]


def _shorten(group: list[Item], room: int, cut: Cut) -> list[Item]:
    """`group` with its large messages cut so that it fits `room`; nothing when too little of them would be left."""
    calls = [item for item in group if "tool_calls" in item.wire]
    others = [item for item in group if "tool_calls" not in item.wire]
    left = room - sum([item.tokens for item in calls])
    least = sum([min(item.tokens, SMALLEST_CUT + MESSAGE_OVERHEAD) for item in others])
    if not others or left < least:
        return []
    fitted, over = _fit_new(others, left, cut)
    return [*calls, *fitted] if over >= 0 else []


def _shortened(item: Item, tokens: int, cut: Cut) -> Item:
    return cut(item, tokens)._replace(id=item.id, cut=True, depth=item.depth)
