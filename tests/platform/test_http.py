"""TLS as a rule, and a client session without surprises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.platform.http import client_session, is_loopback, require_tls
from baatcheet.platform.settings import SettingsError


@pytest.mark.parametrize(
    "url",
    [
        "https://llm.example.com/v1",
        "http://127.0.0.1:8000/v1",
        "http://127.9.9.9/v1",
        "http://localhost:11434",
        "http://LOCALHOST./v1",
        "http://llm.localhost/v1",
        "http://[::1]:8000/v1",
    ],
)
def test_tls_and_loopback_are_allowed(url: str) -> None:
    require_tls("BAATCHEET_PROVIDERS", "lab", url)


@pytest.mark.parametrize(
    "url",
    [
        "http://llm.example.com/v1",
        "http://10.0.0.7:8000/v1",
        "http://0.0.0.0:8000",
        "http://127.0.0.1.example.com/",
        "http://localhost.example.com/",
        "http://[::ffff:10.0.0.1]/",
    ],
)
def test_plain_http_to_elsewhere_is_refused_by_name_unless_it_is_marked(url: str) -> None:
    with pytest.raises(
        SettingsError, match=r"BAATCHEET_PROVIDERS: provider 'lab' is at http://.*without TLS"
    ):
        require_tls("BAATCHEET_PROVIDERS", "lab", url)
    require_tls("BAATCHEET_PROVIDERS", "lab", url, allow_insecure=True)


@pytest.mark.parametrize("url", ["ftp://x/", "https://", "x", "http://[::1/", "https://host:port/"])
def test_what_is_not_an_address_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="lab"):
        require_tls("BAATCHEET_PROVIDERS", "lab", url, allow_insecure=True)


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(SettingsError) as caught:
        require_tls(
            "BAATCHEET_PROVIDERS", "lab", "https://me:hunter2@llm.example.com/v1", allow_insecure=True
        )
    assert "hunter2" not in str(caught.value)


@given(st.text(max_size=30))
def test_any_host_is_judged_without_an_error(host: str) -> None:
    assert is_loopback(host) in {True, False}


async def test_a_session_keeps_no_cookies_and_follows_no_proxy_variables() -> None:
    async with client_session() as session:
        assert not session.trust_env
        session.cookie_jar.update_cookies({"who": "alice"})
        assert not list(session.cookie_jar)
