-- Registrations on their way: an e-mail address that is being proved by a code sent to it. One row per address, forgotten ten minutes
-- after the last thing that happened to it.

CREATE TABLE registrations (
    email        text PRIMARY KEY,
    sent_at      timestamptz NOT NULL DEFAULT now(),
    -- A code is kept as SHA-256 of salt and code. That does not hide it from who reads this table and has a computer; but it lives for ten
    -- minutes, opens nothing but this registration, and over the wire only five guesses among two thousand million are to be had.
    salt         bytea CHECK (length(salt) = 16),
    code_sha256  bytea CHECK (length(code_sha256) = 32),           -- NULL: no code is out
    code_until   timestamptz,
    wrong_codes  integer NOT NULL DEFAULT 0,                       -- since the first one of this window
    wrong_until  timestamptz,                                      -- the end of the window
    -- What the right code is exchanged for: 256 random bits, kept like every token.
    token_sha256 bytea CHECK (length(token_sha256) = 32),
    token_until  timestamptz,
    expires_at   timestamptz NOT NULL
);
CREATE INDEX registrations_expires_at ON registrations (expires_at);
