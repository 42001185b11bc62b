"""What the benchmark has done in a sandbox."""

import msgspec

from baatcheet.jobs.isolation_frames import Report


class Word(msgspec.Struct, frozen=True):
    text: str


def echo(word: Word, report: Report) -> Word:
    """Nothing else: what is measured is the way there and back."""
    return word
