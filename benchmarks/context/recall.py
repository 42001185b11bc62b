"""Which share of the questions have all their evidence in the prompt, beside a sliding window's."""

from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID

from baatcheet.context.manager import ContextConfig
from benchmarks.context.measuring import prompt_tokens, texts_of
from benchmarks.context.workplace import Workplace
from benchmarks.evidence import (
    CATEGORIES,
    LANGUAGES,
    Conversation,
    Question,
    conversations,
    held,
    sliding_window,
)
from benchmarks.report import Report, progress

BUDGETS = {8_000: 0.95, 4_000: 0.9, 2_000: 0.8}  # tokens, and the share that is wanted
SEED = 7
QUICK_STEP = 4  # of the questions every fourth is asked in a quick run


class Recall:
    """One run over the generated conversations."""

    def __init__(self, place: Workplace, report: Report, *, quick: bool) -> None:
        self._place = place
        self._report = report
        self._quick = quick
        self._held: dict[str, list[bool]] = defaultdict(list)
        self._overflows = 0
        self._sizes: dict[str, None] = {}

    async def run(self) -> None:
        for conversation in conversations(SEED, quick=self._quick):
            progress(f"evidence, {conversation.language}, {conversation.tokens:,} tokens")
            id_ = await self._place.begin()
            await self._place.add(id_, conversation.messages)
            await self._place.compacted(id_)
            for question in conversation.questions[:: QUICK_STEP if self._quick else 1]:
                await self._ask(id_, conversation, question)
        self._tell()

    async def _ask(self, id_: UUID, conversation: Conversation, question: Question) -> None:
        size = f"{round(conversation.tokens / 10_000) * 10}k"
        self._sizes[size] = None
        groups = ("all", size, question.category, question.language)
        manager = self._place.manager()
        for budget in BUDGETS:
            made = await manager.get_context(
                id_, ContextConfig(max_tokens=budget), user_id=self._place.user, message=question.text
            )
            self._overflows += prompt_tokens(made.messages) > budget
            self._note(f"ours.{budget}", groups, whole=held(texts_of(made.messages), question))
            window = sliding_window(conversation, question, budget)
            self._note(f"window.{budget}", groups, whole=held(window, question))
        await manager.settle(id_)

    def _note(self, side: str, groups: Iterable[str], *, whole: bool) -> None:
        for group in groups:
            self._held[f"{side}.{group}"].append(whole)

    def _tell(self) -> None:
        for budget, target in BUDGETS.items():
            self._share(f"evidence.recall@{budget}", f"ours.{budget}.all", target)
            self._share(f"evidence.window@{budget}", f"window.{budget}.all")
        self._report.add("evidence.overflows", self._overflows, "prompts", better="lower", target=0)
        asked = len(self._held[f"ours.{min(BUDGETS)}.all"])
        self._report.add("evidence.questions", asked, "questions", better="higher")
        for group in (*CATEGORIES, *LANGUAGES, *self._sizes):
            for budget in BUDGETS:
                self._share(f"evidence.recall@{budget}.{group}", f"ours.{budget}.{group}")
                self._share(f"evidence.window@{budget}.{group}", f"window.{budget}.{group}")

    def _share(self, name: str, group: str, target: float | None = None) -> None:
        found = self._held.get(group, [])
        value = sum(found) / len(found) if found else None
        self._report.add(name, value, "of questions", better="higher", target=target)
