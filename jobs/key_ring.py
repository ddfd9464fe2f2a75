"""The keys of a store, remembered for a moment, so that a request costs no look into the store."""

import asyncio
import hmac
from math import inf
from time import monotonic

from .keys import ApiKey, parts
from .model import now_ms
from .protocols import Store

MAX_AGE = 2.0  #: seconds until a key that another process has revoked is refused here
NEWS_AGE = 0.1  #: seconds until a key that another process has made is good here, at most

_NOBODY = bytes(32)  #: what an unknown key is compared with, so that it takes no other way


class KeyRing:
    """Knows which key is good. Keys are few: all are read at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: dict[str, ApiKey] = {}
        self._read_at = -inf
        self._reading = asyncio.Lock()

    async def find(self, text: str) -> ApiKey | None:
        """The key with this text, if it is good now. Raises `StoreError`."""
        found = parts(text)
        if found is None:
            return None
        key_id, sha256 = found
        key = (await self._known(MAX_AGE)).get(key_id)
        if key is None:
            key = (await self._known(NEWS_AGE)).get(key_id)
        return _if_good(key, sha256)

    def recall(self, text: str) -> ApiKey | None:
        """As `find`, by the last look into the store, however long ago: not to let anyone in."""
        found = parts(text)
        return None if found is None else _if_good(self._keys.get(found[0]), found[1])

    async def holds(self, key_id: str) -> bool:
        """Whether the key with this id is good now. Raises `StoreError`."""
        key = (await self._known(MAX_AGE)).get(key_id)
        return key is not None and key.holds(now_ms())

    @property
    def seems_empty(self) -> bool:
        """Whether no key was there at the last look, if that is recent enough to tell without another one."""
        return not self._keys and monotonic() - self._read_at <= MAX_AGE

    async def is_empty(self) -> bool:
        """Whether no key was ever made, and so none can be asked for. Raises `StoreError`."""
        return not await self._known(MAX_AGE)

    async def add(self, key: ApiKey) -> None:
        """Keep a new key; it is good at once here. Raises `StoreError`."""
        await self._store.add_key(key)
        await self._read()

    async def revoke(self, key_id: str) -> bool:
        """End a key: at once here, after `MAX_AGE` in other processes. False if there is none with this id.
        Raises `StoreError`."""
        known = await self._store.revoke_key(key_id)
        await self._read()
        return known

    async def _known(self, age: float) -> dict[str, ApiKey]:
        if monotonic() - self._read_at > age:
            await self._read(age)
        return self._keys

    async def _read(self, age: float = -1.0) -> None:
        async with self._reading:
            began = monotonic()
            if began - self._read_at > age:  # else another has read it meanwhile
                self._keys = {key.id: key for key in await self._store.keys()}
                self._read_at = began


def _if_good(key: ApiKey | None, sha256: bytes) -> ApiKey | None:
    same = hmac.compare_digest(sha256, _NOBODY if key is None else key.sha256)
    return key if same and key is not None and key.holds(now_ms()) else None
