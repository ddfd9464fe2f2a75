"""The verdict on a run, in the style of Jepsen's total-queue checker: of what was accepted nothing is
lost; nothing runs that nobody asked for; nothing runs twice without a fault that explains it; and what
was accepted unknown to its client is recovered, which is fine (https://github.com/jepsen-io/jepsen).

`judge` is a pure function of what was gathered, so it can be tested on histories made by hand.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from jobs.model import JobState

from .case import Case, Delay, Limits
from .effects import Effects, Run
from .history import Answer, Cancel, Event, Fault, Gone, Sighting, Start, Submission
from .observer import Row

T = TypeVar("T")

PROMISED = Limits()


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a run."""

    events: Sequence[Event] = ()
    effects: Effects = field(default_factory=Effects)
    rows: Sequence[Row] = ()  #: once all was quiet

    def of(self, kind: type[T]) -> list[T]:
        """The events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def submissions(self) -> list[Submission]:
        """Those of the clients, and those of jobs."""
        return [*self.of(Submission), *self.effects.submissions]


class Violation(NamedTuple):
    """A promise that was not kept."""

    kind: str  #: lost, unexpected, duplicated, overlapping, impossible or late
    job: str  #: its id, or the client's token
    what: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it."""

    violations: Sequence[Violation]
    jobs: Mapping[str, int]
    faults: Mapping[str, int]
    slowest: Mapping[str, Delay]  #: of each kind
    where: str = "one machine"  #: it was played

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations

    def kinds(self) -> Counter[str]:
        """How many violations of each kind."""
        return Counter(violation.kind for violation in self.violations)

    def __str__(self) -> str:
        slowest = [
            f"{name} {took:.2f} of {limit:g} s" for name, took, limit in self.slowest.values()
        ]
        return "\n".join(
            [
                *(f"{each.kind.upper()} {each.job}: {each.what}" for each in self.violations),
                "where    " + self.where,
                "jobs     " + _listed(self.jobs),
                "faults   " + _listed(self.faults),
                "slowest  " + (", ".join(slowest) or "nothing to measure"),
                "verdict  " + ("all promises kept" if self.good else _listed(self.kinds())),
            ]
        )


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in numbers.items()) or "none"


def judge(evidence: Evidence, limits: Limits = PROMISED) -> Verdict:
    """What is to be said of a run that has come to rest."""
    cases = _cases(evidence)
    violations = [*_kept(evidence), *_asked_for(evidence)]
    for case in cases:
        violations += [
            Violation(kind, case.row.job_id, what) for kind, what in case.findings(limits)
        ]
    delays = [delay for case in cases for delay in case.delays(limits)]
    for gone in evidence.of(Gone):
        took = gone.gone - gone.killed
        delays.append(Delay("the end of a killed family", took, limits.survivors))
        if took > limits.survivors * limits.patience:
            what = f"its processes lived on for {took:.2f} s"
            violations.append(Violation("late", gone.member, what))
    slowest = {each.name: each for each in sorted(delays, key=lambda delay: delay.took)}
    faults = Counter(fault.kind for fault in evidence.of(Fault))
    return Verdict(violations, _numbers(evidence), dict(faults.most_common()), slowest)


def _cases(evidence: Evidence) -> list[Case]:
    runs: defaultdict[str, list[Run]] = defaultdict(list)
    for run in evidence.effects.runs:
        runs[run.job_id].append(run)
    sightings: defaultdict[str, list[Sighting]] = defaultdict(list)
    for seen in sorted(evidence.of(Sighting), key=lambda seen: seen.time):
        sightings[seen.job_id].append(seen)
    cancelled = {cancel.job_id for cancel in evidence.of(Cancel)}
    faults, starts = evidence.of(Fault), evidence.of(Start)
    return [
        Case(
            row,
            runs[row.job_id],
            sightings[row.job_id],
            faults,
            starts,
            cancelled=row.job_id in cancelled,
        )
        for row in evidence.rows
    ]


def _kept(evidence: Evidence) -> Iterator[Violation]:
    """What was accepted is there, once, under the id that was given."""
    kept: defaultdict[str | None, list[Row]] = defaultdict(list)
    for row in evidence.rows:
        kept[row.token].append(row)
    for submission in evidence.submissions:
        found = [row.job_id for row in kept[submission.token]]
        job = submission.job_id or submission.token
        if submission.answer is Answer.ACCEPTED and job not in found:
            yield Violation("lost", job, f"it was accepted, and is not kept ({submission.token})")
        if submission.answer is Answer.REFUSED and found:
            yield Violation("unexpected", found[0], f"it was refused: {submission.detail}")
        if len(found) > 1:
            yield Violation("duplicated", job, f"asked for once, it is kept as {', '.join(found)}")


def _asked_for(evidence: Evidence) -> Iterator[Violation]:
    """What is there, or ran, was asked for."""
    tokens = {submission.token for submission in evidence.submissions}
    for row in evidence.rows:
        if row.token not in tokens:
            yield Violation("unexpected", row.job_id, "nobody asked for it")
    known = {row.job_id for row in evidence.rows}
    for job_id in {run.job_id for run in evidence.effects.runs} - known:
        yield Violation("unexpected", job_id, "it ran, and is not kept")


def _numbers(evidence: Evidence) -> dict[str, int]:
    kept = {row.token for row in evidence.rows}
    answers = Counter(submission.answer for submission in evidence.submissions)
    states = Counter(row.state for row in evidence.rows)
    attempts = {row.job_id: row.attempt for row in evidence.rows}
    return {
        "asked for": len(evidence.submissions),
        "accepted": answers[Answer.ACCEPTED],
        "refused": answers[Answer.REFUSED],
        "of unknown fate": answers[Answer.UNKNOWN],
        "recovered": sum(
            submission.answer is Answer.UNKNOWN and submission.token in kept
            for submission in evidence.submissions
        ),
        "runs": len(evidence.effects.runs),
        "results too late": sum(
            run.how == "ok" and run.attempt < attempts.get(run.job_id, 0)
            for run in evidence.effects.runs
        ),
        **{state.value: states[state] for state in JobState if states[state]},
        "crashes": sum(row.crashes for row in evidence.rows),
        "losses": sum(row.lost for row in evidence.rows),
    }
