-- begin --
-- One transaction: its number, by which a lost answer to its COMMIT is found out, and its time.
BEGIN;
SELECT pg_current_xact_id()::text, (extract(epoch FROM clock_timestamp()) * 1000)::bigint

-- status --
-- What became of a transaction whose COMMIT was not answered.
SELECT pg_xact_status(%(xid)s::xid8)

-- beat --
-- This process lives. True if the others had given it up.
INSERT INTO claimants (name, lock, host, pid, seen_at)
VALUES (%(claimant)s, %(lock)s, %(host)s, %(pid)s, %(now)s)
ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at
RETURNING xmax = 0

-- leave --
-- Of these, nobody is alive.
DELETE FROM claimants WHERE name = ANY(%(names)s)

-- dead --
-- Who neither holds its lock nor was seen lately, or is not known at all.
WITH locked AS MATERIALIZED (
    SELECT (classid::bigint << 32) | objid::bigint AS lock FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
),
holders AS MATERIALIZED (SELECT DISTINCT claimed_by AS name FROM jobs WHERE state = 'STARTED')
SELECT name FROM claimants
WHERE %(judge)s AND seen_at < %(seen_before)s AND lock NOT IN (SELECT lock FROM locked)
    AND name != %(claimant)s
UNION
SELECT name FROM holders
WHERE name != %(claimant)s AND name NOT IN (SELECT name FROM claimants)

-- add --
-- The positions of those whose ids are kept already: they stay as they are.
WITH given AS MATERIALIZED (
    SELECT nextval(pg_get_serial_sequence('jobs', 'seq')) AS seq, each.*
    FROM json_to_recordset(%(jobs)s::json) AS each (
        n integer, id text, task text, queue text, priority integer, max_attempts integer,
        timeout double precision, created_at bigint, run_at bigint, expires_at bigint, owner text,
        args text, context text, origin text, idempotency_key text, fingerprint text
    )
),
added AS (
    INSERT INTO jobs (
        seq, id, task, queue, priority, ready, max_attempts, timeout, created_at, run_at, expires_at, owner
    )
    SELECT
        seq, id, task, queue, priority, run_at IS NULL OR run_at <= %(now)s::bigint, max_attempts,
        timeout, created_at, run_at, expires_at, owner
    FROM given
    ON CONFLICT (id) DO NOTHING
    RETURNING seq
),
carried AS (
    INSERT INTO payloads (seq, args, context, origin, idempotency_key, fingerprint)
    SELECT seq, args, decode(context, 'base64'), origin, idempotency_key, fingerprint
    FROM given
    WHERE (SELECT count(*) FROM added) = (SELECT count(*) FROM given) OR seq IN (SELECT seq FROM added)
)
SELECT n FROM given WHERE seq NOT IN (SELECT seq FROM added)

-- promote --
-- Jobs whose time has come.
UPDATE jobs SET ready = TRUE, republish_at = NULL
WHERE seq = ANY(ARRAY(
    SELECT seq FROM jobs WHERE NOT ready AND coalesce(republish_at, run_at) <= %(now)s
    FOR UPDATE SKIP LOCKED
))

