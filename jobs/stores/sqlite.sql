-- last_seq --
-- The highest number a job ever had; no row at first.
SELECT seq FROM sqlite_sequence WHERE name = 'jobs'

-- add_job --
-- An id that is already kept stays as it is.
INSERT INTO jobs (
    seq, id, task, queue, priority, ready, max_attempts, timeout, created_at, run_at, expires_at, owner, size
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING

-- added --
-- Which of the jobs after `last` were new.
SELECT seq FROM jobs WHERE seq > :last

-- add_payload --
-- Of a new job.
INSERT INTO payloads (seq, args, context, origin, idempotency_key, fingerprint) VALUES (?, ?, ?, ?, ?, ?)

-- promote --
-- Jobs whose time has come.
UPDATE jobs SET ready = 1, republish_at = NULL
WHERE ready = 0 AND coalesce(republish_at, run_at) <= :now

-- claimable --
-- What a claim takes, as it leaves it, best first; `claim` marks it within the same transaction.
SELECT
    id, task, created_at, args, queue, priority, max_attempts, timeout, run_at, expires_at,
    context, origin, jobs.seq, 'STARTED', attempt + 1, crashes, lost,
    :now, NULL, :claimant, NULL, NULL, error, progress,
    owner, idempotency_key, fingerprint, forgiven
FROM jobs CROSS JOIN payloads ON payloads.seq = jobs.seq
WHERE state = 'PENDING' AND ready = 1 AND (expires_at IS NULL OR expires_at > :now)
ORDER BY priority DESC, jobs.seq
LIMIT :limit

-- claim --
-- The attempt counts from here on.
UPDATE jobs SET state = 'STARTED', attempt = attempt + 1, claimed_by = :claimant, started_at = :now
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND state = 'PENDING'

-- next_due --
-- When the earliest job that is not yet due will be.
SELECT min(coalesce(republish_at, run_at)) FROM jobs WHERE ready = 0

-- publishable --
-- What a claim would take, best first, without what is long.
SELECT
    id, task, created_at, '{}', queue, priority, max_attempts, timeout, run_at, expires_at,
    NULL, NULL, seq, state, attempt, crashes, lost,
    started_at, finished_at, claimed_by, cancel_requested_at, NULL, NULL, NULL,
    owner, NULL, NULL, forgiven
FROM jobs
WHERE state = 'PENDING' AND ready = 1 AND (expires_at IS NULL OR expires_at > :now)
ORDER BY priority DESC, seq
LIMIT :limit

-- publish --
-- Hidden from now on. (What is hidden has a `run_at`: it was made to run as soon as it is there.)
UPDATE jobs SET ready = 0, run_at = coalesce(run_at, created_at), republish_at = :until
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND state = 'PENDING'

-- unpublish --
-- What a broker has lost.
UPDATE jobs SET ready = 1, republish_at = NULL
WHERE ready = 0 AND republish_at IS NOT NULL AND queue = :queue AND republish_at < :until

-- wanted --
-- The attempts named, as claiming them leaves them; `claim_these` marks them within the same transaction.
SELECT
    jobs.id, task, created_at, args, queue, priority, max_attempts, timeout, run_at, expires_at,
    context, origin, jobs.seq, 'STARTED', attempt + 1, crashes, lost,
    :now, NULL, :claimant, NULL, NULL, error, progress,
    owner, idempotency_key, fingerprint, forgiven
FROM json_each(:attempts)
CROSS JOIN jobs ON jobs.id = value ->> 0
CROSS JOIN payloads ON payloads.seq = jobs.seq
WHERE state = 'PENDING' AND attempt + 1 = value ->> 1
    AND (ready = 1 OR republish_at IS NOT NULL) AND (expires_at IS NULL OR expires_at > :now)

-- claim_these --
-- As `claim`, of what was published.
UPDATE jobs SET
    state = 'STARTED', attempt = attempt + 1, claimed_by = :claimant, started_at = :now,
    ready = 1, republish_at = NULL
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND state = 'PENDING'

-- finish --
-- The fence: an attempt's end counts only for the claimant and the attempt that the job is on.
WITH ending AS MATERIALIZED (
    SELECT
        seq,
        iif(value ->> 2 = 'PENDING' AND cancel_requested_at IS NOT NULL, 'REVOKED', value ->> 2) AS becomes,
        value ->> 3 AS began_at,
        value ->> 4 AS ended_at,
        value ->> 5 AS again_at,
        value ->> 6 AS crash,
        value ->> 7 AS loss
    FROM json_each(:endings) CROSS JOIN jobs ON jobs.id = value ->> 0
    WHERE attempt = value ->> 1 AND claimed_by = :claimant AND state = 'STARTED'
)
UPDATE jobs SET
    state = becomes,
    ready = becomes != 'PENDING' OR again_at IS NULL OR again_at <= :now,
    run_at = iif(becomes = 'PENDING', again_at, run_at),
    started_at = iif(becomes = 'PENDING', NULL, coalesce(began_at, started_at)),
    finished_at = iif(becomes = 'PENDING', NULL, coalesce(ended_at, :now)),
    claimed_by = NULL,
    crashes = crashes + crash,
    lost = lost + loss
FROM ending
WHERE jobs.seq = ending.seq
RETURNING seq, id, attempt, state

-- record --
-- What an attempt left; the request's context goes when the job has ended.
UPDATE payloads SET context = iif(?, NULL, context), result = ?, error = ? WHERE seq = ?

-- add_success --
-- An attempt that wrote nothing; each value that is not bound counts.
INSERT INTO attempts (outcome, job, number, worker, pid, started_at, finished_at, max_rss, cpu)
VALUES ('success', ?, ?, ?, ?, ?, ?, ?, ?)

-- add_attempt --
-- Any other.
INSERT INTO attempts (
    job, number, worker, pid, started_at, finished_at, max_rss, cpu, outcome, error, signal, log
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- release --
-- Attempts that never began, or that a shutdown stopped, are not spent; those put off are hidden until then.
WITH given AS MATERIALIZED (
    SELECT seq, value ->> 2 AS until FROM json_each(:attempts) CROSS JOIN jobs ON jobs.id = value ->> 0
    WHERE attempt = value ->> 1 AND claimed_by = :claimant AND state = 'STARTED'
)
UPDATE jobs SET
    state = iif(cancel_requested_at IS NULL, 'PENDING', 'REVOKED'),
    attempt = attempt - 1,
    claimed_by = NULL,
    started_at = NULL,
    finished_at = iif(cancel_requested_at IS NULL, NULL, :now),
    ready = until IS NULL OR cancel_requested_at IS NOT NULL,
    run_at = iif(until IS NULL, run_at, coalesce(run_at, created_at)),
    republish_at = until
FROM given WHERE jobs.seq = given.seq
RETURNING seq, id, state

-- say --
-- What a running job says; only its claimant has heard it.
INSERT INTO events (job, run, attempt, kind, at, data)
SELECT seq, 1 + (SELECT count(*) FROM attempts WHERE job = seq), attempt, :kind, :at, :data FROM jobs
WHERE id = :id AND attempt = :attempt AND claimed_by = :claimant AND state = 'STARTED'

-- set_progress --
-- How far a running job is.
UPDATE payloads SET progress = :data
WHERE seq = (
    SELECT seq FROM jobs
    WHERE id = :id AND attempt = :attempt AND claimed_by = :claimant AND state = 'STARTED'
)

-- note_event --
-- What no attempt tells of a job.
INSERT INTO events (job, run, attempt, kind, at, data)
SELECT seq, 1 + (SELECT count(*) FROM attempts WHERE job = seq), attempt, :kind, :at, x'' FROM jobs
WHERE seq IN (SELECT value FROM json_each(:seqs))

-- found --
-- How a job stands.
SELECT seq, state, attempt FROM jobs WHERE id = :id

-- revoke --
-- A job that has not begun.
UPDATE jobs SET state = 'REVOKED', ready = 1, cancel_requested_at = :now, finished_at = :now
WHERE seq = :seq AND state = 'PENDING'

-- request_cancel --
-- A running job: its claimant stops it.
UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, :now)
WHERE seq = :seq AND state = 'STARTED'

-- cancel_many --
-- Of several jobs, those that have not begun are revoked and those that run are marked.
UPDATE jobs SET
    state = iif(state = 'PENDING', 'REVOKED', state),
    ready = 1,
    cancel_requested_at = :now,
    finished_at = iif(state = 'PENDING', :now, finished_at)
WHERE id IN (SELECT value FROM json_each(:ids))
    AND state IN ('PENDING', 'STARTED')
    AND cancel_requested_at IS NULL
RETURNING seq, id, state

-- retry --
-- Jobs that ended without a result run once more, at once, as if never tried: the numbers of attempts go on.
UPDATE jobs SET
    state = 'PENDING',
    ready = 1,
    run_at = NULL,
    republish_at = NULL,
    expires_at = iif(expires_at > :now, expires_at, NULL),
    started_at = NULL,
    finished_at = NULL,
    cancel_requested_at = NULL,
    forgiven = attempt,
    crashes = 0,
    lost = 0
WHERE id IN (SELECT value FROM json_each(:ids)) AND state IN ('FAILURE', 'REVOKED')
RETURNING seq, id

-- afresh --
-- Of retried jobs; what they came with besides their arguments is no longer kept, and they say so.
UPDATE payloads SET
    error = NULL,
    progress = NULL,
    origin = iif(origin IS NULL, NULL, json_set(origin, '$.context', 'deleted'))
WHERE seq IN (SELECT value FROM json_each(:seqs))

-- claimants --
-- Who holds jobs, or has entered itself.
SELECT claimed_by FROM jobs WHERE state = 'STARTED' UNION SELECT name FROM processes

-- enter --
-- What this process is.
INSERT INTO processes (name, about) VALUES (:claimant, :about)
ON CONFLICT (name) DO UPDATE SET about = excluded.about

-- part --
-- Of these, nobody is alive.
DELETE FROM processes WHERE name IN (SELECT value FROM json_each(:dead))

-- lose --
-- The attempts of dead claimants, which `reap` then takes from them.
INSERT INTO attempts (job, number, outcome, error, worker, started_at, finished_at)
SELECT seq, attempt, 'lost', :error, claimed_by, started_at, :now FROM jobs
WHERE state = 'STARTED' AND claimed_by IN (SELECT value FROM json_each(:dead))

-- reap --
-- Jobs whose claimant is dead: once more, unless asked to stop or lost too often.
UPDATE jobs SET
    state = CASE
        WHEN cancel_requested_at IS NOT NULL THEN 'REVOKED'
        WHEN lost + 1 >= :max_lost THEN 'FAILURE'
        ELSE 'PENDING'
    END,
    lost = lost + 1,
    claimed_by = NULL,
    started_at = iif(cancel_requested_at IS NULL AND lost + 1 < :max_lost, NULL, started_at),
    finished_at = iif(cancel_requested_at IS NULL AND lost + 1 < :max_lost, NULL, :now)
WHERE state = 'STARTED' AND claimed_by IN (SELECT value FROM json_each(:dead))
RETURNING seq, id, state

-- expire --
-- Jobs that were not started in time.
UPDATE jobs SET state = 'REVOKED', ready = 1, finished_at = :now
WHERE seq IN (
    SELECT seq FROM jobs
    WHERE state = 'PENDING' AND expires_at IS NOT NULL AND expires_at <= :now
    LIMIT :limit
)
RETURNING seq, id, state

-- past --
-- Jobs that ended long ago.
SELECT seq FROM jobs WHERE finished_at IS NOT NULL AND finished_at < :ended_before
ORDER BY finished_at LIMIT :limit

-- forget_payloads --
-- Of these jobs.
DELETE FROM payloads WHERE seq IN (SELECT value FROM json_each(:seqs))

-- forget_attempts --
-- Of these jobs; but the newest row of all stays, so that no number is given twice.
DELETE FROM attempts
WHERE job IN (SELECT 0 UNION ALL SELECT value FROM json_each(:seqs)) AND id < (SELECT max(id) FROM attempts)

-- blank_attempt --
-- If that was one of theirs, it is nobody's from now on.
UPDATE attempts SET job = 0, log = NULL, error = iif(error IS NULL, NULL, '{}')
WHERE job IN (SELECT value FROM json_each(:seqs))

-- forget_events --
-- Of these jobs.
DELETE FROM events WHERE job IN (SELECT value FROM json_each(:seqs))

-- forget_jobs --
-- These jobs.
DELETE FROM jobs WHERE seq IN (SELECT value FROM json_each(:seqs))

-- get --
-- A whole job, but for its context.
SELECT
    id, task, created_at, args, queue, priority, max_attempts, timeout, run_at, expires_at,
    NULL, origin, jobs.seq, state, attempt, crashes, lost,
    started_at, finished_at, claimed_by, cancel_requested_at, result, error, progress,
    owner, idempotency_key, fingerprint, forgiven
FROM jobs CROSS JOIN payloads ON payloads.seq = jobs.seq
WHERE id = :id

-- attempts --
-- Of a job, oldest first; a row of nothing, if it has none.
SELECT
    number, outcome, error, worker, pid, attempts.started_at, attempts.finished_at,
    max_rss, cpu, signal, length(log)
FROM jobs LEFT JOIN attempts ON job = seq
WHERE jobs.id = :id
ORDER BY attempts.id

-- log --
-- What a job's attempts wrote, oldest first; a row of nothing, if nothing.
SELECT log
FROM jobs LEFT JOIN attempts ON job = seq AND log IS NOT NULL AND (:number IS NULL OR number = :number)
WHERE jobs.id = :id
ORDER BY attempts.id

-- newest --
-- The highest number of each thing that events are read from.
SELECT
    coalesce((SELECT max(seq) FROM jobs), 0),
    coalesce((SELECT max(id) FROM attempts), 0),
    coalesce((SELECT max(id) FROM events), 0)

-- stand --
-- What events tell of the jobs themselves.
SELECT
    jobs.seq, jobs.id, task, queue, owner, state, jobs.attempt, created_at, jobs.started_at, jobs.finished_at,
    (SELECT count(*) FROM attempts AS every WHERE every.job = jobs.seq)
FROM {source}
WHERE {which}
LIMIT :limit

-- ended --
-- Attempts that have ended, with their jobs; which run of the job each was, and how much it wrote.
SELECT
    jobs.seq, jobs.id, task, queue, owner, state, jobs.attempt, created_at, jobs.started_at, jobs.finished_at,
    (SELECT count(*) FROM attempts AS every WHERE every.job = jobs.seq),
    attempts.id, number, outcome, attempts.error, attempts.started_at, attempts.finished_at,
    (SELECT count(*) FROM attempts AS every WHERE every.job = jobs.seq AND every.id <= attempts.id),
    coalesce(length(log), 0)
FROM attempts CROSS JOIN jobs ON jobs.seq = attempts.job
WHERE {which}
ORDER BY attempts.id
LIMIT {limit}

-- said --
-- What jobs have said, with those jobs.
SELECT
    jobs.seq, jobs.id, task, queue, owner, state, jobs.attempt, created_at, jobs.started_at, jobs.finished_at,
    (SELECT count(*) FROM attempts AS every WHERE every.job = jobs.seq),
    events.id, run, events.attempt, kind, at, data
FROM events CROSS JOIN jobs ON jobs.seq = events.job
WHERE {which}
ORDER BY events.id
LIMIT :limit

-- unsaid --
-- What attempts, each with its run, wrote besides what they have been heard to say.
SELECT attempts.id, substr(log, 1 + (
    SELECT coalesce(sum(length(data)), 0) FROM events
    WHERE events.job = attempts.job AND run = value ->> 1 AND kind = 'log'
))
FROM json_each(:attempts) CROSS JOIN attempts ON attempts.id = value ->> 0

-- why --
-- Jobs ended so.
SELECT seq, error FROM payloads WHERE seq IN (SELECT value FROM json_each(:seqs))

-- find --
-- A page of jobs, newest first. `source` names the index that a rare state has.
SELECT
    id, task, created_at, '{{}}', queue, priority, max_attempts, timeout, run_at, expires_at,
    NULL, origin, jobs.seq, state, attempt, crashes, lost,
    started_at, finished_at, claimed_by, cancel_requested_at, NULL, error, progress,
    owner, idempotency_key, fingerprint, forgiven
FROM (
    SELECT seq FROM {source}
    WHERE {state}
        AND seq < :before_seq
        AND (:task IS NULL OR task = :task)
        AND (:queue IS NULL OR queue = :queue)
        AND (:owner IS NULL OR owner = :owner)
        AND (:created_after IS NULL OR created_at >= :created_after)
        AND (:created_before IS NULL OR created_at < :created_before)
    ORDER BY seq DESC
    LIMIT :limit
) AS page
CROSS JOIN jobs ON jobs.seq = page.seq
CROSS JOIN payloads ON payloads.seq = page.seq
ORDER BY page.seq DESC

-- queued --
-- How many jobs wait, and how large they are, by owner.
SELECT owner, count(*), sum(size) FROM jobs INDEXED BY jobs_ready WHERE state = 'PENDING' GROUP BY owner

-- states --
-- How several jobs stand.
SELECT id, state, attempt FROM jobs WHERE id IN (SELECT value FROM json_each(:ids))

-- published --
-- How many jobs a broker should have, by queue.
SELECT queue, count(*) FROM jobs WHERE ready = 0 AND republish_at IS NOT NULL GROUP BY queue

-- cancel_requests --
-- What a claimant has been asked to stop.
SELECT id FROM jobs
WHERE state = 'STARTED' AND claimed_by = :claimant AND cancel_requested_at IS NOT NULL

-- add_key --
-- A new API key.
INSERT INTO api_keys (id, sha256, name, owner, scopes, created_at, expires_at, revoked_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- revoke_key --
-- The first time counts.
UPDATE api_keys SET revoked_at = coalesce(revoked_at, :now) WHERE id = :id

-- peers --
-- The version of the schema, and who says what of itself.
SELECT version, name, about
FROM (SELECT max(number) AS version FROM migrations) AS latest LEFT JOIN processes ON TRUE

-- keys --
-- All API keys, in the order they were made.
SELECT id, sha256, name, owner, scopes, created_at, expires_at, revoked_at
FROM api_keys ORDER BY created_at, rowid
