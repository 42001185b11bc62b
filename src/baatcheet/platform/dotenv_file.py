"""Reading a `.env` file: every line that can't be read is a problem, and none is repeated."""

import io
from collections.abc import Mapping
from pathlib import Path

from dotenv.parser import Binding, parse_stream


def read_file(path: Path, examples: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What the file at `path` sets, nothing where there is none, and what is wrong with it.

    `examples` has a value for each known variable, to be shown where its own can't be read.
    """
    try:
        path.lstat()
    except OSError:
        return {}, []
    if path.is_dir():
        return {}, [
            f"{path}: is a folder. Remove it, or put a file in its place. Example: GROQ_API_KEY=gsk_..."
        ]
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        return {}, [f"{path}: can't be read ({error.strerror}). Let this user read it: chown, chmod 600."]
    except UnicodeDecodeError as error:
        return {}, [_not_text(path, 1 + error.object.count(b"\n", 0, error.start))]
    if "\0" in text:
        return {}, [_not_text(path, 1 + text.count("\n", 0, text.index("\0")))]
    bindings = list(parse_stream(io.StringIO(text, newline="")))
    values = {one.key: one.value for one in bindings if one.key is not None and one.value is not None}
    # A name alone, without =, is a binding to the parser, and sets nothing.
    broken = [one for one in bindings if one.error or (one.key is not None and one.value is None)]
    return values, [_misread(path, one, examples) for one in broken]


def _not_text(path: Path, line: int) -> str:
    return f"{path}, line {line}: is not UTF-8 text. Save the file as UTF-8, without special quotation marks."


def _misread(path: Path, binding: Binding, examples: Mapping[str, str]) -> str:
    """What is wrong with a line, none of which is repeated: a broken line may be all key."""
    written = binding.original.string
    text = written.lstrip()
    line = binding.original.line + written[: len(written) - len(text)].count("\n")
    name, equals, value = text.removeprefix("export ").partition("=")
    if not equals:
        what = "is not NAME=value"
    elif value.lstrip()[:1] in {"'", '"'}:
        what = "has a quotation mark that is not closed, or something behind the closing one"
    else:
        what = "does not begin with a name and ="
    shown = name.strip() if name.strip() in examples else "GROQ_API_KEY"
    return f"{path}, line {line}: {what}. Example: {shown}={examples[shown]}"
