"""Why child processes are replaced, for the log."""

import json
import logging

log = logging.getLogger("jobs.engines")


class Retirements:
    """Tells of each once in so many words; of the same again only on the level DEBUG."""

    def __init__(self) -> None:
        self._told: set[tuple[str, ...]] = set()

    def tell(self, payload: bytes) -> None:
        """Of the `Retirement` that a child has sent."""
        about = json.loads(payload)
        task, left = about["task"], about["left"]
        if not left:
            log.debug("a child process is replaced after a job of %s: %s", task, about["because"])
            return
        what = (task, *sorted(left))
        again = what in self._told
        self._told.add(what)
        log.log(
            logging.DEBUG if again else logging.WARNING,
            "a job of %s left its process changed, so that is replaced: %s (if this is meant: @task(keeps=%s))",
            task,
            "; ".join(left.values()),
            json.dumps(sorted(left)),
        )
