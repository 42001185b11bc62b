"""AWS Secrets Manager's own: names, labels, permissions, and what its secrets may look like. Against moto's server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.aws import AwsStore
from baatcheet.keys.stores.model import StoreChanged, StoreMalformed, StoreRefused, StoreUnavailable
from tests.keys.stores.benches_of_services import AwsBench

NewStore = Callable[[], AwsStore]


def keys(*texts: str) -> tuple[SecretKey, ...]:
    return tuple(SecretKey(text) for text in texts)


@pytest_asyncio.fixture
async def stores(aws: AwsBench) -> AsyncIterator[NewStore]:
    async with AsyncExitStack() as stack:

        def new() -> AwsStore:
            store = aws.store()
            stack.push_async_callback(store.close)
            assert isinstance(store, AwsStore)
            return store

        yield new


async def labels(aws: AwsBench, provider: str) -> dict[str, str]:
    """The version under each label, as AWS says it."""
    told = await aws.directly(lambda client: client.describe_secret(SecretId=aws.secret(provider)))
    return {label: version for version, stages in told["VersionIdsToStages"].items() for label in stages}


async def fetched(store: AwsStore, provider: str = "groq") -> list[str]:
    return [key.reveal() for key in (await store.fetch([provider]))[provider].keys]


def test_the_secrets_have_the_names_that_people_know() -> None:
    store = AwsStore("us-east-1")
    assert store.secret_of("groq") == "baatcheet/groq-api-keys"
    assert store.secret_of("ocr_space") == "baatcheet/ocr-space-api-keys"
    assert AwsStore("eu-central-1", prefix="production/").secret_of("my_lab") == "production/my-lab-api-keys"


async def test_a_secret_is_written_as_an_operator_would_write_it(aws: AwsBench, stores: NewStore) -> None:
    await stores().replace("groq", keys("gsk_one", "gsk_two"))
    text = await aws.directly(
        lambda client: client.get_secret_value(SecretId=aws.secret("groq"))["SecretString"]
    )
    assert json.loads(text) == {"keys": ["gsk_one", "gsk_two"]}


async def test_the_versions_are_those_of_aws(aws: AwsBench, stores: NewStore) -> None:
    store = stores()
    first = await store.replace("groq", keys("gsk_one"))
    staged = await store.stage("groq", keys("gsk_two"))
    assert await labels(aws, "groq") == {"AWSCURRENT": first, "AWSPENDING": staged}
    await store.promote("groq", staged)
    assert await labels(aws, "groq") == {"AWSCURRENT": staged, "AWSPREVIOUS": first}
    third = await store.replace("groq", keys("gsk_three"))
    assert await labels(aws, "groq") == {"AWSCURRENT": third, "AWSPREVIOUS": staged}
    await store.roll_back("groq", third)
    assert await labels(aws, "groq") == {"AWSCURRENT": staged, "AWSPREVIOUS": third}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gsk_canary", "is not JSON"),
        ('{"keys": ["gsk_canary"', "is not JSON"),
        ("[" * 20_000, "is not JSON"),
        ('["gsk_canary"]', 'no JSON object with the member "keys"'),
        ('{"key": "gsk_canary"}', 'no JSON object with the member "keys"'),
        ('{"keys": {"1": "gsk_canary"}}', "neither a list of keys"),
        ('{"keys": ["gsk_one", 7]}', "number 2, that is not a text"),
        ('{"keys": ["gsk_one", "gsk canary"]}', "number 2, that holds spaces"),
    ],
)
async def test_what_is_no_set_is_named_and_not_repeated(
    aws: AwsBench, stores: NewStore, text: str, problem: str
) -> None:
    await aws.write("groq", text)
    with pytest.raises(StoreMalformed) as caught:
        await stores().fetch(["groq"])
    told = str(caught.value)
    assert aws.secret("groq") in told
    assert problem in told
    assert '{"keys": ["first key", "second key"]}' in told
    assert "canary" not in told


async def test_keys_may_be_one_text_as_the_console_makes_it(aws: AwsBench, stores: NewStore) -> None:
    await aws.write("groq", '{"keys": "gsk_one, gsk_two", "note": "ours"}')
    assert await fetched(stores()) == ["gsk_one", "gsk_two"]


async def test_binary_secrets_and_empty_ones_are_told_apart(aws: AwsBench, stores: NewStore) -> None:
    name = aws.secret("groq")
    await aws.directly(lambda client: client.create_secret(Name=name, SecretBinary=b"gsk_canary"))
    with pytest.raises(StoreMalformed, match="holds no text"):
        await stores().fetch(["groq"])
    await aws.write("openrouter", '{"keys": []}')
    assert dict(await stores().fetch(["openrouter"])) == {}


async def test_a_secret_without_a_value_can_be_staged_and_written(aws: AwsBench, stores: NewStore) -> None:
    for provider in ("groq", "openrouter"):
        name = aws.secret(provider)
        await aws.directly(lambda client, name=name: client.create_secret(Name=name))
    store = stores()
    assert dict(await store.fetch(["groq"])) == {}
    version = await store.stage("groq", keys("gsk_one"))
    assert (await store.versions("groq")).current is None
    await store.promote("groq", version)
    await store.replace("openrouter", keys("sk-or-one"))
    assert await fetched(store) == ["gsk_one"]
    assert await fetched(store, "openrouter") == ["sk-or-one"]


async def test_a_secret_that_is_about_to_be_deleted_has_no_keys_and_is_not_written(
    aws: AwsBench, stores: NewStore
) -> None:
    await aws.put("groq", ["gsk_one"])
    await aws.directly(lambda client: client.delete_secret(SecretId=aws.secret("groq")))
    store = stores()
    assert dict(await store.fetch(["groq"])) == {}
    with pytest.raises(StoreRefused, match="restore-secret --secret-id " + aws.secret("groq")):
        await store.replace("groq", keys("gsk_two"))


async def test_a_promotion_that_was_killed_before_its_last_step_is_seen_as_done(
    aws: AwsBench, stores: NewStore
) -> None:
    store = stores()
    first = await store.replace("groq", keys("gsk_one"))
    staged = await store.stage("groq", keys("gsk_two"))
    # All that a promotion does but for taking AWSPENDING away.
    await aws.directly(
        lambda client: client.update_secret_version_stage(
            SecretId=aws.secret("groq"),
            VersionStage="AWSCURRENT",
            RemoveFromVersionId=first,
            MoveToVersionId=staged,
        )
    )
    versions = await store.versions("groq")
    assert versions.pending is None
    assert versions.current is not None
    assert versions.current.version == staged
    assert await store.promote("groq", staged) == staged
    assert await labels(aws, "groq") == {"AWSCURRENT": staged, "AWSPREVIOUS": first}


async def test_what_such_a_promotion_leaves_is_not_pending_after_a_rollback(
    aws: AwsBench, stores: NewStore
) -> None:
    store = stores()
    first = await store.replace("groq", keys("gsk_one"))
    staged = await store.stage("groq", keys("gsk_two"))
    for source, target in ((first, staged), (staged, first)):
        await aws.directly(
            lambda client, source=source, target=target: client.update_secret_version_stage(
                SecretId=aws.secret("groq"),
                VersionStage="AWSCURRENT",
                RemoveFromVersionId=source,
                MoveToVersionId=target,
            )
        )
    assert (await labels(aws, "groq"))["AWSPENDING"] == staged
    assert (await store.versions("groq")).pending is None


@pytest.mark.parametrize(
    ("action", "permission"),
    [
        (lambda store: store.fetch(["groq"]), "secretsmanager:GetSecretValue"),
        (lambda store: store.versions("groq"), "secretsmanager:DescribeSecret"),
        (lambda store: store.replace("groq", keys("gsk_two")), "secretsmanager:DescribeSecret"),
    ],
)
async def test_a_permission_that_is_missing_is_named(
    aws: AwsBench, stores: NewStore, action: Any, permission: str
) -> None:
    await aws.put("groq", ["gsk_one"])
    await aws.refuse()
    with pytest.raises(StoreRefused, match=f"Allow the action {permission} on it") as caught:
        await action(stores())
    assert aws.secret("groq") in str(caught.value)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("UnrecognizedClientException", StoreRefused, "refuses the credentials"),
        ("ExpiredTokenException", StoreRefused, "refuses the credentials"),
        ("DecryptionFailure", StoreRefused, "kms:Decrypt"),
        ("SomethingNew<script>", StoreRefused, "SomethingNewscript"),
        ("ThrottlingException", StoreUnavailable, "can't answer now"),
    ],
)
async def test_each_refusal_of_aws_has_its_words(
    aws: AwsBench, stores: NewStore, code: str, kind: type[Exception], words: str
) -> None:
    body = json.dumps({"__type": code, "Message": "it echoes gsk_canary"}).encode()
    await aws.gate.answer("400 Bad Request", "application/x-amz-json-1.1", body)
    with pytest.raises(kind, match=words) as caught:
        await stores().fetch(["groq"])
    assert "canary" not in str(caught.value)


async def test_an_answer_that_is_not_of_aws_is_an_error_of_the_store(aws: AwsBench, stores: NewStore) -> None:
    for status in ("200 OK", "500 Internal Server Error", "403 Forbidden"):
        await aws.gate.answer(status, "text/html", b"<html>gsk_canary</html>")
        with pytest.raises((StoreUnavailable, StoreRefused)) as caught:
            await stores().fetch(["groq"])
        assert "canary" not in str(caught.value)


async def test_without_credentials_it_says_which_are_looked_for(
    aws: AwsBench, stores: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(StoreRefused, match="AWS_ACCESS_KEY_ID"):
        await stores().fetch(["groq"])


@pytest.mark.parametrize("action", ["replace", "promote", "roll_back"])
async def test_what_an_operator_changes_between_the_look_and_the_move_is_not_lost(
    aws: AwsBench, stores: NewStore, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    store, operator = stores(), stores()
    await store.replace("groq", keys("gsk_one"))
    current = await store.replace("groq", keys("gsk_two"))
    staged = await store.stage("groq", keys("gsk_three"))
    look = store._labels
    others = ["gsk_of_an_operator"]

    async def look_and_let_others_write(provider: str) -> dict[str, str] | None:
        seen = await look(provider)
        if others:
            await operator.replace(provider, keys(others.pop()))
        return seen

    monkeypatch.setattr(store, "_labels", look_and_let_others_write)
    given = {"replace": keys("gsk_four"), "promote": staged, "roll_back": current}[action]
    with pytest.raises(StoreChanged, match=aws.secret("groq")):
        await getattr(store, action)("groq", given)
    assert await fetched(store) == ["gsk_of_an_operator"]


async def test_two_that_write_the_first_keys_do_not_overwrite_each_other(
    aws: AwsBench, stores: NewStore
) -> None:
    done = await asyncio.gather(
        stores().replace("groq", keys("gsk_one")),
        stores().replace("groq", keys("gsk_two")),
        return_exceptions=True,
    )
    written = [one for one in done if isinstance(one, str)]
    versions = await stores().versions("groq")
    assert versions.current is not None
    assert versions.current.version in written
    if len(written) == 2:
        assert versions.previous is not None
        assert {versions.current.version, versions.previous.version} == set(written)
