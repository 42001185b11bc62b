"""`baatcheet secrets`: providers' keys in the encrypted file, and on their way into it and out of it."""

import asyncio
import difflib
import re
import sys
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar

import typer

from baatcheet.entrypoints.cli import editor
from baatcheet.entrypoints.cli.recording import NotRecorded, record
from baatcheet.keys.secret import KeyNotUsable, SecretKey
from baatcheet.keys.stores.dotenvx import Document, Line
from baatcheet.keys.stores.encrypted_file import EncryptedFileStore, holds_key, place_of
from baatcheet.keys.stores.model import SecretStore, StoreError
from baatcheet.keys.stores.private_keys import (
    KEY_FILE,
    KeptPrivateKeys,
    KeyFileSource,
    KeyringSource,
    PrivateKeys,
    PrivateKeySource,
)
from baatcheet.kit.text import printable
from baatcheet.platform.key_variables import KEY_VARIABLES, variable_of
from baatcheet.platform.redaction import register_secret
from baatcheet.platform.settings import Settings, load

app = typer.Typer(
    help="Providers' keys in the encrypted file (BAATCHEET_SECRETS_FILE).", no_args_is_help=True
)

Result = TypeVar("Result")
Elsewhere = Literal["aws", "vault"]
Anywhere = Literal["file", "aws", "vault"]

_LARGEST: Final = 4 * 1024 * 1024  # characters that are read from a pipe
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")

Extra = Annotated[list[str] | None, typer.Argument(hidden=True)]
Keyring = Annotated[
    bool, typer.Option("--keyring", help="Keep the private key in the operating system's keyring.")
]
Named = Annotated[str, typer.Argument(help="A variable, like GROQ_API_KEY_1.")]


@app.command("init")
def init(keyring: Keyring = False) -> None:
    """Make the file, and the key pair that it is encrypted with."""
    settings = load()
    store = EncryptedFileStore.of(settings.secrets)
    keep = _place_for_private_key(settings, keyring=keyring)
    public = _run(store.create(keep))
    if public is None:
        _fail(f"{store.path} has a key pair already. For a new one: baatcheet secrets rekey")
    print(f"{store.path}: keys can be added by anyone, with its public key {public}.")
    print(f"The private key is in {keep.where}: only the server needs it, and without it the keys are lost.")
    if not keyring:
        print(f"Never commit it, and back it up elsewhere than {store.path.name}, which may be committed.")
    _tell(
        settings,
        "secret.file_made",
        str(store.path),
        {"store": store.name, "file": str(store.path), "public_key": public},
    )


@app.command("set")
def put(
    name: Annotated[
        str,
        typer.Argument(help="A variable (GROQ_API_KEY_1), or a provider (groq) that gets one key more."),
    ],
    value: Extra = None,
) -> None:
    """Set a key, which is asked for, or read from a pipe. The private key is not needed.

    For a provider, a pipe may bring several keys, one a line.
    """
    if value:
        _fail(
            "a key is not given on the command line, where other users and the shell's history see it: "
            "leave it out, and it is asked for. Replace the one that you have typed."
        )
    settings = load()
    provider = name if name in _providers(settings) else None
    if provider is None:
        _check_variable(name, settings)
    keys = _typed_keys(several=provider is not None)
    store = EncryptedFileStore.of(settings.secrets)
    if provider is not None:
        names = _run(store.add({provider: keys}))[provider]
        print(f"{', '.join(names)} added to {store.path}.")
    else:
        names = (name,)
        new = _run(store.put(name, keys[0]))
        print(f"{name} {'added to' if new else 'replaced in'} {store.path}.")
    print(f"Running servers take it within {settings.secrets.refresh_seconds:g} s or so.")
    for one in names:
        _tell(settings, "secret.set", one, {"store": store.name, "file": str(store.path)})


