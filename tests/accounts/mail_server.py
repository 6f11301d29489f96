"""A real SMTP server on a free port of this machine, with the habits a test asks for."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword


@dataclass
class Postbox:
    """What arrived; `refuses` answers RCPT with a line of its own."""

    port: int = 0
    refuses: str | None = None
    envelopes: list[Envelope] = field(default_factory=list)
    was_encrypted: list[bool] = field(default_factory=list)

    async def handle_RCPT(
        self, server: SMTP, session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.refuses is not None:
            return self.refuses
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Envelope) -> str:
        self.envelopes.append(envelope)
        self.was_encrypted.append(session.ssl is not None)
        return "250 OK"

    def last(self) -> Message:
        content = self.envelopes[-1].content
        assert isinstance(content, bytes)
        return message_from_bytes(content)


class _OnAnyPort(Controller):
    """Learns which port it was given, which its own first connection must know."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def running_mail_server(
    *, certificate: Path | None = None, user: tuple[str, str] | None = None, **habits: Any
) -> Iterator[Postbox]:
    """With a certificate it offers STARTTLS and insists on it; with a user it takes mail from nobody else."""
    box = Postbox(**habits)

    def authenticate(server: SMTP, session: Any, envelope: Envelope, mechanism: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        assert user is not None
        return AuthResult(success=(given.login.decode(), given.password.decode()) == user, handled=False)

    tls = None
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    controller = _OnAnyPort(
        box,
        hostname="127.0.0.1",
        port=0,
        server_hostname="mail.test",
        tls_context=tls,
        require_starttls=tls is not None,
        authenticator=authenticate if user else None,
        auth_required=user is not None,
    )
    controller.start()
    try:
        box.port = controller.port
        yield box
    finally:
        controller.stop()
