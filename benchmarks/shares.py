"""What a sampled profile says: whose code the time went to."""

import sysconfig
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

Frame = tuple[str, str]  # file, function
Stack = tuple[list[Frame], int]  # from the outermost frame on; how often it was seen

_STDLIB = sysconfig.get_path("stdlib") + "/"
_LIBRARIES = tuple(sysconfig.get_path(name) + "/" for name in ("purelib", "platlib"))
_FRAME = {"asyncio", "python", "sampled_api", "uvloop"}
_ROOT = "/entrypoints/api.py"  # at the root of every stack
_OURS = "/src/baatcheet/"


def package(file: str) -> str:
    """Whose a file is: `baatcheet.LAYER`, a library's name, `asyncio`, or `python` for what comes with it."""
    if _OURS in file:
        return f"baatcheet.{file.partition(_OURS)[2].partition('/')[0].removesuffix('.py')}"
    for folder in _LIBRARIES:
        if file.startswith(folder):
            return file.removeprefix(folder).partition("/")[0].removesuffix(".py")
    if file.startswith(_STDLIB):
        return "asyncio" if file.startswith(f"{_STDLIB}asyncio/") else "python"
    return "python" if file.startswith("<") else Path(file).stem


def by_package(stacks: Iterable[Stack]) -> dict[str, float]:
    """The share, in percent, of the code that was running, largest first."""
    return _shares((package(stack[-1][0]), count) for stack, count in stacks if stack)


def by_module(stacks: Iterable[Stack]) -> dict[str, float]:
    """As `by_package`, with what a module of ours calls counted for that module.

    Where none of ours is at work, it counts for the innermost library, asyncio last.
    """
    return _shares((_module(stack), count) for stack, count in stacks if stack)


def by_function(stacks: Iterable[Stack]) -> dict[str, float]:
    """The share of each function of any package, without what it calls."""
    return _shares((f"{package(stack[-1][0])} {stack[-1][1]}", count) for stack, count in stacks if stack)


def under(stacks: Iterable[Stack]) -> dict[str, float]:
    """The share of each function of ours, with everything that it calls. These overlap."""
    found: Counter[str] = Counter()
    total = 0
    for stack, count in stacks:
        total += count
        for name in {f"{package(file)} {function}" for file, function in stack if _OURS in file}:
            found[name] += count
    return {name: 100 * count / total for name, count in found.most_common()}


def _module(stack: Sequence[Frame]) -> str:
    for file, _ in reversed(stack):
        if _OURS in file and not file.endswith(_ROOT):
            return "baatcheet." + file.partition(_OURS)[2].removesuffix(".py").replace("/", ".")
    known = [package(file) for file, _ in stack if not file.endswith(_ROOT)]
    return next((name for name in reversed(known) if name not in _FRAME), "asyncio")


def _shares(counted: Iterable[tuple[str, int]]) -> dict[str, float]:
    found: Counter[str] = Counter()
    for name, count in counted:
        found[name] += count
    total = found.total()
    return {name: 100 * count / total for name, count in found.most_common()}
