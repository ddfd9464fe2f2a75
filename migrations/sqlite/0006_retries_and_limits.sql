-- What an explicit retry and the limits of the queue need to know of a job.

-- Attempts before the last explicit retry: they count against no budget.
ALTER TABLE jobs ADD COLUMN forgiven INTEGER NOT NULL DEFAULT 0
    CHECK (forgiven >= 0 AND forgiven + crashes + lost <= attempt);

ALTER TABLE jobs ADD COLUMN size INTEGER NOT NULL DEFAULT 0;  -- bytes of arguments and context, as submitted
