-- What became of each attempt: a row that is written once, with the end of the attempt.

CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,  -- in the order they ended
    job INTEGER NOT NULL,  -- its seq
    number INTEGER NOT NULL CHECK (number > 0),  -- comes again after a shutdown: that attempt is not spent
    outcome TEXT NOT NULL,
    error TEXT,
    worker TEXT NOT NULL,  -- who had claimed the job
    pid INTEGER,
    started_at INTEGER,
    finished_at INTEGER NOT NULL,
    max_rss INTEGER,  -- bytes
    cpu REAL,  -- seconds
    signal INTEGER,
    log BLOB,  -- UTF-8; last, so that the rest is read without it, and no TEXT, to know its length likewise

    -- An attempt that did not succeed says why; another outcome is no outcome. (CASE: see 0001.)
    CONSTRAINT possible_outcome CHECK (
        CASE outcome
            WHEN 'success' THEN error IS NULL
            WHEN 'shutdown' THEN error IS NULL
            WHEN 'exception' THEN error IS NOT NULL
            WHEN 'timeout' THEN error IS NOT NULL
            WHEN 'crash' THEN error IS NOT NULL
            WHEN 'cancelled' THEN error IS NOT NULL
            WHEN 'lost' THEN error IS NOT NULL
            WHEN 'bad_result' THEN error IS NOT NULL
            WHEN 'bad_context' THEN error IS NOT NULL
            ELSE FALSE
        END
    )
) STRICT;

CREATE INDEX attempts_of_job ON attempts (job);
