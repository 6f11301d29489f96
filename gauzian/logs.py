"""How a log line looks and gets out: logfmt or JSON, one line per event, never blocking the event loop.

Lines go through a bounded queue to a thread of their own, because standard error may be a pipe that nobody empties.
When the queue is full lines are dropped and counted, not waited for.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

# Lines waiting for a slow standard error: some seconds of a storm of refusals, a few MiB at most.
_MOST_WAITING = 10_000

# How long the end of the process waits for the last lines to get out, twice at most.
_END_SECONDS = 2.0

_KNOWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "request_id"}


class _Fields(logging.Formatter):
    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        found: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        identity = getattr(record, "request_id", None)
        if identity is not None:
            found["request_id"] = identity
        found.update({key: value for key, value in record.__dict__.items() if key not in _KNOWN})
        if record.exc_info:
            found["error"] = self.formatException(record.exc_info)
        return found


class Logfmt(_Fields):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{key}={_quoted(value)}" for key, value in self.fields(record).items())


class JsonLines(_Fields):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.fields(record), default=str)


def _quoted(value: Any) -> str:
    text = str(value)
    if text and text.isprintable() and not any(mark in text for mark in ' "='):
        return text
    return json.dumps(text, ensure_ascii=False)


class _Queue(logging.handlers.QueueHandler):
    """Puts records into the queue as they are (they are formatted in the other thread), with the request's id."""

    def __init__(self, waiting: queue.Queue[Any]) -> None:
        super().__init__(waiting)
        self.dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        record.request_id = request_id.get()
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class _Listener(logging.handlers.QueueListener):
    """Writes what waits; its thread is a daemon, and ending waits for it only so long: a stuck pipe must not keep us
    alive.
    """

    def stop(self) -> None:
        try:
            self.queue.put(self._sentinel, timeout=_END_SECONDS)  # type: ignore[attr-defined]
        except queue.Full:
            return
        if self._thread is not None:
            self._thread.join(_END_SECONDS)
            self._thread = None


@contextmanager
def logging_to(stream: TextIO = sys.stderr, *, format: str = "logfmt", level: str = "INFO") -> Iterator[None]:
    """Log everything of this process to `stream` until the block ends; what waits then is written first."""
    out = logging.StreamHandler(stream)
    out.setFormatter(JsonLines() if format == "json" else Logfmt())
    waiting: queue.Queue[Any] = queue.Queue(_MOST_WAITING)
    entrance = _Queue(waiting)
    listener = _Listener(waiting, out)
    root = logging.getLogger()
    before = root.level
    root.addHandler(entrance)
    root.setLevel(level)
    listener.start()
    try:
        yield
    finally:
        root.removeHandler(entrance)
        root.setLevel(before)
        listener.stop()
        if entrance.dropped:
            print(f"{entrance.dropped} log lines dropped: standard error was too slow", file=stream)
