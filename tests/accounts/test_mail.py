"""Codes are mailed by a real SMTP server, or it is said that they are not, in bounded time."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from gauzian.accounts.mail import AT_ONCE, LogMail, SmtpMail
from gauzian.registration_errors import MailDown, Undeliverable
from gauzian.values import MailServer
from tests.accounts.mail_server import running_mail_server

pytestmark = pytest.mark.anyio


def mail_to(port: int, *, encryption: str = "none", user: tuple[str, str] = ("", ""), **more: Any) -> SmtpMail:
    server = MailServer("localhost", port, encryption, user[0] or None, user[1] or None)
    return SmtpMail(server, sender="drive@gauzian.test", **more)


async def send(mail: SmtpMail, email: str = "ada@example.org") -> None:
    await mail.send_code(email, "AB12CD", minutes=10)


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


async def test_a_mail_says_the_code_to_this_address_and_to_no_other() -> None:
    with running_mail_server() as box:
        await send(mail_to(box.port))
    [envelope] = box.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("drive@gauzian.test", ["ada@example.org"])
    assert (box.last()["To"], box.last()["From"]) == ("ada@example.org", "drive@gauzian.test")
    assert box.last()["Auto-Submitted"] == "auto-generated"
    assert "AB12CD" in str(box.last().get_payload())
    assert "10 minutes" in str(box.last().get_payload())


async def test_starttls_comes_before_the_password_and_the_mail(certificate: Path) -> None:
    user = ("drive", "correct horse")
    with running_mail_server(certificate=certificate, user=user) as box:
        await send(mail_to(box.port, encryption="starttls", user=user, tls=trusting(certificate)))
        assert box.was_encrypted == [True]
        with pytest.raises(MailDown):
            await send(mail_to(box.port, encryption="starttls", user=("drive", "wrong"), tls=trusting(certificate)))
    assert len(box.envelopes) == 1


async def test_no_mail_goes_to_a_server_without_starttls_or_with_a_certificate_nobody_knows(certificate: Path) -> None:
    with running_mail_server() as box, pytest.raises(MailDown):
        await send(mail_to(box.port, encryption="starttls"))
    with running_mail_server(certificate=certificate) as strange, pytest.raises(MailDown):
        await send(mail_to(strange.port, encryption="starttls"))
    assert box.envelopes == strange.envelopes == []


async def test_a_refused_recipient_is_undeliverable_for_good_and_a_deferred_one_only_for_now() -> None:
    with running_mail_server(refuses="550 no such mailbox") as box, pytest.raises(Undeliverable):
        await send(mail_to(box.port))
    with running_mail_server(refuses="451 ask me again") as box, pytest.raises(MailDown):
        await send(mail_to(box.port))


async def test_nobody_listening_is_said_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(MailDown):
            await send(mail_to(unused.getsockname()[1]))


async def test_a_server_that_says_nothing_costs_bounded_time_places_and_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mail = mail_to(silent.getsockname()[1], most_seconds=0.3)
        failures = 0

        async def attempt() -> None:
            nonlocal failures
            with pytest.raises(MailDown):
                await send(mail)
            failures += 1

        before = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for _ in range(3 * AT_ONCE):
                tasks.start_soon(attempt)
        assert failures == 3 * AT_ONCE
        assert time.monotonic() - before < 5, "who waits for a place waits no longer than who has one"
        silent.settimeout(5)
        for _ in range(AT_ONCE):
            with silent.accept()[0] as line:
                line.settimeout(5)
                assert line.recv(100) == b"", "it was closed from our side"
        silent.settimeout(0)
        with pytest.raises(BlockingIOError):  # the others found no place and never came
            silent.accept()


async def test_without_a_server_the_code_goes_to_the_log_and_that_is_said_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        mail = LogMail()
        assert "SMTP_URL is not set" in caplog.text
        await mail.send_code("ada@example.org", "AB12CD", minutes=10)
    assert "ada@example.org" in caplog.text
    assert "AB12CD" in caplog.text


async def test_with_a_server_neither_code_nor_address_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="gauzian"), running_mail_server(refuses="550 ada@example.org") as box:
        with pytest.raises(Undeliverable):
            await send(mail_to(box.port))
        box.refuses = None
        await send(mail_to(box.port))
    logged = str([record.__dict__ for record in caplog.records if record.name.startswith("gauzian")])
    assert "AB12CD" not in logged
    assert "ada@" not in logged
