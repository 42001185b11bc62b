"""A real SMTP server on a real socket, that can be told to refuse; and certificates for it."""

import asyncio
import datetime as dt
import email
import ipaddress
import ssl
import warnings
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, Literal, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Encryption = Literal["none", "starttls", "implicit"]


@dataclass(frozen=True)
class Mail:
    """What the server took."""

    sender: str
    recipients: list[str]
    raw: bytes
    encrypted: bool
    user: str | None

    @property
    def message(self) -> EmailMessage:
        parsed = email.message_from_bytes(self.raw, policy=default)
        assert isinstance(parsed, EmailMessage)
        return parsed


@dataclass
class MailServer:
    """Takes mails into `taken`. `refuse` says the answer to a recipient, `after_data` that to a whole mail."""

    encryption: Encryption = "none"
    certificate: "Certificate | None" = None
    login: tuple[str, str] | None = None
    refuse: dict[str, list[str]] = field(
        default_factory=dict
    )  # answers, one after another; the last one stays
    after_data: list[str] = field(default_factory=list)
    smtputf8: bool = True
    taken: list[Mail] = field(default_factory=list)
    tried: int = 0
    port: int = 0  # a free one
    _speakers: list[SMTP] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        context = self.certificate.server_context() if self.certificate is not None else None
        implicit = context if self.encryption == "implicit" else None
        self._server = await loop.create_server(
            lambda: self._speaker(loop, context), "127.0.0.1", self.port, ssl=implicit
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for speaker in self._speakers:
            if speaker.transport is not None:
                speaker.transport.close()
        await self._server.wait_closed()

    def _speaker(self, loop: asyncio.AbstractEventLoop, context: ssl.SSLContext | None) -> SMTP:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of passwords that it takes without encryption
            speaker = SMTP(
                self,
                hostname="mail.test",
                enable_SMTPUTF8=self.smtputf8,
                tls_context=context if self.encryption == "starttls" else None,
                authenticator=self.authenticate if self.login is not None else None,
                auth_required=self.login is not None,
                auth_require_tls=self.encryption == "starttls",
                loop=loop,
            )
        self._speakers.append(speaker)
        return speaker

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.tried += 1
        answers = self.refuse.get(address, [])
        if answers:
            answer = answers[0] if len(answers) == 1 else answers.pop(0)
            if not answer.startswith("250"):
                return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.after_data:
            return self.after_data.pop(0)
        content = envelope.original_content
        assert content is not None
        login: object = session.auth_data
        user = login.decode() if isinstance(login, bytes) else None
        self.taken.append(
            Mail(
                envelope.mail_from or "",
                list(envelope.rcpt_tos),
                content,
                session.ssl is not None,
                user,
            )
        )
        return "250 OK"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        given = (data.login.decode(), data.password.decode())
        return AuthResult(success=given == self.login, handled=False, auth_data=data.login)


@dataclass(frozen=True)
class Certificate:
    """A certificate for a name or an address, and the authority that signed it."""

    chain: Path
    authority: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain)
        return context

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority)


def make_certificate(folder: Path, name: str) -> Certificate:
    now = dt.datetime.now(dt.UTC)

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named("The tests' authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(hours=1))
        )

    root = ec.generate_private_key(ec.SECP256R1())
    authority = (
        builder("The tests' authority", root)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root.public_key()), critical=False)
        .sign(root, hashes.SHA256())
    )  # fmt: skip
    key = ec.generate_private_key(ec.SECP256R1())
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        alternative = x509.DNSName(name)
    leaf = (
        builder("mail", key)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
        .sign(root, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificate = Certificate(folder / f"{name}.pem", folder / f"{name}.authority.pem")
    certificate.chain.write_bytes(secret + leaf.public_bytes(pem))
    certificate.authority.write_bytes(authority.public_bytes(pem))
    return certificate
