"""The job API over HTTP: `app.register_blueprint(blueprint)`, or `jobs_api(url_prefix="/api")`."""

from jobs.keys import Scope

from .blueprint import answer_with_problems, blueprint, jobs_api, takes_keys
from .principal import Principal, key_principal

__all__ = [
    "Principal",
    "Scope",
    "answer_with_problems",
    "blueprint",
    "jobs_api",
    "key_principal",
    "takes_keys",
]
