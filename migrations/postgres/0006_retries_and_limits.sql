-- What an explicit retry and the limits of the queue need to know of a job.

ALTER TABLE jobs
    -- Attempts before the last explicit retry: they count against no budget.
    ADD COLUMN forgiven integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT forgiven_attempts CHECK (forgiven >= 0 AND forgiven + crashes + lost <= attempt),
    ADD COLUMN size integer NOT NULL DEFAULT 0;  -- bytes of arguments and context, as submitted

-- What a dead process has left running can be killed on its machine alone: who looks after others there?
ALTER TABLE claimants ADD COLUMN judged_at bigint;  -- the last time
