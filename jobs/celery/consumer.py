"""Celery's consumer, for which no task of ours is unknown and the loss of a broker is not the end."""

from typing import Any

from celery.utils.log import get_logger
from celery.worker.consumer import Consumer

from .app import HEADER, BadMessage, read

log = get_logger("jobs.celery")


class JobsConsumer(Consumer):  # type: ignore[misc]
    """Takes a job of a task that this worker has not, so that the job fails and says so, as it does in a lane of
    ours; Celery would drop the message, and the job would be announced for ever."""

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """See Celery's."""
        headers = message.headers
        if HEADER not in headers:
            super().on_unknown_task(body, message, exc)
            return
        try:
            wanted = read(headers[HEADER], message.decode()[0])
        except (BadMessage, LookupError, TypeError) as error:
            log.error("a message for task %s is not acted on: %s", headers.get("task"), error)
            message.ack_log_error(log, self.connection_errors)
            return

        def acknowledge(_: Any) -> None:
            message.ack_log_error(log, self.connection_errors)

        self.pool.take(wanted, headers["task"], acknowledge)

    def call_soon_ack(self, p: Any, *args: Any, **kwargs: Any) -> Any:
        """See Celery's."""

        def acknowledge(*told: Any, **how: Any) -> None:
            try:
                p(*told, **how)
            except AttributeError as error:
                # A job has ended while the broker was away. The connection that brought its message has been taken
                # apart, of which kombu 5.7.0 knows nothing, and the worker ends. The store has the job's end.
                log.debug("a message of a lost connection is not acknowledged: %s", error)

        return super().call_soon_ack(acknowledge, *args, **kwargs)

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """See Celery's."""
        try:
            super().on_connection_error_after_connected(exc)
        except AttributeError as error:
            # Celery 5.7.0 closes a connection that kombu 5.7.0 has just taken apart, and the worker ends of it.
            log.debug("the lost connection was closed twice: %s", error)