@app.command("get")
def get(
    name: Named,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask first.")] = False,
    without_audit: Annotated[
        bool,
        typer.Option(
            "--without-audit",
            help="Show it although there is no database that could record who has seen it.",
        ),
    ] = False,
) -> None:
    """Show a key. It asks first, and who has seen which key is recorded, before it is shown."""
    settings = load()
    store = EncryptedFileStore.of(settings.secrets)
    document = _run(store.document())
    if name not in document.set_lines():
        _fail(f"{store.path} has no {printable(name)}. What it has: baatcheet secrets list")
    if not yes:
        typer.confirm(f"Show {printable(name)} of {store.path} in plain text?", abort=True, err=True)
    key = _run(store.read(name))
    assert key is not None
    register_secret(key.reveal())
    place = place_of(name, _providers(settings))
    detail = {"store": store.name, "file": str(store.path), "variable": name, "hint": key.hint}
    try:
        about = None if place is None or "," in key.reveal() else (place.provider, key)
        record(settings, "secret.read", name, detail, about)
    except NotRecorded as error:
        if not without_audit:
            _fail(
                f"{name} is not shown, because that can't be recorded: {error}. Do it where the database is, or with "
                "--without-audit."
            )
        _warn(f"Not recorded: {error}.")
    print(key.reveal())


@app.command("list")
def show() -> None:
    """List the variables of the file. Of a key, its ends are shown where the private key is at hand."""
    settings = load()
    store = EncryptedFileStore.of(settings.secrets)
    document = _run(store.document())
    lines = {
        name: line
        for name, line in document.set_lines().items()
        if not name.startswith("DOTENV_PUBLIC_KEY") and line.value
    }
    if not lines:
        print(f"{store.path} holds nothing. Add a key: baatcheet secrets set groq")
        return
    plain: Mapping[str, Line] = {}
    try:
        _, opened = asyncio.run(store.decrypted())
        plain = opened.set_lines()
    except StoreError as error:
        _warn(f"{error} Names only, then:")
    width = max(len(name) for name in lines)
    for name, line in lines.items():
        place = place_of(name, _providers(settings))
        whose = "" if place is None else place.provider
        state = "encrypted" if line.encrypted else "IN PLAIN TEXT"
        print(
            f"{printable(name):<{width}}  {whose:<16}  {state:<13}  {_hint(name, line, plain.get(name))}".rstrip()
        )


@app.command("edit")
def edit() -> None:
    """Edit the file in plain text, in $EDITOR. Only what you change is encrypted anew."""
    settings = load()
    store = EncryptedFileStore.of(settings.secrets)
    before, plain = _run(store.decrypted())
    if before.public_key() is None:
        _fail(f"{store.path} has no public key to encrypt with. Make one: baatcheet secrets init")
    if not editor.in_memory():
        _warn("This machine has no /dev/shm: the plain text is in a private file on its disk meanwhile.")
    try:
        with editor.private_file(plain.text, "secrets.env") as path:
            edited = _edited(path)
    except editor.NoEditor as error:
        _fail(str(error))
    if edited is None or edited.text == plain.text or not _run(store.rewrite(before, edited)):
        print("Nothing was changed.")
        return
    old, new = before.set_lines(), _run(store.document()).set_lines()
    names = [
        name
        for name in {**old, **new}
        if name not in old or name not in new or old[name].value != new[name].value
    ]
    print(f"Changed in {store.path}: {', '.join(map(printable, names)) or 'comments'}.")
    _tell(
        settings,
        "secret.edited",
        str(store.path),
        {"store": store.name, "file": str(store.path), "variables": names},
    )


@app.command("import")
def take_in(
    env: Annotated[Path, typer.Argument(metavar=".env", help="The file that the keys are in now.")] = Path(
        ".env"
    ),
    to: Annotated[Anywhere, typer.Option(help="The store that they go to.")] = "file",
) -> None:
    """Copy all keys of a .env into a store, read them back, and say which lines of the .env to delete.

    The encrypted file and its key pair are made if need be. Keys that the store has already are left as they are.
    """
    settings = load()
    found = _keys_of_env(env, settings)
    if not found.keys:
        passed = f" Encrypted already, and passed over: {', '.join(found.passed)}." if found.passed else ""
        _fail(f"{env} holds no provider's keys.{passed}")
    if to == "file":
        store = EncryptedFileStore.of(settings.secrets)
        keep = _place_for_private_key(settings, keyring=False)
        if _run(store.create(keep)) is not None:
            print(f"Made {store.path}, and its private key in {keep.where} (never commit that one).")
    added = _move(settings, to, found.keys)
    total = sum(len(keys) for keys in found.keys.values())
    for provider, keys in found.keys.items():
        print(f"{provider:<24} {len(keys):>3} in {env}, {added[provider]:>3} new in {_place(settings, to)}")
    print(f"All {total} were read back from {_place(settings, to)}, and are the same.")
    if found.passed:
        print(f"Encrypted already, and passed over: {', '.join(map(printable, found.passed))}.")
    print(f"\nDelete these lines of {env}:")
    for line in found.lines:
        where = f"{line.number}" if line.last == line.number else f"{line.number}-{line.last}"
        print(f"  line {where:<9} {printable(line.name or '')}")
    _say_stores(settings, to)
    _tell(
        settings,
        "secret.imported",
        _place(settings, to),
        {"store": to, "from": str(env), "keys": {one: len(keys) for one, keys in found.keys.items()}},
    )