-- claim --
-- The attempt counts from here on. Nothing that still runs here for an attempt that others gave up.
WITH best AS MATERIALIZED (
    SELECT seq FROM jobs
    WHERE state = 'PENDING' AND ready AND (expires_at IS NULL OR expires_at > %(now)s)
        AND EXISTS (SELECT FROM claimants WHERE name = %(claimant)s)
        AND id != ALL(%(held)s::text[])
    ORDER BY priority DESC, seq
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE jobs SET
    state = 'STARTED', attempt = attempt + 1, claimed_by = %(claimant)s, started_at = %(now)s
FROM best CROSS JOIN LATERAL (SELECT * FROM payloads WHERE payloads.seq = best.seq) AS payload
WHERE jobs.seq = best.seq
RETURNING
    id, task, created_at, args, queue, priority, max_attempts, timeout, run_at, expires_at,
    context, origin, jobs.seq, state, attempt, crashes, lost,
    started_at, NULL, claimed_by, NULL, NULL, error, progress,
    owner, idempotency_key, fingerprint

-- next_due --
-- When the earliest job that is not yet due will be.
SELECT min(coalesce(republish_at, run_at)) FROM jobs WHERE NOT ready

-- publish --
-- What a claim would take is hidden from now on. (What is hidden has a `run_at`: it was made to run as soon as
-- it is there.)
WITH best AS MATERIALIZED (
    SELECT seq FROM jobs
    WHERE state = 'PENDING' AND ready AND (expires_at IS NULL OR expires_at > %(now)s)
    ORDER BY priority DESC, seq
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE jobs SET ready = FALSE, run_at = coalesce(run_at, created_at), republish_at = %(until)s
FROM best WHERE jobs.seq = best.seq
RETURNING
    id, task, created_at, '{}', queue, priority, max_attempts, timeout, run_at, expires_at,
    NULL, NULL, jobs.seq, state, attempt, crashes, lost,
    started_at, finished_at, claimed_by, cancel_requested_at, NULL, NULL, NULL,
    owner, NULL, NULL

-- unpublish --
-- What a broker has lost.
UPDATE jobs SET ready = TRUE, republish_at = NULL
WHERE seq = ANY(ARRAY(
    SELECT seq FROM jobs
    WHERE NOT ready AND republish_at IS NOT NULL AND queue = %(queue)s AND republish_at < %(until)s
    FOR UPDATE SKIP LOCKED
))

-- claim_these --
-- As `claim`, of what was published: the attempts named.
WITH given AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(attempts)s::json) AS each (id text, attempt integer)
),
wanted AS MATERIALIZED (
    SELECT seq FROM given CROSS JOIN LATERAL (
        SELECT * FROM jobs WHERE jobs.id = given.id OFFSET 0 FOR UPDATE SKIP LOCKED
    ) AS job
    WHERE state = 'PENDING' AND job.attempt + 1 = given.attempt
        AND (ready OR republish_at IS NOT NULL) AND (expires_at IS NULL OR expires_at > %(now)s)
        AND EXISTS (SELECT FROM claimants WHERE name = %(claimant)s)
        AND given.id != ALL(%(held)s::text[])
)
UPDATE jobs SET
    state = 'STARTED', attempt = attempt + 1, claimed_by = %(claimant)s, started_at = %(now)s,
    ready = TRUE, republish_at = NULL
FROM wanted CROSS JOIN LATERAL (SELECT * FROM payloads WHERE payloads.seq = wanted.seq) AS payload
WHERE jobs.seq = wanted.seq
RETURNING
    id, task, created_at, args, queue, priority, max_attempts, timeout, run_at, expires_at,
    context, origin, jobs.seq, state, attempt, crashes, lost,
    started_at, NULL, claimed_by, NULL, NULL, error, progress,
    owner, idempotency_key, fingerprint

-- finish --
-- The fence: an attempt's end counts only for the claimant and the attempt that the job is on.
WITH ending AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(endings)s::json) AS each (
        id text, attempt integer, becomes text, began_at bigint, ended_at bigint, again_at bigint,
        crash integer, loss integer, result text, error text, outcome text, pid integer,
        max_rss bigint, cpu double precision, signal integer, log text
    )
),
ended AS (
    UPDATE jobs SET
        state = CASE
            WHEN becomes = 'PENDING' AND cancel_requested_at IS NOT NULL THEN 'REVOKED' ELSE becomes
        END,
        ready = becomes != 'PENDING' OR cancel_requested_at IS NOT NULL
            OR again_at IS NULL OR again_at <= %(now)s::bigint,
        run_at = CASE
            WHEN becomes = 'PENDING' AND cancel_requested_at IS NULL THEN again_at ELSE run_at
        END,
        started_at = CASE
            WHEN becomes != 'PENDING' OR cancel_requested_at IS NOT NULL THEN coalesce(began_at, started_at)
        END,
        finished_at = CASE
            WHEN becomes != 'PENDING' OR cancel_requested_at IS NOT NULL
                THEN coalesce(ended_at, %(now)s::bigint)
        END,
        claimed_by = NULL,
        crashes = crashes + crash,
        lost = lost + loss
    FROM ending
    WHERE jobs.id = ending.id AND jobs.attempt = ending.attempt
        AND claimed_by = %(claimant)s AND state = 'STARTED'
    RETURNING jobs.seq, jobs.state, ending.*
),
recorded AS (
    UPDATE payloads SET
        context = CASE WHEN ended.state = 'PENDING' THEN context END,
        result = CASE WHEN ended.state = becomes THEN ended.result END,
        error = CASE WHEN ended.state = becomes THEN ended.error ELSE %(not_again)s END
    FROM ended WHERE payloads.seq = ended.seq
),
kept AS (
    INSERT INTO attempts (
        job, number, worker, pid, started_at, finished_at, max_rss, cpu, outcome, error, signal, log
    )
    SELECT
        seq, attempt, %(claimant)s, pid, began_at, coalesce(ended_at, %(now)s::bigint), max_rss, cpu,
        outcome, error, signal, decode(log, 'base64')
    FROM ended
)
SELECT id, attempt, becomes, state FROM ended

