"""The encrypted file: dotenvx's format both ways, changed line by line, whole whenever its writer is killed."""

import asyncio
import base64
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import dotenvx
import keyring
import keyring.backend
import keyring.errors
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores import encrypted_file
from baatcheet.keys.stores.dotenvx import (
    Document,
    Undecipherable,
    decrypt,
    encrypt,
    new_pair,
    public_of,
    variable_names,
)
from baatcheet.keys.stores.encrypted_file import EncryptedFileStore
from baatcheet.keys.stores.files import locked
from baatcheet.keys.stores.model import (
    KeySet,
    StoreChanged,
    StoreMalformed,
    StoreRefused,
    StoreUnavailable,
)
from baatcheet.keys.stores.private_keys import (
    KeyFileSource,
    KeyringSource,
    PrivateKeys,
    VariableSource,
)
from baatcheet.platform.settings import SecretSettings

# Written by the program `dotenvx` 2.38.2: `dotenvx encrypt -f .env.secrets -ek PORT`.
GOLDEN = (
    "#/-------------------[DOTENV_PUBLIC_KEY]--------------------/\n"
    "#/            public-key encryption for .env files          /\n"
    "#/       [how it works](https://dotenvx.com/encryption)     /\n"
    "#/----------------------------------------------------------/\n"
    'DOTENV_PUBLIC_KEY_SECRETS="0205258c260377d2536931d017368a3de856fbd8e6e0100d8d0481b754caf46'
    '31b"\n'
    "\n"
    "# .env.secrets\n"
    "# of the team\n"
    "export GROQ_API_KEY_1=encrypted:BK1JfzZ4k4l66VA6AFGN0mDIv/2fvtzwXL6Bf5i3Zf3aCMiePg+usKQ8g/"
    "hca+xwRbwCY1nwEBBdrNO52RAxUTKNIEtpcdnNsOa08dEMqLoToHJ1qDsct6z5yDpcnO11skEJ/e3civnLDImqKtHt"
    " # Anna\n"
    'GROQ_API_KEY_2="encrypted:BHtW2SfdjoskZ84SiNMLAg3EeHH4n3JE+Zqf0gAq7IhVhlIkK651Y9Z1Ie3JtYMk'
    'WL4eQJVPi6s2YjcQ9JM4UIqy5kuUmr3OQtRSkFdWBJJpZPvvlG9ThJGoj0G8gS9wXu2/m25GhBHb2E//RK8sjQ=="\n'
    "PORT=8080\n"
)
GOLDEN_KEYS = (
    "# .env.secrets\n"
    "DOTENV_PRIVATE_KEY_SECRETS=edfe3cd208ebaeca5b16b83ec3c23a3df3e579f229c7e7776f9223d01b2e0fa"
    "f"
)

THEIRS = [("GROQ", 14), ("OPENROUTER", 12), ("DEEPSEEK", 4), ("GEMINI", 3), ("HF", 5)]


def keys(*texts: str) -> tuple[SecretKey, ...]:
    return tuple(SecretKey(text) for text in texts)


def of(kept: KeySet | None) -> list[str] | None:
    return None if kept is None else [key.reveal() for key in kept.keys]


def store_at(folder: Path) -> EncryptedFileStore:
    return EncryptedFileStore(folder / ".env.secrets", PrivateKeys([KeyFileSource(folder / ".env.keys")]))


async def made_at(folder: Path, **sets: Sequence[str]) -> EncryptedFileStore:
    store = store_at(folder)
    await store.create(KeyFileSource(folder / ".env.keys"))
    await store.add({provider: keys(*texts) for provider, texts in sets.items()})
    return store


# dotenvx's format.


