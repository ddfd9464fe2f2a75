"""Which lane takes which invocations of a batch."""

import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jobs.model import Invocation

from .flights import fits
from .lane import Lane
from .pace import BUDGET, Pace


class Spread(NamedTuple):
    """Who takes what, lanes by their place."""

    shares: Mapping[int, Sequence[Invocation]]
    fresh: Mapping[
        int, Invocation
    ]  #: those that are to have a process of their own, one after the share
    beyond: Sequence[Invocation]  #: what is too much


def spread(batch: Sequence[Invocation], lanes: Mapping[int, Lane], pace: Pace) -> Spread:
    """Divide the batch evenly by expected work; an invocation that is to have a fresh process closes the
    place that it is given, best one where nothing has run yet."""
    loads = [(lane.expected, lane.jobs, place) for place, lane in lanes.items()]
    heapq.heapify(loads)
    shares: dict[int, list[Invocation]] = {}
    fresh: dict[int, Invocation] = {}
    beyond = []
    for invocation in batch:
        cost = BUDGET if invocation.fresh else pace.expect(invocation.task)
        pace.taken(cost)
        if loads and invocation.fresh:
            unused = (load for load in loads if lanes[load[2]].pristine and load[2] not in shares)
            load = next(unused, loads[0])
            loads.remove(load)
            heapq.heapify(loads)
            fresh[load[2]] = invocation
        elif loads and fits(cost, *loads[0][:2]):
            expected, jobs, place = loads[0]
            shares.setdefault(place, []).append(invocation)
            heapq.heapreplace(loads, (expected + cost, jobs + 1, place))
        else:
            beyond.append(invocation)
    return Spread(shares, fresh, beyond)
