"""Every script as its readers write it: letters joined, lines from right to left, conjuncts, several in one line."""

# ruff: noqa: RUF001 - several scripts, each meant

import itertools
import unicodedata

import pytest
from PIL import Image, ImageChops

from tests.exports.pdf.making import Book, Letter, Publisher, squeezed

URDU = "پاکستان کی قومی زبان اردو ہے۔"
# The letters of "ببب" and so on in the forms that they take side by side, as characters of their own.
JOINED = {
    "ببب": "\ufe91\ufe92\ufe90",
    "سلام": "\ufeb3\ufefc\ufee1",
    "عين": "\ufecb\ufef4\ufee6",
    "كتب": "\ufedb\ufe98\ufe90",
}


def _line(book: Book, word: str, page: int = 2) -> list[Letter]:
    """The letters of `word`, in the order in which they are said."""
    letters = book.letters(page)
    text = "".join(one.text for one in letters)
    at = text.index(word)
    return letters[at : at + len(word)]


def _ink(book: Book, page: int = 2) -> Image.Image:
    """The picture of what is said on a page with one message: what is dark in its panel, closely cut."""
    letters = [one for one in book.letters(page) if _is_arabic(one.text)]
    scale = 6.0
    picture = book.picture(page, scale)
    top = picture.height - scale * (max(one.top for one in letters) + 5)
    bottom = picture.height - scale * (min(one.bottom for one in letters) - 5)
    left, right = (
        (min(one.left for one in letters) - 4) * scale,
        (max(one.right for one in letters) + 4) * scale,
    )
    cut = picture.crop((int(left), int(top), int(right), int(bottom))).point(
        lambda value: 255 if value < 150 else 0
    )
    box = cut.getbbox()
    assert box is not None
    return cut.crop(box)


def _is_arabic(one: str) -> bool:
    return len(one) == 1 and unicodedata.bidirectional(one) in {"AL", "R"}


def _difference(one: Image.Image, other: Image.Image) -> float:
    """The share of the ink that two pictures don't have in common, where they are laid over each other best."""
    size = (max(one.width, other.width) + 2, max(one.height, other.height) + 2)
    fixed = Image.new("L", size)
    fixed.paste(one, (1, 1))
    changed = []
    for x, y in itertools.product(range(3), repeat=2):
        laid = Image.new("L", size)
        laid.paste(other, (x, y))
        changed.append(sum(ImageChops.difference(fixed, laid).histogram()[128:]))
    return min(changed) / sum(one.histogram()[128:])


@pytest.mark.parametrize("word", JOINED)
def test_arabic_letters_are_joined(bare_publisher: Publisher, word: str) -> None:
    said = _ink(bare_publisher.publish(word))
    joined = _ink(bare_publisher.publish(JOINED[word]))
    apart = _ink(bare_publisher.publish("\u200c".join(word)))

    assert _difference(said, joined) < 0.1
    assert _difference(said, apart) > 0.3
    assert said.width < apart.width


def test_urdu_runs_from_right_to_left(publisher: Publisher) -> None:
    book = publisher.publish(URDU)

    places = [one.left for one in _line(book, "پاکستان")]
    assert all(after < before for before, after in itertools.pairwise(places))
    words = [min(one.left for one in _line(book, word)) for word in URDU.removesuffix("۔").split()]
    assert words == sorted(words, reverse=True)
    # It begins at the right margin, inside the panel of the user's messages.
    assert max(one.right for one in _line(book, "پاکستان")) > 520


def test_urdu_extracts_word_by_word(publisher: Publisher) -> None:
    text = "اٹآباد جھیل کہاں ہے؟ گوجال، وادی ہنزہ میں۔ ڈاکٹر نے ٹھیک بتایا: چھوٹے بچوں کو گھر لے جاؤ"

    said = publisher.publish(text).said

    for word in text.split():
        assert word in said