async def test_python_dotenvx_reads_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOTENV_PRIVATE_KEY_SECRETS", raising=False)
    store = await made_at(tmp_path, groq=["gsk_one", r"gsk_$HOME\`id`'#\"=two"], ocr_space=["K1"])
    await store.stage("groq", keys("gsk_three"))
    read = dotenvx.dotenv_values(store.path, interpolate=False)
    assert {name: value for name, value in read.items() if "KEY_" in name and "PUBLIC" not in name} == {
        "GROQ_API_KEY_1": "gsk_one",
        "GROQ_API_KEY_2": r"gsk_$HOME\`id`'#\"=two",
        "GROQ_API_KEY_PENDING_1": "gsk_three",
        "OCR_SPACE_API_KEY_1": "K1",
    }


async def test_what_dotenvx_has_written_is_read_and_no_command_in_it_is_run(tmp_path: Path) -> None:
    (tmp_path / ".env.secrets").write_text(GOLDEN)
    (tmp_path / ".env.keys").write_text(GOLDEN_KEYS)
    found = await store_at(tmp_path).fetch(["groq"])
    assert of(found["groq"]) == ["gsk_golden_one", "gsk_$(id)_$HOME"]


async def test_a_change_leaves_every_other_byte_as_it_was(tmp_path: Path) -> None:
    (tmp_path / ".env.secrets").write_text(GOLDEN)
    (tmp_path / ".env.keys").write_text(GOLDEN_KEYS)
    store = store_at(tmp_path)
    await store.add({"groq": keys("gsk_new")})
    text = store.path.read_text()
    new = next(line for line in text.splitlines(keepends=True) if line.startswith("GROQ_API_KEY_3="))
    assert text.replace(new, "") == GOLDEN
    await store.stage("groq", keys("gsk_later"))
    version = await store.stage("groq", keys("gsk_later"))
    await store.promote("groq", version)
    lines = store.path.read_text().splitlines()
    assert "# of the team" in lines
    assert "PORT=8080" in lines
    # A key's line goes with it: what was said of it still is.
    assert any(
        line.startswith("export GROQ_API_KEY_PREVIOUS_1=encrypted:") and line.endswith("# Anna")
        for line in lines
    )
    await store.roll_back("groq", version)
    assert any(
        line.startswith("export GROQ_API_KEY_1=encrypted:") and line.endswith("# Anna")
        for line in store.path.read_text().splitlines()
    )


@pytest.mark.parametrize(
    ("file", "variable"),
    [
        (".env", "DOTENV_PUBLIC_KEY"),
        (".env.secrets", "DOTENV_PUBLIC_KEY_SECRETS"),
        (".env.Production", "DOTENV_PUBLIC_KEY_PRODUCTION"),
        (".env.local.secrets", "DOTENV_PUBLIC_KEY_LOCAL_SECRETS"),
        (".env.secrets.txt", "DOTENV_PUBLIC_KEY_SECRETS"),
        ("my.env", "DOTENV_PUBLIC_KEY_MYDEVELOPMENT"),
    ],
)
def test_the_variables_are_named_as_dotenvx_names_them(file: str, variable: str) -> None:
    assert variable_names(file) == (variable, variable.replace("PUBLIC", "PRIVATE"))


def test_the_variable_that_the_file_has_wins() -> None:
    document = Document.of('DOTENV_PUBLIC_KEY_CI="02"\n')
    assert variable_names(".env.secrets", document) == ("DOTENV_PUBLIC_KEY_CI", "DOTENV_PRIVATE_KEY_CI")


