"""What `baatcheet doctor` finds in installations that are well, and in others."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from baatcheet.entrypoints.cli.doctor import Finding, examine
from baatcheet.platform.database import connect
from tests.scripted_provider import ScriptedProvider
from tests.servers import KIND, past_bouncer
from tests.valkey_server import ValkeyServer

LIMIT = "max_client_conn" if KIND == "pgbouncer" else "max_connections"


@pytest.fixture
def configured(
    services: Mapping[str, str],
    scripted_provider: ScriptedProvider,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> pytest.MonkeyPatch:
    """A sound installation, to be spoilt by the test."""
    for name in ("GROQ_API_KEY", "OPENROUTER_API_KEY", "DEEPSEEK_API_KEY", "GEMINI_API_KEY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    for name, value in services.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OLLAMA_HOST", "")
    monkeypatch.setenv("OPENAI_BASE_URL", scripted_provider.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-scripted")
    return monkeypatch


def found() -> dict[str, Finding]:
    findings = examine()
    assert all(finding.level == "OK" or finding.remedy for finding in findings)
    return {finding.part: finding for finding in findings}


def test_a_sound_installation_has_nothing_that_fails(configured: pytest.MonkeyPatch) -> None:
    findings = found()
    assert {part: one.level for part, one in findings.items() if one.level == "FAIL"} == {}
    assert findings["schema"].level == "OK"
    assert findings["tenant role"].level == "OK"
    assert findings["provider openai"].level == "OK"
    assert LIMIT in findings["pool"].what


def test_a_malformed_setting_is_named(configured: pytest.MonkeyPatch) -> None:
    configured.setenv("BAATCHEET_POOL_MAX", "many")
    configured.setenv("BAATCHEET_PROT", "1")
    failures = [finding for finding in examine() if finding.level == "FAIL"]
    assert {finding.what.partition(":")[0] for finding in failures} == {
        "BAATCHEET_POOL_MAX",
        "BAATCHEET_PROT",
    }


def test_an_empty_database_is_told_apart_from_one_that_is_gone(
    configured: pytest.MonkeyPatch, empty_database: str
) -> None:
    configured.setenv("DATABASE_URL", empty_database)
    findings = found()
    assert (findings["database"].level, findings["schema"].level) == ("OK", "FAIL")
    assert "db upgrade" in findings["schema"].remedy
    configured.setenv("DATABASE_URL", "postgresql://me:hunter2-hunter2@127.0.0.1:9/none")
    gone = found()["database"]
    assert gone.level == "FAIL"
    assert "hunter2" not in gone.what


def test_a_tenant_role_that_passes_row_security_fails(
    configured: pytest.MonkeyPatch, services: Mapping[str, str]
) -> None:
    async def alter(words: str) -> None:
        connection = await connect(past_bouncer(services["DATABASE_URL"]))
        await connection.execute(f"ALTER ROLE baatcheet_tenant {words}")
        await connection.close()

    asyncio.run(alter("BYPASSRLS"))
    try:
        assert found()["tenant role"].level == "FAIL"
    finally:
        asyncio.run(alter("NOBYPASSRLS"))


def test_more_connections_than_the_server_has_fail_with_the_sum(configured: pytest.MonkeyPatch) -> None:
    configured.setenv("BAATCHEET_POOL_MAX", "5000")
    pool = found()["pool"]
    assert pool.level == "FAIL"
    assert LIMIT in pool.what


def test_pgbouncer_without_a_direct_address_is_warned_of(
    configured: pytest.MonkeyPatch, services: Mapping[str, str]
) -> None:
    url = past_bouncer(services["DATABASE_URL"])
    configured.setenv("DATABASE_URL", f"{url}{'&' if '?' in url else '?'}pgbouncer=true")
    configured.delenv("DATABASE_DIRECT_URL", raising=False)
    assert found()["pgbouncer"].level == "WARN"
    configured.setenv("DATABASE_DIRECT_URL", url)
    assert found()["pgbouncer"].level == "OK"


def test_a_cache_that_is_gone_or_never_evicts_is_warned_of(configured: pytest.MonkeyPatch) -> None:
    with ValkeyServer("--maxmemory", "10mb", "--maxmemory-policy", "noeviction") as full:
        configured.setenv("REDIS_URL", full.url)
        findings = found()
        assert findings["cache"].level == "OK"
        assert findings["cache eviction"].level == "WARN"
        full.stop()
        assert found()["cache"].level == "WARN"


def test_a_cache_that_hangs_is_told_of_in_time(configured: pytest.MonkeyPatch) -> None:
    with ValkeyServer() as server:
        configured.setenv("REDIS_URL", server.url)
        server.pause()
        try:
            assert found()["cache"].level == "WARN"
        finally:
            server.resume()


def test_a_provider_that_can_not_be_reached_is_warned_of(configured: pytest.MonkeyPatch) -> None:
    configured.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    findings = found()
    assert findings["provider openai"].level == "WARN"
    assert findings["providers"].level == "FAIL"


def test_a_default_model_that_nobody_has_fails_once_everybody_was_asked(
    configured: pytest.MonkeyPatch,
) -> None:
    configured.setenv("BAATCHEET_DEFAULT_MODEL", "nope")
    unknown = found()["default model"]
    assert unknown.level == "FAIL"
    assert "'nope'" in unknown.what
    configured.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert found()["default model"].level == "WARN"
    configured.setenv("BAATCHEET_DEFAULT_MODEL", "auto")
    assert "default model" not in found()


def test_a_default_model_that_is_served_is_said_to_be(configured: pytest.MonkeyPatch) -> None:
    configured.setenv("BAATCHEET_DEFAULT_MODEL", "scripted")
    assert found()["default model"].level == "OK"


def test_a_settings_file_that_is_a_folder_fails(configured: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    (failure,) = examine()
    assert (failure.part, failure.level) == ("settings", "FAIL")
    assert ".env: is a folder" in failure.what


def test_a_key_that_the_provider_refuses_fails_and_is_not_repeated(configured: pytest.MonkeyPatch) -> None:
    with ScriptedProvider(api_key="sk-the-right-one") as strict:
        configured.setenv("OPENAI_BASE_URL", strict.base_url)
        configured.setenv("OPENAI_API_KEY", "sk-the-wrong-one")
        refused = found()["provider openai"]
        assert refused.level == "FAIL"
        assert "sk-the-wrong-one" not in refused.what


def test_no_provider_at_all_is_the_demo(configured: pytest.MonkeyPatch) -> None:
    configured.delenv("OPENAI_BASE_URL")
    configured.delenv("OPENAI_API_KEY")
    assert "demo" in found()["providers"].what


def test_secrets_that_others_may_read_are_warned_of(configured: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("BAATCHEET_LOG_LEVEL=info\n")
    env.chmod(0o644)
    assert found()["settings file"].level == "WARN"
    env.chmod(0o600)
    assert found()["settings file"].level == "OK"


def test_the_command_exits_with_one_when_something_fails(configured: pytest.MonkeyPatch) -> None:
    def run() -> tuple[int, dict[str, object]]:
        command = [
            sys.executable,
            "-c",
            "from baatcheet.entrypoints.cli import main; main()",
            "doctor",
            "--json",
        ]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        return done.returncode, json.loads(done.stdout)

    status, told = run()
    assert (status, told["ok"]) == (0, True)
    configured.setenv("BAATCHEET_POOL_MAX", "5000")
    status, told = run()
    assert (status, told["ok"]) == (1, False)
