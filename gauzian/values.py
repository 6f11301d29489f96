"""How the text of an environment variable becomes a value, or a line that says what it takes."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class BadValue(Exception):
    """What the variable takes instead."""


Parse = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class MailServer:
    """`encryption`: tls from the first byte (smtps), starttls (insisted on), or none (a relay next door)."""

    host: str
    port: int
    encryption: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)


# Wider than S3's rules of today: older buckets and other stores know capitals and underscores.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")

_SMTP_PORTS = {"smtp": 587, "smtps": 465}
_MAILBOX = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")


def integer(least: int, most: int) -> Parse:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise BadValue(f"a whole number from {least} to {most}")
        return value

    return parse


def seconds(least: float, most: float) -> Parse:
    return _number("seconds", least, most)


def hours(least: float, most: float) -> Parse:
    return _number("hours", least, most)


def _number(unit: str, least: float, most: float) -> Parse:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise BadValue(f"{unit} from {least:g} to {most:g}")
        return value

    return parse


def one_of(*words: str) -> Parse:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise BadValue("one of " + ", ".join(words))
        return text.lower()

    return parse


def one_number_of(*numbers: int) -> Parse:
    *first, last = map(str, numbers)

    def parse(text: str) -> int:
        if text not in (*first, last):
            raise BadValue(f"{', '.join(first)} or {last}")
        return int(text)

    return parse


def switch(text: str) -> bool:
    words = {"true": True, "on": True, "1": True, "yes": True, "false": False, "off": False, "0": False, "no": False}
    if text.lower() not in words:
        raise BadValue("true or false")
    return words[text.lower()]


def url(*schemes: str) -> Parse:
    def parse(text: str) -> str:
        parts = _split(text)
        if parts is None or parts.scheme not in schemes or (not parts.netloc and not parts.query):
            raise BadValue("a URL beginning with " + " or ".join(f"{scheme}://" for scheme in schemes))
        return text

    return parse


def endpoint(text: str) -> str:
    """Nothing behind the host: a path would be dropped, and what is dropped silently was believed to be set."""
    parts = _split(text)
    if parts is None or not _is_address(parts) or parts.path.strip("/") or parts.query or parts.fragment:
        raise BadValue("http://host[:port] or https://host[:port]")
    return text


def mail_server(text: str) -> MailServer:
    """smtp:// means STARTTLS, and no mail if the server has none: a password must not depend on who listens in."""
    parts = _split(text)
    try:
        if parts is None or parts.scheme not in _SMTP_PORTS or not parts.hostname or parts.path.strip("/"):
            raise ValueError
        port = _SMTP_PORTS[parts.scheme] if parts.port is None else parts.port
        encryption = {"smtps": {"": "tls"}, "smtp": {"": "starttls", "starttls=off": "none"}}[parts.scheme][parts.query]
    except (ValueError, KeyError):
        raise BadValue(
            "smtp://[user:password@]host[:587][?starttls=off] or smtps://[user:password@]host[:465]"
        ) from None
    user, password = (None if part is None else urllib.parse.unquote(part) for part in (parts.username, parts.password))
    return MailServer(parts.hostname, port, encryption, user, password)


def mailbox(text: str) -> str:
    if not _MAILBOX.fullmatch(text):
        raise BadValue("an e-mail address, as in drive@example.org")
    return text


def bucket(text: str) -> str:
    if not _BUCKET.fullmatch(text):
        raise BadValue("a bucket's name: letters, digits, dots, hyphens and underscores")
    return text


def networks(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for part in found:
        try:
            ipaddress.ip_network(part, strict=False)
        except ValueError:
            raise BadValue("addresses or networks with commas between, as in 10.0.0.0/8,127.0.0.1") from None
    return found


def origins(text: str) -> tuple[str, ...]:
    found = tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    for part in found:
        parts = _split(part)
        if parts is None or not _is_address(parts) or parts.path or parts.query or parts.fragment:
            raise BadValue("origins with commas between, as in https://drive.example.org")
    return found


def places(text: str) -> int | str:
    if text.lower() == "auto":
        return "auto"
    try:
        value: int = integer(1, 10_000)(text)
    except BadValue:
        raise BadValue("a whole number from 1 to 10000, or auto") from None
    return value


def text(text: str) -> str:
    return text


def path(text: str) -> Path:
    return Path(text)


def _split(text: str) -> urllib.parse.SplitResult | None:
    try:
        return urllib.parse.urlsplit(text)
    except ValueError:
        return None


def _is_address(parts: urllib.parse.SplitResult) -> bool:
    """http or https, a host, perhaps a port, and no password that would end up in a log."""
    try:
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        )
    except ValueError:  # no number, or none of a port
        return False
