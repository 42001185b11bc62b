"""Telling languages by their letters, and putting a page straight: what needs no engine."""

import math

import pytest
from benchmarks.ocr.pages import FONTS, TEXTS, Sheet, draw, grainy, sheets, turned
from benchmarks.ocr.scoring import distance, right
from benchmarks.texts import SENTENCES
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from baatcheet.attachments.ocr.languages import language_of, letters, script_of
from baatcheet.attachments.ocr.preparing import View, clean, lies, noise_of

CODES = {"english": "en", "urdu": "ur", "hindi": "hi"}


@pytest.mark.parametrize("kind", CODES)
def test_a_text_is_told_by_its_letters_and_commonest_words(kind: str) -> None:
    assert language_of(" ".join(SENTENCES[kind])) == CODES[kind]


def test_arabic_is_told_from_urdu_and_neither_from_persian() -> None:
    assert language_of(TEXTS["ara"][0]) == "ar"
    assert language_of(TEXTS["urd"][0]) == "ur"
    assert language_of("دوست من به خانه رفت و نان خرید") is None
    assert language_of("Der Hund schläft unter dem Tisch und träumt von Knochen") is None
    assert language_of("12 345, 67%") is None


@given(st.text())
def test_any_text_has_a_language_or_none(text: str) -> None:
    assert language_of(text) in {"en", "ur", "ar", "hi", None}
    assert sum(letters(text).values()) <= len(text)
    assert script_of(text) in {"Latin", "Arabic", "Devanagari", None}


@given(
    st.integers(20, 60),
    st.integers(20, 60),
    st.lists(st.sampled_from(["90", "180", "270", "scale", "lean", "border"]), max_size=5),
    st.floats(-15, 15),
    st.floats(0.5, 3),
)
def test_a_view_knows_where_on_the_page_its_pixels_were(
    width: int, height: int, steps: list[str], lean: float, factor: float
) -> None:
    page = Image.new("L", (width, height), 255)
    spot = (width // 2, height // 2)
    view = View(page)
    # The same steps by the rules of geometry: the spot, followed through each of them.
    x, y = spot[0] + 0.5, spot[1] + 0.5
    for step in steps:
        before = view.image.size
        match step:
            case "scale":
                view = view.scaled(factor)
                x, y = x * view.image.width / before[0], y * view.image.height / before[1]
            case "lean":
                view = view.straightened(lean)
                s, c = math.sin(math.radians(lean)), math.cos(math.radians(lean))
                dx, dy = x - before[0] / 2, y - before[1] / 2
                x, y = c * dx + s * dy + view.image.width / 2, -s * dx + c * dy + view.image.height / 2
            case "border":
                view = view.bordered(7)
                x, y = x + 7, y + 7
            case quarter:
                view = view.quartered(int(quarter))
                for _ in range(int(quarter) // 90):  # each counter-clockwise
                    x, y, before = y, before[0] - x, (before[1], before[0])
    a, b, c0, d, e, f = view.place
    assert (a * x + b * y + c0, d * x + e * y + f) == pytest.approx((spot[0] + 0.5, spot[1] + 0.5), abs=1e-6)


@pytest.mark.parametrize("degrees", [0, 2.5, -6, 90, 93])
@pytest.mark.parametrize("language", ["eng", "hin"])
def test_how_lines_run_is_seen(language: str, degrees: float) -> None:
    page = turned(degrees)(draw(TEXTS[language][0], next(sheets(language))))
    lie = lies(clean(page))[0]
    assert lie.quarter == (90 if degrees >= 45 else 0)
    assert lie.lean == pytest.approx(degrees - lie.quarter, abs=0.5)


def test_noise_is_measured_in_grey_levels() -> None:
    page = draw(TEXTS["eng"][0], Sheet(font=FONTS["eng"][0], ink=60, paper=150))
    assert noise_of(page) < 1
    assert noise_of(grainy(15)(page)) == pytest.approx(15, rel=0.25)


@given(st.text(alphabet="abc ", max_size=30), st.text(alphabet="abc ", max_size=30))
def test_the_distance_is_levenshteins(one: str, other: str) -> None:
    row = list(range(len(other) + 1))
    for at, left in enumerate(one, 1):
        before, row[0] = row[0], at
        for to, wanted in enumerate(other, 1):
            before, row[to] = row[to], min(row[to] + 1, row[to - 1] + 1, before + (left != wanted))
    assert distance(one, other) == row[-1]
    assert right(one, one) == 1
