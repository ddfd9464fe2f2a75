"""The address that a service listens on."""

import socket

import pytest

from jobs import ConfigurationError
from service.server import AddressUnusable, address_of, bind, is_exposed, url_of


def test_an_address_is_taken_from_the_moment_it_is_bound() -> None:
    with bind("127.0.0.1:0") as first:
        address = url_of(first).removeprefix("http://")
        with pytest.raises(
            AddressUnusable, match=f"cannot listen on {address}: Address already in use"
        ):
            bind(address)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:0", "http://127.0.0.1:"),
        ("localhost:0", "http://"),
        ("0.0.0.0:0", "http://127.0.0.1:"),
        ("[::1]:0", "http://[::1]:"),
    ],
)
def test_the_url_shown_can_be_opened_on_this_machine(address: str, url: str) -> None:
    if address.startswith("[") and not socket.has_dualstack_ipv6():
        return
    with bind(address) as listener:
        shown = url_of(listener)
        assert shown.startswith(url)
        host, _, port = shown.removeprefix("http://").rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


@pytest.mark.parametrize(
    "address", ["", "8000", "host:", ":8000", "host:http", "host:-1", "host:65536"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="expected HOST:PORT"):
        bind(address)


def test_a_host_that_is_not_this_machines_is_refused() -> None:
    with pytest.raises(AddressUnusable, match=r"cannot listen on 192\.0\.2\.1:80"):
        bind("192.0.2.1:80")


@pytest.mark.parametrize(
    ("address", "exposed"),
    [
        ("127.0.0.1:0", False),
        ("127.1.2.3:0", False),
        ("localhost:0", False),
        ("[::1]:0", False),
        ("[::ffff:127.0.0.1]:0", False),
        ("0.0.0.0:0", True),
        ("[::]:0", True),
        ("[::ffff:0.0.0.0]:0", True),
    ],
)
def test_other_machines_reach_what_does_not_listen_on_the_loopback(
    address: str, exposed: bool
) -> None:
    if address.startswith("[") and not socket.has_dualstack_ipv6():
        return
    with bind(address) as listener:
        assert is_exposed(listener) is exposed
        assert address_of(listener).rpartition(":")[0] in (
            address.rpartition(":")[0],
            "127.0.0.1",
            "[::1]",
        )
