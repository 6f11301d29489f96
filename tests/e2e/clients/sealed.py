"""Ciphertexts of the right shape and length. They hide nothing: a test looks inside to see whose name it is."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any

CHUNK_BYTES = 1 << 20
TAG_BYTES = 16
IV_BYTES = 12
PASSWORD = "Correct-Horse-42!"


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def wrapped_key() -> str:
    """RSA-4096 of a data key."""
    return text_of(secrets.token_bytes(512))


def new_iv() -> str:
    return text_of(secrets.token_bytes(IV_BYTES))


def metadata(**fields: Any) -> str:
    plain = json.dumps(fields).encode()
    return text_of(secrets.token_bytes(IV_BYTES) + plain + secrets.token_bytes(TAG_BYTES))


def name_in(encrypted: str) -> str:
    fields = json.loads(base64.b64decode(encrypted)[IV_BYTES:-TAG_BYTES])
    return str(fields.get("filename") or fields["folder_name"])


def seal(plaintext: bytes) -> bytes:
    return plaintext + secrets.token_bytes(TAG_BYTES)


def unseal(stored: bytes) -> bytes:
    return stored[:-TAG_BYTES]


def public_key() -> str:
    body = text_of(secrets.token_bytes(550))
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----"])


def keyring() -> dict[str, str]:
    """What a registration makes beside the password."""
    return {
        "encrypted_private_key": text_of(secrets.token_bytes(3300)),
        "public_key": public_key(),
        "private_key_salt": text_of(secrets.token_bytes(16)),
        "iv": new_iv(),
        "encrypted_record_key": text_of(secrets.token_bytes(3328)),
    }
