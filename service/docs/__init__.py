"""The API's documentation page: Swagger UI, whole, from this process."""

from importlib.resources import files
from pathlib import Path

import flask_swagger_ui
from quart import Response, send_file

from service.api.problems import NOT_FOUND, PRECONDITION, Refusal
from service.api.render import if_changed
from service.api.routes import Answer, Parameter, Routes

routes = Routes("Documentation")

_here = Path(str(files(__name__)))
_dist = Path(flask_swagger_ui.__file__).parent / "dist"

_FILES = {
    "swagger-ui.css": _dist / "swagger-ui.css",
    "swagger-ui-bundle.js": _dist / "swagger-ui-bundle.js",
    "favicon-32x32.png": _dist / "favicon-32x32.png",
    "docs.css": _here / "docs.css",
    "docs.js": _here / "docs.js",
}

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, but asked about each time: an upgrade shows at once
}


_OF_FILES = (*_HEADERS, "ETag", "Last-Modified")
_SAME = Answer(304, "It is as it was.", headers=_OF_FILES, media_type="")


@routes.add(
    "GET",
    "/docs",
    "Read and try this API",
    scope=None,
    answers=(Answer(200, "Swagger UI.", media_type="text/html", headers=_OF_FILES), _SAME),
    problems=(PRECONDITION,),
)
async def docs_page() -> Response:
    return await _send(_here / "docs.html")


@routes.add(
    "GET",
    "/docs/<file>",
    "A file of that page",
    scope=None,
    parameters=(Parameter("file", "Its name.", {"enum": list(_FILES)}, place="path"),),
    answers=(
        *(
            Answer(200, "The file.", media_type=media, headers=_OF_FILES)
            for media in ("text/css", "text/javascript", "image/png")
        ),
        _SAME,
    ),
    problems=(NOT_FOUND, PRECONDITION),
)
async def docs_file(file: str) -> Response:
    if file not in _FILES:
        raise Refusal(NOT_FOUND, f"the documentation page has no file {file!r}")
    return await _send(_FILES[file])


async def _send(path: Path) -> Response:
    response = await send_file(path)
    response.headers.update(_HEADERS)
    response.headers.pop("Expires", None)
    return await if_changed(response)
