-- Jobs and what they carry. Times are integer milliseconds since the epoch (UTC).
--
-- `jobs` is narrow and rewritten with each step of a job; what is long is in `payloads`, so that a
-- step does not rewrite it.

CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of commit
    id TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'PENDING',
    ready INTEGER NOT NULL CHECK (ready = 0 OR ready = 1),  -- 0: run_at has not been seen to pass
    attempt INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL CHECK (max_attempts >= 1),
    timeout REAL,
    created_at INTEGER NOT NULL,
    run_at INTEGER,
    expires_at INTEGER,
    started_at INTEGER,
    finished_at INTEGER,
    claimed_by TEXT,
    cancel_requested_at INTEGER,
    crashes INTEGER NOT NULL DEFAULT 0 CHECK (crashes >= 0),
    lost INTEGER NOT NULL DEFAULT 0 CHECK (lost >= 0),

    CONSTRAINT counted_attempts CHECK (crashes + lost <= attempt),
    -- What each state has, and has not; another state is no state. (CASE: an IN list is built anew for
    -- each row, which doubles the price of an insert.)
    CONSTRAINT possible_state CHECK (
        CASE state
            WHEN 'PENDING' THEN
                (ready OR run_at IS NOT NULL) AND started_at IS NULL AND finished_at IS NULL
                AND claimed_by IS NULL AND cancel_requested_at IS NULL
            WHEN 'STARTED' THEN
                ready AND attempt > 0 AND started_at IS NOT NULL AND finished_at IS NULL
                AND claimed_by IS NOT NULL
            WHEN 'SUCCESS' THEN ready AND attempt > 0 AND finished_at IS NOT NULL AND claimed_by IS NULL
            WHEN 'FAILURE' THEN ready AND attempt > 0 AND finished_at IS NOT NULL AND claimed_by IS NULL
            WHEN 'REVOKED' THEN ready AND finished_at IS NOT NULL AND claimed_by IS NULL
            ELSE FALSE
        END
    )
) STRICT;

CREATE INDEX jobs_ready ON jobs (ready, priority DESC, seq) WHERE state = 'PENDING';
CREATE INDEX jobs_due ON jobs (run_at) WHERE ready = 0;
CREATE INDEX jobs_expiring ON jobs (expires_at) WHERE state = 'PENDING' AND expires_at IS NOT NULL;
CREATE INDEX jobs_started ON jobs (claimed_by, seq) WHERE state = 'STARTED';
CREATE INDEX jobs_unsuccessful ON jobs (state, seq) WHERE state IN ('FAILURE', 'REVOKED');
CREATE INDEX jobs_ended ON jobs (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE payloads (
    seq INTEGER PRIMARY KEY,  -- the job's
    args TEXT NOT NULL,
    context BLOB,  -- the sealed snapshot, until the job ends
    origin TEXT,
    result TEXT,
    error TEXT,
    progress TEXT
) STRICT;
