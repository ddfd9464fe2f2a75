"""API keys: what their text is, and when they are good."""

import re

import pytest

from jobs.errors import ConfigurationError
from jobs.keys import DEFAULT_SCOPES, holds_key, new_key, parts


def test_the_text_of_a_key_has_256_random_bits_and_only_their_hash_is_kept() -> None:
    made = [new_key("ci") for _ in range(100)]
    for key, text in made:
        match = re.fullmatch(r"qj_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", text)
        assert match
        assert parts(text) == (key.id, key.sha256)
        assert match[2] not in repr(key)
        assert holds_key(f"Bearer {text}")
    assert len({key.id for key, _ in made}) == len({key.sha256 for key, _ in made}) == 100


def test_what_is_not_the_text_of_a_key_is_none() -> None:
    _, text = new_key("ci")
    for other in (
        "",
        "qj_",
        text[:-1],
        text + "A",
        f" {text}",
        f"{text}\n",
        text.upper(),
        text[3:],
    ):
        assert parts(other) is None
    assert not holds_key("Bearer qj_token.of.another.kind")


def test_a_key_is_its_names_may_do_what_is_usual_and_does_not_end_unless_told_otherwise() -> None:
    key, _ = new_key("ci")
    assert (key.owner, key.scopes, key.expires_at) == ("ci", DEFAULT_SCOPES, None)
    short, _ = new_key("ci", lasts=1.5)
    assert short.expires_at == short.created_at + 1500
    assert short.holds(short.created_at + 1499)
    assert not short.holds(short.created_at + 1500)


@pytest.mark.parametrize(
    ("name", "owner", "named"),
    [("", "ann", "name"), ("ci", "", "owner"), ("a\0b", None, "name"), ("c" * 256, None, "name")],
)
def test_a_name_or_owner_that_cannot_be_is_refused(
    name: str, owner: str | None, named: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"the {named} of a key"):
        new_key(name, owner=owner)
