"""`baatcheet keys`, as an operator types it, on an encrypted file and a database of the test's own."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from baatcheet.entrypoints.cli import app
from baatcheet.keys.secret import SecretKey
from baatcheet.platform.database import connect
from tests.conftest import database_on
from tests.scripted_provider import ScriptedProvider

Run = Callable[..., Result]

OLD, OTHER, NEW = "sk-old-0123456789abcdef", "sk-other-0123456789abcd", "sk-new-0123456789abcdef"


@pytest.fixture(scope="module")
def url(services: Mapping[str, str], template: str) -> Iterator[str]:
    with database_on(services["DATABASE_URL"], template) as made:
        yield made


@pytest.fixture
def run(
    url: str, scripted_provider: ScriptedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs a command; two keys of OpenAI are in the encrypted file."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("BAATCHEET_", "OPENAI_")):
            monkeypatch.delenv(name)
    settings = {
        "DATABASE_URL": url,
        "OPENAI_BASE_URL": scripted_provider.base_url,
        "OLLAMA_HOST": "",
        "BAATCHEET_SECRET_STORES": "file",
        "BAATCHEET_DATA_DIR": str(tmp_path / "data"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    def command(*arguments: str, typed: str | None = None) -> Result:
        # In a thread: a command has an event loop of its own.
        with ThreadPoolExecutor(1) as aside:
            return aside.submit(CliRunner().invoke, app, list(arguments), input=typed).result(60)

    said(command("secrets", "init"))
    said(command("secrets", "set", "openai", typed=f"{OLD}\n{OTHER}\n"))
    return command


def said(done: Result) -> str:
    assert done.exit_code == 0, (done.output, done.exception)
    for key in (OLD, OTHER, NEW):
        assert key not in done.output
    return done.stdout.strip()


def id_of(run: Run, hint: str) -> str:
    (line,) = [one for one in said(run("keys", "list", "openai")).splitlines() if hint in one]
    return line.split()[0]


def query(url: str, statement: str) -> list[str]:
    async def ask() -> list[str]:
        connection = await connect(url)
        try:
            return [row[0] for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_keys_are_listed_with_their_ends_only(run: Run) -> None:
    first, second = said(run("keys", "list")).splitlines()
    assert "openai" in first
    assert {"sk-o…cdef" in one or "sk-o…abcd" in one for one in (first, second)} == {True}
    assert "active" in first
    assert "0 requests today" in first
    assert "from file" in first


def test_a_key_is_quarantined_rests_and_is_restored_and_who_did_it_is_kept(run: Run, url: str) -> None:
    key = id_of(run, "sk-o…cdef")
    assert "quarantined" in said(run("keys", "quarantine", key[:12], "--reason", "seen in a log"))
    assert "seen in a log" in said(run("keys", "list", "openai"))
    assert "active" in said(run("keys", "restore", key))
    assert "resting" in said(run("keys", "rest", key, "--hours", "2"))
    assert "active" in said(run("keys", "restore", key))
    kept = query(
        url, f"SELECT action || ' ' || via FROM audit_entries WHERE subject = 'openai/{key}' ORDER BY id"
    )
    assert kept == ["key.quarantined cli", "key.restored cli", "key.rested cli", "key.restored cli"]


def test_a_check_asks_the_provider_about_each(run: Run) -> None:
    answers = said(run("keys", "check", "openai")).splitlines()
    assert len(answers) == 2
    assert all("  good  " in one for one in answers)


def test_staged_keys_are_kept_for_a_rotation_that_a_worker_does(run: Run, url: str) -> None:
    assert "1 keys of openai are staged" in said(run("keys", "stage", "openai", typed=f"{NEW}\n"))
    begun = said(run("keys", "rotate", "openai", "--reason", "monthly"))
    assert "has begun" in begun
    assert query(url, "SELECT payload::text FROM jobs WHERE kind = 'keys.rotate'") == [
        f'{{"rotation": "{begun.split()[2]}"}}'
    ]
    again = run("keys", "rotate", "openai")
    assert (again.exit_code, "under way" in again.output) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "typed", "words"),
    [
        (["restore", "abc"], None, "6 characters of the fingerprint"),
        (["restore", NEW], None, "No key in use has this fingerprint"),
        (["rotate", "groq"], None, "There are no keys of groq"),
        (["stage", "groq"], "gsk_0123456789\n", "There are no keys of groq"),
        (["stage", "openai"], "", "Give 1 to 500 keys"),
        (["stage", "openai"], "not a key\n", "Line 1 is no key"),
        (["rest", "abcdef", "--hours", "99"], None, "24"),
    ],
)
def test_a_mistake_is_told_in_words_and_what_was_typed_is_not_said_again(
    run: Run, arguments: list[str], typed: str | None, words: str
) -> None:
    done = run("keys", *arguments, typed=typed)
    assert done.exit_code == 2
    assert words in " ".join(done.output.replace("│", " ").split())
    assert NEW not in done.output


def test_what_an_emergency_needs_works_while_a_store_can_not_be_read(run: Run) -> None:
    leaked = id_of(run, SecretKey(OLD).hint)
    good = Path(".env.secrets").read_bytes()
    Path(".env.secrets").write_bytes(b"OPENAI_API_KEY_1=encrypted:not-at-all\n")
    listed = run("keys", "list", "openai")
    assert listed.exit_code == 0, listed.output
    assert leaked in listed.stdout
    assert "Without what is in a store that can't be read. file: " in listed.stderr
    done = run("keys", "quarantine", leaked, "--reason", "it leaked")
    assert done.exit_code == 0, done.output
    Path(".env.secrets").write_bytes(good)
    (line,) = [one for one in said(run("keys", "list", "openai")).splitlines() if leaked in one]
    assert "quarantined" in line
    assert "it leaked" in line
