"""How the text of an environment variable becomes a value, or a line that says what it takes."""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any


class BadValue(Exception):
    """What the variable takes instead."""


Parse = Callable[[str], Any]


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
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise BadValue(f"seconds from {least:g} to {most:g}")
        return value

    return parse


def one_of(*words: str) -> Parse:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise BadValue("one of " + ", ".join(words))
        return text.lower()

    return parse


def switch(text: str) -> bool:
    words = {"true": True, "on": True, "1": True, "yes": True, "false": False, "off": False, "0": False, "no": False}
    if text.lower() not in words:
        raise BadValue("true or false")
    return words[text.lower()]


def url(*schemes: str) -> Parse:
    def parse(text: str) -> str:
        parts = urllib.parse.urlsplit(text)
        if parts.scheme not in schemes or (not parts.netloc and not parts.query):
            raise BadValue("a URL beginning with " + " or ".join(f"{scheme}://" for scheme in schemes))
        return text

    return parse


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
        parts = urllib.parse.urlsplit(part)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path:
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
