-- begin --
-- One transaction: its number, by which a lost answer to its COMMIT is found out, and its time.
BEGIN;
SELECT pg_current_xact_id()::text, (extract(epoch FROM clock_timestamp()) * 1000)::bigint

-- status --
-- What became of a transaction, begun at that time, whose COMMIT was not answered. A server that crashes forgets what
-- it has not flushed, and gives the numbers of such transactions to others. One that has a session from before has
-- not crashed since. One that has none may mean another transaction, unless that number is known to have come to
-- nothing.
SELECT CASE
    WHEN EXISTS (
        SELECT FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND backend_start < to_timestamp(%(began)s / 1000.0)
    ) THEN pg_xact_status(%(xid)s::xid8)
    WHEN %(xid)s::xid8 >= pg_snapshot_xmax(pg_current_snapshot()) THEN 'aborted'
    WHEN pg_xact_status(%(xid)s::xid8) IN ('aborted', 'in progress') THEN 'aborted'
    ELSE 'unknown'
END

-- beat --
-- This process lives. True if the others had given it up.
INSERT INTO claimants (name, lock, host, pid, seen_at)
VALUES (%(claimant)s, %(lock)s, %(host)s, %(pid)s, %(now)s)
ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at
RETURNING xmax = 0

-- judge --
-- This process looks after the others.
UPDATE claimants SET judged_at = %(now)s WHERE name = %(claimant)s

-- enter --
-- What this process is; unless the others have given it up.
INSERT INTO processes (name, about)
SELECT name, %(about)s FROM claimants WHERE name = %(claimant)s
ON CONFLICT (name) DO UPDATE SET about = excluded.about

-- leave --
-- Of these, nobody is alive.
DELETE FROM claimants WHERE name = ANY(%(names)s)

-- dead --
-- Who neither holds its lock nor was seen lately, or is not known at all; and who may have left something running
-- here. The dead of another host are left to who looks after them there, if anybody does.
WITH locked AS MATERIALIZED (
    SELECT (classid::bigint << 32) | objid::bigint AS lock FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
),
holders AS MATERIALIZED (SELECT DISTINCT claimed_by AS name FROM jobs WHERE state = 'STARTED')
SELECT name, host = %(host)s FROM claimants AS dead
WHERE %(judge)s AND seen_at < %(seen_before)s AND lock NOT IN (SELECT lock FROM locked)
    AND name != %(claimant)s
    AND (host = %(host)s OR NOT EXISTS (
        SELECT FROM claimants AS neighbour
        WHERE neighbour.host = dead.host AND seen_at >= %(seen_before)s AND judged_at >= %(judged_after)s
    ))
UNION
SELECT name, TRUE FROM holders
WHERE name != %(claimant)s AND name NOT IN (SELECT name FROM claimants)

