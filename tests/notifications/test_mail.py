"""Sending by a real SMTP server."""

import asyncio
import socket
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.platform import logging
from baatcheet.platform.mail import MailDelayed, Mailer, MailRefused, mailbox
from baatcheet.platform.redaction import redact
from baatcheet.platform.settings import NotificationSettings, SettingsError, load
from tests.notifications.mail_server import Certificate, MailServer, make_certificate

TO = "alice@example.com"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificates"), "127.0.0.1")


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server on this machine counts as one elsewhere."""
    monkeypatch.setattr("baatcheet.platform.mail._is_loopback", lambda _host: False)


def mailer(server: MailServer | int, *, login: str = "", scheme: str = "smtp", **more: Any) -> Mailer:
    port = server if isinstance(server, int) else server.port
    url = f"{scheme}://{login}127.0.0.1:{port}"
    settings = NotificationSettings.model_validate(
        {"smtp_url": url, "smtp_from": "BaatCheet <noreply@example.com>"}
    )
    return Mailer(settings, **more)


def mail(to: str = TO) -> EmailMessage:
    message = EmailMessage()
    message["From"] = mailbox("noreply@example.com")
    message["To"] = mailbox(to, "عالیہ")
    message["Subject"] = "آپ کی برآمد تیار ہے — ready"
    message.set_content("سلام! نتیجہ تیار ہے!\n" * 40 + "x" * 2000 + "\n.\nend\n")
    return message


async def test_a_mail_in_urdu_arrives_as_it_was_written() -> None:
    async with MailServer() as server:
        await mailer(server).send(mail())
    [taken] = server.taken
    assert taken.sender == "noreply@example.com"
    assert taken.recipients == [TO]
    assert taken.message["subject"] == "آپ کی برآمد تیار ہے — ready"
    assert taken.message["to"].addresses[0].display_name == "عالیہ"
    assert taken.message.get_content() == mail().get_content()
    head, _, body = taken.raw.partition(b"\r\n\r\n")
    assert head.isascii()
    assert all(len(line) <= 998 for line in body.split(b"\r\n"))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("550 5.1.1 No such user", MailRefused),
        ("553 5.1.3 Bad address", MailRefused),
        ("450 4.2.1 Greylisted, try again", MailDelayed),
        ("452 4.2.2 Mailbox full", MailDelayed),
    ],
)
async def test_a_refused_recipient_is_refused_for_good_or_for_now(
    answer: str, error: type[Exception]
) -> None:
    async with MailServer(refuse={TO: [answer]}) as server:
        with pytest.raises(error, match=answer[:3]):
            await mailer(server).send(mail())
    assert not server.taken


@pytest.mark.parametrize(
    ("answer", "error"), [("554 5.7.1 Spam", MailRefused), ("451 4.3.0 Try later", MailDelayed)]
)
async def test_a_refused_mail_is_refused_for_good_or_for_now(answer: str, error: type[Exception]) -> None:
    async with MailServer(after_data=[answer]) as server:
        with pytest.raises(error, match=answer[:3]):
            await mailer(server).send(mail())


async def test_a_server_that_is_down_delays() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(MailDelayed, match="can't be reached"):
        await mailer(port).send(mail())


async def test_a_server_that_hangs_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baatcheet.platform.mail.TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(MailDelayed):
        await mailer(listener.getsockname()[1]).send(mail())


@pytest.mark.parametrize(
    "said", [b"", b"220 mail\r\n", b"nonsense\r\n", b"421 Too busy\r\n", b"\xff\xfe\r\n"]
)
async def test_a_server_that_breaks_off_delays(said: bytes) -> None:
    async def break_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(break_off, "127.0.0.1", 0)
    async with server:
        with pytest.raises(MailDelayed):
            await mailer(server.sockets[0].getsockname()[1]).send(mail())


async def test_starttls_is_used_with_a_password(certificate: Certificate, far_away: None) -> None:
    async with MailServer("starttls", certificate, login=("alice", "p@ss:wörd")) as server:
        await mailer(server, login="alice:p%40ss%3Aw%C3%B6rd@", trust=certificate.trust()).send(mail())
    [taken] = server.taken
    assert taken.encrypted
    assert taken.user == "alice"


async def test_smtps_is_used_with_a_password(certificate: Certificate, far_away: None) -> None:
    async with MailServer("implicit", certificate) as server:
        await mailer(server, scheme="smtps", trust=certificate.trust()).send(mail())
    assert len(server.taken) == 1


async def test_a_server_elsewhere_without_starttls_is_given_nothing(far_away: None) -> None:
    async with MailServer(login=("alice", "password")) as server:
        with pytest.raises(MailDelayed):
            await mailer(server, login="alice:password@").send(mail())
    assert server.tried == 0
    assert not server.taken


@pytest.mark.parametrize(("encryption", "scheme"), [("starttls", "smtp"), ("implicit", "smtps")])
async def test_a_server_elsewhere_with_a_strange_certificate_is_given_nothing(
    certificate: Certificate, far_away: None, encryption: Any, scheme: str
) -> None:
    async with MailServer(encryption, certificate) as server:
        with pytest.raises(MailDelayed):
            await mailer(server, scheme=scheme).send(mail())
    assert not server.taken


async def test_a_certificate_for_another_name_is_not_believed(tmp_path: Path, far_away: None) -> None:
    other = make_certificate(tmp_path, "mail.example.com")
    async with MailServer("starttls", other) as server:
        with pytest.raises(MailDelayed):
            await mailer(server, trust=other.trust()).send(mail())
    assert not server.taken


@pytest.mark.parametrize("encryption", ["none", "starttls"])
async def test_the_machine_s_own_server_needs_no_certificate(
    certificate: Certificate, encryption: Any
) -> None:
    async with MailServer(encryption, certificate) as server:
        await mailer(server).send(mail())
    assert server.taken[0].encrypted == (encryption == "starttls")


async def test_a_wrong_password_delays_and_is_not_logged(
    certificate: Certificate, far_away: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with MailServer("starttls", certificate, login=("alice", "right-password")) as server:
        with pytest.raises(MailDelayed, match="does not let"):
            await mailer(server, login="alice:wrong-password@", trust=certificate.trust()).send(mail())
    assert "wrong-password" not in caplog.text


async def test_an_address_in_urdu_needs_a_server_that_knows_them() -> None:
    async with MailServer() as server:
        await mailer(server).send(mail("عالیہ@example.com"))
    assert server.taken[0].recipients == ["عالیہ@example.com"]
    async with MailServer(smtputf8=False) as server:
        with pytest.raises(MailRefused):
            await mailer(server).send(mail("عالیہ@example.com"))


async def test_a_domain_in_urdu_is_sent_as_every_server_knows_it() -> None:
    async with MailServer(smtputf8=False) as server:
        await mailer(server).send(mail("a@مثال.com"))
    assert server.taken[0].recipients == ["a@xn--mgbh0fb.com"]


@given(address=st.text(max_size=60), name=st.text(max_size=60))
def test_no_address_or_name_breaks_out_of_its_header(address: str, name: str) -> None:
    message = EmailMessage()
    try:
        message["To"] = mailbox(f"{address}@example.com", name)
    except MailRefused:
        return
    message["Subject"] = "x"
    message.set_content("body")
    utf8 = not message["To"].addresses[0].addr_spec.isascii()
    head = message.as_bytes(policy=SMTPUTF8 if utf8 else SMTP).replace(b"\r", b"").partition(b"\n\n")[0]
    names = {line.partition(b":")[0].lower() for line in head.split(b"\n") if line[:1] not in {b" ", b"\t"}}
    assert names == {
        b"to", b"subject", b"content-type", b"content-transfer-encoding", b"mime-version"
    }  # fmt: skip
    assert len(message["To"].addresses) == 1


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        "@example.com",
        "a@",
        "a b@example.com",
        "a@b@c",
        "<a>@example.com",
        "a\r\nX: y@b.c",
        "a,b@c.d",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(MailRefused):
        mailbox(address)


@pytest.mark.parametrize(
    ("settings", "sender"),
    [
        ({"smtp_url": "smtp://h.example", "smtp_from": "Ali <a@b.example>"}, "Ali <a@b.example>"),
        ({"smtp_url": "smtp://u%40d.example:p@h.example"}, "BaatCheet <u@d.example>"),
        ({"smtp_url": "smtp://user:p@h.example"}, "BaatCheet <baatcheet@h.example>"),
        ({"smtp_url": "smtp://10.0.0.1"}, "BaatCheet <baatcheet@[10.0.0.1]>"),
        ({"smtp_url": "smtp://h.example", "smtp_from": '"بات چیت" <a@b.example>'}, "بات چیت <a@b.example>"),
    ],
)
def test_the_sender_is_the_setting_or_the_server_s_user(settings: dict[str, str], sender: str) -> None:
    assert str(Mailer(NotificationSettings.model_validate(settings)).sender) == sender


@pytest.mark.parametrize(
    "url",
    [
        "mail.example.com",
        "http://h",
        "smtp://",
        "smtp://h:0",
        "smtp://h:99999",
        "smtp://h/path",
        "smtp://h?a=b",
        "smtp://a b",
    ],
)
def test_an_address_that_is_no_mail_server_s_stops_the_start(url: str) -> None:
    with pytest.raises(SettingsError, match="BAATCHEET_SMTP_URL"):
        load({"BAATCHEET_SMTP_URL": url}, dotenv=None)


@pytest.mark.parametrize(
    "sender", ["nobody", "a@b\r\nBcc: c@d", "a b@c", "<>", "a@b, c@d", "عالیہ@example.com"]
)
def test_a_sender_that_is_none_stops_the_start(sender: str) -> None:
    with pytest.raises(SettingsError, match="BAATCHEET_SMTP_FROM"):
        load({"BAATCHEET_SMTP_FROM": sender}, dotenv=None)


def test_the_mail_server_s_password_is_never_logged() -> None:
    settings = load({"BAATCHEET_SMTP_URL": "smtp://user:s3cret%2Dpassw%40rd@h.example"}, dotenv=None)
    logging.register_secrets(settings)
    assert "s3cret" not in repr(settings)
    for said in ("s3cret-passw@rd", "s3cret%2Dpassw%40rd"):
        assert said not in redact(f"535 refused {said}")
