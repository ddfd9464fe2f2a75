"""What one release says of itself and another reads."""

from jobs.peers import read_peers

SAID = (
    '{"name": "a", "release": "9.0", "schema_version": 9, "engine": "new", "lanes": 1, "host": "h", "pid": 7,'
    ' "opened_at": 1, "tasks": ["t"], "later": {"more": true}}'
)


def test_what_a_later_release_says_besides_is_skipped() -> None:
    (peer,) = read_peers([(9, "a", SAID)]).processes
    assert (peer.release, peer.tasks, str(peer)) == ("9.0", ("t",), "the worker 7 on h")


def test_what_it_says_in_another_way_is_still_somebody() -> None:
    (peer,) = read_peers([(9, "a", '{"version": 2}')]).processes
    assert (peer.name, peer.release, peer.runs_jobs) == ("a", "unknown", False)


def test_where_nobody_has_entered_the_schema_is_known() -> None:
    peers = read_peers([(9, None, None)])
    assert (peers.schema_version, peers.processes) == (9, ())