def test_hindi_conjuncts_are_formed(bare_publisher: Publisher) -> None:
    """क्ष is one glyph, narrower than its letters with the sign that parts them."""
    book = bare_publisher.publish("क्षत्रिय")
    apart = bare_publisher.publish("क्\u200cषत्\u200cरिय")

    def reach(shown: Book) -> float:
        letters = [
            one for one in shown.letters(2) if "\u0900" <= one.text <= "\u097f" and one.right > one.left
        ]
        return max(one.right for one in letters) - min(one.left for one in letters)

    assert "क्षत्रिय" in book.said
    assert reach(book) < 0.85 * reach(apart)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("English first, پھر اردو", False),
        ("اردو پہلے, then English", True),
        ("123 پہلے", True),
        ("`code` اردو میں", True),
        ("https://example.com is an address", False),
        ("**اہم** point", True),
        ("(قوس)", True),
        ("\u2067English in an isolate\u2069 اردو", True),
        ("عربي أولا", True),
        ("עברית", True),
        ("中文 اردو", False),
    ],
)
def test_a_paragraph_has_the_direction_of_its_first_strong_letter(
    publisher: Publisher, text: str, right: bool
) -> None:
    book = publisher.publish("x", text)

    line = [one for one in book.letters(2) if one.text.strip() and one.right > one.left]
    number = next(at for at, one in enumerate(line) if one.text == "#" and line[at + 1].text == "2")
    reach = [one for one in line[number + 2 :] if not one.text.isspace() and one.bottom > 100]
    at_right = max(one.right for one in reach) > 530
    at_left = min(one.left for one in reach) < 62
    assert (at_right, at_left) == (right, not right)


def test_each_paragraph_of_a_message_has_its_own(publisher: Publisher) -> None:
    book = publisher.publish("x", "English here.\n\nیہاں اردو ہے\n\n1984")

    assert min(one.left for one in _line(book, "English")) < 62
    assert max(one.right for one in _line(book, "یہاں")) > 530
    assert min(one.left for one in _line(book, "1984")) < 62


def test_what_has_no_letters_follows_its_message(publisher: Publisher) -> None:
    book = publisher.publish("x", "یہاں اردو ہے\n\n1984")

    assert max(one.right for one in _line(book, "1984")) > 530


def test_markers_of_lists_stand_where_the_lines_begin(publisher: Publisher) -> None:
    book = publisher.publish("x", "- پہلا\n- دوسرا English\n\n1. ایک\n2. دو\n\n- first\n- second")

    bullets = sorted(one.left for one in book.letters(2) if one.text == "•")
    assert [place > 500 for place in bullets] == [False, False, True, True]
    assert _line(book, "پہلا")[0].right < bullets[-1]
    urdu = _line(book, "ایک")[0]
    number = next(one for one in book.letters(2) if one.text == "1" and abs(one.bottom - urdu.bottom) < 6)
    assert number.left > urdu.right


def test_the_columns_of_an_urdu_table_run_from_right_to_left(publisher: Publisher) -> None:
    book = publisher.publish("x", "| نام | شہر |\n|---|---|\n| صبا | لاہور |")
    latin = publisher.publish("x", "| name | city |\n|---|---|\n| Saba | Lahore |")

    assert _line(book, "نام")[0].left > _line(book, "شہر")[0].left
    assert max(one.right for one in _line(book, "نام")) > 530
    assert _line(latin, "name")[0].left < _line(latin, "city")[0].left


