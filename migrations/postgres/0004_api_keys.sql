-- Who may use the job API. Of a key's secret only the hash is kept.

CREATE TABLE api_keys (
    number bigint GENERATED ALWAYS AS IDENTITY,  -- in the order they were made
    id text COLLATE "C" PRIMARY KEY,  -- the part of the key's text that may be shown
    sha256 bytea NOT NULL CHECK (length(sha256) = 32),  -- of the secret part: 256 random bits need no slow hash
    name text NOT NULL,
    owner text NOT NULL CHECK (owner != ''),
    scopes text NOT NULL,  -- a JSON array
    created_at bigint NOT NULL,
    expires_at bigint,
    revoked_at bigint  -- a revoked key stays: it says that keys are wanted
);
