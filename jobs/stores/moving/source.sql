-- create_mark --
-- Where the jobs go, and how far that is: one row.
CREATE TABLE move (token TEXT NOT NULL, target TEXT NOT NULL, stage TEXT NOT NULL) STRICT

-- create_notes --
-- Rows that have changed since the move began.
CREATE TABLE move_notes (id INTEGER PRIMARY KEY, name TEXT NOT NULL, key INTEGER NOT NULL) STRICT

-- note_changes --
-- One of these for each table and each kind of change.
CREATE TRIGGER move_note_{table}_{change} AFTER {change} ON {table} BEGIN
    INSERT INTO move_notes (name, key) VALUES ('{table}', {row}.{key});
END

-- hold --
-- No job begins.
CREATE TRIGGER move_hold BEFORE UPDATE OF state ON jobs WHEN NEW.state = 'STARTED' AND OLD.state != 'STARTED' BEGIN
    SELECT RAISE(ABORT, {refusal});
END

-- close --
-- Nothing is written. One of these for each table and each kind of change.
CREATE TRIGGER move_close_{table}_{change} BEFORE {change} ON {table} BEGIN
    SELECT RAISE(ABORT, {refusal});
END

-- triggers --
-- Those of a move.
SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name GLOB :names

-- set_mark --
-- The move begins.
INSERT INTO move (token, target, stage) VALUES (:token, :target, :stage)

-- set_stage --
-- It is further than before.
UPDATE move SET stage = :stage, target = :target

-- columns --
-- Of a table.
SELECT name FROM pragma_table_info(:table)

-- top --
-- The highest number in a table.
SELECT coalesce(max({key}), 0) FROM {table}

-- given --
-- The highest number that a table ever gave; no row, if none, or if it does not keep it.
SELECT seq FROM sqlite_sequence WHERE name = :table

-- rows --
-- Of a table, in the order of their keys.
SELECT {columns} FROM {table} WHERE {key} > :after AND {key} <= :top ORDER BY {key}

-- all_rows --
-- The same, whatever the keys are.
SELECT {columns} FROM {table} ORDER BY {order}

-- these --
-- Those of a table with these keys.
SELECT {columns} FROM {table} WHERE {key} IN (SELECT value FROM json_each(:keys)) ORDER BY {key}

-- notes --
-- The oldest notes.
SELECT id, name, key FROM move_notes ORDER BY id LIMIT :limit

-- forget_notes --
-- Up to this one.
DELETE FROM move_notes WHERE id <= :last

-- running --
-- Jobs that have begun and not ended.
SELECT id, task FROM jobs WHERE state = 'STARTED'

-- sealed --
-- How many jobs carry what is sealed with the key.
SELECT count(*) FROM payloads WHERE context IS NOT NULL
