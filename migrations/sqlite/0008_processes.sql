-- What the processes that share the jobs tell each other of themselves: release, tasks, what they run. JSON, so that
-- one release can read what another says.

CREATE TABLE processes (
    name TEXT PRIMARY KEY NOT NULL,  -- the claimant
    about TEXT NOT NULL CHECK (json_valid(about))
) STRICT, WITHOUT ROWID;
