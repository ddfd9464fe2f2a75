"""How long tasks take, measured: what decides how many jobs go to a lane at once."""

BUDGET = 0.005  #: seconds of expected work that a lane is given; of an unknown task, one job is that much
_OVERHEAD = 0.00002  #: seconds that any job costs
_WEIGHT = 0.2  #: of the newest run in the moving average


class Pace:
    """Moving averages of run times, in seconds, by task and overall."""

    def __init__(self) -> None:
        self._by_task: dict[str, float] = {}
        self.typical = BUDGET

    def expect(self, task: str) -> float:
        """How long the next run of the task may take, at most `BUDGET`."""
        return min(self._by_task.get(task, BUDGET), BUDGET)

    def taken(self, cost: float) -> None:
        """A job with this expectation has been taken on: those after it may well be like it."""
        self.typical += _WEIGHT * (cost - self.typical)

    def learn(self, task: str, took: float) -> None:
        """A run of the task took this long."""
        took += _OVERHEAD
        known = self._by_task.get(task, took)
        self._by_task[task] = known + _WEIGHT * (took - known)
        self.taken(min(took, BUDGET))
