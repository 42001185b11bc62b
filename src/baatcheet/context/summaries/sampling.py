"""Looking at a part of texts that are too long to be read whole: both ends, and samples between them."""

from collections.abc import Sequence

from baatcheet.context.summaries.sections import Line

GAP = "\n…\n"
_SAMPLES = 8
_SMALLEST_SAMPLE = 120  # characters
_SMALLEST_LINE = 240  # characters; rather than cut them shorter than that, some lines are passed over


def bounded(lines: Sequence[Line], most: int) -> list[Line]:
    """`lines` of about `most` characters together at most: the longest are sampled, the others stay whole."""
    if sum(len(line.text) for line in lines) > most and len(lines) * _SMALLEST_LINE > most:
        count = max(1, most // _SMALLEST_LINE)
        lines = [lines[at * len(lines) // count] for at in range(count)]
    cap = _cap([len(line.text) for line in lines], most)
    return [line._replace(text=sampled(line.text, cap)) if len(line.text) > cap else line for line in lines]


def _cap(lengths: Sequence[int], most: int) -> int:
    """The length to which the longest must come down for all to take `most`."""
    left = most
    ordered = sorted(lengths)
    for at, length in enumerate(ordered):
        others = len(ordered) - at
        if length * others > left:
            return left // others
        left -= length
    return most


def sampled(text: str, most: int) -> str:
    """Some `most` characters of `text`: a third its head, a third its tail, and samples of what is between."""
    if len(text) <= most:
        return text
    third = max(1, most // 3)
    size = third // _SAMPLES
    middle = len(text) - 2 * third
    count = _SAMPLES if size >= _SMALLEST_SAMPLE else 0
    starts = [third + middle * (2 * at + 1) // (2 * _SAMPLES) - size // 2 for at in range(count)]
    between = [_whole_words(text[start : start + size]) for start in starts]
    return GAP.join([text[:third], *between, text[-third:]])


def _whole_words(text: str) -> str:
    """`text` without the halves of words at its ends."""
    first, last = text.find(" "), text.rfind(" ")
    return text[first + 1 : last] if -1 < first < last else text
