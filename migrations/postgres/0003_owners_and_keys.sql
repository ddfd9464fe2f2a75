-- Whose a job is, and the Idempotency-Key that it was submitted with.

ALTER TABLE jobs ADD COLUMN owner text COLLATE "C";  -- NULL: nobody's in particular

ALTER TABLE payloads ADD COLUMN idempotency_key text;
ALTER TABLE payloads ADD COLUMN fingerprint text;  -- of the request that came with the key

CREATE INDEX jobs_owned ON jobs (owner, seq) WHERE owner IS NOT NULL;