names = st.from_regex(r"[A-Z][A-Z0-9_]{0,12}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
pieces = st.lists(
    st.one_of(
        st.builds("{}={}".format, names, texts),
        st.builds("export {} = '{}' # {}".format, names, texts, texts),
        st.builds('{}="{}"'.format, names, texts),
        st.builds("# {}".format, texts),
        texts,
    ),
    max_size=8,
)


@given(pieces, st.sampled_from(["\n", "\r\n", "\n\n"]), texts)
def test_any_text_is_cut_into_lines_and_back_to_the_byte(parts: list[str], end: str, last: str) -> None:
    text = end.join(parts) + last
    document = Document.of(text)
    assert document.text == text
    numbers = [line.number for line in document.lines]
    assert numbers == sorted(numbers)


@given(pieces, st.sampled_from(["\n", "\r\n"]), names, texts)
def test_a_line_gets_another_value_or_name_and_the_rest_stays(
    parts: list[str], end: str, name: str, value: str
) -> None:
    document = Document.of(end.join(parts))
    for position, line in enumerate(document.lines):
        if line.name is None:
            continue
        for changed, expected in (
            (line.valued(value), (line.name, value)),
            (line.named(name), (name, line.value)),
        ):
            lines = list(document.lines)
            lines[position] = changed
            again = Document.of(Document(tuple(lines)).text)
            set_there = [(one.name, one.value) for one in again.lines if one.name is not None]
            before = [(one.name, one.value) for one in document.lines if one.name is not None]
            index = [one for one in document.lines if one.name is not None].index(line)
            before[index] = expected
            assert set_there == before


@given(texts)
def test_what_is_encrypted_is_decrypted_by_its_own_key_alone(text: str) -> None:
    pair, other = new_pair(), new_pair()
    value = encrypt(text, pair.public)
    assert decrypt(value, [other.private, pair.private]) == text
    with pytest.raises(Undecipherable):
        decrypt(value, [other.private])


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(1, 255))
def test_what_was_changed_or_cut_off_is_not_decrypted(junk: bytes, at: int, change: int) -> None:
    pair = new_pair()
    data = bytearray(base64.b64decode(encrypt("gsk_abcdefgh", pair.public).removeprefix("encrypted:")))
    data[at % len(data)] ^= change
    for bad in (bytes(data), bytes(data[: at % len(data)]), junk):
        with pytest.raises(Undecipherable):
            decrypt("encrypted:" + base64.b64encode(bad).decode(), [pair.private])
    with pytest.raises(Undecipherable):
        decrypt("encrypted:not base64", [pair.private])


# The sets of keys.

steps = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["replace", "stage", "add"]),
            st.sampled_from(["groq", "my-lab"]),
            st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3, unique=True),
        ),
        st.tuples(
            st.sampled_from(["promote", "roll_back", "discard"]),
            st.sampled_from(["groq", "my-lab"]),
            st.just([]),
        ),
    ),
    max_size=8,
)


@settings(max_examples=60)
@given(steps)
def test_the_sets_are_what_was_asked_for_whatever_came_before(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[str, str, list[str]]]
) -> None:
    folder = tmp_path_factory.mktemp("file")
    asyncio.run(_walk(folder, asked))


class _Sets:
    """What one provider's sets should hold by now."""

    def __init__(self) -> None:
        self.current: list[str] = []
        self.previous: list[str] = []
        self.pending: list[str] = []

    async def do(self, store: EncryptedFileStore, provider: str, action: str, those: list[str]) -> None:
        now = await store.versions(provider)
        if action == "replace":
            await store.replace(provider, keys(*those))
            self.previous, self.current = self.current, those
        elif action == "stage":
            await store.stage(provider, keys(*those))
            self.pending = those
        elif action == "add":
            new = [one for one in those if one not in self.current]
            await store.add({provider: keys(*new)})
            self.current = self.current + new
        elif action == "discard":
            await store.discard(provider)
            self.pending = []
        elif action == "promote" and now.pending is not None:
            version = await store.promote(provider, now.pending.version)
            self.previous, self.current, self.pending = self.current, self.pending, []
            assert await store.promote(provider, version) == version == now.pending.version
        elif action == "roll_back" and now.current is not None and self.previous:
            await store.roll_back(provider, now.current.version)
            self.previous, self.current = self.current, self.previous


