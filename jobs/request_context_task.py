"""Celery tasks that see the Flask request they were sent from."""

from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from celery import Task, current_task
from celery.utils import uuid
from flask import Flask, current_app, g, has_app_context, has_request_context, request

from .errors import BadContext, ConfigurationError
from .frameworks.flask import restored, take
from .sealing import Sealer, find_keys
from .settings import Settings
from .snapshot import Carrier, RequestSnapshot, carried

HEADER = "jobs_request"  #: of the message: the snapshot, sealed for the task's id, as Base64


class RequestContextTask(Task):  # type: ignore[misc]
    """Base of Celery tasks that run with the request they were sent from: `request`, `g`, `session`,
    `url_for`, `current_app`.

    `@celery.task(base=RequestContextTask, bind=True)`, and once `celery.flask_app = app`. The request
    travels as a header of the message, sealed with `JOBS_SECRET_KEY` or the app's `SECRET_KEY`, with
    `delay`, `apply_async` and `apply`; with each `retry`, as it was; and to the next task of a chain.
    Its body does not travel. Sent from outside a request, a task has the app's context only.

    Options of the decorator, or attributes of a subclass:
        carry: names of `g` that travel; JSON, pydantic models and dataclasses do.
        carriers: `Carrier`s, by name, for values that do not.
        after_request: whether the app's after-request functions see each result.
        flask_app: the app, if not that of the Celery app.

    Sending raises `ConfigurationError` and `NotCarriable`; a task whose message cannot be opened fails
    with `BadContext`.
    """

    abstract = True

    carry: Collection[str] = ()
    carriers: Mapping[str, Carrier] = {}
    after_request: bool = False
    flask_app: Flask | None = None

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> Any:
        """Send the task, and the request it is sent from."""
        task_id = task_id or uuid()
        options["headers"] = self._with_request(options.get("headers"), task_id)
        return super().apply_async(args, kwargs, task_id=task_id, **options)

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> Any:
        """Run the task here and now, as a worker would."""
        task_id = task_id or uuid()
        options["headers"] = self._with_request(options.get("headers"), task_id)
        return super().apply(args, kwargs, task_id=task_id, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run within the restored context; called as the plain function that it also is, in the caller's."""
        work = self.request
        if work.called_directly or getattr(work, "is_restored", False):
            return super().__call__(*args, **kwargs)
        work.is_restored = True
        app = self._flask()
        snapshot = _opened(work, app)
        with restored(app, snapshot, self.carriers, after_request=self.after_request) as context:
            context.result = self.run(*args, **kwargs)
        return context.result

    def _with_request(
        self, headers: Mapping[str, Any] | None, task_id: str
    ) -> dict[str, Any] | None:
        kept = dict(headers or {})
        if HEADER in kept:
            try:
                _open(kept[HEADER], task_id, self._flask())
            except BadContext:
                del kept[HEADER]  # another task's, handed on
            else:
                return kept  # a retry's, or on the way from apply_async to apply
        snapshot = self._snapshot()
        if snapshot is not None:
            text = snapshot.model_dump_json().encode()
            kept[HEADER] = b64encode(_sealer(self._flask()).seal(task_id, text)).decode()
        return kept or None

    def _snapshot(self) -> RequestSnapshot | None:
        if has_request_context():
            here = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
            return take(here, carried(g, self.carry, self.carriers))
        # In a worker, the next task of a chain is sent after the context of the one before has ended.
        return _opened(current_task.request, self._flask()) if current_task else None

    def _flask(self) -> Flask:
        app = self.flask_app or getattr(self.app, "flask_app", None)
        if app is None and has_app_context():
            app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
        if not isinstance(app, Flask):
            raise ConfigurationError(
                f"the task {self.name} does not know its Flask app: set `celery.flask_app = app`, where `celery`"
                " is the Celery app, or @celery.task(base=RequestContextTask, flask_app=app)"
            )
        return app


def _opened(work: Any, app: Flask) -> RequestSnapshot | None:
    """The snapshot that a task (its Celery request) came with."""
    sealed = (work.headers or {}).get(HEADER)
    return None if sealed is None else _open(sealed, work.id, app)


def _open(sealed: Any, task_id: str, app: Flask) -> RequestSnapshot:
    try:
        blob = b64decode(sealed, validate=True)
    except (TypeError, ValueError):
        raise BadContext(f"the message's header {HEADER} is no Base64") from None
    return RequestSnapshot.read(_sealer(app).open(task_id, blob))


def _sealer(app: Flask) -> Sealer:
    made = app.extensions.get(HEADER)
    if made is None:
        settings = Settings.load(config=app.config)
        fallbacks = app.config.get("SECRET_KEY_FALLBACKS") or ()
        made = app.extensions[HEADER] = Sealer(find_keys(settings, app.secret_key, fallbacks, None))
    sealer: Sealer = made
    return sealer
