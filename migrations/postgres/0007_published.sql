-- Jobs that a broker has announced to its workers: still pending, but hidden from those who claim here.

ALTER TABLE jobs ADD COLUMN republish_at bigint;  -- and not ready: published, and hidden until then

DROP INDEX jobs_due;
CREATE INDEX jobs_due ON jobs (coalesce(republish_at, run_at)) WHERE NOT ready;
CREATE INDEX jobs_published ON jobs (queue, republish_at) WHERE NOT ready AND republish_at IS NOT NULL;
