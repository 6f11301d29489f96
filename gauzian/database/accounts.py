"""SQL: users, and the tokens they are signed in with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, errors
from psycopg.rows import class_row, scalar_row

from gauzian.errors import AlreadyRegistered

Connection = AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class SignIn:
    """What a client gets when it signs in, and what its password is checked against."""

    user_id: UUID
    password_hash: str
    encrypted_private_key: str
    private_key_salt: str
    iv: str
    public_key: str


@dataclass(frozen=True, slots=True)
class Info:
    id: UUID
    email: str
    username: str
    encrypted_private_key: str
    private_key_salt: str
    iv: str
    public_key: str


@dataclass(frozen=True, slots=True)
class Contact:
    user_id: UUID
    public_key: str


async def create_user(
    conn: Connection,
    *,
    email: str,
    username: str,
    password_hash: str,
    public_key: str,
    encrypted_private_key: str,
    private_key_salt: str,
    iv: str,
    encrypted_record_key: str,
) -> UUID:
    """Raises AlreadyRegistered when e-mail (in any case) or username is taken."""
    cursor = conn.cursor(row_factory=scalar_row)
    try:
        await cursor.execute(
            """
            INSERT INTO users (email, username, password_hash, public_key, encrypted_private_key, private_key_salt, iv,
                               encrypted_record_key)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
            """,
            (
                email,
                username,
                password_hash,
                public_key,
                encrypted_private_key,
                private_key_salt,
                iv,
                encrypted_record_key,
            ),
        )
    except errors.UniqueViolation as error:
        raise AlreadyRegistered from error
    found: UUID | None = await cursor.fetchone()
    assert found is not None  # noqa: S101 - INSERT ... RETURNING gives one row or raises
    return found


async def find_sign_in(conn: Connection, *, email: str) -> SignIn | None:
    cursor = conn.cursor(row_factory=class_row(SignIn))
    await cursor.execute(
        """
        SELECT id AS user_id, password_hash, encrypted_private_key, private_key_salt, iv, public_key
        FROM users WHERE lower(email) = lower(%s) AND is_active
        """,
        (email,),
    )
    return await cursor.fetchone()


async def is_registered(conn: Connection, *, email: str) -> bool:
    """Also one that may not sign in: its address is taken all the same."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute("SELECT true FROM users WHERE lower(email) = lower(%s)", (email,))
    return await cursor.fetchone() is True


async def replace_password_hash(conn: Connection, *, user_id: UUID, old: str, new: str) -> None:
    """Only if it is still `old`: a password changed meanwhile stays changed."""
    await conn.execute("UPDATE users SET password_hash = %s WHERE id = %s AND password_hash = %s", (new, user_id, old))


async def add_token(conn: Connection, *, user_id: UUID, sha256: bytes, lifetime: timedelta) -> None:
    await conn.execute(
        "INSERT INTO tokens (sha256, user_id, expires_at) VALUES (%s, %s, now() + %s)", (sha256, user_id, lifetime)
    )


async def remove_token(conn: Connection, *, sha256: bytes) -> bool:
    """Whether it was valid until now."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute("DELETE FROM tokens WHERE sha256 = %s RETURNING expires_at > now()", (sha256,))
    return bool(await cursor.fetchone())


async def find_caller(conn: Connection, *, token_sha256: bytes) -> UUID | None:
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(
        """
        SELECT u.id FROM tokens t JOIN users u ON u.id = t.user_id
        WHERE t.sha256 = %s AND t.expires_at > now() AND u.is_active
        """,
        (token_sha256,),
    )
    found: UUID | None = await cursor.fetchone()
    return found


async def find_info(conn: Connection, *, user_id: UUID) -> Info | None:
    cursor = conn.cursor(row_factory=class_row(Info))
    await cursor.execute(
        """
        SELECT id, email, username, encrypted_private_key, private_key_salt, iv, public_key
        FROM users WHERE id = %s
        """,
        (user_id,),
    )
    return await cursor.fetchone()


async def find_public_key(conn: Connection, *, email: str) -> Contact | None:
    cursor = conn.cursor(row_factory=class_row(Contact))
    await cursor.execute(
        "SELECT id AS user_id, public_key FROM users WHERE lower(email) = lower(%s) AND is_active", (email,)
    )
    return await cursor.fetchone()


async def remove_expired_tokens(conn: Connection, *, limit: int) -> int:
    """At most `limit`, and none that somebody else is removing right now. Returns how many."""
    cursor = await conn.execute(
        """
        DELETE FROM tokens WHERE sha256 IN (
            SELECT sha256 FROM tokens WHERE expires_at <= now() LIMIT %s FOR UPDATE SKIP LOCKED
        )
        """,
        (limit,),
    )
    return cursor.rowcount
