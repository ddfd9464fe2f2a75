"""The writes, each a plain function within a transaction, and one statement for all its requests."""

import json
from base64 import b64encode
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from jobs.errors import JobNotFound
from jobs.keys import ApiKey
from jobs.model import Claim, Invocation, Job, JobId, JobState, Outcome, PutOff
from jobs.peers import Peer
from jobs.protocols import Wake
from jobs.stores.claimant import kill_what_is_left
from jobs.stores.reasons import EXPIRED, GONE, LOST, MAX_LOST, NOT_AGAIN, NOT_BEGUN
from jobs.stores.rows import attempt_end, counted, error_to_text, shown, to_job
from jobs.stores.verbs import Verb

from .commits import Transaction, keys
from .queries import SQL

SEEN_WITHIN = 800  #: ms since its last beat in which a claimant without its lock is not given up
_JUDGED_WITHIN = 2_000  #: ms since a claimant last looked after others; it does so every second
EXPIRED_AT_ONCE = 1000  #: jobs that one transaction revokes at most, so that others get their turn

_ENDED = {"SUCCESS", "FAILURE", "REVOKED"}


def _add(transaction: Transaction, requests: Sequence[Sequence[Job]]) -> list[tuple[JobId, ...]]:
    # The first of a batch with a key says whether the batch has been added before: by whoever adds it now, too.
    firsts = {
        at: jobs[0]
        for at, jobs in enumerate(requests)
        if len(jobs) > 1 and jobs[0].idempotency_key is not None
    }
    known = _insert(transaction, firsts.values())
    repeated = {at for n, at in enumerate(firsts) if n in known}
    fresh = [
        () if at in repeated else jobs[1:] if at in firsts else jobs
        for at, jobs in enumerate(requests)
    ]
    found = _insert(transaction, [job for jobs in fresh for job in jobs])
    if any(requests):
        transaction.wake |= Wake.WORK
    kept: list[tuple[JobId, ...]] = [()] * len(requests)
    if found:
        positions = iter(range(sum(map(len, fresh))))
        kept = [tuple(job.id for job in jobs if next(positions) in found) for jobs in fresh]
    for at in repeated:
        kept[at] = tuple(job.id for job in requests[at])
    return kept


def _insert(transaction: Transaction, jobs: Collection[Job]) -> set[int]:
    """The positions of those whose ids are kept already: they stay as they are."""
    if not jobs:
        return set()
    rows = json.dumps([_row(n, job) for n, job in enumerate(jobs)])
    return {n for (n,) in transaction.fetch("add", jobs=rows, now=transaction.now)}


def _row(n: int, job: Job) -> dict[str, Any]:
    args, context = job.args, job.context
    return {
        "n": n,
        "id": job.id,
        "task": job.task,
        "queue": job.queue,
        "priority": job.priority,
        "max_attempts": job.max_attempts,
        "timeout": job.timeout,
        "created_at": job.created_at,
        "run_at": job.run_at,
        "expires_at": job.expires_at,
        "owner": job.owner,
        "size": (len(args) if args.isascii() else len(args.encode())) + len(context or b""),
        "args": args,
        "context": _text(context),
        "origin": job.origin,
        "idempotency_key": job.idempotency_key,
        "fingerprint": job.fingerprint,
    }


def _text(content: bytes | None) -> str | None:
    return None if content is None else b64encode(content).decode("ascii")


def _claim(transaction: Transaction, limits: Sequence[int]) -> list[Claim]:
    me, now = transaction.claimant, transaction.now
    claims: list[list[Job]] = []
    _promote(transaction)
    held = _held(transaction)
    for limit in limits:
        rows = transaction.fetch("claim", claimant=me, now=now, held=held, limit=max(limit, 0))
        jobs = _best_first(rows)
        transaction.took += [(job.id, job.attempt) for job in jobs]
        transaction.news |= Wake.TOLD if jobs else Wake(0)
        claims.append(jobs)
    ((due,),) = transaction.fetch("next_due")
    return [Claim(jobs, due) for jobs in claims]