async def _walk(folder: Path, asked: list[tuple[str, str, list[str]]]) -> None:
    foreign = "# first\nPORT=8080 # the port\n\nHF_TOKEN=hf_a\n# last\n"
    (folder / ".env.secrets").write_text(foreign)
    store = await made_at(folder)
    expected = {"groq": _Sets(), "my-lab": _Sets()}
    for action, provider, those in asked:
        await expected[provider].do(store, provider, action, those)
        for one, sets in expected.items():
            found = await store_at(folder).versions(one)
            assert (of(found.current) or [], of(found.previous) or [], of(found.pending) or []) == (
                sets.current,
                sets.previous,
                sets.pending,
            )
    text = store.path.read_text()
    for line in ("# first", "PORT=8080 # the port", "# last"):
        assert line in text.splitlines()
    assert of((await store.fetch(["huggingface"]))["huggingface"]) == ["hf_a"]
    assert "hf_a" not in text


async def test_keys_are_ordered_by_number_each_once_and_the_last_line_of_a_name_counts(
    tmp_path: Path,
) -> None:
    store = await made_at(tmp_path)
    with store.path.open("a") as file:
        file.write(
            "GROQ_API_KEY_10=ten\nGROQ_API_KEY_2=old\nGROQ_API_KEY_2=two\nGROQ_API_KEYS=a, b,two\nGROQ_API_KEY_3=\n"
            "HUGGINGFACE_API_KEY=hf_b\nHF_TOKEN=hf_a\nLAB_API_KEY=lab\n"
        )
    found = await store.fetch(["groq", "huggingface", "lab"])
    assert {name: of(one) for name, one in found.items()} == {
        "groq": ["a", "b", "two", "ten"],
        "huggingface": ["hf_b", "hf_a"],
        "lab": ["lab"],
    }
    await store.replace("groq", keys("new"))
    versions = await store.versions("groq")
    assert of(versions.current) == ["new"]
    assert of(versions.previous) == ["a", "b", "two", "ten"]
    await store.roll_back("groq", versions.current.version if versions.current else "")
    assert of((await store.versions("groq")).current) == ["a", "b", "two", "ten"]
    assert "old" not in store.path.read_text()


async def test_reading_many_providers_at_once_costs_less_than_one_by_one(tmp_path: Path) -> None:
    many = [f"lab{number}" for number in range(24)]
    sets = {name: [f"{name}-{number}" for number in range(4)] for name in many}
    await made_at(tmp_path, **sets)
    store = store_at(tmp_path)

    async def seconds(reads: Sequence[Sequence[str]]) -> float:
        begun = time.process_time()
        for providers in reads:
            await store.fetch(providers)
        return time.process_time() - begun

    together = min([await seconds([many]) for _ in range(3)])

    assert together < min([await seconds([[name] for name in many]) for _ in range(3)])


async def test_adding_staging_and_promoting_need_no_private_key(tmp_path: Path) -> None:
    await made_at(tmp_path, groq=["gsk_one"])
    blind = EncryptedFileStore(tmp_path / ".env.secrets", PrivateKeys([]))
    await blind.add({"groq": keys("gsk_two")})
    await blind.promote("groq", await blind.stage("groq", keys("gsk_three")))
    with pytest.raises(StoreRefused, match="no private key"):
        await blind.fetch(["groq"])
    versions = await store_at(tmp_path).versions("groq")
    assert (of(versions.current), of(versions.previous)) == (["gsk_three"], ["gsk_one", "gsk_two"])


async def test_what_was_staged_and_is_there_no_more_is_not_promoted(tmp_path: Path) -> None:
    store = await made_at(tmp_path, groq=["gsk_one"])
    version = await store.stage("groq", keys("gsk_two"))
    await store.discard("groq")
    with pytest.raises(StoreChanged):
        await store.promote("groq", version)
    with pytest.raises(StoreChanged):
        await store.roll_back("groq", version)
    assert of((await store.versions("groq")).current) == ["gsk_one"]


# What can be wrong with the file.


