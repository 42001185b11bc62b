"""`baatcheet secrets`, as an operator types it."""

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import dotenvx
import pytest
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner, Result

from baatcheet.entrypoints.cli import app, editor
from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.aws import AwsStore
from baatcheet.keys.stores.encrypted_file import EncryptedFileStore
from baatcheet.platform.database import connect
from tests.keys.stores.fake_vault import FakeVault

Run = Callable[..., Result]

COUNTS = {
    "GROQ_API_KEY": 14,
    "OPENROUTER_API_KEY": 12,
    "DEEPSEEK_API_KEY": 4,
    "GEMINI_API_KEY": 3,
    "HF_TOKEN": 5,
}
ALL = {
    f"{name}_{number}": f"canary_{name.lower()}_{number:02}_0123456789"
    for name, count in COUNTS.items()
    for number in range(1, count + 1)
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in an empty folder, without a database."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("BAATCHEET_", "DOTENV_", "VAULT_", "DATABASE_")) or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)

    def command(*arguments: str, typed: str = "") -> Result:
        return CliRunner().invoke(app, ["secrets", *arguments], typed)

    return command


@pytest.fixture
def database(
    services: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[dict[str, Any]]]:
    """A database that can be reached; returns the audit's entries about the file of this test."""
    monkeypatch.setenv("DATABASE_URL", services["DATABASE_URL"])

    async def entries() -> list[dict[str, Any]]:
        connection = await connect(services["DATABASE_URL"])
        try:
            rows = await connection.fetch(
                "SELECT actor, via, address, action, subject, detail FROM audit_entries "
                "WHERE action LIKE 'secret.%' AND detail->>'file' = $1 ORDER BY id",
                ".env.secrets",
            )
        finally:
            await connection.close()
        return [dict(row) for row in rows]

    async def forget() -> None:
        connection = await connect(services["DATABASE_URL"])
        await connection.execute("DELETE FROM audit_entries WHERE action LIKE 'secret.%'")
        await connection.close()

    asyncio.run(forget())
    return lambda: asyncio.run(entries())


def said(done: Result) -> str:
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


def failed(done: Result) -> str:
    assert done.exit_code == 1, (done.exit_code, done.output, done.exception)
    assert isinstance(done.exception, SystemExit)
    return done.stderr


def write_env(path: Path = Path(".env")) -> None:
    lines = ["# Keys of the team", "BAATCHEET_PORT=8080", ""]
    for name, value in ALL.items():
        lines.append(f"{name}={value}" if "GROQ" in name else f'export {name}="{value}" # ours')
    path.write_text("\n".join(lines) + "\n")


def decrypted(path: str = ".env.secrets") -> dict[str, str | None]:
    """What the tool of others reads."""
    return {
        name: value
        for name, value in dotenvx.dotenv_values(path, interpolate=False).items()
        if not name.startswith("DOTENV_")
    }


def test_thirty_eight_keys_move_out_of_a_env_in_one_command(run: Run, tmp_path: Path) -> None:
    write_env()
    done = run("import")
    text = said(done)
    assert decrypted() == ALL
    assert "All 38 were read back" in text
    assert not any(value in done.output for value in ALL.values())
    assert not any(value in Path(".env.secrets").read_text() for value in ALL.values())
    assert stat.S_IMODE(Path(".env.secrets").stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(".env.keys").stat().st_mode) == 0o600
    # With the lines gone that it names, no key is left, and nothing else is missing.
    lines = Path(".env").read_text().splitlines()
    named = {int(one): name for one, name in re.findall(r"^  line (\d+) +(\S+)$", text, re.MULTILINE)}
    assert set(named.values()) == set(ALL)
    kept = [line for number, line in enumerate(lines, 1) if number not in named]
    assert kept == ["# Keys of the team", "BAATCHEET_PORT=8080", ""]
    # Again, nothing is added, and the keys are still to be deleted.
    before = Path(".env.secrets").read_text()
    again = said(run("import"))
    assert "All 38 were read back" in again
    assert "line 41" in again
    assert Path(".env.secrets").read_text() == before


def test_an_import_names_lines_of_several_and_of_overridden_values_and_one_s_own_providers(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "BAATCHEET_PROVIDERS",
        '[{"name": "lab", "base_url": "http://127.0.0.1:1/v1", "api_key_env": "SECRET_OF_LAB"}]',
    )
    monkeypatch.setenv("SECRET_OF_LAB", "lab_key")
    Path("other.env").write_text(
        "GROQ_API_KEY=gsk_overridden\n\nGROQ_API_KEY=gsk_base\nGROQ_API_KEYS='gsk_b,\n gsk_c'\nSECRET_OF_LAB=lab_key\n"
        "OPENAI_API_KEY=encrypted:abc\nGEMINI_API_KEY=\n"
    )
    text = said(run("import", "other.env"))
    assert decrypted() == {
        "GROQ_API_KEY_1": "gsk_base",
        "GROQ_API_KEY_2": "gsk_b",
        "GROQ_API_KEY_3": "gsk_c",
        "LAB_API_KEY_1": "lab_key",
    }
    assert re.findall(r"line (\S+)", text) == ["1", "3", "4-5", "6"]
    assert "passed over: OPENAI_API_KEY" in text


def test_an_import_that_is_not_read_back_as_it_was_says_so_and_names_no_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_env()
    add = EncryptedFileStore.add

    async def loses_one(
        store: EncryptedFileStore, additions: Mapping[str, Sequence[SecretKey]]
    ) -> dict[str, tuple[str, ...]]:
        return await add(store, {**additions, "gemini": list(additions["gemini"])[1:]})

    monkeypatch.setattr(EncryptedFileStore, "add", loses_one)
    done = run("import")
    assert "not what was written, for gemini. Delete nothing" in failed(done)
    assert "line" not in done.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "can't be read"),
        (b"PORT=1\n", "holds no provider's keys"),
        (b"GROQ_API_KEY_1=fine\nGROQ_API_KEY_2=two canary_words\n", "line 2: GROQ_API_KEY_2 is no key"),
        (b"GROQ_API_KEY_1=fine\ncanary_words\n", "line 2: is not NAME=value"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_an_import_that_can_not_be_changes_nothing_and_says_why(
    run: Run, content: bytes | None, words: str
) -> None:
    if content is not None:
        Path("old.env").write_bytes(content)
    done = run("import", "old.env")
    assert words in failed(done)
    assert "canary_words" not in done.output
    assert not Path(".env.secrets").exists()
    assert not Path(".env.keys").exists()


def test_keys_are_set_from_the_standard_input_and_listed_by_their_ends(run: Run) -> None:
    said(run("init"))
    assert "GROQ_API_KEY_1 added" in said(run("set", "groq", typed="gsk_0123456789abcd\n"))
    assert "GROQ_API_KEY_2, GROQ_API_KEY_3 added" in said(run("set", "groq", typed="gsk_two\ngsk_three\n"))
    assert "GROQ_API_KEY_2 replaced" in said(run("set", "GROQ_API_KEY_2", typed="gsk_other_3456789\n"))
    assert "OCR_SPACE_API_KEY added" in said(run("set", "OCR_SPACE_API_KEY", typed="K123"))
    assert decrypted() == {
        "GROQ_API_KEY_1": "gsk_0123456789abcd",
        "GROQ_API_KEY_2": "gsk_other_3456789",
        "GROQ_API_KEY_3": "gsk_three",
        "OCR_SPACE_API_KEY": "K123",
    }
    with Path(".env.secrets").open("a") as file:
        file.write("GEMINI_API_KEY_1=AIza_plain_0123456789\n")
    listed = said(run("list"))
    assert re.search(r"GROQ_API_KEY_1 +groq +encrypted +gsk_…abcd$", listed, re.MULTILINE)
    assert re.search(r"GEMINI_API_KEY_1 +gemini +IN PLAIN TEXT +AIza…6789$", listed, re.MULTILINE)
    for value in ("0123456789abcd", "other", "three", "K123", "plain"):
        assert value not in listed
    Path(".env.keys").unlink()
    done = run("list")
    assert "GROQ_API_KEY_1" in said(done)
    assert "no private key" in done.stderr


def test_a_key_on_the_command_line_is_refused_and_not_repeated(run: Run) -> None:
    said(run("init"))
    done = run("set", "GROQ_API_KEY_1", "gsk_typed_in_the_open")
    assert "not given on the command line" in failed(done)
    assert "typed_in" not in done.output


@pytest.mark.parametrize(
    ("arguments", "typed", "words"),
    [
        (("set", "GROK_API_KEY_2"), "x", "Did you mean GROQ_API_KEY?"),
        (("set", "DOTENV_PUBLIC_KEY_SECRETS"), "x", "neither a provider"),
        (("set", "groq"), "", "no key on the standard input"),
        (("set", "GROQ_API_KEY_1"), "a\nb\n", "takes one key"),
        (("set", "groq"), "fine\ntwo words\n", "(line 2): it holds spaces"),
        (("get", "GROQ_API_KEY_9", "--yes"), "", "has no GROQ_API_KEY_9"),
        (("init",), "", "has a key pair already"),
        (("export", "--to", "aws", "--provider", "openai"), "", "no keys of openai"),
    ],
)
def test_what_can_not_be_done_is_said_plainly(
    run: Run, arguments: tuple[str, ...], typed: str, words: str
) -> None:
    said(run("init"))
    before = Path(".env.secrets").read_text()
    assert words in failed(run(*arguments, typed=typed))
    assert Path(".env.secrets").read_text() == before


@pytest.mark.parametrize("command", [("set", "groq"), ("edit",), ("rekey",)])
def test_without_a_file_every_command_says_how_to_make_it(run: Run, command: tuple[str, ...]) -> None:
    assert "baatcheet secrets init" in failed(run(*command, typed="gsk_one"))
    assert "baatcheet secrets set" in said(run("list"))


def test_a_key_is_shown_after_a_question_and_only_when_that_is_recorded(
    run: Run, services: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said(run("init"))
    said(run("set", "groq", typed="gsk_0123456789abcd"))
    denied = run("get", "GROQ_API_KEY_1", typed="n\n")
    assert denied.exit_code == 1
    assert "0123456789" not in denied.output
    done = run("get", "GROQ_API_KEY_1", "--yes")
    assert "can't be recorded: DATABASE_URL is not set" in failed(done)
    assert "0123456789" not in done.output
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody:nothing@127.0.0.1:1/none")
    done = run("get", "GROQ_API_KEY_1", "--yes")
    assert "can't be recorded" in failed(done)
    assert "0123456789" not in done.output
    done = run("get", "GROQ_API_KEY_1", "--yes", "--without-audit")
    assert said(done) == "gsk_0123456789abcd"
    assert "Not recorded" in done.stderr


def test_who_has_seen_and_changed_which_key_is_in_the_audit(
    run: Run, database: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "zoya")
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.7 51234 192.0.2.1 22")
    said(run("init"))
    done = run("set", "groq", typed="gsk_0123456789abcd")
    assert "not recorded" not in done.stderr
    shown = run("get", "GROQ_API_KEY_1", typed="y\n")
    assert said(shown).splitlines()[-1] == "gsk_0123456789abcd"
    assert "plain text?" in shown.stderr
    said(run("rekey"))
    entries = database()
    assert [one["action"] for one in entries] == [
        "secret.file_made",
        "secret.set",
        "secret.read",
        "secret.rekeyed",
    ]
    read = entries[2]
    assert (read["actor"], read["via"], read["address"]) == ("zoya", "cli", "192.0.2.7")
    assert re.fullmatch(r"groq/[0-9a-f]{32}", read["subject"])
    assert json.loads(read["detail"])["variable"] == "GROQ_API_KEY_1"
    assert "0123456789" not in str(entries)


def _editor(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """An editor that runs `script` with the text's path as `path`."""
    program = Path("editor.py").absolute()
    program.write_text(f"import pathlib, sys\npath = pathlib.Path(sys.argv[1])\n{script}\n")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {program}")


NOTE = (
    "modes = [one.stat().st_mode & 0o777 for one in (path, path.parent)]\n"
    "pathlib.Path('seen').write_text(f'{path}|{modes[0]:o}|{modes[1]:o}')\n"
    "(path.parent / '.swap').write_text(path.read_text())\n"
)


def test_an_edited_text_is_encrypted_and_leaves_nothing_behind(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said(run("init"))
    said(run("set", "groq", typed="gsk_one_abcdefgh\ngsk_two_abcdefgh"))
    before = Path(".env.secrets").read_text().splitlines()
    _editor(
        monkeypatch,
        f"{NOTE}path.write_text(path.read_text().replace('gsk_two', 'gsk_2') + '# Anna\\nGEMINI_API_KEY_1=AIza\\n')",
    )
    text = said(run("edit"))
    assert "Changed in .env.secrets: GROQ_API_KEY_2, GEMINI_API_KEY_1." in text
    assert decrypted() == {
        "GROQ_API_KEY_1": "gsk_one_abcdefgh",
        "GROQ_API_KEY_2": "gsk_2_abcdefgh",
        "GEMINI_API_KEY_1": "AIza",
    }
    after = Path(".env.secrets").read_text().splitlines()
    assert [line for line in before if line not in after] == [
        line for line in before if line.startswith("GROQ_API_KEY_2")
    ]
    where, mode, folder_mode = Path("seen").read_text().split("|")
    assert (mode, folder_mode) == ("600", "700")
    assert Path(where).is_relative_to("/dev/shm" if editor.in_memory() else "/")
    assert not Path(where).parent.exists()
    _editor(monkeypatch, "pass")
    assert said(run("edit")) == "Nothing was changed."
    _editor(monkeypatch, "path.write_text(''); sys.exit(3)")
    assert "status 3" in failed(run("edit"))
    monkeypatch.setenv("EDITOR", "/nowhere/editor")
    assert "can't be started" in failed(run("edit"))
    assert Path(".env.secrets").read_text().splitlines() == after


def test_an_unusable_edit_is_offered_again_and_never_written(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said(run("init"))
    said(run("set", "groq", typed="gsk_one_abcdefgh"))
    before = Path(".env.secrets").read_text()
    _editor(monkeypatch, "path.write_text(path.read_text() + 'GROQ_API_KEY_2=canary words\\n')")
    done = run("edit", typed="n\n")
    assert "Nothing was changed" in said(done)
    assert "line 7: GROQ_API_KEY_2 is no key" in done.stderr
    assert "canary" not in done.output
    assert Path(".env.secrets").read_text() == before
    _editor(
        monkeypatch,
        "again = pathlib.Path('again')\n"
        "path.write_text('GROQ_API_KEY_1=gsk_fixed' if again.exists() else 'what?')\nagain.touch()",
    )
    assert "Changed" in said(run("edit", typed="y\n"))
    assert decrypted() == {"GROQ_API_KEY_1": "gsk_fixed"}


def test_an_edit_that_is_told_to_end_wipes_the_text(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    said(run("init"))
    said(run("set", "groq", typed="gsk_one_abcdefgh"))
    before = Path(".env.secrets").read_text()
    _editor(monkeypatch, f"{NOTE}import time\npathlib.Path('open').touch()\ntime.sleep(60)")
    command = [sys.executable, "-c", "from baatcheet.entrypoints.cli import main; main()", "secrets", "edit"]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while not Path("open").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert not Path(Path("seen").read_text().split("|")[0]).parent.exists()
    assert Path(".env.secrets").read_text() == before


def test_what_a_killed_edit_has_left_is_removed_by_the_next(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said(run("init"))
    _editor(monkeypatch, f"{NOTE}import os, signal\nos.kill(os.getppid(), signal.SIGKILL)")
    command = [sys.executable, "-c", "from baatcheet.entrypoints.cli import main; main()", "secrets", "edit"]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    left = Path(Path("seen").read_text().split("|")[0]).parent
    assert left.exists()
    _editor(monkeypatch, "pass")
    said(run("edit"))
    assert not left.exists()


def test_keys_are_handed_on_to_vault_and_aws_and_what_is_there_stays(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_env()
    said(run("import"))
    with FakeVault() as vault:
        monkeypatch.setenv("VAULT_ADDR", vault.address)
        monkeypatch.setenv("VAULT_TOKEN", vault.token().text)
        vault.write("secret/data/baatcheet/api-keys", {"groq": ["gsk_there_already"]})
        done = run("export", "--to", "vault")
        text = said(done)
        assert "All were read back from Vault" in text
        assert "BAATCHEET_SECRET_STORES=vault,file" in text
        assert "canary_" not in done.output
        kept = vault.document("secret/data/baatcheet/api-keys")
        groq = kept["groq"] if isinstance(kept["groq"], list) else re.split(r"[,\n]", kept["groq"])
        assert groq == ["gsk_there_already", *(ALL[f"GROQ_API_KEY_{n}"] for n in range(1, 15))]
        assert " 0 new" in said(run("export", "--to", "vault", "--provider", "groq"))

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "BAATCHEET_AWS_ENDPOINT": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("BAATCHEET_AWS_SECRET_PREFIX", f"test-{os.urandom(4).hex()}/")
        Path(".env.secrets").unlink()
        text = said(run("import", "--to", "aws"))
        assert "All 38 were read back from AWS" in text
        assert not Path(".env.secrets").exists()

        async def there() -> list[SecretKey]:
            store = AwsStore(
                "us-east-1", f"http://{host}:{port}", os.environ["BAATCHEET_AWS_SECRET_PREFIX"], 5
            )
            found = await store.fetch(["huggingface"])
            await store.close()
            return list(found["huggingface"].keys)

        assert asyncio.run(there()) == [SecretKey(ALL[f"HF_TOKEN_{n}"]) for n in range(1, 6)]
    finally:
        server.stop()


def test_a_store_that_is_away_stops_an_export_with_its_name(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said(run("init"))
    said(run("set", "groq", typed="gsk_canary_abcdefgh"))
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:1")
    monkeypatch.setenv("VAULT_TOKEN", "hvs.abcdefgh")
    monkeypatch.setenv("BAATCHEET_SECRETS_TIMEOUT", "0.5")
    done = run("export", "--to", "vault")
    assert "vault" in failed(done)
    assert "canary" not in done.output


def test_a_private_key_in_a_variable_is_replaced_in_a_file_of_one_s_choice(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said(run("init"))
    said(run("set", "groq", typed="gsk_one"))
    monkeypatch.setenv(
        "DOTENV_PRIVATE_KEY_SECRETS", Path(".env.keys").read_text().split("SECRETS=")[1].strip()
    )
    Path(".env.keys").unlink()
    assert "--key-file" in failed(run("rekey"))
    done = run("rekey", "--key-file", "new-private-key")
    assert "Set DOTENV_PRIVATE_KEY_SECRETS anew" in said(done)
    monkeypatch.setenv(
        "DOTENV_PRIVATE_KEY_SECRETS", Path("new-private-key").read_text().split("SECRETS=")[1].strip()
    )
    assert decrypted() == {"GROQ_API_KEY_1": "gsk_one"}
    assert said(run("get", "GROQ_API_KEY_1", "--yes", "--without-audit")) == "gsk_one"