def _promote(transaction: Transaction) -> None:
    if transaction.fetch("next_due")[0][0] is not None:
        transaction.run("promote", now=transaction.now)


def _held(transaction: Transaction) -> list[JobId]:
    """What still runs here, though others may have taken it."""
    return [job_id for job_id, _ in transaction.held.items() - set(transaction.gave)]


def _best_first(rows: Iterable[Sequence[Any]]) -> list[Job]:
    return sorted(map(to_job, rows), key=lambda job: (-job.priority, job.seq))


def _publish(transaction: Transaction, requests: Sequence[tuple[int, int]]) -> list[Claim]:
    _promote(transaction)
    published = [
        _best_first(transaction.fetch("publish", now=transaction.now, limit=limit, until=until))
        for limit, until in requests
    ]
    ((due,),) = transaction.fetch("next_due")
    return [Claim(jobs, due) for jobs in published]


def _unpublish(transaction: Transaction, requests: Sequence[tuple[str, int]]) -> list[None]:
    for queue, until in requests:
        if transaction.run("unpublish", queue=queue, until=until):
            transaction.wake |= Wake.WORK
    return [None] * len(requests)


def _claim_these(
    transaction: Transaction, requests: Sequence[Sequence[tuple[JobId, int]]]
) -> list[Claim]:
    me, now, held = transaction.claimant, transaction.now, _held(transaction)
    claims = []
    for named in requests:
        attempts = json.dumps([{"id": job_id, "attempt": number} for job_id, number in named])
        jobs = _best_first(
            transaction.fetch("claim_these", claimant=me, now=now, held=held, attempts=attempts)
        )
        transaction.took += [(job.id, job.attempt) for job in jobs]
        transaction.news |= Wake.TOLD if jobs else Wake(0)
        claims.append(Claim(jobs))
    return claims


def _finish(transaction: Transaction, requests: Sequence[Sequence[Outcome]]) -> list[set[JobId]]:
    endings: dict[tuple[JobId, int], tuple[int, Outcome]] = {}
    for number, outcomes in enumerate(requests):
        for key, outcome in zip(keys(outcomes), outcomes, strict=True):
            if endings.get(key, (number,))[0] == number:  # of two requests the first counts
                endings[key] = number, outcome
    done: list[set[JobId]] = [set() for _ in requests]
    if not endings:
        return done
    rows = transaction.fetch(
        "finish",
        endings=json.dumps([_ending(outcome) for _, outcome in endings.values()]),
        claimant=transaction.claimant,
        now=transaction.now,
        not_again=NOT_AGAIN,
    )
    recorded = set()
    for job_id, attempt, becomes, state in rows:
        recorded.add((job_id, attempt))
        done[endings[job_id, attempt][0]].add(job_id)
        if state in _ENDED:
            transaction.news |= Wake.ENDED
        else:
            transaction.wake |= Wake.WORK
        if state != becomes:
            transaction.wake |= Wake.ENDED
    if any(transaction.held.get(job_id) == n for job_id, n in endings.keys() - recorded):
        transaction.wake |= Wake.WORK  # it was others' already, and may be claimed here only now
    transaction.gave += endings
    return done


def _ending(outcome: Outcome) -> dict[str, Any]:
    crash, loss = counted(outcome.error)
    return _attempt(outcome) | {
        "becomes": outcome.state,
        "again_at": outcome.run_at,
        "crash": crash,
        "loss": loss,
        "result": outcome.result,
        "error": error_to_text(outcome.error),
    }


def _attempt(outcome: Outcome) -> dict[str, Any]:
    rss, cpu = outcome.usage or (None, None)
    return {
        "id": outcome.job_id,
        "attempt": outcome.attempt,
        "outcome": attempt_end(outcome),
        "began_at": outcome.started_at,
        "ended_at": outcome.finished_at,
        "pid": outcome.pid,
        "max_rss": rss,
        "cpu": cpu,
        "signal": outcome.signal,
        "log": _text(outcome.log.encode("utf-8", "replace")) if outcome.log else None,
    }


