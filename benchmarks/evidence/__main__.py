"""How hard the questions are: `python -m benchmarks.evidence [--json] [--quick]`.

The generator's own statistics, and the share of questions whose evidence is whole in the prompt of two references:
a sliding window, and the last 20 messages with a plain BM25.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable

from benchmarks.evidence.baseline import RECENT, Lexical
from benchmarks.evidence.generating import conversations
from benchmarks.evidence.model import CATEGORIES, LANGUAGES, Conversation
from benchmarks.evidence.scoring import held, sliding_window
from benchmarks.evidence.writer import tokens
from benchmarks.report import Report, options, progress

BUDGETS = (8_000, 4_000, 2_000)
LONG = 25_000  # tokens, from which a window of 8,000 holds little
SEED = 7


class Shares:
    """Which share of the questions of each group had their evidence in the prompt."""

    def __init__(self) -> None:
        self._held: dict[str, list[bool]] = defaultdict(list)

    def add(self, groups: Iterable[str], *, whole: bool) -> None:
        for group in groups:
            self._held[group].append(whole)

    def report(self, report: Report, groups: Iterable[str]) -> None:
        for group in groups:
            if found := self._held.get(group):
                report.add(group, 100 * sum(found) / len(found), "%", better="higher")


def main() -> None:
    chosen = options("evidence", "Which share of the evidence two simple contexts hold.")
    report, shares, made = Report("evidence"), Shares(), list[Conversation]()
    for conversation in conversations(SEED, quick=chosen.quick):
        progress(f"{conversation.language}, {conversation.tokens:,} tokens")
        made.append(conversation)
        _measure(conversation, shares)
    _statistics(report, made)
    sizes = sorted({_size(conversation) for conversation in made}, key=lambda size: int(size[:-1]))
    for budget in BUDGETS:
        for kind in ("window", "bm25"):
            names = ("all", "long", *sizes, *CATEGORIES, *LANGUAGES)
            shares.report(report, [f"{kind}.{budget}.{name}" for name in names])
    report.show(chosen)


def _measure(conversation: Conversation, shares: Shares) -> None:
    lexical = Lexical(conversation)
    for question in conversation.questions:
        names = ["all", _size(conversation), question.category, question.language]
        if conversation.tokens >= LONG:
            names.append("long")
        for budget in BUDGETS:
            prompts = {
                "window": sliding_window(conversation, question, budget),
                "bm25": lexical.prompt(question, budget),
            }
            for kind, texts in prompts.items():
                shares.add([f"{kind}.{budget}.{name}" for name in names], whole=held(texts, question))


def _statistics(report: Report, made: list[Conversation]) -> None:
    questions = [question for conversation in made for question in conversation.questions]
    sizes = [tokens(message.text) for conversation in made for message in conversation.messages]
    counts = {
        "conversations": len(made),
        "questions": len(questions),
        "questions.texts": len({question.text for question in questions}),
        "tokens": sum(conversation.tokens for conversation in made),
        "messages": len(sizes),
        "messages.tokens.p50": statistics.median(sizes),
        "messages.tokens.p95": statistics.quantiles(sizes, n=20)[-1],
        "messages.tokens.max": max(sizes),
        "messages.texts": len({message.text for one in made for message in one.messages}),
        "evidence.in_last_20": sum(
            index >= len(one.messages) - RECENT
            for one in made
            for question in one.questions
            for index, _ in question.evidence
        ),
    }
    counts |= {f"questions.{name}": sum(one.category == name for one in questions) for name in CATEGORIES}
    counts |= {f"questions.{name}": sum(one.language == name for one in questions) for name in LANGUAGES}
    for name, value in counts.items():
        report.add(name, value, "", better="higher")


def _size(conversation: Conversation) -> str:
    return f"{round(conversation.tokens / 10_000) * 10}k"


if __name__ == "__main__":
    main()
