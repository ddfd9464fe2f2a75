-- Whose a job is, and the Idempotency-Key that it was submitted with.

ALTER TABLE jobs ADD COLUMN owner TEXT;  -- NULL: nobody's in particular

ALTER TABLE payloads ADD COLUMN idempotency_key TEXT;
ALTER TABLE payloads ADD COLUMN fingerprint TEXT;  -- of the request that came with the key

CREATE INDEX jobs_owned ON jobs (owner, seq) WHERE owner IS NOT NULL;
