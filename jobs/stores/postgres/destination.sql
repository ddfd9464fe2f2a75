-- create_moves --
-- The moves that have come here. `positions`: of each table, the last key that was copied, and the last to be.
CREATE TABLE IF NOT EXISTS moves (
    token text COLLATE "C" PRIMARY KEY,
    source text NOT NULL,
    positions text,
    begun_at bigint NOT NULL,
    finished_at bigint
)

-- exists --
-- Whether any move has come here.
SELECT to_regclass('moves') IS NOT NULL

-- find --
-- A move.
SELECT positions, finished_at IS NOT NULL FROM moves WHERE token = %(token)s

-- under_way --
-- Where unfinished moves come from.
SELECT source FROM moves WHERE finished_at IS NULL

-- used --
-- What is here already.
SELECT
    EXISTS (SELECT FROM jobs) OR EXISTS (SELECT FROM api_keys),
    EXISTS (
        SELECT FROM claimants WHERE seen_at > (extract(epoch FROM clock_timestamp()) * 1000)::bigint - 10000
    )

-- create_guard --
-- What refuses services until the move is over.
CREATE OR REPLACE FUNCTION refuse_while_moving() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('quart_jobs.move', TRUE) IS DISTINCT FROM TG_ARGV[0] THEN
        RAISE EXCEPTION USING ERRCODE = 'QJMOV', MESSAGE = TG_ARGV[1];
    END IF;
    RETURN NULL;
END $$

-- guard --
-- No other session adds jobs, or comes to take them.
CREATE TRIGGER moving BEFORE INSERT ON {table} FOR EACH STATEMENT
EXECUTE FUNCTION refuse_while_moving({token}, {refusal})

-- begin --
-- The move has come here.
INSERT INTO moves (token, source, begun_at) VALUES (%(token)s, %(source)s, %(now)s)

-- set_positions --
-- It is further than before.
UPDATE moves SET positions = %(positions)s WHERE token = %(token)s

-- finish --
-- Services may come.
DROP FUNCTION refuse_while_moving CASCADE;
UPDATE moves SET finished_at = {now}, positions = NULL WHERE token = {token}

-- clear --
-- As if it had never come.
TRUNCATE jobs, payloads, attempts, events, api_keys RESTART IDENTITY;
DROP FUNCTION refuse_while_moving CASCADE;
DELETE FROM moves WHERE token = {token}

-- columns --
-- Of a table, with their types.
SELECT attname::text, atttypid FROM pg_attribute
WHERE attrelid = %(table)s::text::regclass AND attnum > 0 AND NOT attisdropped

-- copy_in --
-- Rows of a table.
COPY {table} ({columns}) FROM STDIN

-- copy_out --
-- The same, in the order of their keys.
COPY (SELECT {columns} FROM {table} ORDER BY {key}) TO STDOUT

-- remove --
-- Rows that are copied anew, or are gone.
DELETE FROM {table} WHERE {key} = ANY(%(keys)s)

-- remove_all --
-- Of a small table.
DELETE FROM {table}

-- set_given --
-- The next number of a table.
SELECT setval(pg_get_serial_sequence(%(table)s, %(key)s), %(given)s)