async def test_what_is_wrong_is_said_with_its_place_and_what_to_do(tmp_path: Path) -> None:
    nothing = EncryptedFileStore(tmp_path / "none" / ".env.secrets", PrivateKeys([]))
    assert not await nothing.fetch(["groq"])
    await nothing.discard("groq")
    store = store_at(tmp_path)
    with pytest.raises(StoreRefused, match="secrets init"):
        await store.add({"groq": keys("gsk_one")})
    store = await made_at(tmp_path, groq=["gsk_one"])
    good = store.path.read_text()
    key_file = (tmp_path / ".env.keys").read_text()

    (tmp_path / ".env.keys").write_text(key_file.split("=")[0] + "=" + new_pair().private.reveal())
    with pytest.raises(StoreRefused, match="does not belong"):
        await store.fetch(["groq"])
    (tmp_path / ".env.keys").write_text("DOTENV_PRIVATE_KEY_SECRETS=hello")
    with pytest.raises(StoreRefused, match="not a private key"):
        await store.fetch(["groq"])
    (tmp_path / ".env.keys").write_text(key_file)

    store.path.write_text(good.replace("encrypted:B", "encrypted:C"))
    with pytest.raises(StoreMalformed, match=r"line 6: GROQ_API_KEY_1 .* baatcheet secrets set"):
        await store.fetch(["groq"])
    store.path.write_text(good + "GROQ_API_KEY_2='two words'\n")
    with pytest.raises(StoreMalformed, match="line 7: GROQ_API_KEY_2") as caught:
        await store.fetch(["groq"])
    assert "two words" not in str(caught.value)
    assert not await store.fetch(["openrouter"])  # what nobody asks for is not opened
    store.path.write_bytes(b"\xff\xfe")
    with pytest.raises(StoreMalformed, match="UTF-8"):
        await store.fetch(["groq"])
    store.path.unlink()
    store.path.mkdir()
    with pytest.raises(StoreMalformed, match="folder"):
        await store.fetch(["groq"])
    store.path.rmdir()
    store.path.write_text('DOTENV_PUBLIC_KEY_SECRETS="hello"\n')
    with pytest.raises(StoreMalformed, match="not a public key"):
        await store.add({"groq": keys("gsk_one")})


async def test_a_writer_waits_for_another_one_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await made_at(tmp_path, groq=["gsk_one"])
    with locked(store.path, 1):
        monkeypatch.setattr(encrypted_file, "LOCK_SECONDS", 0.1)
        with pytest.raises(StoreUnavailable, match="another process"):
            await store.add({"groq": keys("gsk_two")})
        assert of((await store.fetch(["groq"]))["groq"]) == ["gsk_one"]  # readers never wait
        monkeypatch.setattr(encrypted_file, "LOCK_SECONDS", 30)
        waiting = asyncio.create_task(store.add({"groq": keys("gsk_two")}))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
    await waiting
    assert of((await store.fetch(["groq"]))["groq"]) == ["gsk_one", "gsk_two"]


async def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    await made_at(tmp_path)
    await asyncio.gather(*(store_at(tmp_path).add({"groq": keys(f"gsk_{n}")}) for n in range(12)))
    found = await store_at(tmp_path).fetch(["groq"])
    assert sorted(of(found["groq"]) or []) == sorted(f"gsk_{n}" for n in range(12))


async def test_files_are_private_and_keep_the_mode_that_they_were_given(tmp_path: Path) -> None:
    store = await made_at(tmp_path)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in (".env.secrets", ".env.keys")] == [
        0o600,
        0o600,
    ]
    store.path.chmod(0o640)
    await store.add({"groq": keys("gsk_one")})
    assert store.path.stat().st_mode & 0o777 == 0o640


async def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = await made_at(tmp_path / "real")
    (tmp_path / ".env.secrets").symlink_to(real.path)
    linked = EncryptedFileStore(tmp_path / ".env.secrets", real.private_keys)
    await linked.add({"groq": keys("gsk_one")})
    assert linked.path.is_symlink()
    assert of((await real.fetch(["groq"]))["groq"]) == ["gsk_one"]


