-- The rows of several new chunks at once, of any callers: the server collects them while the last statement is under way, and one commit
-- serves all. Only the plain case: every token opens the door, every upload is the caller's and open and locked by nobody, no index is there
-- already, every quota carries. In any other nothing is written and the caller asks put_chunk() for each by itself: one row that
-- cannot be never fails its neighbours, and what is wrong with it is said in one place. SQLSTATE GZ004, 55P03 (locked).
--
-- Whoever writes chunks takes locks in one order: files (here without waiting: a finalize that takes long holds up nobody else's chunk),
-- chunks by file and index, space by user. And none here waits long, because everybody's rows wait behind it: what is locked for longer
-- is put_chunk()'s affair, on a connection of its own.
CREATE FUNCTION put_new_chunks(
    p_tokens bytea[], p_files uuid[], p_indices integer[], p_keys text[], p_sizes integer[], p_sha256s bytea[], p_xxh3s bytea[],
    p_ivs text[], p_quota bigint
) RETURNS TABLE (object_key text, id uuid, created_at timestamptz) LANGUAGE plpgsql SET lock_timeout = '100ms' AS $$
#variable_conflict use_column
DECLARE
    many   CONSTANT integer := cardinality(p_keys);
    owners uuid[];
    done   integer;
BEGIN
    PERFORM FROM files f WHERE f.id = ANY (p_files) FOR KEY SHARE NOWAIT;

    SELECT count(*), array_agg(DISTINCT f.owner_id) INTO done, owners
    FROM unnest(p_tokens, p_files) AS c (token, file)
    JOIN tokens t ON t.sha256 = c.token AND t.expires_at > now()
    JOIN users u ON u.id = t.user_id AND u.is_active
    JOIN files f ON f.id = c.file AND f.owner_id = u.id AND f.state = 'uploading';
    IF done <> many THEN
        RAISE EXCEPTION 'not together: who or where' USING ERRCODE = 'GZ004';
    END IF;

    RETURN QUERY
    INSERT INTO chunks AS c (file_id, index, object_key, size, sha256, xxh3, iv)
    SELECT n.* FROM unnest(p_files, p_indices, p_keys, p_sizes, p_sha256s, p_xxh3s, p_ivs) AS n (file, index) ORDER BY n.file, n.index
    ON CONFLICT (file_id, index) DO NOTHING
    RETURNING c.object_key, c.id, c.created_at;
    GET DIAGNOSTICS done = ROW_COUNT;
    IF done <> many THEN
        RAISE EXCEPTION 'not together: there already' USING ERRCODE = 'GZ004';
    END IF;

    -- Last, as in put_chunk(): these rows are shared by all uploads of their users.
    PERFORM FROM space s WHERE s.user_id = ANY (owners) ORDER BY s.user_id FOR NO KEY UPDATE;
    UPDATE space s SET used_bytes = s.used_bytes + growth.bytes
    FROM users u JOIN (
        SELECT f.owner_id, sum(n.size)::bigint AS bytes
        FROM unnest(p_files, p_sizes) AS n (file, size) JOIN files f ON f.id = n.file GROUP BY f.owner_id
    ) AS growth ON growth.owner_id = u.id
    WHERE s.user_id = u.id
      AND (coalesce(u.quota_bytes, p_quota) IS NULL OR s.used_bytes + growth.bytes <= coalesce(u.quota_bytes, p_quota));
    GET DIAGNOSTICS done = ROW_COUNT;
    IF done <> cardinality(owners) THEN
        RAISE EXCEPTION 'not together: the quota' USING ERRCODE = 'GZ004';
    END IF;
END $$;
