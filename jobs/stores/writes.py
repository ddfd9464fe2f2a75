"""The writes, each a plain function on the writer's connection, inside its transaction."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import JobNotFound
from jobs.model import Claim, Invocation, Job, JobId, JobState, Outcome, PutOff
from jobs.peers import Peer
from jobs.protocols import Wake

from . import attempts, claimant, events
from .commits import Transaction
from .connection import touch
from .moved import refuse_if_moved
from .queries import SQL
from .reasons import EXPIRED, GONE, LOST, MAX_LOST, NOT_AGAIN, NOT_BEGUN
from .rows import counted, error_to_text, insert, shown, to_job
from .verbs import Verb

EXPIRED_AT_ONCE = 1000  #: jobs that one transaction revokes at most, so that others get their turn

_JOB_BYTES = 500  #: of log that a change of one job takes besides its payload

_ENDED = ("SUCCESS", "FAILURE", "REVOKED")

_Left = tuple[bool, str | None, str | None, int]
"""What `record` takes: whether the job has ended, result, error, seq."""


def _record(transaction: Transaction, left: Sequence[_Left]) -> None:
    if left:
        transaction.connection.executemany(SQL["record"], left)


def _add(transaction: Transaction, requests: Sequence[Sequence[Job]]) -> list[tuple[JobId, ...]]:
    connection, now = transaction.connection, transaction.now
    (last,) = connection.execute(SQL["last_seq"]).fetchone() or (0,)
    hot: list[tuple[Any, ...]] = []
    payloads: list[tuple[Any, ...]] = []
    seq, size = last, 0
    repeated = _repeated(transaction, requests)
    fresh = [() if at in repeated else jobs for at, jobs in enumerate(requests)]
    for jobs in fresh:
        for job in jobs:
            seq += 1
            run_at, args, context = job.run_at, job.args, job.context
            bytes_ = len(args) if args.isascii() else len(args.encode())
            if context is not None:
                bytes_ += len(context)
            size += bytes_
            hot.append(
                (
                    seq,
                    job.id,
                    job.task,
                    job.queue,
                    job.priority,
                    run_at is None or run_at <= now,
                    job.max_attempts,
                    job.timeout,
                    job.created_at,
                    run_at,
                    job.expires_at,
                    job.owner,
                    bytes_,
                )
            )
            payloads.append((seq, args, context, job.origin, job.idempotency_key, job.fingerprint))
    kept: list[tuple[JobId, ...]] = [()] * len(requests)
    if insert(connection, SQL["add_job"], hot) < len(hot):
        new = {seq for (seq,) in connection.execute(SQL["added"], {"last": last})}
        payloads = [payload for payload in payloads if payload[0] in new]
        seqs = iter(range(last + 1, seq + 1))
        kept = [tuple(job.id for job in jobs if next(seqs) not in new) for jobs in fresh]
    for at in repeated:
        kept[at] = tuple(job.id for job in requests[at])
    insert(connection, SQL["add_payload"], payloads)
    if hot:
        transaction.wake |= Wake.WORK
    transaction.size += size + len(hot) * _JOB_BYTES
    return kept


def _repeated(transaction: Transaction, requests: Sequence[Sequence[Job]]) -> set[int]:
    """Which of the requests are batches that have been added before."""
    found: set[int] = set()
    firsts: set[JobId] = set()
    for at, jobs in enumerate(requests):
        if len(jobs) > 1 and jobs[0].idempotency_key is not None:
            first = jobs[0].id
            row = transaction.connection.execute(SQL["found"], {"id": first}).fetchone()
            if row is not None or first in firsts:
                found.add(at)
            firsts.add(first)
    return found


def _claim(transaction: Transaction, limits: Sequence[int]) -> list[Claim]:
    connection, me, now = transaction.connection, transaction.claimant, transaction.now
    connection.execute(SQL["promote"], {"now": now})
    claims = []
    for limit in limits:
        # Read, then mark: RETURNING is neither sorted nor joined, and slower.
        wanted = {"now": now, "claimant": me, "limit": max(limit, 0)}
        jobs = [to_job(row) for row in connection.execute(SQL["claimable"], wanted)]
        if jobs:
            seqs = json.dumps([each.seq for each in jobs])
            connection.execute(SQL["claim"], {"claimant": me, "now": now, "seqs": seqs})
        (due,) = connection.execute(SQL["next_due"]).fetchone()
        transaction.size += len(jobs) * _JOB_BYTES
        claims.append(Claim(jobs, due))
    return claims


def _publish(transaction: Transaction, requests: Sequence[tuple[int, int]]) -> list[Claim]:
    connection, now = transaction.connection, transaction.now
    connection.execute(SQL["promote"], {"now": now})
    claims = []
    for limit, until in requests:
        wanted = {"now": now, "limit": limit}
        jobs = [to_job(row) for row in connection.execute(SQL["publishable"], wanted)]
        if jobs:
            seqs = json.dumps([each.seq for each in jobs])
            connection.execute(SQL["publish"], {"seqs": seqs, "until": until})
        (due,) = connection.execute(SQL["next_due"]).fetchone()
        transaction.size += len(jobs) * _JOB_BYTES
        claims.append(Claim(jobs, due))
    return claims


def _unpublish(transaction: Transaction, requests: Sequence[tuple[str, int]]) -> list[None]:
    for queue, until in requests:
        found = {"queue": queue, "until": until}
        if transaction.connection.execute(SQL["unpublish"], found).rowcount:
            transaction.wake |= Wake.WORK
    return [None] * len(requests)


def _claim_these(
    transaction: Transaction, requests: Sequence[Sequence[tuple[JobId, int]]]
) -> list[Claim]:
    connection, me, now = transaction.connection, transaction.claimant, transaction.now
    claims = []
    for named in requests:
        wanted = {"now": now, "claimant": me, "attempts": json.dumps(named)}
        jobs = [to_job(row) for row in connection.execute(SQL["wanted"], wanted)]
        if jobs:
            seqs = json.dumps([each.seq for each in jobs])
            connection.execute(SQL["claim_these"], {"claimant": me, "now": now, "seqs": seqs})
        transaction.size += len(jobs) * _JOB_BYTES
        claims.append(Claim(jobs))
    return claims


def _finish(transaction: Transaction, requests: Sequence[Sequence[Outcome]]) -> list[set[JobId]]:
    return [_finish_one(transaction, outcomes) for outcomes in requests]


def _finish_one(transaction: Transaction, outcomes: Sequence[Outcome]) -> set[JobId]:
    by_attempt = {(outcome.job_id, outcome.attempt): outcome for outcome in outcomes}
    endings = [
        (
            *(outcome.job_id, outcome.attempt, outcome.state),
            *(outcome.started_at, outcome.finished_at, outcome.run_at),
            *counted(outcome.error),
        )
        for outcome in by_attempt.values()
    ]
    rows = transaction.connection.execute(
        SQL["finish"],
        {
            "endings": json.dumps(endings),
            "claimant": transaction.claimant,
            "now": transaction.now,
        },
    ).fetchall()
    left: list[_Left] = []
    over: list[tuple[int, Outcome, str | None]] = []
    for seq, job_id, attempt, state in rows:
        outcome = by_attempt[job_id, attempt]
        error = error_to_text(outcome.error)
        over.append((seq, outcome, error))
        if state == outcome.state:
            left.append((state in _ENDED, outcome.result, error, seq))
            transaction.size += _JOB_BYTES + len(outcome.result or "")
        else:
            left.append((True, None, NOT_AGAIN, seq))
            transaction.wake |= Wake.ENDED
        if state == "PENDING":
            transaction.wake |= Wake.WORK
    _record(transaction, left)
    attempts.keep(transaction, over)
    return {row[1] for row in rows}


def _release(
    transaction: Transaction, requests: Sequence[Sequence[Invocation | Outcome | PutOff]]
) -> list[None]:
    given = [one for request in requests for one in request]
    rows = transaction.connection.execute(
        SQL["release"],
        {
            "attempts": json.dumps([(one.job_id, one.attempt, _until(one)) for one in given]),
            "claimant": transaction.claimant,
            "now": transaction.now,
        },
    ).fetchall()
    revoked: list[_Left] = [
        (True, None, NOT_BEGUN, seq) for seq, _, state in rows if state == "REVOKED"
    ]
    _record(transaction, revoked)
    events.note(transaction, "revoked", [seq for _, _, _, seq in revoked])
    stopped = {one.job_id: one for one in given if isinstance(one, Outcome)}
    attempts.keep(
        transaction,
        ((seq, stopped[job_id], None) for seq, job_id, _ in rows if job_id in stopped),
    )
    transaction.wake |= Wake.WORK | (Wake.ENDED if revoked else Wake(0))
    return [None] * len(requests)


def _until(one: Invocation | Outcome | PutOff) -> int | None:
    return one.until if isinstance(one, PutOff) else None


def _cancel(transaction: Transaction, job_ids: Sequence[JobId]) -> list[JobState | JobNotFound]:
    return [_cancel_one(transaction, job_id) for job_id in job_ids]


def _cancel_one(transaction: Transaction, job_id: JobId) -> JobState | JobNotFound:
    row = transaction.connection.execute(SQL["found"], {"id": job_id}).fetchone()
    if row is None:
        return JobNotFound(job_id)
    seq, state, attempt = row
    if state == "PENDING":
        transaction.connection.execute(SQL["revoke"], {"seq": seq, "now": transaction.now})
        _record(transaction, [(True, None, NOT_BEGUN, seq)])
        events.note(transaction, "revoked", [seq])
        transaction.wake |= Wake.ENDED
    elif state == "STARTED":
        transaction.connection.execute(SQL["request_cancel"], {"seq": seq, "now": transaction.now})
        transaction.wake |= Wake.CANCEL
    return shown(state, attempt)


def _cancel_many(
    transaction: Transaction, requests: Sequence[Collection[JobId]]
) -> list[set[JobId]]:
    return [_cancel_these(transaction, job_ids) for job_ids in requests]


def _cancel_these(transaction: Transaction, job_ids: Collection[JobId]) -> set[JobId]:
    wanted = {"ids": json.dumps(list(job_ids)), "now": transaction.now}
    rows = transaction.connection.execute(SQL["cancel_many"], wanted).fetchall()
    revoked: list[_Left] = [
        (True, None, NOT_BEGUN, seq) for seq, _, state in rows if state == "REVOKED"
    ]
    _record(transaction, revoked)
    events.note(transaction, "revoked", [seq for _, _, _, seq in revoked])
    transaction.wake |= Wake.ENDED if revoked else Wake(0)
    transaction.wake |= Wake.CANCEL if len(revoked) < len(rows) else Wake(0)
    transaction.size += len(rows) * _JOB_BYTES
    return {job_id for _, job_id, _ in rows}


def _retry(transaction: Transaction, requests: Sequence[Collection[JobId]]) -> list[set[JobId]]:
    return [_retry_these(transaction, job_ids) for job_ids in requests]


def _retry_these(transaction: Transaction, job_ids: Collection[JobId]) -> set[JobId]:
    wanted = {"ids": json.dumps(list(job_ids)), "now": transaction.now}
    rows = transaction.connection.execute(SQL["retry"], wanted).fetchall()
    if rows:
        seqs = {"seqs": json.dumps([seq for seq, _ in rows])}
        transaction.connection.execute(SQL["afresh"], seqs)
        events.note(transaction, "retried", [seq for seq, _ in rows])
        transaction.wake |= Wake.WORK
    transaction.size += len(rows) * _JOB_BYTES
    return {job_id for _, job_id in rows}


@dataclass(frozen=True, slots=True)
class Reaped:
    """What a reap did: the jobs it ended, whether more have expired, and who was dead."""

    ended: set[JobId]
    more: bool
    dead: set[str]


def _reap(transaction: Transaction, folders: Sequence[Path]) -> list[Reaped]:
    connection, now = transaction.connection, transaction.now
    holders = [name for (name,) in connection.execute(SQL["claimants"])]
    # Under the gate, as the making of a claimant is: none can be half made now.
    dead = claimant.dead(folders[0], holders, me=transaction.claimant)
    claimant.kill_what_is_left(dead)  # before their jobs run again
    theirs = {"dead": json.dumps(sorted(dead)), "now": now}
    connection.execute(SQL["lose"], {"error": GONE, **theirs})
    lost = connection.execute(SQL["reap"], {"max_lost": MAX_LOST, **theirs}).fetchall()
    if dead:
        connection.execute(SQL["part"], theirs)
    expired = connection.execute(SQL["expire"], {"now": now, "limit": EXPIRED_AT_ONCE}).fetchall()
    _record(transaction, [(state in _ENDED, None, LOST[state], seq) for seq, _, state in lost])
    _record(transaction, [(True, None, EXPIRED, seq) for seq, _, _ in expired])
    events.note(transaction, "revoked", [seq for seq, _, _ in expired])
    ended = {job_id for _, job_id, state in lost + expired if state in _ENDED}
    transaction.wake |= Wake.ENDED if ended else Wake(0)
    transaction.wake |= Wake.WORK if len(ended) < len(lost) + len(expired) else Wake(0)
    return [Reaped(ended, len(expired) == EXPIRED_AT_ONCE, dead)] * len(folders)


def _prune(transaction: Transaction, requests: Sequence[tuple[int, int]]) -> list[int]:
    return [_prune_one(transaction, *request) for request in requests]


def _prune_one(transaction: Transaction, ended_before: int, limit: int) -> int:
    connection = transaction.connection
    past = {"ended_before": ended_before, "limit": limit}
    rows = connection.execute(SQL["past"], past).fetchall()
    if rows:
        seqs = {"seqs": json.dumps([seq for (seq,) in rows])}
        connection.execute(SQL["forget_payloads"], seqs)
        connection.execute(SQL["forget_attempts"], seqs)
        connection.execute(SQL["blank_attempt"], seqs)
        connection.execute(SQL["forget_events"], seqs)
        connection.execute(SQL["forget_jobs"], seqs)
    return len(rows)


def _probe(transaction: Transaction, requests: Sequence[None]) -> list[None]:
    """Write something that changes nothing: it says whether writing works."""
    touch(transaction.connection)
    refuse_if_moved(transaction.connection)
    return [None] * len(requests)


def _enter(transaction: Transaction, entries: Sequence[Peer]) -> list[None]:
    for me in entries:
        about = {"claimant": transaction.claimant, "about": me.model_dump_json()}
        transaction.connection.execute(SQL["enter"], about)
    return [None] * len(entries)


# In the order within a transaction: what frees a job comes before what takes one.
FINISH = Verb(0, _finish)
RELEASE = Verb(1, _release)
CANCEL: Verb[JobId, JobState] = Verb(2, _cancel)
CANCEL_MANY: Verb[Collection[JobId], set[JobId]] = Verb(3, _cancel_many)
RETRY: Verb[Collection[JobId], set[JobId]] = Verb(4, _retry)
ADD = Verb(5, _add, vital=False)
REAP = Verb(6, _reap)
PRUNE = Verb(7, _prune)
CLAIM = Verb(8, _claim, durable=False, vital=False)  # lost with the power, it is only claimed again
PROBE = Verb(9, _probe, vital=False)
PUBLISH: Verb[tuple[int, int], Claim] = Verb(14, _publish, durable=False, vital=False)
CLAIM_THESE: Verb[Sequence[tuple[JobId, int]], Claim] = Verb(
    15, _claim_these, durable=False, vital=False
)
UNPUBLISH: Verb[tuple[str, int], None] = Verb(16, _unpublish, durable=False)
ENTER: Verb[Peer, None] = Verb(17, _enter, durable=False)