def _release(
    transaction: Transaction, requests: Sequence[Sequence[Invocation | Outcome | PutOff]]
) -> list[None]:
    given = {
        (one.job_id, one.attempt): _attempt(one)
        if isinstance(one, Outcome)
        else {"id": one.job_id, "attempt": one.attempt, "until": _until(one)}
        for one in sorted(_all(requests), key=lambda one: isinstance(one, Outcome))
    }
    if given:
        states = transaction.fetch(
            "release",
            attempts=json.dumps(list(given.values())),
            claimant=transaction.claimant,
            now=transaction.now,
            not_begun=NOT_BEGUN,
        )
        transaction.gave += given
        if ("REVOKED",) in states:
            transaction.wake |= Wake.ENDED
    transaction.wake |= Wake.WORK
    return [None] * len(requests)


def _all(
    requests: Iterable[Iterable[Invocation | Outcome | PutOff]],
) -> Iterable[Invocation | Outcome | PutOff]:
    return (one for request in requests for one in request)


def _until(one: Invocation | Outcome | PutOff) -> int | None:
    return one.until if isinstance(one, PutOff) else None


def _cancel(transaction: Transaction, job_ids: Sequence[JobId]) -> list[JobState | JobNotFound]:
    return [_cancel_one(transaction, job_id) for job_id in job_ids]


def _cancel_one(transaction: Transaction, job_id: JobId) -> JobState | JobNotFound:
    found = transaction.fetch("cancel", id=job_id, now=transaction.now, not_begun=NOT_BEGUN)
    if not found:
        return JobNotFound(job_id)
    ((state, attempt),) = found
    if state == "PENDING":
        transaction.wake |= Wake.ENDED
    elif state == "STARTED":
        transaction.wake |= Wake.CANCEL
    return shown(state, attempt)


def _cancel_many(
    transaction: Transaction, requests: Sequence[Collection[JobId]]
) -> list[set[JobId]]:
    return [_cancel_these(transaction, job_ids) for job_ids in requests]


def _cancel_these(transaction: Transaction, job_ids: Collection[JobId]) -> set[JobId]:
    rows = transaction.fetch(
        "cancel_many", ids=list(job_ids), now=transaction.now, not_begun=NOT_BEGUN
    )
    for _, state in rows:
        transaction.wake |= Wake.ENDED if state == "REVOKED" else Wake.CANCEL
    return {job_id for job_id, _ in rows}


def _retry(transaction: Transaction, requests: Sequence[Collection[JobId]]) -> list[set[JobId]]:
    return [_retry_these(transaction, job_ids) for job_ids in requests]


def _retry_these(transaction: Transaction, job_ids: Collection[JobId]) -> set[JobId]:
    rows = transaction.fetch("retry", ids=list(job_ids), now=transaction.now)
    if rows:
        jobs = [{"seq": seq, "origin": _without_context(origin)} for _, seq, origin in rows]
        transaction.run("afresh", jobs=json.dumps(jobs))
        transaction.wake |= Wake.WORK
    return {job_id for job_id, _, _ in rows}


def _without_context(origin: str | None) -> str | None:
    if origin is None:
        return None
    return json.dumps(json.loads(origin) | {"context": "deleted"}, separators=(",", ":"))


class Reaped(NamedTuple):
    """What a reap did: the jobs it ended, and whether more have expired."""

    ended: set[JobId]
    more: bool


