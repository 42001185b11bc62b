"""Recordings whose words are known, and counting those that were heard wrong."""

import random
import re
import shutil
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av

ESPEAK = shutil.which("espeak-ng")
VOICES = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp")
SPEED = 140  # words a minute

# The first lists of the Harvard sentences (IEEE Recommended Practice for Speech Quality Measurements, 1969).
SENTENCES = (
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "It's easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.",
    "The hogs were fed chopped corn and garbage.",
    "Four hours of steady work faced us.",
    "A large size in stockings is hard to sell.",
    "The boy was there when the sun rose.",
    "A rod is used to catch pink salmon.",
    "The source of the huge river is the clear spring.",
    "Kick the ball straight and follow through.",
    "Help the woman get back to her feet.",
    "A pot of tea helps to pass the evening.",
    "Smoky fires lack flame and heat.",
    "The soft cushion broke the man's fall.",
    "The salt breeze came across from the sea.",
    "The girl at the booth sold fifty bonds.",
)
# What is read in `two_cities.wav` (Charles Dickens, 1859).
DICKENS = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    "it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of "
    "Darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had nothing "
    "before us, we were all going direct to Heaven, we were all going direct the other way. In short, the period was "
    "so far like the present period, that some of its noisiest authorities insisted on its being received, for good "
    "or for evil, in the superlative degree of comparison only."
)


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def wrong_words(said: Sequence[str], heard: Sequence[str]) -> int:
    """Words to replace, leave out or add, to make `said` of `heard`."""
    costs = list(range(len(heard) + 1))
    for row, word in enumerate(said, 1):
        before, costs[0] = costs[0], row
        for column, other in enumerate(heard, 1):
            before, costs[column] = (
                costs[column],
                min(costs[column] + 1, costs[column - 1] + 1, before + (word != other)),
            )
    return costs[-1]


def speak(path: Path, words: str, voice: str) -> Path:
    assert ESPEAK is not None
    subprocess.run([ESPEAK, "-v", voice, "-s", str(SPEED), "-w", str(path), words], check=True, timeout=120)
    return path


def make_long(path: Path, seconds: int) -> None:
    """An MP3 file of that many seconds: two of noise, one of silence, over and over."""
    rate, size = 44_100, 1152
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libmp3lame", rate=rate, layout="mono", format="s16p")
        for number in range(seconds * rate // size):
            loud = number * size // rate % 3 < 2
            frame = av.AudioFrame("s16p", "mono", size)
            frame.planes[0].update(
                random.Random(number % 1000).randbytes(2 * size) if loud else bytes(2 * size)
            )
            frame.sample_rate, frame.pts, frame.time_base = rate, number * size, Fraction(1, rate)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
