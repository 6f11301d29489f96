"""What a load driver is told to do: groups of clients that behave alike, as one line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

# Stands for the running number of a request in `target`, `prefix` and `suffix`.
NUMBER = "@N@"


@dataclass(frozen=True)
class Group:
    """`clients` connections that each make `requests` requests one after another.

    The body is prefix + `payload` bytes of the shared payload (repeated when longer) + suffix. Without `watch` a
    client sends all of it before it looks for an answer; with `watch` it stops sending at the answer's first byte.
    """

    name: str
    clients: int
    target: str  # "POST /path?index=@N@"
    headers: tuple[str, ...] = ()
    requests: int = 1
    first: int = 0  # the first running number
    prefix: str = ""
    payload: int = 0
    suffix: str = ""
    base64: bool = False  # the payload travels as base64; `payload` counts the bytes before
    chunked: bool = False  # no Content-Length; only for whole MiB of payload without prefix and suffix
    declared: int | None = None  # a Content-Length that is not the truth
    watch: bool = False
    check_digest: bool = False  # a 200 must name the SHA-256 of the payload sent
    check_bytes: bool = False  # a body received must be the payload, repeated
    send_at_most: int | None = None  # after so many bytes of the request the client does `then`
    read_at_most: int | None = None  # after so many bytes of the answer's body the client does `then`
    then: str = "vanish"  # or "hold": keep the connection, touch it no more, close it after `hold_seconds`
    hold_seconds: float = 10.0
    read_rate: int | None = None  # bytes per second a client takes, at most
    pace_seconds: float | None = None  # start one client every so many seconds, and not all at once
    every_seconds: float | None = None  # from the start of one request of a client to the start of its next, at least
    stay_seconds: float | None = None  # after its last answer a client keeps its connection for so long


@dataclass(frozen=True)
class Plan:
    """All groups start together. What is unfinished after `deadline_seconds` counts as unanswered."""

    port: int
    groups: tuple[Group, ...]
    deadline_seconds: float = 60.0
    until_stopped: bool = False  # paced groups end when the driver is told, at the latest with their last client
    host: str = "127.0.0.1"

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        fields: dict[str, Any] = json.loads(text)
        groups = tuple(Group(**{**group, "headers": tuple(group["headers"])}) for group in fields.pop("groups"))
        return cls(groups=groups, **fields)


@dataclass
class Outcome:
    """What became of one group: `statuses` counts answers read ("200", "400 uploads_busy"), `unread` the others."""

    statuses: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    started: int = 0
    cut: int = 0  # answers that ended before their Content-Length
    wrong: int = 0  # a 200 with another digest, or other bytes than were stored
    left: int = 0  # clients that vanished or held as planned
    reconnects: int = 0  # keep-alive connections the server closed between two requests
    sent_bytes: int = 0
    received_bytes: int = 0
    seconds: float = 0.0  # from the first connect to the last end
    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0

    def read(self, *codes: int) -> int:
        """How many answers were read, of these statuses or of all."""
        return sum(n for text, n in self.statuses.items() if not codes or int(text.split()[0]) in codes)

    @property
    def answered_all(self) -> bool:
        return not self.unread and not self.cut and not self.wrong


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed (nearest rank); 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, min(len(ordered), int(rank)) - 1)]
