-- The row of a chunk, for who is asking: whether the token still opens the door is decided where the row is written and not only before
-- the body. So a server may remember a look-up for a moment without a truth of its own.
--
-- SQLSTATE GZ003: the token opens nothing (any more). GZ001, as before, also where the file is not the caller's (any more).

CREATE FUNCTION put_chunk(
    p_token bytea, p_file uuid, p_index integer, p_key text, p_size integer, p_sha256 bytea, p_xxh3 bytea, p_iv text, p_quota bigint
) RETURNS TABLE (id uuid, object_key text, created_at timestamptz, loser text) LANGUAGE plpgsql AS $$
DECLARE
    is_owner boolean;
BEGIN
    SELECT f.id IS NOT NULL INTO is_owner
    FROM tokens t JOIN users u ON u.id = t.user_id LEFT JOIN files f ON f.id = p_file AND f.owner_id = u.id
    WHERE t.sha256 = p_token AND t.expires_at > now() AND u.is_active;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'signed out' USING ERRCODE = 'GZ003';
    ELSIF NOT is_owner THEN
        RAISE EXCEPTION 'not an open upload of the caller' USING ERRCODE = 'GZ001';
    END IF;
    RETURN QUERY SELECT * FROM put_chunk(p_file, p_index, p_key, p_size, p_sha256, p_xxh3, p_iv, p_quota);
END $$;
