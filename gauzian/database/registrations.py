"""SQL: registrations on their way, from the code that is sent out to the token it is exchanged for."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row

Connection = AsyncConnection[Any]

LIFETIME = timedelta(minutes=10)  # of a code, of a token, and of the memory for wrong codes
COOLDOWN = timedelta(seconds=30)  # between two codes for one address
MOST_WRONG_CODES = 5
# Registrations on their way at the same time. So many mails in ten minutes are no crowd but somebody at work.
MOST_OPEN = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """Why an address cannot have a code now: seconds left of either reason, 0 or less if it is none."""

    cooldown_seconds: float
    blocked_seconds: float


@dataclass(frozen=True, slots=True)
class _Code:
    salt: bytes | None
    code_sha256: bytes | None
    is_live: bool
    wrong_codes: int
    blocked_seconds: float


def hash_code(salt: bytes, code: str) -> bytes:
    return hashlib.sha256(salt + code.encode()).digest()


async def is_full(conn: Connection) -> bool:
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute("SELECT count(*) FROM (SELECT FROM registrations LIMIT %s) r", (MOST_OPEN,))
    return int(await cursor.fetchone() or 0) >= MOST_OPEN


async def begin(conn: Connection, *, email: str, salt: bytes, code_sha256: bytes) -> Standing | None:
    """A new code in place of the last one, before it is sent: so two requests at once send one mail. None: done."""
    given = {"email": email, "salt": salt, "sha256": code_sha256, "life": LIFETIME, "cooldown": COOLDOWN}
    cursor = await conn.execute(
        """
        INSERT INTO registrations AS r (email, salt, code_sha256, code_until, expires_at)
        VALUES (%(email)s, %(salt)s, %(sha256)s, now() + %(life)s, now() + %(life)s)
        ON CONFLICT (email) DO UPDATE
        SET sent_at = now(), salt = excluded.salt, code_sha256 = excluded.code_sha256, code_until = excluded.code_until,
            expires_at = excluded.expires_at
        WHERE r.sent_at <= now() - %(cooldown)s AND (r.wrong_codes < %(most)s OR r.wrong_until <= now())
        """,
        given | {"most": MOST_WRONG_CODES},
    )
    return None if cursor.rowcount else await _standing(conn, email=email)


async def withdraw(conn: Connection, *, email: str, code_sha256: bytes) -> None:
    """The code did not get out: it counts as never made, and the next one need not wait. Wrong codes stay counted."""
    given = {"email": email, "sha256": code_sha256}
    # Nothing to remember takes no room among those that are open: a mail server that is down would close the door.
    await conn.execute(
        """
        DELETE FROM registrations
        WHERE email = %(email)s AND code_sha256 = %(sha256)s AND wrong_codes = 0 AND token_sha256 IS NULL
        """,
        given,
    )
    await conn.execute(
        """
        UPDATE registrations SET code_sha256 = NULL, salt = NULL, code_until = NULL, sent_at = '-infinity'
        WHERE email = %(email)s AND code_sha256 = %(sha256)s
        """,
        given,
    )


async def exchange(conn: Connection, *, email: str, code: str, token_sha256: bytes) -> float | None:
    """The right code becomes a token (None), a wrong one is counted (0), a sixth is not looked at: seconds to wait.

    Inside of a transaction: guesses at the same time are counted one after the other.
    """
    cursor = conn.cursor(row_factory=class_row(_Code))
    await cursor.execute(
        """
        SELECT salt, code_sha256, coalesce(code_until > now(), false) AS is_live,
               CASE WHEN wrong_until > now() THEN wrong_codes ELSE 0 END AS wrong_codes,
               coalesce(extract(epoch FROM wrong_until - now()), 0)::float8 AS blocked_seconds
        FROM registrations WHERE email = %s FOR UPDATE
        """,
        (email,),
    )
    found = await cursor.fetchone()
    if found is None:
        return 0.0  # nothing is remembered of addresses that asked for no code: there is nothing to guess
    if found.wrong_codes >= MOST_WRONG_CODES:
        return max(1.0, found.blocked_seconds)
    salt, expected = found.salt, found.code_sha256
    if found.is_live and salt and expected and hmac.compare_digest(hash_code(salt, code), expected):
        await conn.execute(
            """
            UPDATE registrations SET salt = NULL, code_sha256 = NULL, code_until = NULL, wrong_codes = 0,
                   wrong_until = NULL, token_sha256 = %(sha256)s, token_until = now() + %(life)s,
                   expires_at = now() + %(life)s
            WHERE email = %(email)s
            """,
            {"email": email, "sha256": token_sha256, "life": LIFETIME},
        )
        return None
    await conn.execute(
        """
        UPDATE registrations
        SET wrong_codes = %(wrong)s, wrong_until = CASE WHEN %(wrong)s = 1 THEN now() + %(life)s ELSE wrong_until END,
            expires_at = now() + %(life)s
        WHERE email = %(email)s
        """,
        {"email": email, "wrong": found.wrong_codes + 1, "life": LIFETIME},
    )
    return 0.0


async def is_proved(conn: Connection, *, email: str, token_sha256: bytes) -> bool:
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(
        "SELECT true FROM registrations WHERE email = %s AND token_sha256 = %s AND token_until > now()",
        (email, token_sha256),
    )
    return await cursor.fetchone() is True


async def finish(conn: Connection, *, email: str, token_sha256: bytes) -> bool:
    """Use the token up: true for one caller only. Taken back if the transaction is."""
    cursor = await conn.execute(
        "DELETE FROM registrations WHERE email = %s AND token_sha256 = %s AND token_until > now()",
        (email, token_sha256),
    )
    return cursor.rowcount == 1


async def remove_expired(conn: Connection, *, limit: int) -> int:
    """At most `limit`, and none that somebody else is removing right now. Returns how many."""
    cursor = await conn.execute(
        """
        DELETE FROM registrations WHERE email IN (
            SELECT email FROM registrations WHERE expires_at <= now() LIMIT %s FOR UPDATE SKIP LOCKED
        )
        """,
        (limit,),
    )
    return cursor.rowcount


async def _standing(conn: Connection, *, email: str) -> Standing:
    cursor = conn.cursor(row_factory=class_row(Standing))
    await cursor.execute(
        """
        SELECT CASE WHEN sent_at > now() - %(cooldown)s
                    THEN extract(epoch FROM sent_at + %(cooldown)s - now())::float8 ELSE 0 END AS cooldown_seconds,
               CASE WHEN wrong_codes >= %(most)s AND wrong_until > now()
                    THEN extract(epoch FROM wrong_until - now())::float8 ELSE 0 END AS blocked_seconds
        FROM registrations WHERE email = %(email)s
        """,
        {"email": email, "cooldown": COOLDOWN, "most": MOST_WRONG_CODES},
    )
    # Gone in between: whoever asks again will get one.
    return await cursor.fetchone() or Standing(1.0, 0.0)
