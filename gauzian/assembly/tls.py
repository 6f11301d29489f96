"""The certificate for serving HTTPS without a proxy: read before anything is opened, and again on SIGHUP."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from gauzian.settings import Settings, SettingsError

log = logging.getLogger(__name__)


class Certificate:
    """`context` stays the same object: new connections get what was read last."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """SettingsError: the files are not a pair that can be served."""
        self._certificate, self._key = certificate, key
        self._require_pair()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load(self.context)

    def renew(self) -> None:
        """Whoever renews certificates wants the files read again. If they cannot be used, the old pair stays."""
        try:
            self._require_pair()  # before the context is touched: half a pair in it would end every handshake
            self._load(self.context)
        except (SettingsError, OSError) as error:
            why = "; ".join(error.problems) if isinstance(error, SettingsError) else str(error)
            log.error("the certificate stays as it was: %s", why)
        else:
            log.info("the certificate was read again")

    def _load(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self._certificate, self._key, _no_passphrase)

    def _require_pair(self) -> None:
        held = [("TLS_CERT", self._certificate, "certificates"), ("TLS_KEY", self._key, "a private key")]
        unreadable = [
            f"{name} holds {str(file)!r}, takes a file with {what} in PEM form: {problem}"
            for name, file, what in held
            if (problem := _problem_of_reading(file)) is not None
        ]
        if unreadable:
            raise SettingsError(unreadable)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_verify_locations(self._certificate)  # only to see whether certificates are in it
        except ssl.SSLError:
            raise SettingsError(
                [f"TLS_CERT holds {str(self._certificate)!r}, takes a file with certificates in PEM form"]
            ) from None
        try:
            self._load(context)
        except (ssl.SSLError, ValueError) as error:
            why = "one without a passphrase" if isinstance(error, ValueError) else "in PEM form"
            raise SettingsError(
                [f"TLS_KEY holds {str(self._key)!r}, takes the private key of TLS_CERT, {why}"]
            ) from None


def certificate_of(settings: Settings) -> Certificate | None:
    """None where HTTPS is the proxy's affair. SettingsError names the variable whose file cannot be used."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_cert, settings.tls_key)


def _problem_of_reading(file: Path) -> str | None:
    try:
        file.read_bytes()
    except OSError as error:
        return error.strerror or "unreadable"
    return None


def _no_passphrase() -> str:
    # Without this OpenSSL would ask at the terminal, and a service would wait there for ever.
    raise ValueError