async def test_a_new_file_takes_over_what_stood_there_in_plain_text(tmp_path: Path) -> None:
    path = tmp_path / ".env.secrets"
    path.write_text("# mine\nGROQ_API_KEY_1=gsk_plain # Anna\nLAB_API_KEY=lab_plain\nPORT=1\n")
    store = await made_at(tmp_path)
    text = path.read_text()
    assert "gsk_plain" not in text
    assert "lab_plain" not in text
    assert "# Anna" in text
    assert "PORT=1" in text
    assert of((await store.fetch(["groq"]))["groq"]) == ["gsk_plain"]
    assert await store.create(KeyFileSource(tmp_path / ".env.keys")) is None  # one pair is enough
    assert path.read_text() == text


# Where the private key comes from.


class _MemoryKeyring(keyring.backend.KeyringBackend):
    """A FAKE of an operating system's keyring."""

    priority = 1

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if (service, username) not in self.kept:
            raise keyring.errors.PasswordDeleteError
        del self.kept[service, username]


@pytest.fixture
def memory_keyring() -> Iterator[_MemoryKeyring]:
    before = keyring.get_keyring()
    backend = _MemoryKeyring()
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(before)


async def test_the_private_key_may_be_in_a_variable_a_file_alone_or_the_keyring(
    tmp_path: Path, memory_keyring: _MemoryKeyring
) -> None:
    store = await made_at(tmp_path, groq=["gsk_one"])
    private = (tmp_path / ".env.keys").read_text().split("SECRETS=")[1].strip()
    (tmp_path / ".env.keys").unlink()
    alone = tmp_path / "mounted"
    alone.write_text(private + "\n")
    memory_keyring.set_password("dotenvx", public_of(SecretKey(private)), private)
    wrong = VariableSource("OTHER", SecretStr(new_pair().private.reveal()))
    for source in (
        VariableSource("DOTENV_PRIVATE_KEY_SECRETS", SecretStr(private)),
        VariableSource("DOTENV_PRIVATE_KEY_SECRETS", SecretStr(f"{new_pair().private.reveal()},{private}")),
        KeyFileSource(alone),
        KeyringSource(),
    ):
        # One that does not belong to the file is passed over where there is one that does.
        reading = EncryptedFileStore(store.path, PrivateKeys([wrong, source]))
        assert of((await reading.fetch(["groq"]))["groq"]) == ["gsk_one"]


async def test_the_settings_name_the_places_of_the_private_key(
    tmp_path: Path, memory_keyring: _MemoryKeyring
) -> None:
    path = tmp_path / ".env.production"
    keep = KeyFileSource(tmp_path / "elsewhere")
    store = EncryptedFileStore(path, PrivateKeys([keep]))
    await store.create(keep)
    await store.add({"groq": keys("gsk_one")})
    private = keep.path.read_text().split("PRODUCTION=")[1].strip()
    by_file = SecretSettings(file=path, file_key_file=keep.path)
    by_variable = SecretSettings(file=path, file_private_key=SecretStr(private))
    nothing = SecretSettings(file=path)
    for settings_, environ in (
        (by_file, {}),
        (by_variable, {}),
        (nothing, {"DOTENV_PRIVATE_KEY_PRODUCTION": private}),
    ):
        reading = EncryptedFileStore(path, PrivateKeys.of(settings_, environ))
        assert of((await reading.fetch(["groq"]))["groq"]) == ["gsk_one"]
    with pytest.raises(StoreRefused, match=r"\.env\.keys, the keyring.*DOTENV_PRIVATE_KEY_PRODUCTION"):
        await EncryptedFileStore(path, PrivateKeys.of(nothing, {})).fetch(["groq"])


# A new key pair.


