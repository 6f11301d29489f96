-- Who exists and who is signed in.

CREATE TABLE users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email text NOT NULL,
    username text NOT NULL,
    password_hash text NOT NULL,
    -- Opaque to the server: made and read by clients only.
    public_key text NOT NULL,
    encrypted_private_key text NOT NULL,
    private_key_salt text NOT NULL,
    iv text NOT NULL,
    encrypted_record_key text NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    quota_bytes bigint CHECK (quota_bytes >= 0), -- NULL: the server's default
    created_at timestamptz NOT NULL DEFAULT now()
);

-- E-mails are compared case-insensitively and kept as they were written.
CREATE UNIQUE INDEX users_email_key ON users (lower(email));
CREATE UNIQUE INDEX users_username_key ON users (username);

-- Only the SHA-256 of a token is kept: who reads this table cannot sign in with it.
CREATE TABLE tokens (
    sha256 bytea PRIMARY KEY CHECK (octet_length(sha256) = 32),
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);

CREATE INDEX tokens_user_id_idx ON tokens (user_id);
CREATE INDEX tokens_expires_at_idx ON tokens (expires_at);

-- Which installation this is, for ever: a sweep must never touch the objects of another database's bucket.
CREATE TABLE instance (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one)
);

INSERT INTO instance DEFAULT VALUES;
