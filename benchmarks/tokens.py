"""Counting tokens: `python -m benchmarks.tokens [--json] [--quick]`.

Speed beside tiktoken's, and beside bpe-openai's and splintr's where these are installed, in alternating rounds of one
run; hostile megabytes; how long the event loop stands still while a million tokens are counted; exactness against
tiktoken over random texts; and how far off an estimate is that has seen twenty replies. One core.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from baatcheet.context import counting, other_vocabularies
from baatcheet.context.tokenizers import Tokenizers
from baatcheet.providers.model import Encoding, ModelCard, OpenAIEncoding
from benchmarks.report import Report, options, progress
from benchmarks.texts import SENTENCES, hostile, mixed, sentences

Count = Callable[[str], int]
MEGABYTE = 1_000_000
SCRIPTS = ("english", "urdu", "hindi", "code")
UNKNOWN: tuple[Encoding, ...] = ("cl100k_base", "llama3", "gemma3", "qwen3")
MODEL = ModelCard("somewhere", "unheard-of", 8_192)
ODD = "\u017f\u212a\ufb05\u1ada\ua7d2\U000323b0\u0301\u200d'/\n\r\t \u3000\x00"


def libraries() -> dict[str, Count]:
    """Who counts o200k_base here."""
    vocabulary = counting.encoding("o200k_base")
    found: dict[str, Count] = {
        "ours": counting.count,
        "tiktoken": lambda text: len(vocabulary.encode_ordinary(text)),
    }
    if find_spec("bpe_openai") is not None:
        found["bpe_openai"] = import_module("bpe_openai._bindings").tokenizer_for_encoding("o200k_base").count
    if find_spec("splintr") is not None:
        splintr = import_module("splintr").Tokenizer.from_pretrained("o200k_base")
        found["splintr"] = lambda text: len(splintr.encode_ordinary(text))
    return found


class Tokens:
    """One run."""

    def __init__(self, report: Report, *, quick: bool) -> None:
        self._report = report
        self._quick = quick
        self._chance = random.Random(7)

    def run(self) -> None:
        counting.warm_up()
        self._speed()
        self._hostile()
        asyncio.run(self._stalls())
        self._exactness()
        self._calibration()

    def _speed(self) -> None:
        progress("speed")
        size = 300_000 if self._quick else MEGABYTE
        counts = libraries()
        texts = {kind: sentences(kind, size, self._chance) for kind in [*SENTENCES, "code"]}
        rates = self._rates(counts, mixed(size, self._chance))
        ours = rates.pop("ours")
        fastest = max(rates.values())
        self._report.add("mixed.ours", ours, "MB/s", better="higher", target=max(10.0, fastest / 2))
        self._report.add("mixed.to_fastest", ours / fastest, "x", better="higher", target=0.5)
        for name, rate in rates.items():
            self._report.add(f"mixed.{name}", rate, "MB/s", better="higher")
        for kind, text in texts.items():
            for name, rate in self._rates(counts, text).items():
                self._report.add(f"{kind}.{name}", rate, "MB/s", better="higher")

    def _rates(self, counts: dict[str, Count], text: str) -> dict[str, float]:
        """Megabytes a second, of the best round of each."""
        best = dict.fromkeys(counts, float("inf"))
        for _ in range(3 if self._quick else 7):
            for name, count in counts.items():
                best[name] = min(best[name], _seconds(count, text))
        size = len(text.encode()) / MEGABYTE
        return {name: size / seconds for name, seconds in best.items()}

    def _hostile(self) -> None:
        progress("hostile megabytes")
        for name, text in hostile(MEGABYTE).items():
            self._report.add(f"hostile.{name}", _seconds(counting.count, text), "s", better="lower", target=1)

    async def _stalls(self) -> None:
        progress("stalls")
        text = mixed(5 * MEGABYTE // 2, self._chance)
        while (tokens := await counting.count_aside(text)) < MEGABYTE:
            text += text[: max(1, len(text) * (MEGABYTE - tokens) // tokens + 10_000)]
        stalls: list[float] = []

        async def beat() -> None:
            while True:
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                stalls.append(time.perf_counter() - before - 0.001)

        beating = asyncio.create_task(beat())
        began = time.perf_counter()
        rounds = 5 if self._quick else 20
        for _ in range(rounds):
            await counting.count_aside(text)
        took = (time.perf_counter() - began) / rounds
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating
        stalls.sort()
        self._report.add("million_tokens.seconds", took, "s", better="lower")
        worst = 1000 * stalls[int(len(stalls) * 0.99)]
        self._report.add("million_tokens.stall.p99", worst, "ms", better="lower", target=50)
        self._report.add("million_tokens.stall.max", 1000 * stalls[-1], "ms", better="lower")

    def _exactness(self) -> None:
        progress("exactness")
        texts = 5_000 if self._quick else 50_000
        names: Sequence[OpenAIEncoding] = ("o200k_base", "cl100k_base")
        for name in names:
            vocabulary = counting.encoding(name)
            wrong = sum(
                counting.count(text, name) != len(vocabulary.encode_ordinary(text))
                for text in (self._random_text() for _ in range(texts))
            )
            self._report.add(f"mismatches.{name}", wrong, f"of {texts}", better="lower", target=0)

    def _random_text(self) -> str:
        chance = self._chance
        parts = []
        for _ in range(chance.randint(1, 12)):
            kind = chance.randrange(4)
            if kind == 0:
                parts.append(
                    chance.choice(SENTENCES[chance.choice(list(SENTENCES))])[: chance.randint(1, 60)]
                )
            elif kind == 1:
                parts.append("".join(chance.choices(ODD + "sSlLdtmaZ0", k=chance.randint(1, 9))))
            elif kind == 2:
                parts.append(chance.choice(ODD) * chance.randint(1, 200))
            else:
                points = [chance.choice((chance.randrange(0xD800), chance.randrange(0xE000, 0x110000)))]
                parts.append("".join(map(chr, points * chance.randint(1, 3))))
        return "".join(parts)

    def _calibration(self) -> None:
        progress("calibration")
        several = 3 if self._quick else 8
        for vocabulary in UNKNOWN if other_vocabularies.INSTALLED else UNKNOWN[:1]:
            for script in SCRIPTS:
                alone = [self._taught(script, vocabulary) for _ in range(several)]
                self._add_error(f"{vocabulary}.{script}", alone, script, vocabulary)
            mixing = [self._taught("mixed", vocabulary) for _ in range(several)]
            for script in (*SCRIPTS, "mixed"):
                self._add_error(f"{vocabulary}.{script}_after_mixed", mixing, script, vocabulary)

    def _add_error(self, name: str, taught: Sequence[Tokenizers], script: str, vocabulary: Encoding) -> None:
        errors = []
        for tokenizers in taught:
            tokenizer = tokenizers.of(MODEL)
            for _ in range(15):
                prompt = self._prompt(script)
                tokens = tokenizer.priming + sum(tokenizer.message(one["content"], None) for one in prompt)
                errors.append(100 * abs(tokens / _by_provider(prompt, vocabulary) - 1))
        self._report.add(f"calibration.{name}", statistics.mean(errors), "%", better="lower", target=5)

    def _taught(self, script: str, vocabulary: Encoding) -> Tokenizers:
        tokenizers = Tokenizers()
        for _ in range(20):
            prompt = self._prompt(script)
            tokenizers.learn(MODEL, prompt, [], _by_provider(prompt, vocabulary))
        return tokenizers

    def _prompt(self, script: str) -> list[dict[str, Any]]:
        chance = self._chance
        kinds = [chance.choice(SCRIPTS) if script == "mixed" else script for _ in range(chance.randint(1, 8))]
        return [
            {"role": "user", "content": sentences(kind, chance.randint(60, 1_500), chance)} for kind in kinds
        ]


def _by_provider(prompt: Sequence[dict[str, Any]], vocabulary: Encoding) -> int:
    """What a provider with this vocabulary would report, its chat format included."""
    return 20 + sum(5 + counting.count(message["content"], vocabulary) for message in prompt)


def _seconds(count: Count, text: str) -> float:
    began = time.perf_counter()
    count(text)
    return time.perf_counter() - began


def main() -> None:
    asked = options("tokens", "How fast and how right tokens are counted.")
    report = Report("tokens")
    Tokens(report, quick=asked.quick).run()
    report.show(asked)


if __name__ == "__main__":
    main()
