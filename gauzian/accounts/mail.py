"""Mail: registration codes, sent over SMTP or, without a mail server, written to the log.

A mail server may be slow, gone, or silent in the middle of a word. A few are spoken to at once, each for a bounded
time, and whoever finds no place in time is told so.
"""

from __future__ import annotations

import logging
import ssl
from email.message import EmailMessage
from email.utils import format_datetime, localtime, make_msgid
from typing import Protocol

import anyio

from gauzian.registration_errors import MailDown, Undeliverable
from gauzian.values import MailServer

log = logging.getLogger(__name__)

# Mails on their way at once, and how long one may take with its place, line, greeting and TLS. A browser waits that
# long.
AT_ONCE = 4
MOST_SECONDS = 20.0


class Mail(Protocol):
    async def send_code(self, email: str, code: str, *, minutes: int) -> None:
        """Raises Undeliverable (this address, for good) or MailDown (any address, for now)."""


class LogMail:
    """For who has no mail server: the one secret that this program ever logs, because else nobody could read it."""

    def __init__(self) -> None:
        log.warning("SMTP_URL is not set: registration codes are written to this log and not mailed")

    async def send_code(self, email: str, code: str, *, minutes: int) -> None:
        log.warning("registration code for %s, good for %d minutes: %s", email, minutes, code)


class SmtpMail:
    """One connection per mail: they are rare, and a kept one would have to be kept alive."""

    def __init__(
        self,
        server: MailServer,
        *,
        sender: str,
        most_seconds: float = MOST_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._server = server
        self._sender = sender
        self._most_seconds = most_seconds
        # Once: it reads the system's certificates.
        self._tls = tls or (None if server.encryption == "none" else ssl.create_default_context())
        self._places = anyio.CapacityLimiter(AT_ONCE)

    async def send_code(self, email: str, code: str, *, minutes: int) -> None:
        try:
            with anyio.fail_after(self._most_seconds):
                async with self._places:
                    await self._send(email, _message(self._sender, email, code, minutes))
        except TimeoutError as error:
            log.warning("the mail server took longer than %g seconds", self._most_seconds)
            raise MailDown from error

    async def _send(self, email: str, message: EmailMessage) -> None:
        # Here and not above: a service without a mail server never needs it.
        import aiosmtplib

        server = self._server
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            # Not asked of the resolver, who may take his time.
            local_hostname=self._sender.rpartition("@")[2],
            timeout=self._most_seconds,
            use_tls=server.encryption == "tls",
            start_tls=server.encryption == "starttls",
            tls_context=self._tls,
        )
        try:
            async with client:
                await client.send_message(message, sender=self._sender, recipients=[email])
        except aiosmtplib.SMTPRecipientsRefused as error:
            refused = error.recipients[0]
            raise _refusal(refused.code, refused.message) from error
        except aiosmtplib.SMTPNotSupported as error:  # an address outside of ASCII, and a server that knows none
            raise Undeliverable from error
        except (aiosmtplib.SMTPException, OSError) as error:
            log.warning("the mail server does not take mail: %s", type(error).__name__)
            raise MailDown from error
        finally:
            client.close()  # also when we are cancelled: the server may say nothing for ever


def _refusal(code: int, text: str) -> Exception:
    """5xx: no such mailbox, for good. 4xx: not now (a full mailbox, a server that wants to be asked twice)."""
    log.info("a recipient was refused", extra={"code": code})
    return Undeliverable() if code >= 500 else MailDown("The mail server asks to try again later")


def _message(sender: str, email: str, code: str, minutes: int) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender
    message["To"] = email
    message["Subject"] = f"{code} is your GAUZIAN code"
    message["Date"] = format_datetime(localtime())
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # no holiday notice, please
    message.set_content(
        f"Your code is {code}\n\nEnter it within {minutes} minutes to create your GAUZIAN account.\n"
        "If you did not ask for it, somebody mistyped an address; nothing will happen.\n"
    )
    return message
