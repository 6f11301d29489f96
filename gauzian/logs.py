"""How a log line looks and gets out: logfmt or JSON, one line per event, never blocking the event loop.

Lines are formatted where they happen and written by a thread of their own, because standard error may be a pipe that
nobody empties. Only so many may wait; beyond that lines are dropped and counted, not waited for.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

# Lines waiting for a slow standard error: some seconds of a storm of refusals, a few MiB at most.
_MOST_WAITING = 10_000

# How long a line may wait before it is written, and how long the end of the process waits for the last ones.
_WRITE_SECONDS = 0.1
_END_SECONDS = 2.0

_BATCH = 500  # lines per write

_PLAIN = re.compile(r"[!#-<>-~]+")  # printable ASCII without space, quote and equals sign

# Who called, from which thread, process and task: looked up for every line, and no line of ours tells it. The standard
# library's "Logging HOWTO" says under "Optimization" how to leave it out.
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
logging._srcfile = None

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
    if _PLAIN.fullmatch(text):
        return text
    return json.dumps(text, ensure_ascii=False)


class _Waiting(logging.Handler):
    """Formats a line where it happens and leaves it for the writer: no lock that a writing thread could hold, no thread
    woken.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque()
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.lines) >= _MOST_WAITING:
            self.dropped += 1
            return
        record.request_id = request_id.get()
        try:
            self.lines.append(self.format(record))
        except Exception:
            self.handleError(record)


class _Writer(threading.Thread):
    """Writes what waits, a few times per second: waking a thread for each line costs more than making the line."""

    def __init__(self, waiting: _Waiting, stream: TextIO) -> None:
        super().__init__(name="log", daemon=True)  # a stuck pipe must not keep the process alive
        self._waiting = waiting
        self._stream = stream
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(_WRITE_SECONDS):
            self._write()
        self._write()

    def end(self) -> None:
        self._over.set()
        self.join(_END_SECONDS)

    def _write(self) -> None:
        lines = self._waiting.lines
        while lines:
            batch = [lines.popleft() for _ in range(min(len(lines), _BATCH))]
            try:
                self._stream.write("\n".join(batch) + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                return  # nobody is there to read it


@contextmanager
def logging_to(stream: TextIO = sys.stderr, *, format: str = "logfmt", level: str = "INFO") -> Iterator[None]:
    """Log everything of this process to `stream` until the block ends; what waits then is written first."""
    waiting = _Waiting()
    waiting.setFormatter(JsonLines() if format == "json" else Logfmt())
    writer = _Writer(waiting, stream)
    root = logging.getLogger()
    before = root.level
    root.addHandler(waiting)
    root.setLevel(level)
    writer.start()
    try:
        yield
    finally:
        root.removeHandler(waiting)
        root.setLevel(before)
        if waiting.dropped:
            waiting.lines.append(f"{waiting.dropped} log lines dropped: standard error was too slow")
        writer.end()