-- release --
-- Attempts that never began, or that a shutdown stopped, are not spent; the latter are kept.
WITH given AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(attempts)s::json) AS each (
        id text, attempt integer, outcome text, began_at bigint, ended_at bigint, pid integer,
        max_rss bigint, cpu double precision, signal integer, log text
    )
),
released AS (
    UPDATE jobs SET
        state = CASE WHEN cancel_requested_at IS NULL THEN 'PENDING' ELSE 'REVOKED' END,
        attempt = jobs.attempt - 1,
        claimed_by = NULL,
        started_at = NULL,
        finished_at = CASE WHEN cancel_requested_at IS NOT NULL THEN %(now)s::bigint END
    FROM given
    WHERE jobs.id = given.id AND jobs.attempt = given.attempt
        AND claimed_by = %(claimant)s AND state = 'STARTED'
    RETURNING jobs.seq, jobs.state, given.*
),
recorded AS (
    UPDATE payloads SET context = NULL, result = NULL, error = %(not_begun)s
    FROM released WHERE payloads.seq = released.seq AND released.state = 'REVOKED'
),
kept AS (
    INSERT INTO attempts (
        job, number, worker, pid, started_at, finished_at, max_rss, cpu, outcome, signal, log
    )
    SELECT
        seq, attempt, %(claimant)s, pid, began_at, coalesce(ended_at, %(now)s::bigint), max_rss, cpu,
        outcome, signal, decode(log, 'base64')
    FROM released WHERE outcome IS NOT NULL
)
SELECT state FROM released

-- disown --
-- Jobs that were claimed here by a transaction whose COMMIT was not answered: nobody runs them.
WITH given AS (
    UPDATE jobs SET
        state = CASE WHEN cancel_requested_at IS NULL THEN 'PENDING' ELSE 'REVOKED' END,
        attempt = attempt - 1,
        claimed_by = NULL,
        started_at = NULL,
        finished_at = CASE WHEN cancel_requested_at IS NOT NULL THEN %(now)s::bigint END
    WHERE state = 'STARTED' AND claimed_by = %(claimant)s AND id != ALL(%(held)s::text[])
    RETURNING seq, state
)
UPDATE payloads SET context = NULL, result = NULL, error = %(not_begun)s
FROM given WHERE payloads.seq = given.seq AND given.state = 'REVOKED'

-- cancel --
-- A job that has not begun ends; a running one is marked, and its claimant stops it.
WITH found AS MATERIALIZED (SELECT seq, state, attempt FROM jobs WHERE id = %(id)s FOR UPDATE),
revoked AS (
    UPDATE jobs SET
        state = 'REVOKED', ready = TRUE, cancel_requested_at = %(now)s, finished_at = %(now)s
    FROM found WHERE jobs.seq = found.seq AND found.state = 'PENDING'
    RETURNING jobs.seq
),
asked AS (
    UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, %(now)s)
    FROM found WHERE jobs.seq = found.seq AND found.state = 'STARTED'
),
recorded AS (
    UPDATE payloads SET context = NULL, result = NULL, error = %(not_begun)s
    FROM revoked WHERE payloads.seq = revoked.seq
)
SELECT state, attempt FROM found

-- reap --
-- Jobs whose claimant is dead: once more, unless asked to stop or lost too often.
WITH theirs AS MATERIALIZED (
    SELECT
        seq, attempt, claimed_by, started_at,
        CASE
            WHEN cancel_requested_at IS NOT NULL THEN 'REVOKED'
            WHEN lost + 1 >= %(max_lost)s THEN 'FAILURE'
            ELSE 'PENDING'
        END AS becomes
    FROM jobs WHERE state = 'STARTED' AND claimed_by = ANY(%(dead)s)
    FOR UPDATE SKIP LOCKED
),
taken AS (
    UPDATE jobs SET
        state = becomes,
        lost = lost + 1,
        claimed_by = NULL,
        started_at = CASE WHEN becomes != 'PENDING' THEN theirs.started_at END,
        finished_at = CASE WHEN becomes != 'PENDING' THEN %(now)s::bigint END
    FROM theirs WHERE jobs.seq = theirs.seq
    RETURNING jobs.seq, id, state
),
kept AS (
    INSERT INTO attempts (job, number, outcome, error, worker, started_at, finished_at)
    SELECT seq, attempt, 'lost', %(gone)s, claimed_by, started_at, %(now)s::bigint FROM theirs
),
recorded AS (
    UPDATE payloads SET
        context = CASE WHEN becomes = 'PENDING' THEN context END,
        result = NULL,
        error = %(why)s::json ->> becomes
    FROM theirs WHERE payloads.seq = theirs.seq
)
SELECT id, state FROM taken