@app.command("export")
def hand_on(
    to: Annotated[Elsewhere, typer.Option(help="The store that they go to.")],
    provider: Annotated[str | None, typer.Option(help="Only this provider's keys.")] = None,
) -> None:
    """Copy the current keys of the file to AWS Secrets Manager or Vault, and read them back.

    Keys that are there already stay. The file stays as it is.
    """
    settings = load()
    store = EncryptedFileStore.of(settings.secrets)
    names = _run(store.document()).set_lines()
    custom = _providers(settings)
    wanted = sorted(
        {place.provider for name in names if (place := place_of(name, custom)) and place.kind == "current"}
    )
    if provider is not None:
        wanted = [one for one in wanted if one == provider]
    sets = {one: list(found.keys) for one, found in _run(store.fetch(wanted)).items()}
    for keys in sets.values():
        _register(keys)
    if not sets:
        _fail(f"{store.path} has no keys{'' if provider is None else f' of {printable(provider)}'}.")
    added = _move(settings, to, sets)
    for one, keys in sets.items():
        print(f"{one:<24} {len(keys):>3} in {store.path}, {added[one]:>3} new in {_place(settings, to)}")
    print(f"All were read back from {_place(settings, to)}, and are the same.")
    _say_stores(settings, to)
    _tell(
        settings,
        "secret.exported",
        _place(settings, to),
        {"store": to, "from": str(store.path), "keys": {one: len(keys) for one, keys in sets.items()}},
    )


@app.command("rekey")
def rekey(
    key_file: Annotated[
        Path | None,
        typer.Option(help="Keep the new private key in this file, in place of where the old one is."),
    ] = None,
    keyring: Keyring = False,
) -> None:
    """Encrypt the file for a new key pair. The providers' keys themselves stay the same.

    Killed at any moment, the file can be read; run it again then.
    """
    settings = load()
    keys = PrivateKeys.of(settings.secrets)
    if key_file is not None or keyring:
        keep: KeptPrivateKeys = KeyFileSource(key_file) if key_file is not None else KeyringSource()
    else:
        keep = _where_it_is(settings, keys)
    sources = [*keys.sources, *([keep] if keep not in keys.sources else [])]
    store = EncryptedFileStore(settings.secrets.file, PrivateKeys(sources))
    public = _run(store.rekey(keep))
    print(f"{store.path} is encrypted for the new public key {public}.")
    print(
        f"The new private key is in {keep.where}. Older copies of {store.path.name} are opened by the old one."
    )
    if settings.secrets.file_private_key is not None:
        print("Set DOTENV_PRIVATE_KEY_SECRETS anew, too: it holds the old one.")
    _tell(
        settings,
        "secret.rekeyed",
        str(store.path),
        {"store": store.name, "file": str(store.path), "public_key": public},
    )


# What the commands share.


def _run(work: Awaitable[Result]) -> Result:
    """The result of a store's work. A store's error ends the command."""

    async def run() -> Result:
        return await work

    try:
        return asyncio.run(run())
    except StoreError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    print(f"baatcheet: {message}", file=sys.stderr)
    raise typer.Exit(1)


def _warn(message: str) -> None:
    print(message, file=sys.stderr)


def _tell(settings: Settings, action: str, subject: str, detail: Mapping[str, Any]) -> None:
    """Record what has been done; where that can't be, say so."""
    try:
        record(settings, action, subject, detail, changed=True)
    except NotRecorded as error:
        _warn(f"Done, but not recorded: {error}.")


def _providers(settings: Settings) -> tuple[str, ...]:
    """The names of all providers, one's own included."""
    return (*KEY_VARIABLES, *(one.name for one in settings.providers.custom))


