"""What a setting's value may be: types that refuse at the start what would only fail later, in words for its writer."""

import ipaddress
import json
import re
from collections.abc import Callable
from email.utils import getaddresses
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

OCR_ENGINES = ("tesseract", "rapidocr", "ocr_space", "vision")
SECRET_STORES = ("file", "environment", "aws", "vault")


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _from_json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None


def _each(refuse: Callable[[str], None]) -> AfterValidator:
    """Holds every entry of a list to `refuse`; its place is told, since its text may not be repeated."""

    def check(entries: tuple[str, ...]) -> tuple[str, ...]:
        for number, entry in enumerate(entries, 1):
            try:
                refuse(entry)
            except ValueError as error:
                raise ValueError(f"entry {number} {error}") from None
        return entries

    return AfterValidator(check)


def _origin(value: str) -> None:
    # As browsers write it: in lower case, and with nothing after the port.
    # Pages of files and of sandboxed frames say "null".
    if value not in {"*", "null"} and not re.fullmatch(
        r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d+)?/?", value
    ):
        raise ValueError("is neither an origin (scheme://host or scheme://host:port, in lower case) nor *")


def _network(value: str) -> None:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError("is neither an IP address nor a network") from None


_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def durations(value: str) -> tuple[float, ...]:
    """The seconds in a list like `30s, 5m, 2h`; a bare number is seconds. Raises ValueError."""
    found = [_DURATION.fullmatch(part.strip()) for part in value.split(",") if part.strip()]
    seconds = tuple(float(one[1]) * _SECONDS[one[2]] for one in found if one is not None)
    if len(seconds) != len(found):
        raise ValueError("is not a list of durations like 30s, 5m, 2h")
    return seconds


def _durations(value: str) -> str:
    seconds = durations(value)
    if len(seconds) > 50 or not all(0 < one <= 30 * 86_400 for one in seconds):
        raise ValueError("holds more than 50 durations, or one that is not between 0 and 30 days")
    return value


_HOST = r"([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)*[a-z_]([a-z0-9_-]*[a-z0-9_])?"


def _destination(value: str) -> None:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        # The last label must not be a number: a resolver would take that for an address.
        if not re.fullmatch(_HOST, value.lower()):
            raise ValueError("is neither an IP address, a network nor a host's name") from None


def _ocr_engine(value: str) -> None:
    if value not in OCR_ENGINES:
        raise ValueError(f"is no engine; there are {', '.join(OCR_ENGINES)}")


def _secret_store(value: str) -> None:
    if value not in SECRET_STORES:
        raise ValueError(f"is no store; there are {', '.join(SECRET_STORES)}")


def _address(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\x00-\x1f\x7f]", value):
        raise ValueError("is not an address that begins with http://host or https://host")
    return value


def _ollama_address(value: str) -> str:
    if value:
        _address(value if "://" in value else f"http://{value}")
    return value


def _cache_address(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    try:
        usable = re.match("(rediss?|unix)://", url) is not None and urlsplit(url).port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("is not an address that begins with redis://, rediss:// or unix://")
    return value


def _database_address(value: SecretStr) -> SecretStr:
    try:
        backend = make_url(value.get_secret_value()).get_backend_name()
    except (ArgumentError, ValueError):
        raise ValueError("is not a database's address") from None
    if backend not in {"postgres", "postgresql"}:
        raise ValueError("is the address of another database than PostgreSQL")
    return value


def _smtp_address(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    try:
        parts = urlsplit(url)
        usable = (
            parts.scheme in {"smtp", "smtps"}
            and bool(parts.hostname)
            and parts.port != 0
            and parts.path in {"", "/"}
            and not parts.query
            and not parts.fragment
        )
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError(
            "is not an address like smtp://user:password@host:587 or smtps://user:password@host:465"
        )
    return value


def _mailbox(value: str) -> str:
    [(name, address), *more] = getaddresses([value])
    plain = not more and not re.search(r"[\x00-\x1f\x7f]", value) and address.isascii() and name.isprintable()
    if not plain or not re.fullmatch(r"[^@\s<>,;:()]+@[A-Za-z0-9.-]+", address):
        raise ValueError("is not a sender like BaatCheet <noreply@example.com>")
    return value


def usable_key(value: SecretStr) -> SecretStr:
    """`value` without the blanks around it. Raises ValueError when it holds what no provider's key does."""
    return _sendable(value, "[!-~]*", "only visible ASCII characters, without blanks, are sent as a key")


def _token(value: SecretStr) -> SecretStr:
    return _sendable(value, "[ -~]*", "only visible ASCII characters and blanks are sent as a token")


def _sendable(value: SecretStr, pattern: str, what_is: str) -> SecretStr:
    text = value.get_secret_value().strip()
    if not re.fullmatch(pattern, text):
        raise ValueError(f"holds something else: {what_is}")
    return SecretStr(text)


def _headers(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, secret in value.items():
        text = secret.get_secret_value()
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not re.fullmatch(r"[\t -~]*", text):
            raise ValueError(
                "holds one that HTTP can't carry: a name of letters and -, a text of visible ASCII"
            )
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Address = Annotated[str, AfterValidator(_address)]
Key = Annotated[SecretStr, AfterValidator(usable_key)]
Token = Annotated[SecretStr, AfterValidator(_token)]
DatabaseAddress = Annotated[SecretStr, AfterValidator(_database_address)]
CacheAddress = Annotated[SecretStr, AfterValidator(_cache_address)]
OllamaAddress = Annotated[str, AfterValidator(_ollama_address)]
SmtpAddress = Annotated[SecretStr, AfterValidator(_smtp_address)]
Mailbox = Annotated[str, AfterValidator(_mailbox)]
Headers = Annotated[dict[str, SecretStr], AfterValidator(_headers)]
Origins = Annotated[Names, _each(_origin)]
Networks = Annotated[Names, _each(_network)]
Destinations = Annotated[Names, _each(_destination)]
OcrEngines = Annotated[Names, _each(_ocr_engine)]
SecretStores = Annotated[Names, _each(_secret_store)]
Durations = Annotated[str, AfterValidator(_durations)]
Json = BeforeValidator(_from_json)
