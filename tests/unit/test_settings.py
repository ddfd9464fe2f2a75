"""Settings: where they come from, and the page that lists them."""

import re
from pathlib import Path

import pytest

from jobs.errors import ConfigurationError
from jobs.settings import Settings

PAGE = Path(__file__).parents[2] / "docs/reference/settings.md"


def test_the_page_lists_every_setting_with_its_default_and_meaning() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [
        (name, _shown(field.default), field.description)
        for name, field in Settings.model_fields.items()
    ]


def _shown(default: object) -> str:
    if default in (None, ()):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def test_the_nearest_place_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"JOBS_NICE": 1, "JOBS_LANES": 1, "JOBS_GRACE": 1, "JOBS_WORKERS": 9, "DEBUG": True}
    arguments = {"nice": 2, "lanes": 2, "grace": 2}
    monkeypatch.setenv("JOBS_NICE", "4")
    monkeypatch.setenv("JOBS_LANES", "3")
    settings = Settings.load(arguments=arguments, config=config)
    found = (settings.nice, settings.lanes, settings.grace, settings.workers, settings.stop_grace)
    assert found == (4, 3, 2.0, 9, 5.0)


def test_lists_are_comma_separated_and_secrets_are_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JOBS_TASKS", "shop.mail, shop.stock,")
    monkeypatch.setenv("JOBS_SECRET_KEY_FALLBACKS", "old,older")
    settings = Settings.load(arguments={"secret_key": "hush"})
    assert settings.tasks == ("shop.mail", "shop.stock")
    assert [key.get_secret_value() for key in settings.secret_key_fallbacks] == ["old", "older"]
    assert "hush" not in repr(settings)
    assert "older" not in repr(settings)


def test_the_cores_are_divided_among_the_service_processes() -> None:
    cores = Settings.load().lane_count
    assert Settings.load(arguments={"workers": 2}).lane_count == max(1, cores // 2)
    assert Settings.load(arguments={"workers": 256}).lane_count == 1
    assert Settings.load(arguments={"workers": 2, "lanes": 0}).lane_count == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"lanes": -1}, "JOBS_LANES.*-1"),
        ({"grace": "soon"}, "JOBS_GRACE.*'soon'"),
        ({"lane": 1}, "no setting is named 'lane'"),
    ],
)
def test_a_wrong_setting_is_named(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        Settings.load(arguments=arguments)


def test_a_wrong_secret_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="JOBS_SECRET_KEY") as raised:
        Settings.load(arguments={"secret_key": ["hush"]})
    assert "hush" not in str(raised.value)


def test_a_wrong_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBS_NICE", "very")
    with pytest.raises(ConfigurationError, match="JOBS_NICE"):
        Settings.load()
