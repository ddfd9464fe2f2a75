"""Rows of API keys."""

import json
from collections.abc import Sequence

from jobs.keys import ApiKey

from .commits import Transaction
from .queries import SQL
from .verbs import Verb


def _add(transaction: Transaction, keys: Sequence[ApiKey]) -> list[None]:
    transaction.connection.executemany(
        SQL["add_key"],
        [
            (
                *(key.id, key.sha256, key.name, key.owner, json.dumps(sorted(key.scopes))),
                *(key.created_at, key.expires_at, key.revoked_at),
            )
            for key in keys
        ],
    )
    return [None] * len(keys)


def _revoke(transaction: Transaction, key_ids: Sequence[str]) -> list[bool]:
    connection, now = transaction.connection, transaction.now
    return [
        connection.execute(SQL["revoke_key"], {"id": key_id, "now": now}).rowcount > 0
        for key_id in key_ids
    ]


ADD_KEY: Verb[ApiKey, None] = Verb(8, _add)
REVOKE_KEY: Verb[str, bool] = Verb(9, _revoke)