def test_the_bar_of_an_urdu_quote_stands_at_the_right(publisher: Publisher) -> None:
    def bar(book: Book, word: str) -> list[int]:
        """Where on the line of `word` it is grey, from edge to edge."""
        letters = _line(book, word)
        picture = book.picture(2, 2.0)
        y = int(picture.height - 2 * (letters[0].bottom + letters[0].top) / 2)
        words = range(
            int(2 * min(one.left for one in letters)) - 4, int(2 * max(one.right for one in letters)) + 4
        )
        return [x // 2 for x in range(picture.width) if x not in words and picture.getpixel((x, y)) != 255]

    assert set(bar(publisher.publish("x", "> quoted"), "quoted")) <= {55, 56, 57, 58}
    assert set(bar(publisher.publish("x", "> اقتباس"), "اقتباس")) <= {536, 537, 538, 539, 540}


def test_code_in_urdu_reads_from_left_to_right(publisher: Publisher) -> None:
    book = publisher.publish("اس کے لیے `install --user (x)` لکھیں")

    places = [one.left for one in _line(book, "install")]
    assert places == sorted(places)
    height = _line(book, "install")[0].bottom
    code = [one for one in book.letters(2) if one.text in "install--user(x)" and abs(one.bottom - height) < 3]
    in_order = "".join(one.text for one in sorted(code, key=lambda one: one.left))
    assert (
        in_order.replace("(", ")") == "install--user)x)"
    )  # pdfium turns one bracket with the line around it


def test_an_address_in_urdu_reads_from_left_to_right(publisher: Publisher) -> None:
    book = publisher.publish("دیکھیں https://example.com/a/b?c=(d)/ اور پڑھیں")

    letters = book.letters(2)
    start = min((one for one in letters if one.text == "h" and one.bottom < 720), key=lambda one: one.left)
    slashes = [one.left for one in letters if one.text == "/"]
    assert len(slashes) == 5
    assert all(place > start.left for place in slashes)


def test_many_scripts_stand_in_one_line(publisher: Publisher) -> None:
    words = [
        "English",
        "اردو",
        "हिन्दी",
        "日本語",
        "한국어",
        "中文",
        "русский",
        "ελληνικά",
        "ไทย",
        "বাংলা",
        "தமிழ்",
        "😀",
        "👩‍👩‍👧",
    ]

    book = publisher.publish(" ".join(words))

    said = squeezed(book.said)
    for word in words:
        assert word in said
    height = _line(book, "English")[0].bottom
    line = [one for one in book.letters(2) if abs(one.bottom - height) < 8]
    assert len({one.text for one in line}) > 40


def test_a_machine_without_fonts_has_what_most_need(bare_publisher: Publisher) -> None:
    book = bare_publisher.publish(
        "English, русский, ελληνικά, اردو، हिन्दी, বাংলা, ਪੰਜਾਬੀ, தமிழ், עברית, ไทย ✓ → ∀x∈ℝ ≤ 😀 ✅ 👍🏽 ☐ ─ ┃"
    )

    assert not book.rendered.notes


def test_what_no_font_has_is_told(bare_publisher: Publisher, publisher: Publisher) -> None:
    book = bare_publisher.publish("Here is 中文 and more")

    assert any(
        "Chinese, Japanese and Korean" in note and "fonts-noto-cjk" in note for note in book.rendered.notes
    )
    assert "fonts-noto-cjk" in book.page(1)
    assert "Here is" in book.said
    assert not publisher.publish("Here is plain English").rendered.notes


def test_characters_that_no_font_has_are_told_by_number(publisher: Publisher) -> None:
    assert any(
        "1 character (U+3FFF0), shown as empty" in note
        for note in publisher.publish("a \U0003fff0 b").rendered.notes
    )


def test_nastaliq_is_told_of_where_there_is_none(bare_publisher: Publisher) -> None:
    book = bare_publisher.publish(URDU, urdu="nastaliq")

    assert any("Nastaliq" in note for note in book.rendered.notes)
    assert "پاکستان" in book.said


def test_nastaliq_slopes_down_to_the_left(publisher: Publisher) -> None:
    naskh, nastaliq = publisher.publish("محبت"), publisher.publish("محبت کہاں ہے", urdu="nastaliq")
    if any("Nastaliq" in note for note in nastaliq.rendered.notes):
        pytest.skip("there is no Nastaliq font here")

    assert "NastaliqUrdu" in nastaliq.path.read_bytes().decode("latin-1") or _heights(nastaliq) > _heights(
        naskh
    )


def _heights(book: Book) -> float:
    letters = [one for one in book.letters(2) if _is_arabic(one.text) and one.right > one.left]
    return max(one.top for one in letters) - min(one.bottom for one in letters)
