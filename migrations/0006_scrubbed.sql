-- When everything was last read and compared, and what was found: a scrub is a process of its own, and whoever is asked for numbers
-- is another one. NULL: never.

ALTER TABLE instance
    ADD COLUMN scrubbed_at    timestamptz,
    ADD COLUMN scrub_checked  bigint NOT NULL DEFAULT 0,
    ADD COLUMN scrub_damaged  bigint NOT NULL DEFAULT 0;
