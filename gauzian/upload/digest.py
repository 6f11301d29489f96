"""What Content-Digest promises about the bytes to be stored (RFC 9530)."""

from __future__ import annotations

import binascii
import re

from gauzian.errors import BadField, Scope

# One member of the dictionary: a byte sequence between colons (RFC 8941); parameters mean nothing here.
_BYTES = re.compile(r":([A-Za-z0-9+/=]*):[ \t]*(?:;.*)?")


def promised_sha256(scope: Scope) -> bytes | None:
    """The 32 bytes of sha-256, or None if there is no such promise; other algorithms are not ours to check.

    For JSON and multipart it is about the decoded bytes, too: what the client will read back.
    """
    found: set[bytes] = set()
    for name, value in scope["headers"]:
        if name != b"content-digest":
            continue
        for member in bytes(value).decode("latin-1").split(","):
            key, _, sequence = member.strip(" \t").partition("=")
            if key.lower() == "sha-256":
                found.add(_decoded(sequence))
    if len(found) > 1:
        raise BadField("Content-Digest", "two different values of sha-256")
    return found.pop() if found else None


def _decoded(sequence: str) -> bytes:
    match = _BYTES.fullmatch(sequence)
    if match is not None:
        try:
            digest = binascii.a2b_base64(match[1], strict_mode=True)
        except binascii.Error:
            digest = b""
        if len(digest) == 32:
            return digest
    raise BadField("Content-Digest", "sha-256 is not a byte sequence of 32 bytes in base64 between colons")
