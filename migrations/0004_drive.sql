-- Folders, who may see them, where each user keeps what they see, and the trash.
--
-- Every user has a tree of their own, made of their access rows: where a thing lies is said per user. A row's place is a folder that
-- this user has a row for: the foreign keys say so, and when a user loses a folder, what stays theirs in it falls to their root.
-- The trash is a state of the thing itself, and only its owner's to change.

CREATE TABLE folders (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    owner_id           uuid NOT NULL REFERENCES users (id),
    encrypted_metadata text NOT NULL,
    trashed_at         timestamptz,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX folders_of_owner ON folders (owner_id) WHERE trashed_at IS NULL;
CREATE INDEX folders_in_trash ON folders (owner_id) WHERE trashed_at IS NOT NULL;
CREATE INDEX folders_trashed ON folders (trashed_at) WHERE trashed_at IS NOT NULL;

CREATE TABLE folder_access (
    folder_id            uuid NOT NULL REFERENCES folders (id) ON DELETE CASCADE,
    user_id              uuid NOT NULL REFERENCES users (id),
    parent_id            uuid CHECK (parent_id <> folder_id),           -- in this user's tree; NULL: their root
    encrypted_folder_key text NOT NULL,
    access_level         text NOT NULL CHECK (access_level IN ('owner', 'editor', 'viewer')),
    is_accepted          boolean NOT NULL DEFAULT true,                 -- false: an invitation
    created_at           timestamptz NOT NULL DEFAULT now(),
    -- For lists: where it lies, the root being the user's own id. Equal to something, it is as selective as it looks; that a user has few
    -- things in their root cannot be seen from how many have no parent.
    place                uuid GENERATED ALWAYS AS (coalesce(parent_id, user_id)) STORED,
    PRIMARY KEY (folder_id, user_id),
    FOREIGN KEY (parent_id, user_id) REFERENCES folder_access (folder_id, user_id) ON DELETE SET NULL (parent_id)
);
CREATE INDEX folder_access_places ON folder_access (place, user_id, created_at, folder_id);
CREATE INDEX folder_access_inside ON folder_access (parent_id, user_id) WHERE parent_id IS NOT NULL;
CREATE INDEX folder_access_of_user ON folder_access (user_id, folder_id);
CREATE INDEX folder_access_invitations ON folder_access (user_id) WHERE NOT is_accepted;

ALTER TABLE files ADD COLUMN trashed_at timestamptz;
CREATE INDEX files_alive ON files (owner_id) WHERE state = 'complete' AND trashed_at IS NULL;
CREATE INDEX files_in_trash ON files (owner_id) WHERE trashed_at IS NOT NULL;
CREATE INDEX files_trashed ON files (trashed_at) WHERE trashed_at IS NOT NULL;

ALTER TABLE file_access
    ADD COLUMN folder_id uuid,                                          -- in this user's tree; NULL: their root
    ADD COLUMN is_accepted boolean NOT NULL DEFAULT true,
    ADD COLUMN place uuid GENERATED ALWAYS AS (coalesce(folder_id, user_id)) STORED,
    ADD FOREIGN KEY (folder_id, user_id) REFERENCES folder_access (folder_id, user_id) ON DELETE SET NULL (folder_id);
CREATE INDEX file_access_places ON file_access (place, user_id, created_at, file_id);
CREATE INDEX file_access_inside ON file_access (folder_id, user_id) WHERE folder_id IS NOT NULL;
CREATE INDEX file_access_by_age ON file_access (user_id, created_at, file_id);
CREATE INDEX file_access_invitations ON file_access (user_id) WHERE NOT is_accepted;
DROP INDEX file_access_of_user;

-- The folders below one in a user's tree, itself included, as far as the tree goes.
CREATE FUNCTION folders_below(p_user uuid, p_folder uuid) RETURNS SETOF uuid LANGUAGE sql STABLE ROWS 100 AS $$
    WITH RECURSIVE below (folder_id) AS (
        SELECT a.folder_id FROM folder_access a WHERE a.user_id = p_user AND a.folder_id = p_folder
        UNION
        SELECT a.folder_id FROM below b JOIN folder_access a ON a.user_id = p_user AND a.parent_id = b.folder_id
    )
    SELECT folder_id FROM below
$$;

-- The folders above one in a user's tree, itself included, the nearest first.
CREATE FUNCTION folders_above(p_user uuid, p_folder uuid) RETURNS TABLE (folder_id uuid, distance integer) LANGUAGE sql STABLE ROWS 10 AS $$
    WITH RECURSIVE above (folder_id, parent_id, distance) AS (
        SELECT a.folder_id, a.parent_id, 0 FROM folder_access a WHERE a.user_id = p_user AND a.folder_id = p_folder
        UNION ALL
        SELECT a.folder_id, a.parent_id, b.distance + 1
        FROM above b JOIN folder_access a ON a.user_id = p_user AND a.folder_id = b.parent_id
        WHERE b.distance < 10000
    )
    SELECT folder_id, distance FROM above
$$;

-- What a user does not own any more to see below a folder of theirs: rows that are not an owner's go. Folders of their own are left as
-- they are, with what lies in them; the foreign keys put them into the root.
CREATE FUNCTION leave_folder(p_user uuid, p_folder uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_left uuid[];
BEGIN
    WITH RECURSIVE below (folder_id) AS (
        SELECT a.folder_id FROM folder_access a WHERE a.user_id = p_user AND a.folder_id = p_folder AND a.access_level <> 'owner'
        UNION
        SELECT a.folder_id FROM below b JOIN folder_access a ON a.user_id = p_user AND a.parent_id = b.folder_id AND a.access_level <> 'owner'
    )
    SELECT array_agg(folder_id) INTO v_left FROM below;
    DELETE FROM file_access a WHERE a.user_id = p_user AND a.folder_id = ANY (v_left) AND a.access_level <> 'owner';
    DELETE FROM folder_access a WHERE a.user_id = p_user AND a.folder_id = ANY (v_left);
END $$;

-- Into the trash with a folder of the caller's and all of theirs that lies below it in their tree. What others own there leaves the
-- caller's tree, and whoever had it in one of these folders has it in their root afterwards. Level by level, because whoever puts
-- something into a folder holds a share of its row: each level is asked for after its rows are ours.
CREATE FUNCTION trash_folder(p_user uuid, p_folder uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_level  uuid[] := ARRAY[p_folder];
    v_mine   uuid[];
    v_trash  uuid[] := '{}';
    v_others uuid[] := '{}';
BEGIN
    WHILE v_level IS NOT NULL LOOP
        PERFORM 1 FROM folders f WHERE f.id = ANY (v_level) AND f.owner_id = p_user ORDER BY f.id FOR UPDATE;
        WITH changed AS (
            UPDATE folders f SET trashed_at = now(), updated_at = now()
            WHERE f.id = ANY (v_level) AND f.owner_id = p_user AND f.trashed_at IS NULL RETURNING f.id
        )
        SELECT coalesce(array_agg(id), '{}') INTO v_mine FROM changed;
        v_trash := v_trash || v_mine;
        v_others := v_others || ARRAY(SELECT f.id FROM folders f WHERE f.id = ANY (v_level) AND f.owner_id <> p_user);
        -- What went to the trash before stays as it went.
        SELECT array_agg(a.folder_id) INTO v_level
        FROM folder_access a
        WHERE a.user_id = p_user AND a.parent_id = ANY (v_level)
          AND (a.parent_id = ANY (v_mine) OR a.parent_id = ANY (v_others));
    END LOOP;

    UPDATE files f SET trashed_at = now(), updated_at = now()
    FROM file_access a
    WHERE a.user_id = p_user AND a.folder_id = ANY (v_trash || v_others) AND f.id = a.file_id
      AND f.owner_id = p_user AND f.state = 'complete' AND f.trashed_at IS NULL;
    DELETE FROM file_access a WHERE a.user_id = p_user AND a.folder_id = ANY (v_trash || v_others) AND a.access_level <> 'owner';
    DELETE FROM folder_access a WHERE a.user_id = p_user AND a.folder_id = ANY (v_others) AND a.access_level <> 'owner';
    UPDATE file_access a SET folder_id = NULL
    FROM files f WHERE a.folder_id = ANY (v_trash) AND f.id = a.file_id AND f.trashed_at IS NULL;
    UPDATE folder_access a SET parent_id = NULL
    FROM folders f WHERE a.parent_id = ANY (v_trash) AND f.id = a.folder_id AND f.trashed_at IS NULL;
END $$;

-- Where others have what has just been restored: a folder of theirs that went to the trash meanwhile is no place to find it in.
CREATE FUNCTION settle_restored(p_files uuid[], p_folders uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE file_access a SET folder_id = NULL
    FROM unnest(p_files) AS back (id), folders p
    WHERE a.file_id = back.id AND p.id = a.folder_id AND p.trashed_at IS NOT NULL;
    UPDATE folder_access a SET parent_id = NULL
    FROM unnest(p_folders) AS back (id), folders p
    WHERE a.folder_id = back.id AND p.id = a.parent_id AND p.trashed_at IS NOT NULL;
END $$;

CREATE FUNCTION restore_file(p_user uuid, p_file uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_folders uuid[];
BEGIN
    UPDATE files f SET trashed_at = NULL, updated_at = now() WHERE f.id = p_file;
    WITH changed AS (
        UPDATE folders f SET trashed_at = NULL, updated_at = now()
        FROM file_access a, folders_above(p_user, a.folder_id) up
        WHERE a.file_id = p_file AND a.user_id = p_user AND f.id = up.folder_id
          AND f.owner_id = p_user AND f.trashed_at IS NOT NULL RETURNING f.id
    )
    SELECT array_agg(id) INTO v_folders FROM changed;
    PERFORM settle_restored(ARRAY[p_file], v_folders);
END $$;

-- Out of the trash again: the folders above (without what lies in them), this one, and what was thrown away together with it. If it is
-- this one that was thrown away, that is everything of the same moment, wherever it lies now: what it held by way of other people's
-- folders has lost its place. If it was a folder above, it is what lies below this one.
CREATE FUNCTION restore_folder(p_user uuid, p_folder uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_at      timestamptz;
    v_is_top  boolean;
    v_below   uuid[];
    v_folders uuid[];
    v_files   uuid[];
BEGIN
    SELECT f.trashed_at INTO STRICT v_at FROM folders f WHERE f.id = p_folder FOR UPDATE;
    SELECT (SELECT p.trashed_at FROM folders p WHERE p.id = a.parent_id) IS DISTINCT FROM v_at INTO STRICT v_is_top
    FROM folder_access a WHERE a.folder_id = p_folder AND a.user_id = p_user;
    IF v_is_top THEN
        v_below := ARRAY(SELECT f.id FROM folders f WHERE f.owner_id = p_user AND f.trashed_at = v_at);
    ELSE
        WITH RECURSIVE below (folder_id) AS (
            SELECT p_folder
            UNION
            SELECT a.folder_id FROM below b JOIN folder_access a ON a.user_id = p_user AND a.parent_id = b.folder_id
            -- Asked of each folder: joined, all that was ever thrown away at that moment is read for each of them.
            WHERE a.access_level = 'owner' AND (SELECT f.trashed_at FROM folders f WHERE f.id = a.folder_id) = v_at
        )
        SELECT array_agg(folder_id) INTO v_below FROM below;
    END IF;
    WITH changed AS (
        UPDATE folders f SET trashed_at = NULL, updated_at = now()
        FROM (SELECT unnest(v_below) UNION SELECT up.folder_id FROM folders_above(p_user, p_folder) up) AS back (id)
        WHERE f.id = back.id AND f.owner_id = p_user AND f.trashed_at IS NOT NULL RETURNING f.id
    )
    SELECT array_agg(id) INTO v_folders FROM changed;
    WITH changed AS (
        UPDATE files f SET trashed_at = NULL, updated_at = now()
        WHERE f.owner_id = p_user AND f.trashed_at = v_at
          AND (v_is_top OR f.id IN (SELECT a.file_id FROM unnest(v_below) AS b (id)
                                    JOIN file_access a ON a.user_id = p_user AND a.folder_id = b.id)) RETURNING f.id
    )
    SELECT array_agg(id) INTO v_files FROM changed;
    PERFORM settle_restored(v_files, v_folders);
END $$;

-- Another place for a folder, in the mover's tree and in the tree of everyone who has it in the same folder as the mover and may see
-- the new one: a move inside of something shared is a move for all who share it. Whoever cannot see the new place keeps theirs. A tree
-- in which the folder would come to lie below itself does not change; false: that was the mover's own.
--
-- Two moves at once could close a circle of which each sees one half: one at a time, of all users, because a move may change all trees.
CREATE FUNCTION move_folder(p_user uuid, p_folder uuid, p_parent uuid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_old uuid;
BEGIN
    PERFORM pg_advisory_xact_lock(7454873331);
    SELECT a.parent_id INTO STRICT v_old FROM folder_access a WHERE a.user_id = p_user AND a.folder_id = p_folder;
    IF p_parent IS NOT NULL AND EXISTS (SELECT 1 FROM folders_above(p_user, p_parent) up WHERE up.folder_id = p_folder) THEN
        RETURN false;
    END IF;
    UPDATE folder_access a SET parent_id = p_parent WHERE a.user_id = p_user AND a.folder_id = p_folder;
    IF v_old IS NOT NULL AND p_parent IS NOT NULL THEN
        UPDATE folder_access a SET parent_id = p_parent
        WHERE a.folder_id = p_folder AND a.user_id <> p_user AND a.parent_id = v_old
          AND EXISTS (SELECT 1 FROM folder_access t WHERE t.folder_id = p_parent AND t.user_id = a.user_id AND t.is_accepted)
          AND NOT EXISTS (SELECT 1 FROM folders_above(a.user_id, p_parent) up WHERE up.folder_id = p_folder);
    END IF;
    RETURN true;
END $$;
