"""What the soak's clients saw: answers by kind, and everything that should not have happened."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

MOST_EXAMPLES = 3  # of each kind
MOST_KINDS = 200


class Wrong(Exception):
    """The server answered, or did, what it should not have: `kind` groups such cases, `detail` tells this one."""

    def __init__(self, kind: str, detail: str = "") -> None:
        self.kind = kind
        self.detail = detail
        super().__init__(f"{kind}: {detail}")


@dataclass
class Ledger:
    """Counts only, and a few examples of each failure: it must not grow either."""

    began: float = field(default_factory=time.monotonic)
    acts: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    sent_bytes: int = 0
    received_bytes: int = 0

    def fail(self, kind: str, detail: str = "") -> None:
        if kind not in self.failures and len(self.failures) >= MOST_KINDS:
            kind, detail = "further kinds", f"{kind}: {detail}"
        self.failures[kind] += 1
        kept = self.examples.setdefault(kind, [])
        if len(kept) < MOST_EXAMPLES:
            kept.append(f"at {time.monotonic() - self.began:.0f} s: {detail}"[:500])