-- add --
-- The positions of those whose ids are kept already: they stay as they are.
WITH given AS MATERIALIZED (
    SELECT nextval(pg_get_serial_sequence('jobs', 'seq')) AS seq, each.*
    FROM json_to_recordset(%(jobs)s::json) AS each (
        n integer, id text, task text, queue text, priority integer, max_attempts integer,
        timeout double precision, created_at bigint, run_at bigint, expires_at bigint, owner text,
        size integer, args text, context text, origin text, idempotency_key text, fingerprint text
    )
),
added AS (
    INSERT INTO jobs (
        seq, id, task, queue, priority, ready, max_attempts, timeout, created_at, run_at, expires_at, owner, size
    )
    SELECT
        seq, id, task, queue, priority, run_at IS NULL OR run_at <= %(now)s::bigint, max_attempts,
        timeout, created_at, run_at, expires_at, owner, size
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
    owner, idempotency_key, fingerprint, forgiven

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
    owner, NULL, NULL, forgiven

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
    owner, idempotency_key, fingerprint, forgiven

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
-- Attempts that never began, or that a shutdown stopped, are not spent; the latter are kept. Those put off are
-- hidden until then.
WITH given AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(attempts)s::json) AS each (
        id text, attempt integer, until bigint, outcome text, began_at bigint, ended_at bigint, pid integer,
        max_rss bigint, cpu double precision, signal integer, log text
    )
),
released AS (
    UPDATE jobs SET
        state = CASE WHEN cancel_requested_at IS NULL THEN 'PENDING' ELSE 'REVOKED' END,
        attempt = jobs.attempt - 1,
        claimed_by = NULL,
        started_at = NULL,
        finished_at = CASE WHEN cancel_requested_at IS NOT NULL THEN %(now)s::bigint END,
        ready = until IS NULL OR cancel_requested_at IS NOT NULL,
        run_at = CASE WHEN until IS NULL THEN run_at ELSE coalesce(run_at, created_at) END,
        republish_at = until
    FROM given
    WHERE jobs.id = given.id AND jobs.attempt = given.attempt
        AND claimed_by = %(claimant)s AND state = 'STARTED'
    RETURNING jobs.seq, jobs.state, jobs.attempt AS stands, given.*
),
recorded AS (
    UPDATE payloads SET context = NULL, result = NULL, error = %(not_begun)s
    FROM released WHERE payloads.seq = released.seq AND released.state = 'REVOKED'
),
told AS (
    INSERT INTO events (job, run, attempt, kind, at, data)
    SELECT seq, 1 + (SELECT count(*) FROM attempts WHERE job = seq), stands, 'revoked', %(now)s, ''
    FROM released WHERE state = 'REVOKED'
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
    RETURNING seq, state, attempt
),
told AS (
    INSERT INTO events (job, run, attempt, kind, at, data)
    SELECT seq, 1 + (SELECT count(*) FROM attempts WHERE job = seq), attempt, 'revoked', %(now)s, ''
    FROM given WHERE state = 'REVOKED'
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
    RETURNING jobs.seq, jobs.attempt
),
asked AS (
    UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, %(now)s)
    FROM found WHERE jobs.seq = found.seq AND found.state = 'STARTED'
),
recorded AS (
    UPDATE payloads SET context = NULL, result = NULL, error = %(not_begun)s
    FROM revoked WHERE payloads.seq = revoked.seq
),
told AS (
    INSERT INTO events (job, run, attempt, kind, at, data)
    SELECT seq, 1 + (SELECT count(*) FROM attempts WHERE job = seq), attempt, 'revoked', %(now)s, ''
    FROM revoked
)
SELECT state, attempt FROM found

-- cancel_many --
-- Of several jobs, those that have not begun are revoked and those that run are marked.
WITH found AS MATERIALIZED (
    SELECT seq FROM jobs
    WHERE id = ANY(%(ids)s::text[]) AND state IN ('PENDING', 'STARTED') AND cancel_requested_at IS NULL
    ORDER BY seq
    FOR UPDATE
),
asked AS (
    UPDATE jobs SET
        state = CASE state WHEN 'PENDING' THEN 'REVOKED' ELSE state END,
        ready = TRUE,
        cancel_requested_at = %(now)s,
        finished_at = CASE state WHEN 'PENDING' THEN %(now)s::bigint END
    FROM found WHERE jobs.seq = found.seq
    RETURNING jobs.seq, id, state, attempt
),
recorded AS (
    UPDATE payloads SET context = NULL, result = NULL, error = %(not_begun)s
    FROM asked WHERE payloads.seq = asked.seq AND state = 'REVOKED'
),
told AS (
    INSERT INTO events (job, run, attempt, kind, at, data)
    SELECT seq, 1 + (SELECT count(*) FROM attempts WHERE job = seq), attempt, 'revoked', %(now)s, ''
    FROM asked WHERE state = 'REVOKED'
)
SELECT id, state FROM asked

