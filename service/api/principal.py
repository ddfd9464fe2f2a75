"""Who asks, what they may do, and whose jobs they see."""

import inspect
from collections.abc import Awaitable, Callable, Hashable
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from quart import Request, Response

from jobs.errors import JobNotFound, StoreError
from jobs.extension import Jobs
from jobs.key_ring import KeyRing
from jobs.keys import Scope
from jobs.model import Job, JobId, JobQuery

from .charge import at_hand
from .extension import running
from .problems import MISSING_SCOPE, UNAUTHENTICATED, Refusal
from .routes import Route, View, current_request

CHALLENGE = 'Bearer realm="quart-jobs"'


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller.

    Args:
        owner: whose jobs it submits and sees; None, for an admin only: nobody's in particular.
        scopes: what it may do; `admin` is everything, to everyone's jobs.
        key: the id of the API key that it showed, if any.
    """

    owner: str | None
    scopes: AbstractSet[Scope]
    key: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scopes", frozenset(map(Scope, self.scopes)))
        if not self.owner and (self.owner is not None or not self.is_admin):
            raise ValueError("a principal that is not an admin has an owner, which is not empty")

    @property
    def is_admin(self) -> bool:
        """Whether it sees everyone's jobs."""
        return Scope.ADMIN in self.scopes

    @property
    def account(self) -> Hashable | None:
        """Whom its requests are counted for; None: nobody in particular."""
        return None if self.owner is None else _account(self.key, self.owner)

    def may(self, scope: Scope) -> bool:
        """Whether it may do what needs this scope."""
        return scope in self.scopes or self.is_admin

    def sees(self, job: Job) -> bool:
        """Whether this job exists, for this caller."""
        return self.sees_jobs_of(job.owner)

    def sees_jobs_of(self, owner: str | None) -> bool:
        """Whether the jobs of this owner exist, for this caller."""
        return self.is_admin or owner == self.owner


def _account(key: str | None, owner: str) -> Hashable:
    """Each key of an owner has one of its own."""
    return key, owner


Hook = Callable[[Request], Principal | Awaitable[Principal | None] | None]
"""Says who sent a request; None: nobody that may use the API."""

_made = lru_cache(maxsize=1000)(Principal)  # making one is half the price of knowing a key

ANYONE = Principal(None, frozenset({Scope.ADMIN}))
"""Every caller, where no keys are wanted."""

_principal: ContextVar[Principal] = ContextVar("jobs_principal")


def principal() -> Principal:
    """Who sent the request at hand, in a view whose route has a scope."""
    return _principal.get()


def still_good() -> Callable[[], Awaitable[bool]] | None:
    """Asks, while the answer to the request at hand goes on, whether the API key in it is good still; None where
    there was none."""
    key, keys = principal().key, running().keys
    if key is None:
        return None

    async def good() -> bool:
        try:
            return await keys.holds(key)
        except StoreError:
            return False

    return good


async def visible_job(job_id: str) -> Job:
    """The job with this id, if the caller may see it. Raises `JobNotFound`: a job of someone else's is
    no other than none."""
    job = await running().get_job(JobId(job_id))
    if not principal().sees(job):
        raise JobNotFound(job_id)
    return job


def visible(query: JobQuery) -> JobQuery:
    """The query, narrowed to the jobs that the caller may see. Raises `Refusal` for the jobs of someone
    else's."""
    asker = principal()
    if asker.is_admin or query.owner == asker.owner:
        return query
    if query.owner is not None:
        raise _not_allowed(Scope.ADMIN, "the jobs of another owner")
    return replace(query, owner=asker.owner)


def for_callers(route: Route, hook: Hook | None) -> View:
    """The view of a route, for those callers that have its scope."""
    scope, view = route.scope, route.view
    if scope is None:
        return view

    async def admitted(**arguments: str) -> Response:
        asker = await _asker(hook)
        if (charge := at_hand.get()) is not None and asker.account is not None:
            charge.move(asker.account)
        if not asker.may(scope):
            raise _not_allowed(scope, "this")
        _principal.set(asker)
        return await view(**arguments)

    return admitted


async def key_principal(request: Request) -> Principal | None:
    """Who sent a request, by the API key in its `Authorization: Bearer …`; for a hook that knows other
    callers too. Raises `NotRunning`, `StoreError`."""
    text = _key_given(request.scope)
    if text is None:
        return None
    key = await running().keys.find(text)
    return None if key is None else _made(key.owner, key.scopes, key.id)


def by_key(keys: KeyRing) -> Callable[[Any], Hashable | None]:
    """Tells by the head of a request alone whom it is counted for: a good API key, if one is in it."""

    def account(scope: Any) -> Hashable | None:
        text = _key_given(scope)
        key = None if text is None else keys.recall(text)
        return None if key is None else _account(key.id, key.owner)

    return account


def _key_given(scope: Any) -> str | None:
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(given) != 1:
        return None
    scheme, _, text = given[0].decode("latin-1").partition(" ")
    return text.strip(" ") if scheme.lower() == "bearer" else None


async def _asker(hook: Hook | None) -> Principal:
    if hook is not None:
        said = hook(current_request())
        found = await said if inspect.isawaitable(said) else said
    else:
        jobs = running()
        if jobs.settings.auth == "off":
            return ANYONE
        here = current_request()
        # The key first: it may be the news that keys are wanted from now on.
        found = None if _key_given(here.scope) is None else await key_principal(here)
        if found is None and not await _wants_keys(jobs):
            return ANYONE
    if found is None:
        # One wording for all: which part of a key was wrong is nobody's business.
        raise Refusal(
            UNAUTHENTICATED,
            "an API key that is good now is expected, as Authorization: Bearer <key>"
            if hook is None
            else "the app does not know who sent this",
            headers={"WWW-Authenticate": CHALLENGE},
        )
    return found


async def keys_are_wanted() -> bool:
    """Whether a caller without a key is refused, as far as no hook says who it is."""
    return await _wants_keys(running())


async def _wants_keys(jobs: Jobs) -> bool:
    auth = jobs.settings.auth
    if auth == "auto":
        return not (jobs.keys.seems_empty or await jobs.keys.is_empty())
    return auth == "required"


def _not_allowed(scope: Scope, what: str) -> Refusal:
    return Refusal(
        MISSING_SCOPE,
        f"{what} needs the scope {scope.value!r}, which the caller does not have",
        headers={
            "WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="{scope.value}"'
        },
    )
