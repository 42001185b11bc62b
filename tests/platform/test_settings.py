"""Settings: read once, refused by name."""

from pathlib import Path

import pytest

from baatcheet.platform.settings import SettingsError, all_settings, load, reference

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
SECRET = "sk-very-secret-value-0123456789"


def problem(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as refused:
        load(environ, dotenv=None)
    return str(refused.value)


def test_the_reference_is_what_the_code_says() -> None:
    assert REFERENCE.read_text() == reference()


def test_without_any_setting_there_are_defaults() -> None:
    settings = load({}, dotenv=None)
    assert settings.server.port == 8080
    assert settings.database.url is None
    assert settings.providers.custom == ()


def test_every_example_is_accepted() -> None:
    named = {"LAB_KEY": "sk-lab"}  # the variable that the custom provider's example names
    for setting in all_settings():
        settings = load(named | {setting.env.name: setting.env.example}, dotenv=None)
        value = getattr(getattr(settings, setting.group), setting.field)
        assert value is not None, setting.env.name


def test_every_setting_is_explained() -> None:
    names = [setting.env.name for setting in all_settings()]
    assert len(names) == len(set(names))
    assert all(setting.info.description for setting in all_settings())


def test_an_unknown_setting_of_ours_is_refused_with_the_nearest_name() -> None:
    told = problem({"BAATCHEET_PROT": "8080"})
    assert told.startswith("BAATCHEET_PROT: there is no such setting.")
    assert "BAATCHEET_PORT=8080" in told


def test_other_programs_variables_are_not_ours() -> None:
    load({"PATH": "/bin", "POSTGRES_DB": "x", "BAATCHEETS": "many"}, dotenv=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BAATCHEET_PORT", "eighty"),
        ("BAATCHEET_PORT", "65536"),
        ("BAATCHEET_PROCESSES", "0"),
        ("BAATCHEET_POOL_MAX", "1"),
        ("BAATCHEET_CACHE_TIMEOUT", "0"),
        ("BAATCHEET_LOG_LEVEL", "loud"),
        ("BAATCHEET_METRICS_PUBLIC", "perhaps"),
        ("BAATCHEET_ADMIN_TOKEN", "short"),
        ("BAATCHEET_PROVIDERS", "{"),
        ("BAATCHEET_PROVIDERS", '[{"name": "Lab"}]'),
        ("OPENAI_BASE_URL", "ftp://example.com"),
        ("OPENAI_BASE_URL", "http://"),
        ("OPENAI_BASE_URL", "http://host:port/v1"),
        ("OPENAI_BASE_URL", "http://ho st/v1"),
        ("OLLAMA_HOST", "http://[::1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1"),
        ("BAATCHEET_PROVIDERS", '[{"name": "lab", "base_url": "https://"}]'),
        ("BAATCHEET_PROVIDERS", '[{"name": "lab", "base_url": "https://a", "headers": {"x": "a\\nb"}}]'),
        ("BAATCHEET_PROVIDERS", '[{"name": "lab", "base_url": "https://a", "api_key": "sk-“x”"}]'),
        ("BAATCHEET_TRUSTED_PROXIES", "zz"),
        ("BAATCHEET_TRUSTED_PROXIES", "127.0.0.1,10.0.0.0/33"),
        ("BAATCHEET_CORS_ORIGINS", "foo"),
        ("BAATCHEET_CORS_ORIGINS", "https://app.example.com/path"),
        ("BAATCHEET_CORS_ORIGINS", "https://App.example.com"),
        ("DATABASE_URL", "db"),
        ("DATABASE_URL", "mysql://u:p@h/d"),
        ("DATABASE_DIRECT_URL", "postgresql://u:p@host:port/d"),
        ("REDIS_URL", "http://cache:6379"),
        ("REDIS_URL", "redis://cache:port"),
        ("BAATCHEET_STREAM_KEEP_ALIVE_SECONDS", "inf"),
        ("BAATCHEET_DB_STATEMENT_TIMEOUT", "nan"),
        ("BAATCHEET_ADMIN_TOKEN", "x" * 513),
        ("BAATCHEET_ADMIN_TOKEN", "an administrator\u2019s own"),
        ("GROQ_API_KEY", "“gsk_in_typographic_quotes”"),
        ("GROQ_API_KEY", "gsk_two\nlines"),
    ],
)
def test_a_malformed_value_is_refused_with_its_name_and_an_example(name: str, value: str) -> None:
    told = problem({name: value})
    assert told.startswith(f"{name}: ")
    assert f"Example: {name}=" in told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BAATCHEET_CORS_ORIGINS", "*"),
        ("BAATCHEET_CORS_ORIGINS", "https://a.example:8443, http://[::1]:3000/, capacitor://localhost"),
        ("BAATCHEET_TRUSTED_PROXIES", "10.0.0.1/8, ::1"),
        ("OLLAMA_HOST", "0.0.0.0:11434"),
        ("OLLAMA_HOST", ""),
        ("REDIS_URL", "unix:///run/valkey.sock?db=1"),
        ("REDIS_URL", "rediss://:p%40ss@cache"),
        ("REDIS_URL", "redis://:with blanks@:6379/0"),
        ("BAATCHEET_CORS_ORIGINS", "https://app.example.com,null"),
        ("BAATCHEET_ADMIN_TOKEN", "correct horse battery staple"),
        ("DATABASE_URL", "postgres://u:p[a]ss@h/d?host=/run/postgresql"),
        ("GROQ_API_KEY", " gsk_with_blanks_around\n"),
    ],
)
def test_what_can_be_used_is_accepted(name: str, value: str) -> None:
    load({name: value}, dotenv=None)


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_a_blank_value_counts_as_unset(blank: str) -> None:
    assert load({"GROQ_API_KEY": blank, "BAATCHEET_PORT": blank}, dotenv=None) == load({}, dotenv=None)
    lab = '[{"name": "lab", "base_url": "https://a", "api_key_env": "LAB_KEY"}]'
    assert load({"BAATCHEET_PROVIDERS": lab, "LAB_KEY": blank}, dotenv=None).provider_keys == {}