-- retry --
-- Jobs that ended without a result run once more, at once, as if never tried: the numbers of attempts go on.
WITH found AS MATERIALIZED (
    SELECT seq FROM jobs
    WHERE id = ANY(%(ids)s::text[]) AND state || '' IN ('FAILURE', 'REVOKED')
    ORDER BY seq
    FOR UPDATE
),
again AS (
    UPDATE jobs SET
        state = 'PENDING',
        ready = TRUE,
        run_at = NULL,
    republish_at = NULL,
        expires_at = CASE WHEN expires_at > %(now)s THEN expires_at END,
        started_at = NULL,
        finished_at = NULL,
        cancel_requested_at = NULL,
        forgiven = attempt,
        crashes = 0,
        lost = 0
    FROM found WHERE jobs.seq = found.seq
    RETURNING jobs.seq, id, attempt
),
told AS (
    INSERT INTO events (job, run, attempt, kind, at, data)
    SELECT seq, 1 + (SELECT count(*) FROM attempts WHERE job = seq), attempt, 'retried', %(now)s, ''
    FROM again
)
SELECT id, again.seq, origin
FROM again CROSS JOIN LATERAL (SELECT origin FROM payloads WHERE payloads.seq = again.seq) AS payload

-- afresh --
-- Of retried jobs; what they came with besides their arguments is no longer kept, and they say so.
UPDATE payloads SET error = NULL, progress = NULL, origin = given.origin
FROM json_to_recordset(%(jobs)s::json) AS given (seq bigint, origin text)
WHERE payloads.seq = given.seq

-- say --
-- What running jobs say, in this order; only their claimant has heard it.
WITH heard AS MATERIALIZED (
    SELECT said.n, seq, jobs.attempt, kind, decode(data, 'base64') AS data
    FROM json_to_recordset(%(said)s::json) AS said (n integer, id text, attempt integer, kind text, data text)
        JOIN jobs ON jobs.id = said.id
    WHERE jobs.attempt = said.attempt AND claimed_by = %(claimant)s AND state = 'STARTED'
    FOR SHARE OF jobs
),
kept AS (
    INSERT INTO events (job, run, attempt, kind, at, data)
    SELECT seq, 1 + (SELECT count(*) FROM attempts WHERE job = seq), attempt, kind, %(now)s, data
    FROM heard ORDER BY n
),
last AS (
    SELECT DISTINCT ON (seq) seq, data FROM heard WHERE kind = 'progress' ORDER BY seq, n DESC
)
UPDATE payloads SET progress = convert_from(data, 'UTF8')
FROM last WHERE payloads.seq = last.seq

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
    SELECT seq, attempt FROM jobs
    WHERE state = 'PENDING' AND expires_at IS NOT NULL AND expires_at <= %(now)s
    ORDER BY expires_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
