"""Sending email through the mail server that the settings name.

The connection is encrypted, and the server's certificate checked, unless the server is this machine itself.
"""

import ipaddress
import ssl
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Final
from urllib.parse import unquote, urlsplit

import aiosmtplib
from aiosmtplib import (
    SMTPAuthenticationError,
    SMTPException,
    SMTPNotSupported,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPSenderRefused,
)

from baatcheet.kit.text import headline, storable
from baatcheet.platform.logging import get_logger
from baatcheet.platform.settings import NotificationSettings
from baatcheet.platform.threads import in_thread

log = get_logger(__name__)

TIMEOUT: Final = 30.0  # seconds for each step
SUBMISSION_PORT: Final = 587
SUBMISSIONS_PORT: Final = 465
LONGEST_USER: Final = 64  # characters before an address's @ (RFC 5321 § 4.5.3.1.1)


class MailRefused(Exception):
    """The mail can't be delivered, however often it is tried. `str(error)` says why, in plain words."""


class MailDelayed(Exception):
    """The mail could not be handed over now. `str(error)` says why, in plain words."""


class Mailer:
    """Hands mails to one server, each over a connection of its own."""

    def __init__(self, settings: NotificationSettings, trust: ssl.SSLContext | None = None) -> None:
        """`trust`: whose certificates are believed; None: those that the system believes."""
        assert settings.smtp_url is not None
        url = urlsplit(settings.smtp_url.get_secret_value())
        assert url.hostname is not None
        self._host = url.hostname
        self._tls = url.scheme == "smtps"
        self._port = url.port or (SUBMISSIONS_PORT if self._tls else SUBMISSION_PORT)
        self._user = unquote(url.username) if url.username else None
        self._password = unquote(url.password) if url.password else None
        self._local = _is_loopback(url.hostname)
        self._trust = trust
        self.sender = _sender(settings, self._user, url.hostname)

    async def send(self, message: EmailMessage) -> None:
        """The server has taken `message`. Raises MailRefused, MailDelayed.

        It may have taken it even so when the connection broke at the end: the same message must have the same
        Message-ID each time.
        """
        trust = await self._trusted()
        try:
            await aiosmtplib.send(
                message,
                hostname=self._host,
                port=self._port,
                username=self._user,
                password=self._password,
                use_tls=self._tls,
                # On this machine: where the server offers it. Elsewhere a server that doesn't is not spoken to.
                start_tls=None if self._local and not self._tls else not self._tls,
                tls_context=trust,
                timeout=TIMEOUT,
            )
        except SMTPRecipientsRefused as error:
            first = error.recipients[0]
            raise _refusal(first.code, first.message, "The mail server refuses the address") from error
        except (SMTPAuthenticationError, SMTPSenderRefused) as error:
            # Whoever the mail is for can't help it: an administrator can, until it is tried again.
            log.error("mail.not_allowed", host=self._host, code=error.code, message=error.message)
            raise MailDelayed("The mail server does not let this server send.") from error
        except SMTPResponseException as error:
            raise _refusal(error.code, error.message, "The mail server refuses the mail") from error
        except SMTPNotSupported as error:
            raise MailRefused(
                "The mail server can't send to an address with letters other than English ones."
            ) from error
        except ssl.SSLError as error:
            log.error("mail.not_encrypted", host=self._host, reason=str(error))
            raise MailDelayed("No safe connection with the mail server came about.") from error
        except (SMTPException, OSError, TimeoutError) as error:
            log.warning("mail.not_sent", host=self._host, reason=f"{type(error).__name__}: {error}")
            raise MailDelayed("The mail server can't be reached, or broke off.") from error

    async def _trusted(self) -> ssl.SSLContext:
        if self._trust is None:
            # Reading the system's certificates takes some 50 ms.
            context = await in_thread(ssl.create_default_context)
            if self._local:  # its certificate, if any, is for another name
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._trust = context
        return self._trust


def mailbox(address: str, name: str = "") -> Address:
    """`address` with `name` before it, as a mail's header takes it. Raises MailRefused."""
    user, _, domain = address.rpartition("@")
    name = headline(storable(name))
    if not 0 < len(user) <= LONGEST_USER or not user.isprintable() or any(map(str.isspace, user)):
        raise MailRefused("The address can't be one of an email.")
    try:
        ascii_domain = domain.encode("idna").decode()
        made = Address(display_name=name, username=user, domain=ascii_domain)
        # A header is parsed when it is set: better here.
        EmailMessage()["To"] = made
        parsed = Address(addr_spec=f"{user}@{ascii_domain}") if user.isascii() else made
    except (ValueError, IndexError, HeaderParseError) as error:
        raise MailRefused("The address can't be one of an email.") from error
    if parsed.username != user:
        raise MailRefused("The address can't be one of an email.")
    return made


def _sender(settings: NotificationSettings, user: str | None, host: str) -> Address:
    if settings.smtp_from is not None:
        name, address = parseaddr(settings.smtp_from)
        return mailbox(address, name)
    if user is not None and "@" in user:
        return mailbox(user, "BaatCheet")
    domain = f"[{host}]" if _is_address(host) else host
    return Address(display_name="BaatCheet", username="baatcheet", domain=domain)


def _refusal(code: int, message: str, what: str) -> MailRefused | MailDelayed:
    words = f"{what}: {code} {headline(storable(message), 200)}"
    return MailRefused(words) if code >= 500 else MailDelayed(words)


def _is_loopback(host: str) -> bool:
    if _is_address(host):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