async def test_after_a_new_key_pair_only_the_new_private_key_opens_the_file(tmp_path: Path) -> None:
    store = await made_at(tmp_path, groq=["gsk_one"], my_lab=["lab"])
    await store.stage("groq", keys("gsk_two"))
    with store.path.open("a") as file:
        file.write("# last\nPORT=1\n")
    old = (tmp_path / ".env.keys").read_text()
    before = store.path.read_text()
    public = await store.rekey(KeyFileSource(tmp_path / ".env.keys"))
    after = store.path.read_text()
    assert public in after
    assert [line.split("=")[0] for line in after.splitlines()] == [
        line.split("=")[0] for line in before.splitlines()
    ]
    versions = await store.versions("groq")
    assert (of(versions.current), of(versions.pending)) == (["gsk_one"], ["gsk_two"])
    assert of((await store.fetch(["my_lab"]))["my_lab"]) == ["lab"]
    assert "," not in (tmp_path / ".env.keys").read_text()
    (tmp_path / ".env.keys").write_text(old)
    with pytest.raises(StoreRefused, match="does not belong"):
        await store.fetch(["groq"])


async def test_a_new_key_pair_in_the_keyring_replaces_the_old_one(
    tmp_path: Path, memory_keyring: _MemoryKeyring
) -> None:
    store = EncryptedFileStore(tmp_path / ".env.secrets", PrivateKeys([KeyringSource()]))
    first = await store.create(KeyringSource())
    await store.add({"groq": keys("gsk_one")})
    second = await store.rekey(KeyringSource())
    assert first != second
    assert list(memory_keyring.kept) == [("dotenvx", second)]
    assert of((await store.fetch(["groq"]))["groq"]) == ["gsk_one"]


async def test_readers_never_fail_while_the_key_pair_is_replaced(tmp_path: Path) -> None:
    store = await made_at(tmp_path, groq=["gsk_one"])
    stop = False

    async def read() -> int:
        times = 0
        while not stop:
            assert of((await store_at(tmp_path).fetch(["groq"]))["groq"]) == ["gsk_one"]
            times += 1
        return times

    readers = [asyncio.create_task(read()) for _ in range(3)]
    try:
        for _ in range(20):
            await store.rekey(KeyFileSource(tmp_path / ".env.keys"))
    finally:
        stop = True
    assert all(times > 0 for times in await asyncio.gather(*readers))


class _ReplacedMeanwhile(KeyFileSource):
    """A key file whose key pair somebody replaces between a reader's look at the one file and at the other."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.times = 0

    def read(self, name: str, public_key: str | None) -> tuple[SecretKey, ...]:
        self.times += 1
        if self.times == 1:
            asyncio.run(store_at(self.path.parent).rekey(KeyFileSource(self.path)))
        return super().read(name, public_key)


async def test_a_reader_between_the_two_files_looks_again(tmp_path: Path) -> None:
    store = await made_at(tmp_path, groq=["gsk_one"])
    source = _ReplacedMeanwhile(tmp_path / ".env.keys")
    found = await EncryptedFileStore(store.path, PrivateKeys([source])).fetch(["groq"])
    assert of(found["groq"]) == ["gsk_one"]
    assert source.times == 2


async def test_whoever_has_the_file_open_reads_the_old_one_to_its_end(tmp_path: Path) -> None:
    store = await made_at(tmp_path, groq=["gsk_one"])
    before = store.path.read_text()
    with store.path.open() as reader:
        await store.add({"groq": keys("gsk_two")})
        assert reader.read() == before


async def test_a_value_that_nobody_can_open_stops_a_new_key_pair_before_anything_changes(
    tmp_path: Path,
) -> None:
    store = await made_at(tmp_path, groq=["gsk_one"])
    with store.path.open("a") as file:
        file.write(f'OTHER="{encrypt("x", new_pair().public)}"\n')
    before = (store.path.read_text(), (tmp_path / ".env.keys").read_text())
    with pytest.raises(StoreMalformed, match="OTHER"):
        await store.rekey(KeyFileSource(tmp_path / ".env.keys"))
    assert (store.path.read_text(), (tmp_path / ".env.keys").read_text()) == before


def test_killed_at_any_step_the_file_can_be_read_and_the_next_call_ends_what_was_begun(
    tmp_path: Path,
) -> None:
    """A child process is killed (SIGKILL) at its first, second, third … access to the folder, until one survives."""

    async def replaces(folder: Path) -> None:
        await store_at(folder).replace("groq", keys("gsk_new"))

    async def rekeys(folder: Path) -> None:
        await store_at(folder).rekey(KeyFileSource(folder / ".env.keys"))

    for number, (act, allowed) in enumerate(
        ((replaces, (["gsk_one"], ["gsk_new"])), (rekeys, (["gsk_one"],)))
    ):
        step = 0
        survived = False
        while not survived:
            step += 1
            folder = tmp_path / f"{number}-{step}"
            folder.mkdir()
            asyncio.run(_prepared(folder))
            survived = not _killed_at(step, folder, act)
            assert asyncio.run(_current(folder)) in allowed
            asyncio.run(act(folder))
            assert asyncio.run(_current(folder)) == allowed[-1]
            left = {path.name for path in folder.iterdir()}
            assert left <= {".env.secrets", ".env.keys", ".env.secrets.lock", ".env.keys.lock"}
            assert "," not in (folder / ".env.keys").read_text()
        assert step > 5


async def _prepared(folder: Path) -> None:
    await made_at(folder, groq=["gsk_one"])


async def _current(folder: Path) -> list[str] | None:
    return of((await store_at(folder).fetch(["groq"]))["groq"])


def _killed_at(step: int, folder: Path, act: Callable[[Path], Coroutine[Any, Any, None]]) -> bool:
    """Do it in a child, which is killed when it touches the folder for the `step`th time. Whether it was."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            touched = 0

            def watch(event: str, arguments: tuple[object, ...]) -> None:
                nonlocal touched
                if event not in {"open", "os.rename", "os.remove", "os.chmod", "os.chown", "os.truncate"}:
                    return
                if any(str(folder) in str(one) for one in arguments):
                    touched += 1
                    if touched == step:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(watch)
            asyncio.run(act(folder))
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


