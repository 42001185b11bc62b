"""Keys in one encrypted file, in dotenvx's format: anyone can add one, and only the server can read them.

    DOTENV_PUBLIC_KEY_SECRETS="02b4…"
    # Anna's account
    GROQ_API_KEY_1='encrypted:BJID…'          the current set, in the order of the numbers
    GROQ_API_KEY_PENDING_1='encrypted:BDq2…'  the pending one
    GROQ_API_KEY_PREVIOUS_1='encrypted:BN81…' the previous one

A key is one line, which is renamed when its set becomes another: comments, order and everything else in the file stay.
The file is replaced as a whole, by one writer at a time. Only reading keys needs the private key.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, TypeVar

from baatcheet.keys.secret import DOTS, KeyNotUsable, SecretKey
from baatcheet.keys.stores.dotenvx import (
    ENCRYPTED,
    Document,
    Line,
    Undecipherable,
    assignment,
    decrypt,
    encrypt,
    is_public_key,
    new_pair,
    public_of,
    variable_names,
)
from baatcheet.keys.stores.files import LockHeld, locked, put_in_place
from baatcheet.keys.stores.model import (
    KeySet,
    StoreChanged,
    StoreError,
    StoreMalformed,
    StoreRefused,
    StoreUnavailable,
    Versions,
)
from baatcheet.keys.stores.private_keys import KeptPrivateKeys, PrivateKeys
from baatcheet.platform.key_variables import provider_of, variable_of
from baatcheet.platform.settings import SecretSettings

SECONDS: Final = 10.0  # that anything done to the file may take
LOCK_SECONDS: Final = 5.0
_LOOKS: Final = 5  # at file and private key, while somebody is replacing both

Result = TypeVar("Result")
Kind = Literal["current", "pending", "previous"]
_KINDS: Final[Mapping[Kind, str]] = {"current": "", "pending": "_PENDING", "previous": "_PREVIOUS"}
_MARKED: Final = re.compile(r"(.+?)_(PENDING|PREVIOUS)((?:_\d{1,4})?)")

_KEY_OF_ONES_OWN: Final = re.compile(r".+_API_KEYS?(?:_PENDING|_PREVIOUS)?(?:_\d{1,4})?")


@dataclass(frozen=True, slots=True)
class Place:
    """What a variable is for: the `number`th key of one of a provider's sets."""

    provider: str
    kind: Kind
    number: int


def place_of(variable: str, providers: Iterable[str] = ()) -> Place | None:
    """What `variable` is for; None when it holds no key. `providers`: those of one's own."""
    return _place_of(variable, tuple(providers))


# It is asked of every line of the file for every provider, beside requests.
@lru_cache(maxsize=8192)
def _place_of(variable: str, providers: tuple[str, ...]) -> Place | None:
    others = {one: variable_of(one) for one in providers if provider_of(variable_of(one)) is None}
    marked = _MARKED.fullmatch(variable)
    if marked is not None and (whose := provider_of(marked[1] + marked[3], others)) is not None:
        return Place(whose[0], "pending" if marked[2] == "PENDING" else "previous", whose[1])
    whose = provider_of(variable, others)
    return None if whose is None else Place(whose[0], "current", whose[1])


def holds_key(variable: str) -> bool:
    """Whether `variable` holds a key, of a provider of one's own too."""
    return place_of(variable) is not None or _KEY_OF_ONES_OWN.fullmatch(variable) is not None


class PlainTexts(dict[int, str]):
    """Decrypted values by their lines' numbers, which a traceback with locals does not show."""

    def __repr__(self) -> str:
        return f"PlainTexts({DOTS})"


