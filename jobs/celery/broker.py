"""The service's end: announces jobs as messages to Celery's workers."""

from collections.abc import Collection, Sequence
from typing import Any

from kombu import Connection, Producer

from jobs.errors import BrokerUnreachable
from jobs.model import Job

from .app import make_app, message_of

DEADLINE = 5.0  #: seconds that one exchange with the broker may take


class CeleryBroker:
    """A `Broker`. See there; `url` is Celery's `broker_url`."""

    def __init__(self, url: str) -> None:
        self._app = make_app(url)
        self._app.finalize()
        options: dict[str, Any] = {}
        if url.startswith(("redis", "valkey")):
            options = {"socket_timeout": DEADLINE, "socket_connect_timeout": DEADLINE}
        elif url.startswith(("amqp", "pyamqp")):
            options = {"confirm_publish": True, "read_timeout": DEADLINE, "write_timeout": DEADLINE}
        self._connection: Connection = self._app.connection_for_write(
            connect_timeout=DEADLINE, transport_options=options
        )
        self._producer: Producer | None = None

    @property
    def name(self) -> str:
        """Its URL; the password is left out."""
        uri: str = self._connection.as_uri()
        return uri

    def publish(self, jobs: Sequence[Job]) -> None:
        """See `Broker.publish`. RabbitMQ confirms each message."""
        app = self._app
        try:
            producer = self._open()
            for job in jobs:
                app.amqp.send_task_message(
                    producer,
                    job.task,
                    message_of(app, job),
                    queue=job.queue,
                    timeout=DEADLINE,
                    confirm_timeout=DEADLINE,
                )
        except Exception as error:
            self._drop()
            raise self._unreachable(error) from error

    def depths(self, queues: Collection[str]) -> dict[str, int]:
        """See `Broker.depths`."""
        found = {}
        try:
            self._open()
            for queue in queues:
                found[queue] = self._depth(queue)
        except Exception as error:
            self._drop()
            raise self._unreachable(error) from error
        return found

    def close(self) -> None:
        """See `Broker.close`."""
        self._drop()

    def _depth(self, queue: str) -> int:
        with self._connection.channel() as channel:
            try:
                declared = channel.queue_declare(queue=queue, passive=True)
            except self._connection.channel_errors:
                return 0  # there is no such queue
            return int(declared.message_count)

    def _open(self) -> Producer:
        if self._producer is None:
            self._connection.connect()
            self._producer = self._app.amqp.Producer(self._connection.channel())
        elif not self._connection.connected:
            self._drop()
            return self._open()
        return self._producer

    def _drop(self) -> None:
        self._producer = None
        self._connection.collect(socket_timeout=0.1)

    def _unreachable(self, error: Exception) -> BrokerUnreachable:
        return BrokerUnreachable(f"{type(error).__name__}: {error}")