def _check_variable(name: str, settings: Settings) -> None:
    providers = _providers(settings)
    if _VARIABLE.fullmatch(name) and place_of(name, providers) is not None:
        return
    known = [variable_of(one) for one in providers] + list(providers)
    base = re.sub(r"_\d+$", "", name)
    close = difflib.get_close_matches(base.upper(), known, 1) or difflib.get_close_matches(
        base.lower(), known, 1
    )
    meant = f" Did you mean {close[0]}?" if close else f" Providers: {', '.join(providers)}."
    _fail(f"{printable(name)} is neither a provider nor the variable of a provider's key.{meant}")


def _typed_keys(*, several: bool) -> list[SecretKey]:
    """What the operator types, unseen, or what comes through the pipe."""
    if sys.stdin.isatty():
        texts = [str(typer.prompt("Key", hide_input=True, err=True)).strip()]
    else:
        texts = [line.strip() for line in sys.stdin.read(_LARGEST).splitlines() if line.strip()]
    if not texts:
        _fail("there is no key on the standard input.")
    if len(texts) > 1 and not several:
        _fail(
            "there are several lines on the standard input: a variable takes one key. Name the provider instead."
        )
    keys = []
    for number, text in enumerate(texts, 1):
        register_secret(text)
        try:
            keys.append(SecretKey(text))
        except KeyNotUsable as error:
            _fail(f"this is no key{f' (line {number})' if len(texts) > 1 else ''}: it {error}.")
    return list(dict.fromkeys(keys))


def _register(keys: Iterable[SecretKey]) -> None:
    for key in keys:
        register_secret(key.reveal())


def _hint(name: str, line: Line, plain: Line | None) -> str:
    if plain is None or plain.value is None:
        return ""
    if plain.encrypted:
        return "can't be decrypted: set it anew"
    try:
        keys = [SecretKey(one.strip()) for one in plain.value.split(",") if one.strip()]
    except KeyNotUsable as error:
        return f"no key: it {error}" if holds_key(name) else ""
    _register(keys)
    return ", ".join(key.hint for key in keys) if holds_key(name) else ""


def _edited(path: Path) -> Document | None:
    """What the operator made of the file; None where they gave up."""
    while True:
        editor.open_editor(path)
        try:
            document = Document.of(path.read_bytes().decode("utf-8-sig"))
            problems = _problems(document)
        except UnicodeDecodeError:
            document, problems = Document(), ["it is not UTF-8 text"]
        except OSError:
            problems, document = ["the editor has removed it"], Document()
        if not problems:
            return document
        for problem in problems:
            _warn(f"The text can't be used: {problem}.")
        if not path.exists() or not typer.confirm("Edit it again? (If not, nothing is changed.)", err=True):
            return None


def _problems(document: Document) -> list[str]:
    found = [f"line {line.number} is not NAME=value" for line in document.lines if line.broken]
    for line in document.lines:
        if line.name is None or not line.value or line.encrypted or not holds_key(line.name):
            continue
        for text in line.value.split(","):
            register_secret(text.strip())
            try:
                SecretKey(text.strip())
            except KeyNotUsable as error:
                found.append(f"line {line.number}: {printable(line.name)} is no key: it {error}")
    return found


@dataclass(frozen=True, slots=True)
class _Found:
    """`lines`: those with keys; `passed`: variables that are encrypted already."""

    keys: dict[str, list[SecretKey]]
    lines: list[Line]
    passed: list[str]


