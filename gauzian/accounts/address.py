"""Where a request comes from, as a key to count by: the client's address, or what a trusted proxy says it is."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from gauzian.errors import Scope

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# More proxies than anybody has in a row; whatever is left of them was written by the client.
_MOST_HOPS = 16


class Addresses:
    """`trusted_proxies`: networks whose X-Forwarded-For is believed, as text. None: the header is never read."""

    def __init__(self, trusted_proxies: Iterable[str] = ()) -> None:
        self._trusted = [ipaddress.ip_network(network, strict=False) for network in trusted_proxies]

    def of(self, scope: Scope) -> str:
        """From right to left through X-Forwarded-For while the hops are ours; the first that is not, is who asks."""
        client = scope.get("client")
        found = _parse(client[0]) if client else None
        if found is None:
            return "unknown"
        for hop in reversed(_forwarded_for(scope)[-_MOST_HOPS:]):
            if not self._is_trusted(found):
                break
            before = _parse(hop)
            if before is None:
                break
            found = before
        return _key(found)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _forwarded_for(scope: Scope) -> list[str]:
    """All hops of all X-Forwarded-For headers, in order."""
    lines = [bytes(value).decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return ",".join(lines).split(",") if lines else []


def _parse(text: str) -> Address | None:
    """An address, also with a port behind it as some proxies write it."""
    plain = text.strip().strip('"')
    if plain.startswith("["):
        plain = plain[1:].partition("]")[0]
    elif plain.count(":") == 1:
        plain = plain.partition(":")[0]
    try:
        address = ipaddress.ip_address(plain)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def _key(address: Address) -> str:
    """An IPv6 client owns a /64 at least: its 2^64 addresses count as one."""
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((int(address), 64), strict=False))
