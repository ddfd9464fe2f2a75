"""The ready-made service: an app with the job API and nothing else."""

from quart import Quart

from jobs.extension import Jobs
from jobs.registry import Registry, default_registry
from jobs.settings import Settings

from .api import answer_with_problems, blueprint
from .api.body import LINGER_BYTES
from .loading import import_module


def create_app(settings: Settings | None = None, *, registry: Registry = default_registry) -> Quart:
    """The app: its tasks imported, nothing opened before it is served.

    Raises `AppNotImportable` naming the task module that fails, and why.
    """
    settings = settings or Settings.load()
    for module in settings.tasks:
        import_module(module)
    app = Quart(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # its redirects would be HTML
    # What the routes read is limited more tightly; beyond this, Quart keeps nothing.
    app.config["MAX_CONTENT_LENGTH"] = LINGER_BYTES
    Jobs(
        app,
        child=f"{__name__}:create_app()",
        registry=registry,
        **settings.model_dump(exclude_unset=True),
    )
    app.register_blueprint(blueprint)
    answer_with_problems(app)
    return app
