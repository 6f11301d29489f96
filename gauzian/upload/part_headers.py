"""Headers that hold parameters: Content-Type with its boundary, and the head of one multipart part."""

from __future__ import annotations

import re

from gauzian.errors import MalformedMultipart, Scope, UnsupportedMediaType
from gauzian.web.body import header

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Unquoted values are read a little more widely than a token: some clients forget the quotes around a boundary.
_PARAMETER = re.compile(
    r"""[ \t]*;[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:"((?:[^"\\\r\n]|\\[^\r\n])*)"|([^\s;"]+))"""
)
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046 5.1.1
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_PLAIN_ENCODINGS = frozenset({b"7bit", b"8bit", b"binary"})


def boundary_of(scope: Scope) -> bytes:
    """The boundary that the request's Content-Type names; UnsupportedMediaType when it is no multipart/form-data."""
    value = (header(scope, b"content-type") or b"").decode("latin-1")
    if value.partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedMediaType("This route takes multipart/form-data")
    boundary = _parameter(value, "boundary")
    if boundary is None or not _BOUNDARY.fullmatch(boundary):
        raise MalformedMultipart("Content-Type names no valid boundary")
    return boundary.encode("ascii")


def part_name(head: bytes) -> str:
    """The name of the form field, from the header lines of its part."""
    name: str | None = None
    for line in head.split(b"\r\n"):
        key, colon, value = line.partition(b":")
        # A folded line begins with a space, which no name does; a bare CR or LF is a line break to some readers only.
        if not colon or not _TOKEN.fullmatch(key.decode("latin-1")) or _CONTROL.search(value):
            raise MalformedMultipart("A part begins with something that is no header")
        if key.lower() == b"content-disposition":
            if name is not None:
                raise MalformedMultipart("A part has two Content-Disposition headers")
            name = _form_field(value.decode("latin-1").strip())
        elif key.lower() == b"content-transfer-encoding" and value.strip().lower() not in _PLAIN_ENCODINGS:
            # Forms have none (RFC 7578 4.7): taking the bytes as they are would store something else than was meant.
            raise MalformedMultipart("A part has a Content-Transfer-Encoding")
    if name is None:
        raise MalformedMultipart("A part has no Content-Disposition")
    return name


def _form_field(disposition: str) -> str:
    name = _parameter(disposition, "name")
    if disposition.partition(";")[0].strip().lower() != "form-data" or name is None:
        raise MalformedMultipart("A part is no form field with a name")
    return name


def _parameter(value: str, wanted: str) -> str | None:
    """The parameter `wanted` of a header value, unquoted."""
    found: str | None = None
    at = (value + ";").index(";")
    while match := _PARAMETER.match(value, at):
        at = match.end()
        if match[1].lower() == wanted:
            if found is not None:
                raise MalformedMultipart(f"{wanted} stands there twice")
            found = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
    if value[at:].strip(" \t") not in ("", ";"):
        raise MalformedMultipart("A header has malformed parameters")
    return found
