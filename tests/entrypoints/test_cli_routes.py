"""`baatcheet routes`, as an operator types it."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from baatcheet.entrypoints.cli import app
from tests.conftest import Caller, RunningServer

Run = Callable[..., Result]
ECHO = "openai/scripted-echo"


@pytest.fixture
def run(
    server: RunningServer,
    environment_of_server: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Run]:
    """Runs a command with the server's settings."""
    monkeypatch.chdir(tmp_path)  # no .env of anybody's
    for name in os.environ:
        if name.startswith("BAATCHEET_"):
            monkeypatch.delenv(name)
    for name, value in environment_of_server.items():
        monkeypatch.setenv(name, value)

    def command(*arguments: str) -> Result:
        # In a thread: a command has an event loop of its own.
        with ThreadPoolExecutor(1) as aside:
            return aside.submit(CliRunner().invoke, app, ["routes", *arguments]).result(60)

    yield command
    command("remove", "typed")


async def test_a_route_is_set_listed_and_removed(run: Run, alice: Caller) -> None:
    done = run(
        "set",
        "typed",
        f"{ECHO}=3",
        "fast=0",
        "--strategy",
        "weighted",
        "--for",
        "vision,chat",
        "--description",
        "Hi",
    )
    assert done.exit_code == 0, done.output
    assert done.stdout == f"typed  weighted  chat,vision  yours  Hi\n  + {ECHO}=3\n  + fast=0\n"
    listed = run("list").stdout
    assert "typed  weighted" in listed
    assert "smart  ordered  chat  built in" in listed
    assert "  - anthropic/" in listed
    assert run("remove", "typed").exit_code == 0
    assert "typed" not in run("list").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("set", "typed", "openai/scripted-echo=many"), "a weight is a number from 0 to 1,000"),
        (("set", "typed", "openai/scripted-echo=" + "9" * 5_000), "a weight is a number"),
        (("set", "Typed", ECHO), "small letters"),
        (("set", "typed", ECHO, "--strategy", "best"), "strategies are: ordered"),
        (("set", "typed", ECHO, "--for", "dance"), "tasks are: chat"),
        (("set", "typed", "typed"), "in a circle: typed → typed"),
        (("set", "typed", "=1"), "names no model"),
        (("set", "typed", *[f"model-{at}" for at in range(33)]), "at most 32 steps"),
        (("remove", "nothing"), "There is no route 'nothing'"),
        (("remove", "fast"), "There is no route 'fast' of yours"),
    ],
)
def test_what_is_mistyped_is_said_in_words(run: Run, arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert words in " ".join(done.output.replace("│", " ").split())
    assert "Traceback" not in done.output