class EncryptedFileStore:
    """A file that is not there is an empty store; writing makes it only where it has a public key: see `create`."""

    name: Final = "file"

    def __init__(self, path: Path, private_keys: PrivateKeys) -> None:
        self.path = path
        self.private_keys = private_keys
        self._seen = False

    @classmethod
    def of(cls, settings: SecretSettings) -> "EncryptedFileStore":
        return cls(settings.file, PrivateKeys.of(settings))

    @property
    def writable(self) -> bool:
        """Whether this process may replace the file: a mounted secret is only read."""
        return os.access(self.path.resolve().parent, os.W_OK | os.X_OK)

    async def fetch(self, providers: Sequence[str]) -> Mapping[str, KeySet]:
        def work() -> dict[str, KeySet]:
            opened = self._opened(providers, {"current"})
            return {
                one: found
                for one in providers
                if (found := opened.set_of(one, "current", self.path)) is not None
            }

        return await self._bounded(work)

    async def versions(self, provider: str) -> Versions:
        def work() -> Versions:
            opened = self._opened([provider], set(_KINDS))
            return Versions(**{kind: opened.set_of(provider, kind, self.path) for kind in _KINDS})

        return await self._bounded(work)

    async def replace(self, provider: str, keys: Sequence[SecretKey]) -> str:
        def change(lines: _Lines, public_key: str) -> str:
            lines.drop(provider, "previous")
            before = lines.first(provider, "current")
            lines.move(provider, "current", "previous")
            lines.insert(before, _encrypted(provider, "current", keys, public_key))
            return lines.version(provider, "current")

        return await self._bounded(lambda: self._change(provider, change))

    async def stage(self, provider: str, keys: Sequence[SecretKey]) -> str:
        def change(lines: _Lines, public_key: str) -> str:
            lines.drop(provider, "pending")
            lines.insert(lines.after(provider), _encrypted(provider, "pending", keys, public_key))
            return lines.version(provider, "pending")

        return await self._bounded(lambda: self._change(provider, change))

    async def promote(self, provider: str, version: str) -> str:
        def change(lines: _Lines, public_key: str) -> str:
            if not lines.of(provider, "pending") and lines.version(provider, "current") == version:
                return version
            if not lines.of(provider, "pending") or lines.version(provider, "pending") != version:
                raise StoreChanged(
                    self.name, f"{self._keys_of(provider)}: what is pending is not what was staged."
                )
            lines.drop(provider, "previous")
            lines.move(provider, "current", "previous")
            lines.move(provider, "pending", "current")
            return lines.version(provider, "current")

        return await self._bounded(lambda: self._change(provider, change))

    async def roll_back(self, provider: str, version: str) -> str:
        def change(lines: _Lines, public_key: str) -> str:
            if not lines.of(provider, "current") or lines.version(provider, "current") != version:
                raise StoreChanged(
                    self.name, f"{self._keys_of(provider)}: the current keys are others by now."
                )
            if not lines.of(provider, "previous"):
                raise StoreChanged(self.name, f"{self._keys_of(provider)}: there are no previous keys.")
            lines.swap(provider, "current", "previous")
            return lines.version(provider, "current")

        return await self._bounded(lambda: self._change(provider, change))

    async def discard(self, provider: str) -> None:
        def change(lines: _Lines, public_key: str) -> str:
            lines.drop(provider, "pending")
            return ""

        if await self._bounded(lambda: self._read() is not None):
            await self._bounded(lambda: self._change(provider, change))

    async def close(self) -> None:
        """Nothing is open."""

    # What only this store can do, for the command line.

    async def create(self, keep: KeptPrivateKeys) -> str | None:
        """Give the file a key pair: `keep` holds the private key first, then the file the public one.

        Keys that stand in the file in plain text are encrypted. Returns the public key; None where the file has one.
        """

        def work() -> str | None:
            with self._lock():
                document = self._read() or Document()
                if document.public_key() is not None:
                    return None
                names = variable_names(self.path.name)
                pair = new_pair()
                keep.add(names[1], pair)
                lines = [_encrypted_line(line, pair.public) for line in document.lines]
                self._write(document.with_lines(lines).with_public_key(names[0], pair.public))
                return pair.public

        return await self._bounded(work)

    async def add(self, additions: Mapping[str, Sequence[SecretKey]]) -> dict[str, tuple[str, ...]]:
        """Add keys to the current sets of providers, in one step. Returns the variables that they got, by provider."""

        def change(lines: _Lines, public_key: str) -> dict[str, tuple[str, ...]]:
            names = {}
            for provider, keys in additions.items():
                current = lines.of(provider, "current")
                first = max((place.number for _, place in current), default=0) + 1
                new = _encrypted(provider, "current", keys, public_key, first)
                last = max((position for position, _ in current), default=None)
                lines.insert(len(lines.lines) if last is None else last + 1, new)
                names[provider] = tuple(line.name or "" for line in new)
            return names

        return await self._bounded(lambda: self._change(None, change))

    async def put(self, variable: str, value: SecretKey) -> bool:
        """Set one variable, in its place where it has one. Returns whether it is new."""

        def change(lines: _Lines, public_key: str) -> bool:
            text = encrypt(value.reveal(), public_key)
            there = [position for position, line in enumerate(lines.lines) if line.name == variable]
            for position in there:
                lines.lines[position] = lines.lines[position].valued(text)
            if not there:
                place = place_of(variable)
                at = lines.after(place.provider) if place is not None else len(lines.lines)
                lines.insert(at, [assignment(variable, text)])
            return not there

        return await self._bounded(lambda: self._change(None, change))

    async def read(self, variable: str) -> SecretKey | None:
        """One variable's value; None where it is not set."""

        def work() -> SecretKey | None:
            opened = self._open(lambda line: line.name == variable)
            line = opened.document.set_lines().get(variable)
            return None if line is None else _one_key(self.path, line, opened.plain.get(line.number, ""))

        return await self._bounded(work)

    async def document(self) -> Document:
        """The file as it is, encrypted; an empty one where there is none."""
        return await self._bounded(lambda: self._read() or Document())

    async def decrypted(self) -> tuple[Document, Document]:
        """The file as it is, and with its values in plain text: all but those that can't be decrypted."""

        def work() -> tuple[Document, Document]:
            opened = self._open(lambda _: True, lenient=True)
            plain = [
                line.valued(opened.plain[line.number])
                if line.encrypted and line.number in opened.plain
                else line
                for line in opened.document.lines
            ]
            return opened.document, Document(tuple(plain))

        return await self._bounded(work)

    async def rewrite(self, before: Document, plain: Document) -> bool:
        """Put an edited text in place of the file, encrypted, where the file is still `before`.

        Values that have not changed stay as they are, so that a diff shows what was changed. Keys, and whatever was
        encrypted before, are encrypted, and so is all that is new. Returns whether anything changed.
        Raises StoreChanged.
        """

        def work() -> bool:
            with self._lock():
                if (self._read() or Document()).text != before.text:
                    raise StoreChanged(
                        self.name, f"{self.path} was changed meanwhile. Nothing was written: edit it anew."
                    )
                opened = self._open(lambda _: True, lenient=True)
                old = opened.document.set_lines()
                public = before.public_key()
                if public is None:
                    raise self._without_public_key()
                kept = {name: line for name, line in old.items() if line.encrypted}
                lines = []
                for line in plain.lines:
                    if line.name is None or line.value is None or line.encrypted or line.name == public[0]:
                        lines.append(line)
                        continue
                    known = kept.get(line.name)
                    if known is not None and opened.plain.get(known.number) == line.value:
                        assert known.value is not None
                        lines.append(line.valued(known.value))
                    elif line.name in old and line.name not in kept and not holds_key(line.name):
                        lines.append(line)  # what stood there in plain text, by somebody's choice
                    else:
                        lines.append(line.valued(encrypt(line.value, public[1])))
                document = plain.with_lines(lines)
                if document.public_key() != public:
                    document = document.with_public_key(*public)
                if document.text == before.text:
                    return False
                self._write(document)
                return True

        return await self._bounded(work)

    async def rekey(self, keep: KeptPrivateKeys) -> str:
        """Encrypt everything for a new key pair, whose private key `keep` holds. Returns the new public key.

        `keep` gets the new private key beside the old one, then the file is replaced, then the old private key is
        forgotten: killed after any of these, the file can be read, and the next call brings it to its end.
        Raises StoreError, and then the file is as it was.
        """

        def work() -> str:
            with self._lock():
                opened = self._open(lambda line: line.encrypted, every=True)
                document = opened.document
                names = variable_names(self.path.name, document)
                if document.public_key() is None:
                    raise self._without_public_key()
                pair = new_pair()
                keep.add(names[1], pair)
                lines = [
                    _encrypted_line(line, pair.public)
                    if not line.encrypted
                    else line.valued(encrypt(opened.plain[line.number], pair.public))
                    for line in document.lines
                ]
                self._write(Document(tuple(lines)).with_public_key(names[0], pair.public))
                keep.keep_only(names[1], pair, [key for key in opened.private_keys if key != pair.private])
                return pair.public

        return await self._bounded(work, SECONDS * 3)

    # The file itself. All of it runs in a thread.

    async def _bounded(self, work: Callable[[], Result], seconds: float = SECONDS) -> Result:
        def watched() -> Result | StoreError:
            try:
                return work()
            except StoreError as error:
                # What was decrypted is in the frames that the error comes from: it goes on without them.
                error.__context__ = None
                return error.with_traceback(None)

        try:
            async with asyncio.timeout(seconds):
                done = await asyncio.to_thread(watched)
        except TimeoutError:
            raise StoreUnavailable(
                self.name, f"{self.path} did not answer within {seconds:g} s. Look at its disk."
            ) from None
        if isinstance(done, StoreError):
            raise done
        return done

    def _read(self) -> Document | None:
        try:
            document = Document.of(self.path.read_bytes().decode("utf-8-sig"))
        except (FileNotFoundError, NotADirectoryError):
            if self._seen:  # unmounted, or saved by an editor that removes it first: that takes no key away
                raise StoreUnavailable(
                    self.name, f"{self.path} was there and is gone. Bring it back, or start anew without it."
                ) from None
            return None
        except UnicodeDecodeError:
            raise StoreMalformed(
                self.name, f"{self.path} is not UTF-8 text. Restore it from a backup, or remove it."
            ) from None
        except PermissionError:
            raise StoreRefused(
                self.name, f"{self.path} can't be read by this user. Let it: chown, chmod 600."
            ) from None
        except IsADirectoryError:
            raise StoreMalformed(
                self.name,
                f"{self.path} is a folder. Remove it, or name another file: BAATCHEET_SECRETS_FILE.",
            ) from None
        except OSError as error:
            raise StoreUnavailable(self.name, f"{self.path} can't be read ({error.strerror}).") from None
        self._seen = True
        return document

    def _write(self, document: Document) -> None:
        """By the holder of the lock."""
        try:
            put_in_place(self.path.resolve(), document.text)
        except PermissionError:
            raise StoreRefused(
                self.name, f"{self.path} can't be replaced by this user. Do it as the file's owner."
            ) from None
        except OSError as error:
            raise StoreUnavailable(self.name, f"{self.path} can't be written ({error.strerror}).") from None

    def _lock(self) -> "_Lock":
        return _Lock(self)

    def _change(self, provider: str | None, change: "Callable[[_Lines, str], Result]") -> Result:
        with self._lock():
            document = self._read()
            public = document.public_key() if document is not None else None
            if document is None or public is None:
                raise self._without_public_key(provider)
            if not is_public_key(public[1]):
                raise StoreMalformed(
                    self.name,
                    f"{self.path}: {public[0]} is not a public key (66 hexadecimal digits). Restore that line from a "
                    "backup.",
                )
            lines = _Lines(list(document.lines), () if provider is None else (provider,))
            result = change(lines, public[1])
            after = document.with_lines(lines.lines)
            if after.text != document.text:
                self._write(after)
            return result

    def _opened(self, providers: Sequence[str], kinds: set[Kind]) -> "_Opened":
        """With the values of these providers' sets in plain text."""

        def wanted(line: Line) -> bool:
            place = place_of(line.name or "", providers)
            return place is not None and place.provider in providers and place.kind in kinds

        return self._open(wanted, providers)

    def _open(
        self,
        wanted: Callable[[Line], bool],
        providers: Sequence[str] = (),
        *,
        every: bool = False,
        lenient: bool = False,
    ) -> "_Opened":
        """The file with the wanted values decrypted; `every`: those too that a later line of the name overrides;
        `lenient`: without those that can't be.

        Both files may be replaced while they are read: then they are read again.
        """
        document = self._read() or Document()
        for _ in range(_LOOKS):
            try:
                return self._decrypted(document, wanted, providers, every=every, lenient=lenient)
            except StoreError:
                again = self._read() or Document()
                if again.text == document.text:
                    raise
                document = again
        return self._decrypted(document, wanted, providers, every=every, lenient=lenient)

    def _decrypted(
        self,
        document: Document,
        wanted: Callable[[Line], bool],
        providers: Sequence[str],
        *,
        every: bool,
        lenient: bool,
    ) -> "_Opened":
        counting = document.lines if every else tuple(document.set_lines().values())
        lines = [line for line in counting if line.name is not None and wanted(line)]
        plain = PlainTexts({line.number: line.value or "" for line in lines if not line.encrypted})
        sealed = [line for line in lines if line.encrypted]
        keys: list[SecretKey] = []
        if sealed:
            public = document.public_key()
            names = variable_names(self.path.name, document)
            found = self.private_keys.find(names[1], public[1] if public is not None else None)
            keys = [key for _, key in found]
            if not keys:
                raise StoreRefused(
                    self.name,
                    f"there is no private key for {self.path} (looked at {self.private_keys.places}). Set {names[1]}, "
                    "or BAATCHEET_SECRETS_KEY_FILE to the file that holds it.",
                )
            if public is not None and public_of(keys[0]) != public[1].lower():
                raise StoreRefused(
                    self.name,
                    f"the private key in {found[0][0].where} does not belong to {self.path}. Set {names[1]} to the one "
                    "that was made with it.",
                )
        for line in sealed:
            try:
                plain[line.number] = decrypt(line.value or "", keys)
            except Undecipherable as error:
                if lenient:
                    continue
                raise StoreMalformed(
                    self.name,
                    f"{self.path}, line {line.number}: {line.name} {error}. Set it anew: baatcheet secrets set "
                    f"{line.name}",
                ) from None
        return _Opened(document, plain, tuple(keys), tuple(providers))

    def _keys_of(self, provider: str) -> str:
        return f"the keys of {provider} ({variable_of(provider)}_… in {self.path})"

    def _without_public_key(self, provider: str | None = None) -> StoreRefused:
        what = "" if provider is None else f"the keys of {provider} can't be written: "
        return StoreRefused(
            self.name,
            f"{what}{self.path} has no public key to encrypt with. Make one: baatcheet secrets init",
        )