def _reap(transaction: Transaction, requests: Sequence[None]) -> list[Reaped]:
    now = transaction.now
    if transaction.judges:
        transaction.run("judge", claimant=transaction.claimant, now=now)
    rows = transaction.fetch(
        "dead",
        claimant=transaction.claimant,
        host=transaction.host,
        seen_before=now - SEEN_WITHIN,
        judged_after=now - _JUDGED_WITHIN,
        judge=transaction.judges,
    )
    dead = [name for name, _ in rows]
    kill_what_is_left(name for name, here in rows if here)  # before their jobs run again
    lost: list[tuple[Any, ...]] = []
    if dead:
        lost = transaction.fetch(
            "reap",
            dead=dead,
            max_lost=MAX_LOST,
            now=now,
            gone=GONE,
            why=json.dumps(LOST),
        )
        transaction.run("leave", names=dead)
        # Who was given up but lives is to stop what it runs: it looks after what it was asked to stop.
        transaction.news |= Wake.CANCEL
    expired = transaction.fetch("expire", now=now, limit=EXPIRED_AT_ONCE, expired=EXPIRED)
    ended = {job_id for job_id, state in lost if state in _ENDED}
    if len(ended) < len(lost):
        transaction.wake |= Wake.WORK
    ended |= {job_id for (job_id,) in expired}
    transaction.wake |= Wake.ENDED if ended else Wake(0)
    return [Reaped(ended, len(expired) == EXPIRED_AT_ONCE)] * len(requests)


def _prune(transaction: Transaction, requests: Sequence[tuple[int, int]]) -> list[int]:
    return [
        transaction.run("prune", ended_before=ended_before, limit=limit)
        for ended_before, limit in requests
    ]


def _probe(transaction: Transaction, requests: Sequence[None]) -> list[None]:
    """Nothing: the commit of a transaction that has a number is written."""
    return [None] * len(requests)


def _add_key(transaction: Transaction, api_keys: Sequence[ApiKey]) -> list[None]:
    for key in api_keys:
        row = (key.id, key.sha256, key.name, key.owner, json.dumps(sorted(key.scopes)))
        times = (key.created_at, key.expires_at, key.revoked_at)
        transaction.connection.execute(SQL["add_key"], row + times)
    return [None] * len(api_keys)


def _revoke_key(transaction: Transaction, key_ids: Sequence[str]) -> list[bool]:
    return [transaction.run("revoke_key", id=key_id, now=transaction.now) > 0 for key_id in key_ids]


class Sign(NamedTuple):
    """What a claimant tells of itself."""

    lock: int
    host: str
    pid: int


def _beat(transaction: Transaction, signs: Sequence[Sign]) -> list[None]:
    values = signs[0]._asdict()
    if transaction.fetch("beat", claimant=transaction.claimant, now=transaction.now, **values) == [
        (True,)
    ]:
        transaction.wake |= Wake.WORK | Wake.CANCEL
    return [None] * len(signs)


def _leave(transaction: Transaction, requests: Sequence[None]) -> list[None]:
    transaction.run("leave", names=[transaction.claimant])
    transaction.news |= Wake.WORK
    return [None] * len(requests)


def _enter(transaction: Transaction, entries: Sequence[Peer]) -> list[None]:
    for me in entries:
        transaction.run("enter", claimant=transaction.claimant, about=me.model_dump_json())
    return [None] * len(entries)


# In the order within a transaction: what frees a job comes before what takes one. All of it is durable, a claim
# too: the server may crash while its claimant lives, and then one claim must not be made twice.
FINISH = Verb(0, _finish)
RELEASE = Verb(1, _release)
CANCEL: Verb[JobId, JobState] = Verb(2, _cancel)
CANCEL_MANY: Verb[Collection[JobId], set[JobId]] = Verb(3, _cancel_many)
RETRY: Verb[Collection[JobId], set[JobId]] = Verb(4, _retry)
ADD = Verb(5, _add)
REAP = Verb(6, _reap)
PRUNE = Verb(7, _prune)
CLAIM = Verb(8, _claim)
PROBE = Verb(9, _probe)
ADD_KEY: Verb[ApiKey, None] = Verb(10, _add_key)
REVOKE_KEY: Verb[str, bool] = Verb(11, _revoke_key)
BEAT = Verb(12, _beat, durable=False)
LEAVE = Verb(13, _leave)
PUBLISH: Verb[tuple[int, int], Claim] = Verb(14, _publish)
CLAIM_THESE: Verb[Sequence[tuple[JobId, int]], Claim] = Verb(15, _claim_these)
UNPUBLISH: Verb[tuple[str, int], None] = Verb(16, _unpublish)
ENTER: Verb[Peer, None] = Verb(17, _enter, durable=False)
