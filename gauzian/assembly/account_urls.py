"""The URLs of accounts: registering, with a code or without, signing in and out, who am I."""

from __future__ import annotations

from starlette.routing import Route

from gauzian.accounts.address import Addresses
from gauzian.accounts.mail import LogMail, Mail, SmtpMail
from gauzian.accounts.registration import Registration
from gauzian.accounts.routes import Accounts
from gauzian.accounts.session import Sessions
from gauzian.accounts.throttle import Throttle
from gauzian.assembly.parts import Parts
from gauzian.settings import Settings


def account_paths(parts: Parts, settings: Settings) -> list[Route]:
    sessions = Sessions(parts.database, cookie_auth=settings.cookie_auth, cookie_secure=settings.cookie_secure)
    throttle, addresses = Throttle(), Addresses(settings.trusted_proxies)
    accounts = Accounts(
        database=parts.database,
        identity=parts.identity,
        passwords=parts.passwords,
        throttle=throttle,
        addresses=addresses,
        metrics=parts.metrics,
        sessions=sessions,
    )
    registration = Registration(
        database=parts.database,
        passwords=parts.passwords,
        throttle=throttle,
        addresses=addresses,
        metrics=parts.metrics,
        sessions=sessions,
        mail=_mail(settings),
    )
    return [
        Route("/login", accounts.login, methods=["POST"]),
        Route("/register", accounts.register, methods=["POST"]),
        Route("/register/send-otp", registration.send_code, methods=["POST"]),
        Route("/register/verify-otp", registration.verify_code, methods=["POST"]),
        Route("/register/finalize", registration.finalize, methods=["POST"]),
        Route("/logout", accounts.logout, methods=["POST"]),
        Route("/autologin", accounts.autologin, methods=["GET"]),
        Route("/protected", accounts.protected, methods=["GET"]),
        Route("/info", accounts.info, methods=["GET"]),
        Route("/contacts/get_public_key/{email}", accounts.get_public_key, methods=["GET"]),
    ]


def _mail(settings: Settings) -> Mail:
    if settings.smtp_url is None or settings.mail_from is None:
        return LogMail()
    return SmtpMail(settings.smtp_url, sender=settings.mail_from)