def test_every_problem_is_told_at_once() -> None:
    told = problem({"BAATCHEET_PORT": "x", "BAATCHEET_NOPE": "1", "BAATCHEET_LOG_FORMAT": "y"})
    assert [line.partition(":")[0] for line in told.splitlines()] == [
        "BAATCHEET_NOPE",
        "BAATCHEET_PORT",
        "BAATCHEET_LOG_FORMAT",
    ]


def test_a_refusal_does_not_repeat_the_value() -> None:
    assert SECRET not in problem({"BAATCHEET_PROVIDERS": f'[{{"name": "{SECRET}", "api_key": "{SECRET}"}}]'})
    assert SECRET not in problem({"BAATCHEET_PORT": SECRET})


def test_secrets_print_as_dots() -> None:
    settings = load({"OPENAI_API_KEY": SECRET, "DATABASE_URL": f"postgresql://u:{SECRET}@h/d"}, dotenv=None)
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings.providers.openai_key)


def test_the_environment_wins_over_the_file_and_empty_is_unset(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("BAATCHEET_PORT=9000\nBAATCHEET_HOST=0.0.0.0\nBAATCHEET_PROCESSES=\n")
    settings = load({"BAATCHEET_PORT": "9001", "BAATCHEET_GRACE_SECONDS": ""}, dotenv=file)
    assert settings.server.port == 9001
    assert settings.server.host == "0.0.0.0"
    assert settings.server.processes == 1
    assert settings.server.grace_seconds == 25


@pytest.mark.parametrize(
    ("content", "line", "told"),
    [
        (b"\n\nBAD LINE\n", 3, "is not NAME=value"),
        (b"A=1\nGROQ_API_KEY\n", 2, "is not NAME=value. Example: GROQ_API_KEY="),
        (b"A=1\n# a note\n=" + SECRET.encode(), 3, "does not begin with a name"),
        (b'A=1\n\nOPENAI_API_KEY="' + SECRET.encode() + b"\nB=2\n", 3, "is not closed"),
        (b"export OPENAI_API_KEY='" + SECRET.encode(), 1, "Example: OPENAI_API_KEY="),
        (b'OPENAI_API_KEY="x" ' + SECRET.encode(), 1, "behind the closing one"),
        (b"A=1\nB=\xff" + SECRET.encode(), 2, "is not UTF-8"),
        ("A=1".encode("utf-16-le"), 1, "is not UTF-8"),
    ],
)
def test_a_line_of_the_file_that_can_not_be_read_is_named_and_not_repeated(
    tmp_path: Path, content: bytes, line: int, told: str
) -> None:
    file = tmp_path / ".env"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as refused:
        load({}, dotenv=file)
    assert str(refused.value).startswith(f"{file}, line {line}: ")
    assert told in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert SECRET not in str(refused.value)


def test_a_file_that_is_no_file_is_refused_and_one_that_is_not_there_is_not(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    load({}, dotenv=file)
    load({}, dotenv=file / "below")
    file.mkdir()
    with pytest.raises(SettingsError, match="is a folder"):
        load({}, dotenv=file)
    gone = tmp_path / "gone.env"
    gone.symlink_to(tmp_path / "nothing")
    with pytest.raises(SettingsError, match="can't be read"):
        load({}, dotenv=gone)


def test_a_file_may_begin_with_a_byte_order_mark_and_end_its_lines_as_windows_does(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"\xef\xbb\xbfBAATCHEET_PORT=9000\r\nexport BAATCHEET_HOST='::1' # here\r\n")
    server = load({}, dotenv=file).server
    assert (server.port, server.host) == (9000, "::1")


def test_a_file_does_not_run_commands_or_expand_variables(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("OPENAI_API_KEY=sk-$(id)-${HOME}\n")
    key = load({}, dotenv=file).providers.openai_key
    assert key is not None
    assert key.get_secret_value() == "sk-$(id)-${HOME}"


def test_a_custom_provider_takes_its_key_from_the_variable_that_it_names() -> None:
    provider = '[{"name": "lab", "base_url": "https://llm.example.com/v1", "api_key_env": "LAB_KEY"}]'
    settings = load({"BAATCHEET_PROVIDERS": provider, "LAB_KEY": SECRET}, dotenv=None)
    (lab,) = settings.providers.custom
    assert lab.api_key is not None
    assert lab.api_key.get_secret_value() == SECRET
    assert settings.provider_keys == {"lab": (lab.api_key,)}
    broken = problem({"BAATCHEET_PROVIDERS": provider, "LAB_KEY": f"{SECRET}\n{SECRET}"})
    assert broken.startswith("LAB_KEY: ")
    assert SECRET not in broken


def test_keys_are_numbered_or_in_a_list_and_each_counts_once() -> None:
    settings = load(
        {
            "GROQ_API_KEY": "gsk_a",
            "GROQ_API_KEY_2": "gsk_c",
            "GROQ_API_KEY_1": " gsk_b ",
            "GROQ_API_KEYS": "gsk_d, gsk_b,,gsk_a",
            "HUGGINGFACE_API_KEY_7": "hf_x",
            "OPENAI_API_KEY": "encrypted:abc",
            "GEMINI_API_KEY_1": "",
        },
        dotenv=None,
    )
    keys = {name: [key.get_secret_value() for key in some] for name, some in settings.provider_keys.items()}
    assert keys == {"groq": ["gsk_a", "gsk_d", "gsk_b", "gsk_c"], "huggingface": ["hf_x"]}
    told = problem({"GROQ_API_KEY_3": f"{SECRET} {SECRET}"})
    assert told.startswith("GROQ_API_KEY")
    assert SECRET not in told