class _Lock:
    """The lock, with a store's errors."""

    def __init__(self, store: EncryptedFileStore) -> None:
        self._store = store
        self._held = locked(store.path.resolve(), LOCK_SECONDS)

    def __enter__(self) -> None:
        path = self._store.path
        try:
            self._held.__enter__()
        except LockHeld:
            raise StoreUnavailable(
                self._store.name, f"{path} is being changed by another process. Try again."
            ) from None
        except PermissionError:
            raise StoreRefused(
                self._store.name, f"{path} can't be changed by this user. Do it as the file's owner."
            ) from None
        except OSError as error:
            raise StoreUnavailable(
                self._store.name, f"{path} can't be written: its folder says {error.strerror}."
            ) from None

    def __exit__(self, *raised: object) -> None:
        self._held.__exit__(None, None, None)


@dataclass(frozen=True, slots=True)
class _Opened:
    """`plain`: the decrypted values, by their lines' numbers."""

    document: Document
    plain: PlainTexts
    private_keys: tuple[SecretKey, ...]
    providers: tuple[str, ...]

    def set_of(self, provider: str, kind: Kind, path: Path) -> KeySet | None:
        lines = _Lines(list(self.document.lines), self.providers)
        keys = [
            _one_key(path, line, text.strip())
            for position, _ in lines.of(provider, kind)
            for line in (lines.lines[position],)
            for text in self.plain[line.number].split(",")
            if text.strip()
        ]
        return KeySet(provider, tuple(dict.fromkeys(keys)), lines.version(provider, kind)) if keys else None


