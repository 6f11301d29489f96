-- Files, who may see them, their chunks, and the space they take.

CREATE TABLE files (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    owner_id           uuid NOT NULL REFERENCES users (id),
    encrypted_metadata text NOT NULL,
    mime_type          text NOT NULL,
    size               bigint NOT NULL CHECK (size >= 0),          -- what the client declared: plaintext bytes
    total_chunks       integer CHECK (total_chunks >= 0),          -- what the client declared, if it did
    -- 'aborted' stays as a tombstone for a while, so that a late chunk is told 409 and cannot slip in.
    state              text NOT NULL DEFAULT 'uploading' CHECK (state IN ('uploading', 'complete', 'aborted')),
    stored_bytes       bigint,                                     -- set at finalize
    chunk_count        integer,                                    -- set at finalize
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    finalized_at       timestamptz
);
CREATE INDEX files_of_owner ON files (owner_id);
CREATE INDEX files_not_complete ON files (state, updated_at) WHERE state <> 'complete';

CREATE TABLE file_access (
    file_id            uuid NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    user_id            uuid NOT NULL REFERENCES users (id),
    encrypted_file_key text NOT NULL,
    access_level       text NOT NULL CHECK (access_level IN ('owner', 'editor', 'viewer')),
    created_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (file_id, user_id)
);
CREATE INDEX file_access_of_user ON file_access (user_id);

CREATE TABLE chunks (
    file_id    uuid NOT NULL REFERENCES files (id),
    index      integer NOT NULL CHECK (index >= 0),
    id         uuid NOT NULL DEFAULT gen_random_uuid(),
    object_key text NOT NULL,
    size       integer NOT NULL CHECK (size > 0),
    sha256     bytea NOT NULL CHECK (length(sha256) = 32),
    xxh3       bytea NOT NULL CHECK (length(xxh3) = 16),
    iv         text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (file_id, index)
);
CREATE UNIQUE INDEX chunks_object_key ON chunks (object_key);

-- Stored bytes per user, in a narrow table of its own because every chunk updates it: real bytes, unfinished uploads included.
CREATE TABLE space (
    user_id    uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    used_bytes bigint NOT NULL DEFAULT 0 CHECK (used_bytes >= 0)
) WITH (fillfactor = 50);

-- One chunk's row, with everything that must be true at the same moment: the upload is still open (a share of its row keeps finalize
-- and abort, which lock it for update, out until we commit), one row per (file, index), the quota holds. One round trip.
--
-- loser: the object that no row names any more after this, for the caller to remove: the replaced one, or the caller's own when the very
-- same bytes and iv were there already. SQLSTATE GZ001: the upload is not open. GZ002: the quota does not carry it.
CREATE FUNCTION put_chunk(
    p_file uuid, p_index integer, p_key text, p_size integer, p_sha256 bytea, p_xxh3 bytea, p_iv text, p_quota bigint
) RETURNS TABLE (id uuid, object_key text, created_at timestamptz, loser text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    the_owner uuid;
    old       chunks%ROWTYPE;
    growth    bigint := p_size;
BEGIN
    SELECT f.owner_id INTO the_owner FROM files f WHERE f.id = p_file AND f.state = 'uploading' FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the upload is not open' USING ERRCODE = 'GZ001';
    END IF;

    INSERT INTO chunks AS c (file_id, index, object_key, size, sha256, xxh3, iv)
    VALUES (p_file, p_index, p_key, p_size, p_sha256, p_xxh3, p_iv)
    ON CONFLICT (file_id, index) DO NOTHING
    RETURNING c.id, c.object_key, c.created_at INTO id, object_key, created_at;

    IF NOT FOUND THEN
        -- Chunk rows of an open upload are only ever removed by its abort, which waits for us: the row is there.
        SELECT c.* INTO STRICT old FROM chunks c WHERE c.file_id = p_file AND c.index = p_index FOR UPDATE;
        IF old.sha256 = p_sha256 AND old.iv = p_iv THEN
            id := old.id; object_key := old.object_key; created_at := old.created_at; loser := p_key;
            RETURN NEXT;
            RETURN;
        END IF;
        UPDATE chunks c
        SET object_key = p_key, size = p_size, sha256 = p_sha256, xxh3 = p_xxh3, iv = p_iv, created_at = now()
        WHERE c.file_id = p_file AND c.index = p_index
        RETURNING c.id, c.object_key, c.created_at INTO id, object_key, created_at;
        loser := old.object_key;
        growth := p_size - old.size;
    END IF;

    -- Last, because this row is shared by all uploads of the user: locked as briefly as can be.
    UPDATE space s SET used_bytes = s.used_bytes + growth
    FROM users u
    WHERE s.user_id = the_owner AND u.id = the_owner
      AND (growth <= 0 OR coalesce(u.quota_bytes, p_quota) IS NULL OR s.used_bytes + growth <= coalesce(u.quota_bytes, p_quota));
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the quota does not carry it' USING ERRCODE = 'GZ002';
    END IF;
    RETURN NEXT;
END $$;
