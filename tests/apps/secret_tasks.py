"""Tasks that are told secrets."""

import hashlib
import time
from pathlib import Path

from pydantic import BaseModel, SecretStr
from quart import request

from jobs import task


class Login(BaseModel):
    user: str
    password: SecretStr


@task(name="uses_secrets")
def uses_secrets(started: str, go_on: str, token: SecretStr, logins: list[Login]) -> list[str]:
    """Says, once it may go on, what came, so that nobody can read it."""
    Path(started).touch()
    while not Path(go_on).exists():
        time.sleep(0.01)
    secrets = [token.get_secret_value(), *(each.password.get_secret_value() for each in logins)]
    secrets += [request.headers["X-Secret"], request.cookies["secret"]]
    return [hashlib.sha256(each.encode()).hexdigest() for each in secrets]


@task(name="fails_with_secrets")
def fails_with_secrets(token: SecretStr) -> None:
    raise ValueError(f"{token} is not good")


@task(name="hands_on")
async def hands_on(token: SecretStr) -> str:
    """From a job to the next."""
    return str((await uses_again.delay(token)).id)


@task(name="uses_again")
def uses_again(token: SecretStr) -> str:
    return hashlib.sha256(token.get_secret_value().encode()).hexdigest()
