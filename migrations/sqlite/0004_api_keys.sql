-- Who may use the job API. Of a key's secret only the hash is kept.

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,  -- the part of the key's text that may be shown
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32),  -- of the secret part: 256 random bits need no slow hash
    name TEXT NOT NULL,
    owner TEXT NOT NULL CHECK (owner != ''),
    scopes TEXT NOT NULL,  -- a JSON array
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER  -- a revoked key stays: it says that keys are wanted
) STRICT;
