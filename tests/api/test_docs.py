"""The documentation page's files, as a browser asks for them; `tests/browser` looks at the page."""

import re

import pytest

from tests.api.conftest import Api, problem


async def test_the_page_is_answered_at_once_and_locked_to_this_server(api: Api) -> None:
    answer = await api.client.get("/docs")
    assert answer.status_code == 200
    assert answer.mimetype == "text/html"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_every_file_that_the_page_names_is_there(api: Api) -> None:
    page = await (await api.client.get("/docs")).get_data(as_text=True)
    names = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert len(names) == 6
    for name in names:
        answer = await api.client.get(f"/{name}")
        assert answer.status_code == 200, name
        assert "unsafe" not in answer.headers.get("Content-Security-Policy", "")
    assert "<script>" not in page
    assert " style=" not in page


async def test_a_browser_that_has_a_file_is_not_sent_it_again(api: Api) -> None:
    answer = await api.client.get("/docs/swagger-ui-bundle.js")
    assert len(await answer.get_data()) > 1_000_000
    assert answer.headers["Cache-Control"] == "no-cache"
    again = await api.client.get(
        "/docs/swagger-ui-bundle.js", headers={"If-None-Match": answer.headers["ETag"]}
    )
    assert again.status_code == 304


async def test_a_file_is_sent_whole_or_not_at_all(api: Api) -> None:
    part = await api.client.get("/docs/docs.js", headers={"Range": "bytes=0-3"})
    assert (part.status_code, (await part.get_data())[:4]) == (200, b'"use')
    other = await api.client.get("/docs/docs.js", headers={"If-Match": '"other"'})
    await problem(other, 412, "precondition-failed")


@pytest.mark.parametrize("name", ["docs.html", "..%2fapp.py", "index.html", "oauth2-redirect.html"])
async def test_no_other_file_is_served(api: Api, name: str) -> None:
    await problem(await api.client.get(f"/docs/{name}"), 404, "not-found")