-- expire --
-- Jobs that were not started in time.
WITH late AS MATERIALIZED (
    SELECT seq FROM jobs
    WHERE state = 'PENDING' AND expires_at IS NOT NULL AND expires_at <= %(now)s
    ORDER BY expires_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
recorded AS (
    UPDATE payloads SET context = NULL, result = NULL, error = %(expired)s
    FROM late WHERE payloads.seq = late.seq
)
UPDATE jobs SET state = 'REVOKED', ready = TRUE, finished_at = %(now)s
FROM late WHERE jobs.seq = late.seq
RETURNING id

-- prune --
-- Jobs that ended long ago, with all that belongs to them.
WITH past AS MATERIALIZED (
    SELECT seq FROM jobs WHERE finished_at IS NOT NULL AND finished_at < %(ended_before)s
    ORDER BY finished_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
their_payloads AS (DELETE FROM payloads USING past WHERE payloads.seq = past.seq),
their_attempts AS (DELETE FROM attempts USING past WHERE job = past.seq)
DELETE FROM jobs USING past WHERE jobs.seq = past.seq

-- get --
-- A whole job, but for its context.
SELECT
    id, task, created_at, args, queue, priority, max_attempts, timeout, run_at, expires_at,
    NULL, origin, jobs.seq, state, attempt, crashes, lost,
    started_at, finished_at, claimed_by, cancel_requested_at, result, error, progress,
    owner, idempotency_key, fingerprint
FROM jobs CROSS JOIN LATERAL (SELECT * FROM payloads WHERE payloads.seq = jobs.seq) AS payload
WHERE id = %(id)s

-- attempts --
-- Of a job, oldest first; a row of nothing, if it has none.
SELECT
    number, outcome, error, worker, pid, attempts.started_at, attempts.finished_at,
    max_rss, cpu, signal, length(log)
FROM jobs LEFT JOIN attempts ON job = seq
WHERE jobs.id = %(id)s
ORDER BY attempts.id

-- log --
-- What a job's attempts wrote, oldest first; a row of nothing, if nothing.
SELECT log
FROM jobs LEFT JOIN attempts
    ON job = seq AND log IS NOT NULL AND (%(number)s::integer IS NULL OR number = %(number)s::integer)
WHERE jobs.id = %(id)s
ORDER BY attempts.id

-- find --
-- A page of jobs, newest first. `order` that is no column keeps a rare state from being looked for in all.
SELECT
    id, task, created_at, '{{}}', queue, priority, max_attempts, timeout, run_at, expires_at,
    NULL, origin, page.seq, state, attempt, crashes, lost,
    started_at, finished_at, claimed_by, cancel_requested_at, NULL, error, progress,
    owner, idempotency_key, fingerprint
FROM (
    SELECT * FROM jobs
    WHERE {state}
        AND seq < %(before_seq)s
        AND (%(task)s::text IS NULL OR task = %(task)s::text)
        AND (%(queue)s::text IS NULL OR queue = %(queue)s::text)
        AND (%(created_after)s::bigint IS NULL OR created_at >= %(created_after)s::bigint)
        AND (%(created_before)s::bigint IS NULL OR created_at < %(created_before)s::bigint)
    ORDER BY {order} DESC
    LIMIT %(limit)s
) AS page CROSS JOIN LATERAL (SELECT * FROM payloads WHERE payloads.seq = page.seq) AS payload
ORDER BY page.seq DESC

-- states --
-- How several jobs stand.
SELECT id, state, attempt FROM jobs WHERE id = ANY(%(ids)s)

-- published --
-- How many jobs a broker should have, by queue.
SELECT queue, count(*) FROM jobs WHERE NOT ready AND republish_at IS NOT NULL GROUP BY queue

-- running --
-- What a claimant holds, and whether it has been asked to stop.
SELECT id, cancel_requested_at IS NOT NULL FROM jobs WHERE state = 'STARTED' AND claimed_by = %(claimant)s

-- add_key --
-- A new API key.
INSERT INTO api_keys (id, sha256, name, owner, scopes, created_at, expires_at, revoked_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)

-- revoke_key --
-- The first time counts.
UPDATE api_keys SET revoked_at = coalesce(revoked_at, %(now)s) WHERE id = %(id)s

-- keys --
-- All API keys, in the order they were made.
SELECT id, sha256, name, owner, scopes, created_at, expires_at, revoked_at
FROM api_keys ORDER BY number
