"""Which address a request counts for."""

from __future__ import annotations

import pytest

from gauzian.accounts.address import Addresses
from tests.asgi import scope_of

PROXIES = ("10.0.0.0/8", "127.0.0.1", "fd00::/8")


@pytest.mark.parametrize(
    ("client", "forwarded", "expected"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["192.0.2.1"], "203.0.113.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["192.0.2.9, 192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["192.0.2.9, 192.0.2.1 , 10.0.0.2"], "192.0.2.1"),
        ("10.0.0.1", ["192.0.2.9", "192.0.2.1,10.0.0.2"], "192.0.2.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["192.0.2.1, junk"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1:4711"], "192.0.2.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::/64"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::/64"),
        ("2001:db8::ffff:1", [], "2001:db8::/64"),
        ("::ffff:203.0.113.7", [], "203.0.113.7"),
        ("::ffff:10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["192.0.2.1" + ", 10.0.0.2" * 100], "10.0.0.2"),
        ("not an address", ["192.0.2.1"], "unknown"),
    ],
)
def test_the_last_hop_that_is_not_ours_is_who_asks(client: str, forwarded: list[str], expected: str) -> None:
    headers = [("X-Forwarded-For", line) for line in forwarded]
    assert Addresses(PROXIES).of(scope_of("GET", "/", headers=headers, client=(client, 1))) == expected


def test_without_trusted_proxies_the_header_is_hearsay() -> None:
    scope = scope_of("GET", "/", headers={"X-Forwarded-For": "192.0.2.1"}, client=("127.0.0.1", 1))
    assert Addresses().of(scope) == "127.0.0.1"


def test_a_connection_without_an_address_counts_as_one() -> None:
    assert Addresses(PROXIES).of(scope_of("GET", "/", client=None)) == "unknown"
