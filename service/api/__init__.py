"""The job API over HTTP: `app.register_blueprint(blueprint)`, or `jobs_api(url_prefix="/api")`."""

from .blueprint import answer_with_problems, blueprint, jobs_api

__all__ = ["answer_with_problems", "blueprint", "jobs_api"]
