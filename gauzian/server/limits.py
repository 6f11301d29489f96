"""Every bound of the server room, with the reason for its default."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Plain values; whoever starts the server may set any of them."""

    # -- how many
    max_connections: int = (
        2000  # open sockets, lingering ones included; the rest waits in the kernel (its memory, not ours)
    )
    backlog: int = 4096  # the kernel's queue; 100 as usual makes it answer half of a thousand newcomers with a reset
    accepts_per_turn: int = 128  # per turn of the loop: a thundering herd must not hold up those who are already served
    # Requests with a body that begin per turn of the loop: one costs about a millisecond, refused or not, and whoever
    # asks for health meanwhile waits for no more than these.
    begun_per_turn: int = 4

    # -- reading
    header_bytes: int = 16 * KIB  # what an unfinished request head may grow to
    header_seconds: float = (
        15.0  # from connecting, or from the first byte after a pause, to the end of the head (and of the TLS handshake)
    )
    keep_alive_seconds: float = 75.0  # between two requests; longer than the idle time of the usual proxies (60)
    head_read: int = (
        4 * KIB
    )  # one read until the application asks for the body: 1000 refused uploads cost 4 MB, not 250
    body_read: int = 512 * KIB  # one read of a wanted body, while few send: a piece costs some 100 us whatever its size
    body_read_least: int = 8 * KIB  # below this a byte costs noticeably more CPU
    read_budget: int = 5 * MIB  # of wanted bodies, received and not yet taken by the application, all together
    read_parts: int = 3  # one read brings at most this part of what is left of the budget: the others want some, too
    mailbox_bytes: int = 256 * KIB  # received and not yet taken by the application, per request, before we stop reading
    small_body_bytes: int = (
        64 * KIB
    )  # the unread rest of a body that is read off to keep the connection, instead of closing it

    # -- writing
    write_bytes: int = (
        16 * KIB
    )  # handed to the transport at once: the most that it keeps for a client that does not read
    write_idle_seconds: float = 60.0  # a client that accepts not one byte of our answer for so long is cut off

    # -- the way out of an unread body
    linger_bytes: int = 16 * MIB  # should be 1.6 x the largest body a client may send: base64 in JSON needs 4/3
    linger_seconds: float = 60.0
    linger_idle_seconds: float = 5.0  # silence that ends it
    linger_turn_bytes: int = 4 * MIB  # swallowed per turn of the loop, all together: the others get their turn

    # -- stopping and giving back
    cleanup_seconds: float = (
        5.0  # for requests cancelled at the end of the grace time, and again for the application's shutdown
    )
    trim_seconds: float = 0.25  # how often free memory goes back to the system while there is work