class _Lines:
    """A file's lines while they are changed."""

    def __init__(self, lines: list[Line], providers: Sequence[str]) -> None:
        self.lines = lines
        self._providers = tuple(providers)

    def _place(self, name: str, provider: str) -> Place | None:
        known = self._providers
        return place_of(name, known if provider in known else (*known, provider))

    def of(self, provider: str, kind: Kind) -> list[tuple[int, Place]]:
        """The lines that count of one set, with their positions, in the order of its keys. Empty ones hold no key."""
        last = {line.name: position for position, line in enumerate(self.lines) if line.name is not None}
        found = [
            (position, place)
            for name, position in last.items()
            if self.lines[position].value
            and (place := self._place(name, provider)) is not None
            and (place.provider, place.kind) == (provider, kind)
        ]
        return sorted(found, key=lambda one: (one[1].number, one[0]))

    def version(self, provider: str, kind: Kind) -> str:
        """32 hexadecimal digits of what is written: it needs no private key, and stays when a set is renamed."""
        values = [self.lines[position].value or "" for position, _ in self.of(provider, kind)]
        return hashlib.sha256("\n".join(values).encode()).hexdigest()[:32]

    def first(self, provider: str, kind: Kind) -> int:
        """Where one set begins; behind everything of the provider's where it is empty."""
        return min((position for position, _ in self.of(provider, kind)), default=self.after(provider))

    def after(self, provider: str) -> int:
        """Behind the last line of a provider; the file's end where there is none."""
        last = max((position for kind in _KINDS for position, _ in self.of(provider, kind)), default=None)
        return len(self.lines) if last is None else last + 1

    def insert(self, position: int, new: Sequence[Line]) -> None:
        self.lines[position:position] = new

    def drop(self, provider: str, kind: Kind) -> None:
        names = self._names(provider, kind)
        self.lines = [line for line in self.lines if line.name not in names]

    def move(self, provider: str, kind: Kind, to: Kind) -> None:
        """Rename one set. Nothing is there under `to`."""
        ordered = self.of(provider, kind)
        counting = {position for position, _ in ordered}
        names = self._names(provider, kind)
        for number, (position, _) in enumerate(ordered, 1):
            self.lines[position] = self.lines[position].named(_name(provider, to, number))
        # What a later line of the same name had overridden would come to life again.
        self.lines = [
            line for position, line in enumerate(self.lines) if position in counting or line.name not in names
        ]

    def swap(self, provider: str, one: Kind, other: Kind) -> None:
        ordered = {kind: self.of(provider, kind) for kind in (one, other)}
        names = self._names(provider, one) | self._names(provider, other)
        counting = {position for found in ordered.values() for position, _ in found}
        for kind, to in ((one, other), (other, one)):
            for number, (position, _) in enumerate(ordered[kind], 1):
                self.lines[position] = self.lines[position].named(_name(provider, to, number))
        self.lines = [
            line for position, line in enumerate(self.lines) if position in counting or line.name not in names
        ]

    def _names(self, provider: str, kind: Kind) -> set[str]:
        found = set()
        for line in self.lines:
            place = self._place(line.name, provider) if line.name is not None else None
            if (
                line.name is not None
                and place is not None
                and (place.provider, place.kind) == (provider, kind)
            ):
                found.add(line.name)
        return found


def _one_key(path: Path, line: Line, text: str) -> SecretKey:
    try:
        return SecretKey(text)
    except KeyNotUsable as error:
        raise StoreMalformed(
            EncryptedFileStore.name,
            f"{path}, line {line.number}: {line.name} is not a key: it {error}. Set it anew: baatcheet secrets set "
            f"{line.name}",
        ) from None


def _name(provider: str, kind: Kind, number: int) -> str:
    return f"{variable_of(provider)}{_KINDS[kind]}_{number}"


def _encrypted(
    provider: str, kind: Kind, keys: Sequence[SecretKey], public_key: str, first: int = 1
) -> list[Line]:
    return [
        assignment(_name(provider, kind, number), encrypt(key.reveal(), public_key))
        for number, key in enumerate(keys, first)
    ]


def _encrypted_line(line: Line, public_key: str) -> Line:
    """The line with its key encrypted; any other line as it is."""
    if line.name is None or not line.value or line.value.startswith(ENCRYPTED) or not holds_key(line.name):
        return line
    return line.valued(encrypt(line.value, public_key))
