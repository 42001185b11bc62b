"""What a prompt has, by tiktoken's own count and not by the product's; and how busy the machine was with others."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from baatcheet.context import counting
from baatcheet.conversations.wire import stored_form, text_of
from benchmarks.processes import cpu, descendants, machine_seconds


def tokens_of(message: Mapping[str, Any]) -> int:
    """What a message takes of a budget."""
    text, beside = counting.countable(*stored_form(message))
    return len(counting.encode(text)) + beside


def prompt_tokens(messages: Sequence[Mapping[str, Any]], *, beside: int = 0) -> int:
    """What a prompt takes, with what begins the reply; `beside` is what the tools take."""
    return counting.REPLY_PRIMING + beside + sum([tokens_of(message) for message in messages])


def texts_of(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    return [text_of(message.get("content")) for message in messages]


class Noise:
    """How many cores were busy, since it was made, with what is none of the benchmark's."""

    def __init__(self) -> None:
        self._begun, self._elsewhere = time.perf_counter(), _elsewhere()

    def cores(self) -> float:
        return max(0.0, _elsewhere() - self._elsewhere) / (time.perf_counter() - self._begun)


def _elsewhere() -> float:
    return machine_seconds() - cpu(descendants(os.getpid())).total