# Editing.


async def test_only_what_was_changed_is_encrypted_anew(tmp_path: Path) -> None:
    store = await made_at(tmp_path, groq=["gsk_one", "gsk_two"])
    before, plain = await store.decrypted()
    assert "gsk_one" in plain.text
    assert "gsk_one" not in repr(plain)
    edited = plain.text.replace("gsk_two", "gsk_2").replace("GROQ_API_KEY_1", "# Anna\nGROQ_API_KEY_1")
    assert await store.rewrite(before, Document.of(edited + "NEW=some text\n"))
    after = (await store.document()).set_lines()
    assert after["GROQ_API_KEY_1"].value == before.set_lines()["GROQ_API_KEY_1"].value
    assert after["NEW"].encrypted
    assert "# Anna" in store.path.read_text()
    assert of((await store.fetch(["groq"]))["groq"]) == ["gsk_one", "gsk_2"]
    again, plain = await store.decrypted()
    assert not await store.rewrite(again, plain)
    with pytest.raises(StoreChanged, match="changed meanwhile"):
        await store.rewrite(before, plain)


async def test_the_public_key_survives_an_editor_that_removes_it(tmp_path: Path) -> None:
    store = await made_at(tmp_path, groq=["gsk_one"])
    before, _ = await store.decrypted()
    assert await store.rewrite(before, Document.of("GROQ_API_KEY_1=gsk_two\n"))
    assert (await store.document()).public_key() == before.public_key()
    assert of((await store.fetch(["groq"]))["groq"]) == ["gsk_two"]


async def test_all_thirty_eight_keys_are_read_quickly(tmp_path: Path) -> None:
    everything = {name: [f"key_{name}_{n}" for n in range(count)] for name, count in THEIRS}
    providers = ["groq", "openrouter", "deepseek", "gemini", "huggingface"]
    store = await made_at(tmp_path, **dict(zip(providers, everything.values(), strict=True)))
    loop = asyncio.get_running_loop()
    began = loop.time()
    found = await store.fetch(providers)
    assert sum(len(one.keys) for one in found.values()) == 38
    assert loop.time() - began < 1
