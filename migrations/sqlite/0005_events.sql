-- What a job says while it runs: its progress and what it writes. Everything else that is told of a job
-- is read from its own row and those of its attempts.

CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: who follows asks for what is newer
    job INTEGER NOT NULL,  -- its seq
    run INTEGER NOT NULL CHECK (run > 0),  -- how many attempts had ended, and one
    attempt INTEGER NOT NULL,
    -- revoked: the job has ended, and no attempt tells of it. retried: it had ended, and is to run again.
    kind TEXT NOT NULL CHECK (kind IN ('progress', 'log', 'revoked', 'retried')),
    at INTEGER NOT NULL,
    -- progress: JSON. log: lines. Else nothing.
    data BLOB NOT NULL  -- UTF-8; no TEXT, to know its length without reading it
) STRICT;

CREATE INDEX events_of_job ON events (job, id);