recorded AS (
    UPDATE payloads SET context = NULL, result = NULL, error = %(expired)s
    FROM late WHERE payloads.seq = late.seq
),
told AS (
    INSERT INTO events (job, run, attempt, kind, at, data)
    SELECT seq, 1 + (SELECT count(*) FROM attempts WHERE job = seq), attempt, 'revoked', %(now)s, ''
    FROM late
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
their_attempts AS (DELETE FROM attempts USING past WHERE job = past.seq),
their_events AS (DELETE FROM events USING past WHERE job = past.seq)
DELETE FROM jobs USING past WHERE jobs.seq = past.seq

-- get --
-- A whole job, but for its context.
SELECT
    id, task, created_at, args, queue, priority, max_attempts, timeout, run_at, expires_at,
    NULL, origin, jobs.seq, state, attempt, crashes, lost,
    started_at, finished_at, claimed_by, cancel_requested_at, result, error, progress,
    owner, idempotency_key, fingerprint, forgiven
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

-- snapshot --
-- What has been committed: the mark from which on there is news.
SELECT pg_current_snapshot()::text

-- stand --
-- What events tell of the jobs themselves.
SELECT
    jobs.seq, jobs.id, task, queue, owner, state, jobs.attempt, created_at, jobs.started_at, jobs.finished_at,
    (SELECT count(*) FROM attempts AS every WHERE every.job = jobs.seq)
FROM {source}
WHERE {which}
LIMIT %(limit)s

-- ended --
-- Attempts that have ended, with their jobs; which run of the job each was, and how much it wrote. (OFFSET keeps
-- the planner from going through all jobs.)
SELECT
    jobs.seq, jobs.id, task, queue, owner, state, jobs.attempt, created_at, jobs.started_at, jobs.finished_at,
    (SELECT count(*) FROM attempts AS every WHERE every.job = jobs.seq),
    attempts.id, number, outcome, attempts.error, attempts.started_at, attempts.finished_at,
    (SELECT count(*) FROM attempts AS every WHERE every.job = jobs.seq AND every.id <= attempts.id),
    coalesce(length(log), 0)
FROM attempts CROSS JOIN LATERAL (SELECT * FROM jobs WHERE seq = attempts.job OFFSET 0) AS jobs
WHERE {which}
LIMIT {limit}

-- said --
-- What jobs have said, with those jobs.
SELECT
    jobs.seq, jobs.id, task, queue, owner, state, jobs.attempt, created_at, jobs.started_at, jobs.finished_at,
    (SELECT count(*) FROM attempts AS every WHERE every.job = jobs.seq),
    events.id, run, events.attempt, kind, at, data
FROM events CROSS JOIN LATERAL (SELECT * FROM jobs WHERE seq = events.job OFFSET 0) AS jobs
WHERE {which}
LIMIT %(limit)s

-- unsaid --
-- What attempts, each with its run, wrote besides what they have been heard to say.
SELECT attempts.id, substr(log, 1 + (
    SELECT coalesce(sum(length(data)), 0) FROM events
    WHERE events.job = attempts.job AND events.run = (pair ->> 1)::integer AND kind = 'log'
)::integer)
FROM json_array_elements(%(attempts)s::json) AS pair JOIN attempts ON attempts.id = (pair ->> 0)::bigint

-- why --
-- Jobs ended so.
SELECT seq, error FROM payloads
WHERE seq = ANY(ARRAY(SELECT value::text::bigint FROM json_array_elements(%(seqs)s::json)))

-- forget_xacts --
-- Rows of another server, which a dump has brought here, tell of that server's transactions.
WITH new_events AS (
    UPDATE events SET xact = NULL WHERE xact >= pg_snapshot_xmax(pg_current_snapshot())
),
new_attempts AS (
    UPDATE attempts SET xact = NULL WHERE xact >= pg_snapshot_xmax(pg_current_snapshot())
)
UPDATE payloads SET xact = NULL WHERE xact >= pg_snapshot_xmax(pg_current_snapshot())

-- find --
-- A page of jobs, newest first. `order` that is no column keeps a rare state from being looked for in all.
SELECT
    id, task, created_at, '{{}}', queue, priority, max_attempts, timeout, run_at, expires_at,
    NULL, origin, page.seq, state, attempt, crashes, lost,
    started_at, finished_at, claimed_by, cancel_requested_at, NULL, error, progress,
    owner, idempotency_key, fingerprint, forgiven
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

-- queued --
-- How many jobs wait, and how large they are, by owner.
SELECT owner, count(*), sum(size) FROM jobs WHERE state = 'PENDING' GROUP BY owner

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

-- peers --
-- The version of the schema, and who says what of itself.
SELECT version, name, about
FROM (SELECT max(number) AS version FROM migrations) AS latest LEFT JOIN processes ON TRUE

-- keys --
-- All API keys, in the order they were made.
SELECT id, sha256, name, owner, scopes, created_at, expires_at, revoked_at
FROM api_keys ORDER BY number
