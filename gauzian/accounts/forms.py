"""What a new user fills in, as values that may be stored, or an error that names the field."""

from __future__ import annotations

import re
from typing import Any

from gauzian.accounts.passwords import MOST_PASSWORD_BYTES
from gauzian.accounts.session import OPAQUE
from gauzian.errors import BadField
from gauzian.web import fields

# RFC 5321 4.5.3.1.3: 256 octets with the angle brackets.
MOST_EMAIL_BYTES = 254
MOST_USERNAME_BYTES = 255
# NIST SP 800-63B's least length and nothing about character classes: clients of the first generation had no rule at
# all, and their users and load scripts must be able to register. The browser client may ask for more.
LEAST_PASSWORD_CHARACTERS = 8
# What clients of the second generation promise their users, who registered with a code.
LEAST_PROVED_PASSWORD_BYTES = 10
_SPECIAL = frozenset("!@#$%^&*()_+-=[]{};':\"\\|,.<>/?`")

# One @ with something before it; no space or control character anywhere; the domain has a dot inside.
_EMAIL = re.compile(r"[^\s\x00-\x1f\x7f@]+@[^\s\x00-\x1f\x7f@.]+(?:\.[^\s\x00-\x1f\x7f@.]+)+")
# Mail is sent only to what every mail server reads in the same way: no quotes, brackets, commas or comments.
_MAILABLE = re.compile(r"[^\s@\"(),:;<>\[\\\]]+@[^\s@\"(),:;<>\[\\\]]+")


def new_user(given: dict[str, Any]) -> dict[str, str]:
    """The fields of a new user, as create_user takes them, without the password."""
    email = email_of(given)
    username = fields.text(given, "username", most=MOST_USERNAME_BYTES).strip()
    if not username or not username.isprintable():
        raise BadField("username", "must be printable and not empty")
    opaque = {name: fields.text(given, name, most=fields.MOST_KEY) for name in OPAQUE}
    # Nobody reads this one yet; older clients send it empty.
    record_key = fields.text(given, "encrypted_record_key", most=fields.MOST_KEY, allow_empty=True)
    return {"email": email, "username": username, "encrypted_record_key": record_key, **opaque}


def email_of(given: dict[str, Any]) -> str:
    email = fields.text(given, "email", most=MOST_EMAIL_BYTES).strip()
    if not _EMAIL.fullmatch(email):
        raise BadField("email", "must be an e-mail address")
    return email


def mailable(given: dict[str, Any]) -> str:
    """The e-mail address in lower case, if mail can be sent to it and to nobody else."""
    email = email_of(given).lower()
    if not _MAILABLE.fullmatch(email) or not email.isprintable():
        raise BadField("email", "must be a plain e-mail address")
    return fields.storable("email", email, most=MOST_EMAIL_BYTES)  # lower case may be longer


def new_password(given: dict[str, Any]) -> str:
    password = fields.text(given, "password", most=MOST_PASSWORD_BYTES)
    if len(password) < LEAST_PASSWORD_CHARACTERS:
        raise BadField("password", f"must have at least {LEAST_PASSWORD_CHARACTERS} characters")
    return password


def strong_password(given: dict[str, Any]) -> str:
    password = fields.text(given, "password", most=MOST_PASSWORD_BYTES)
    is_long = len(password.encode()) >= LEAST_PROVED_PASSWORD_BYTES
    has_digit = any(character in "0123456789" for character in password)
    if not (is_long and has_digit and any(map(str.isupper, password)) and any(c in _SPECIAL for c in password)):
        raise BadField(
            "password", "must have 10 characters, with a capital, a digit and a special character among them"
        )
    return password
