-- What the processes that share the jobs tell each other of themselves: release, tasks, what they run. JSON, so that
-- one release can read what another says.

CREATE TABLE processes (
    name text PRIMARY KEY REFERENCES claimants ON DELETE CASCADE,
    about text NOT NULL CHECK (about::json IS NOT NULL)
);
