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
    ],
)
def test_a_malformed_value_is_refused_with_its_name_and_an_example(name: str, value: str) -> None:
    told = problem({name: value})
    assert told.startswith(f"{name}: ")
    assert f"Example: {name}=" in told


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
    assert "LAB_KEY" in problem({"BAATCHEET_PROVIDERS": provider})