def _keys_of_env(path: Path, settings: Settings) -> _Found:
    """The keys of a .env, by provider, in the order of their numbers. Ends the command where one can't be used."""
    try:
        document = Document.of(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError:
        _fail(f"{path} is not UTF-8 text.")
    except OSError as error:
        _fail(f"{path} can't be read ({error.strerror}).")
    if broken := [line for line in document.lines if line.broken]:
        _fail(f"{path}, line {broken[0].number}: is not NAME=value. Nothing was imported.")
    whose = {line.name: _whose(line.name, settings) for line in document.lines if line.name is not None}
    holding = [line for line in document.lines if line.name and line.value and whose[line.name] is not None]
    counting = document.set_lines()
    numbered: dict[str, list[tuple[int, SecretKey]]] = {}
    for line in holding:
        owner = whose[line.name or ""]
        # A later line of the same name is the one that counts.
        if owner is not None and not line.encrypted and counting[line.name or ""] is line:
            keys = [(owner[1], key) for key in _keys_in(line, path)]
            numbered.setdefault(owner[0], []).extend(keys)
    return _Found(
        {
            provider: list(dict.fromkeys(key for _, key in sorted(found, key=lambda one: one[0])))
            for provider, found in numbered.items()
        },
        [line for line in holding if not line.encrypted],
        [line.name or "" for line in holding if line.encrypted],
    )


def _whose(name: str, settings: Settings) -> tuple[str, int] | None:
    """The provider whose current key a variable holds, and the key's number."""
    for one in settings.providers.custom:
        if one.api_key_env == name:
            return one.name, 0
    place = place_of(name, _providers(settings))
    return None if place is None or place.kind != "current" else (place.provider, place.number)


def _keys_in(line: Line, path: Path) -> list[SecretKey]:
    """The keys of one line of a .env. Ends the command where it holds something else."""
    texts = [text.strip() for text in (line.value or "").split(",") if text.strip()]
    for text in texts:
        register_secret(text)
    try:
        return [SecretKey(text) for text in texts]
    except KeyNotUsable as error:
        _fail(f"{path}, line {line.number}: {line.name} is no key: it {error}. Nothing was imported.")


def _move(settings: Settings, to: Anywhere, sets: Mapping[str, Sequence[SecretKey]]) -> dict[str, int]:
    """Add the keys to a store, and read them back. Returns how many are new there, by provider."""

    async def work() -> dict[str, int]:
        store = _store(settings, to)
        try:
            current = await store.fetch(list(sets))
            new = {
                provider: [
                    key for key in keys if provider not in current or key not in current[provider].keys
                ]
                for provider, keys in sets.items()
            }
            if isinstance(store, EncryptedFileStore):
                await store.add({provider: keys for provider, keys in new.items() if keys})
            else:
                for provider, keys in new.items():
                    if keys:
                        there = current[provider].keys if provider in current else ()
                        await store.replace(provider, [*there, *keys])
        finally:
            await store.close()
        again = _store(settings, to)
        try:
            back = await again.fetch(list(sets))
        finally:
            await again.close()
        lost = [
            provider
            for provider, keys in sets.items()
            if provider not in back or not set(keys) <= set(back[provider].keys)
        ]
        if lost:
            raise StoreError(
                to,
                f"what was read back is not what was written, for {', '.join(lost)}. Delete nothing, and try again.",
            )
        return {provider: len(keys) for provider, keys in new.items()}

    return _run(work())


def _store(settings: Settings, name: Anywhere) -> SecretStore:
    if name == "file":
        return EncryptedFileStore.of(settings.secrets)
    from baatcheet.keys.stores.building import build_stores  # noqa: PLC0415 - loads the stores' own libraries

    return build_stores(settings.secrets.model_copy(update={"stores": (name,)}), {})[0]


def _place(settings: Settings, to: Anywhere) -> str:
    return {"file": str(settings.secrets.file), "aws": "AWS Secrets Manager", "vault": "Vault"}[to]


def _say_stores(settings: Settings, to: Anywhere) -> None:
    if to not in settings.secrets.stores:
        print(
            f"\nTell the server to look there: BAATCHEET_SECRET_STORES={to},{','.join(settings.secrets.stores)}"
        )


def _place_for_private_key(settings: Settings, *, keyring: bool) -> KeptPrivateKeys:
    if keyring:
        return KeyringSource()
    return KeyFileSource(settings.secrets.file_key_file or settings.secrets.file.parent / KEY_FILE)


def _where_it_is(settings: Settings, keys: PrivateKeys) -> KeptPrivateKeys:
    """Where the private key of the file is now. Ends the command where that can't be written to."""
    store = EncryptedFileStore(settings.secrets.file, keys)
    document = _run(store.document())
    public = document.public_key()
    if public is None:
        _fail(f"{store.path} has no key pair. Make one: baatcheet secrets init")
    source: PrivateKeySource | None = None
    try:
        found = keys.find(public[0].replace("PUBLIC", "PRIVATE", 1), public[1])
        source = found[0][0] if found else None
    except StoreError as error:
        _fail(str(error))
    if isinstance(source, KeyFileSource | KeyringSource):
        return source
    if source is None:
        _fail(f"there is no private key for {store.path} (looked at {keys.places}).")
    _fail(
        f"the private key is in {source.where}, which can't be written to from here. Say where the new one goes, and "
        "set the variable from it afterwards: baatcheet secrets rekey --key-file new-private-key"
    )
