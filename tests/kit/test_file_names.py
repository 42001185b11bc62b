"""Names of files that strangers gave."""

import unicodedata
from email.message import Message
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.kit.file_names import MAX_BYTES, content_disposition, safe_name
from baatcheet.kit.text import is_invisible, uncontrolled, unstorable

NASTY = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("/\\.:%\x00\x1b\r\n\u202e\u2066\u200c\u200dبردو 👨\u200d👩é"),
    ),
    max_size=400,
)


@given(NASTY)
def test_a_safe_name_is_always_one_short_visible_line_without_folders(text: str) -> None:
    name = safe_name(text)
    assert name
    assert not is_invisible(name)
    assert len(name.encode()) <= MAX_BYTES
    assert uncontrolled(name) is None
    assert unstorable(name) is None
    assert not set(name) & set('/\\<>:"|?*')
    assert all(
        unicodedata.bidirectional(one) not in {"LRO", "RLO", "LRE", "RLE", "PDF", "LRI", "RLI"}
        for one in name
    )
    assert name.strip(" .") == name


@given(NASTY)
def test_a_safe_name_is_its_own_safe_name(text: str) -> None:
    assert safe_name(safe_name(text)) == safe_name(text)


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\Scan 1.png", "Scan 1.png"),
        ("..", "file"),
        ("", "file"),
        ("\u200f\u200e", "file"),
        (".env", "env"),
        ("میری رپورٹ.pdf", "میری رپورٹ.pdf"),
        ("गर्मी‍ की.docx", "गर्मी‍ की.docx"),
        ("invoice\u202egpj.exe", "invoicegpj.exe"),
        ("a\r\nX-Evil: 1.txt", "a X-Evil_ 1.txt"),
        ("nul.txt", "_nul.txt"),
        ("a\x00b.txt", "ab.txt"),
        ("e\u0301.txt", "é.txt"),
    ],
)
def test_known_names_become(given_name: str, kept: str) -> None:
    assert safe_name(given_name) == kept


def test_a_long_name_keeps_its_ending() -> None:
    name = safe_name("ب" * 5000 + ".pdf")
    assert name.endswith("ب.pdf")
    assert len(name.encode()) <= MAX_BYTES


@given(NASTY)
def test_a_download_is_called_by_its_safe_name(text: str) -> None:
    header = content_disposition(text)
    assert header.isascii()
    assert header.isprintable()
    assert unquote(header.partition("filename*=UTF-8''")[2]) == safe_name(text)
    message = Message()
    message["content-disposition"] = header.partition("; filename*")[0]
    assert message.get_content_disposition() == "attachment"
    assert message.get_filename()
