"""What a provider's claims make of their holder."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.auth.oidc.claims import Holder, TokenExpired, found, judge, role_of, roles_in
from baatcheet.platform.errors import Unauthenticated
from baatcheet.platform.settings import ClaimPath, OidcProvider

ISSUER = "https://id.example.com/"
NOW = 1_800_000_000.0


def provider(**fields: Any) -> OidcProvider:
    return OidcProvider.model_validate({"issuer": ISSUER, "audiences": ("ours",)} | fields)


def claims(**others: Any) -> dict[str, Any]:
    whole = {"iss": ISSUER, "aud": "ours", "sub": "u-1", "iat": NOW - 10, "exp": NOW + 60} | others
    return {name: value for name, value in whole.items() if value is not ...}


def refusal(held: dict[str, Any], by: OidcProvider | None = None, now: float = NOW) -> str:
    with pytest.raises(Unauthenticated) as refused:
        judge(held, by or provider(), now)
    return refused.value.detail


def test_a_good_token_has_a_holder() -> None:
    holder = judge(claims(name=" Zoya ", email="zoya@example.com", email_verified=True), provider(), NOW)
    assert (holder.issuer, holder.subject, holder.name) == (ISSUER, "u-1", "Zoya")
    assert holder.email == "zoya@example.com"
    assert holder.role is None


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://id.example.com"},
        {"iss": "https://ID.example.com/"},
        {"iss": [ISSUER]},
        {"iss": ...},
        {"aud": "theirs"},
        {"aud": ["theirs", "ours.example.com"]},
        {"aud": [["ours"]]},
        {"aud": {"ours": 1}},
        {"aud": ...},
        {"aud": []},
        {"sub": ...},
        {"sub": ""},
        {"sub": "  "},
        {"sub": 7},
        {"sub": ["u-1"]},
        {"sub": "u\x00"},
        {"sub": "u\n1"},
        {"sub": "\ud800"},
        {"sub": "u" * 256},
        {"exp": ...},
        {"exp": str(NOW + 60)},
        {"exp": True},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": 10**400},
        {"exp": -1},
        {"iat": ...},
        {"iat": "yesterday"},
        {"iat": NOW + 31},
        {"iat": NOW + 31, "nbf": NOW - 5},
        {"iat": True},
        {"nbf": NOW + 31},
        {"nbf": "soon"},
        {"typ": "Refresh"},
        {"typ": "Logout"},
        {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
        {"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}},
    ],
)
def test_a_token_that_lacks_something_or_is_for_others_lets_nobody_in(changed: dict[str, Any]) -> None:
    assert judge(claims(), provider(), NOW).subject
    assert refusal(claims(**changed))


def test_time_is_compared_with_the_clocks_difference_allowed_for() -> None:
    held = claims(nbf=NOW)
    assert judge(held, provider(leeway=30), NOW + 60 + 29).subject
    with pytest.raises(TokenExpired):
        judge(held, provider(leeway=30), NOW + 60 + 30)
    assert judge(held, provider(leeway=30), NOW - 29).subject
    assert "not valid yet" in refusal(held, provider(leeway=5), NOW - 29)


def test_the_application_is_compared_where_the_audience_says_nothing() -> None:
    clerk = provider(audiences=(), authorized_parties=("https://app.example.com",))
    held = claims(aud=..., azp="https://app.example.com")
    assert judge(held, clerk, NOW).subject
    for other in ("https://app.example.com.evil.example", ["https://app.example.com"], ...):
        assert "azp" in refusal(held | {"azp": other}, clerk)
    both = provider(authorized_parties=("https://app.example.com",))
    assert refusal(held, both)
    assert refusal(claims(), both)
    assert judge(held | {"aud": ["x", "ours"]}, both, NOW).subject


def test_a_provider_that_is_held_to_nothing_lets_nobody_in() -> None:
    assert refusal(claims(), provider(audiences=()))


@pytest.mark.parametrize("verified", [None, False, "false", "yes", 1, {}, ...])
def test_an_address_that_was_not_proved_is_none(verified: Any) -> None:
    assert judge(claims(email="a@example.com", email_verified=verified), provider(), NOW).email is None


@pytest.mark.parametrize(
    "email", ["a", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\n", "", 7, None, "a" * 320 + "@b"]
)
def test_what_is_no_address_is_none(email: Any) -> None:
    assert judge(claims(email=email, email_verified=True), provider(), NOW).email is None


def test_claims_with_other_names_are_found() -> None:
    auth0 = provider(
        email_claim="https://example.com/email",
        email_verified_claim=("https://example.com/about", "verified"),
        name_claim="profile.name",
        role_claim="https://example.com/roles",
        admin_roles=("boss",),
    )
    held = claims(
        **{
            "https://example.com/email": "a@example.com",
            "https://example.com/about": {"verified": "true"},
            "profile": {"name": "Aisha"},
            "https://example.com/roles": ["boss"],
        }
    )
    holder = judge(held, auth0, NOW)
    assert (holder.email, holder.name, holder.role) == ("a@example.com", "Aisha", "admin")


def test_a_nameless_holder_is_called_by_what_else_is_known() -> None:
    assert judge(claims(name="\u200b", preferred_username="zoya"), provider(), NOW).name == "zoya"
    known = judge(claims(name=7, email="z@example.com", email_verified=True), provider(), NOW)
    assert known.name == "z@example.com"
    assert judge(claims(name="a\x1b[31m"), provider(), NOW).name == "u-1"
    assert judge(claims(name="x" * 5000), provider(), NOW).name == "x" * 200


ROLES = provider(role_claim="realm_access.roles", admin_roles=("boss",), user_roles=("staff", "student"))


@pytest.mark.parametrize(
    ("held", "role"),
    [
        (["boss"], "admin"),
        (["staff", "boss"], "admin"),
        (["staff"], "user"),
        ("student", "user"),
        ("openid student", "user"),
        (["Boss", "bos", "staff boss"], "none"),
        ("bossy", "none"),
        ({"boss": True}, "none"),
        (True, "none"),
        ([["boss"], None, 7], "none"),
        (None, "none"),
    ],
)
def test_roles_are_compared_whole(held: Any, role: str) -> None:
    assert role_of({"realm_access": {"roles": held}}, ROLES) == role


def test_without_roles_that_let_in_everybody_comes_in() -> None:
    only_admins = provider(role_claim="role", admin_roles=("boss",))
    assert role_of({}, only_admins) == "user"
    assert role_of({"role": "boss"}, provider()) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = (
    "iss", "aud", "azp", "sub", "exp", "iat", "nbf", "name", "email", "email_verified", "typ", "events", "cnf",
    "realm_access", "preferred_username",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), json_values), st.sets(st.sampled_from(NAMES)))
def test_whatever_is_claimed_there_is_a_holder_or_a_refusal(odd: dict[str, Any], usual: set[str]) -> None:
    held = odd | {name: value for name, value in claims().items() if name in usual}
    with suppress(Unauthenticated):
        holder = judge(held, ROLES, NOW)
        assert isinstance(holder, Holder)
        assert 0 < len(holder.name) <= 200
        assert holder.role in {"admin", "user", "none"}
        assert all(ord(one) >= 32 for one in holder.name)


@given(json_values)
def test_only_a_role_that_is_named_makes_an_administrator(held: Any) -> None:
    role = role_of({"realm_access": {"roles": held}}, ROLES)
    if role == "admin":
        assert "boss" in (held.split() if isinstance(held, str) else held)
    assert "boss" not in roles_in(held) or role == "admin"


@given(
    st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=4),
    json_values,
    st.dictionaries(st.text(max_size=6), json_values, max_size=3),
)
def test_a_claim_is_found_where_a_list_of_names_leads(
    path: list[str], value: Any, beside: dict[str, Any]
) -> None:
    held: Any = value
    for name in reversed(path):
        held = beside | {name: held}
    assert repr(found(held, tuple(path))) == repr(value)
    if all("." not in name for name in path):
        dotted: ClaimPath = ".".join(path)
        expected = held.get(dotted, value)
        assert repr(found(held, dotted)) == repr(expected)


def test_a_name_with_dots_is_a_name_first() -> None:
    assert found({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert found({"a.b": 1, "a": {"b": 2}}, ("a", "b")) == 2
    assert found({"a": "text"}, "a.b") is None
