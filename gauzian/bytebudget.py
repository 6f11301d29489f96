"""How many bytes may be held for one purpose, by everybody together, and what one more may take of them."""

from __future__ import annotations


class ByteBudget:
    """`held` is counted by those who hold: up when a piece comes, down when it is gone.

    `share` is what the next piece may bring: one of `parts` of what is left. So whoever comes gets something, a few get
    large pieces and many get small ones, and the sum stays below `total` but for `least` per holder: smaller pieces
    cost noticeably more CPU per byte. A budget divided by the number of holders is not enough: those who came first
    would still hold what was theirs when they were few.

    `beside`: a budget that this one gives way to, because what is held there has come from here: both together stay
    below the larger total.
    """

    __slots__ = ("beside", "held", "least", "most", "parts", "total")

    def __init__(self, total: int, *, least: int, most: int, parts: int, beside: ByteBudget | None = None) -> None:
        self.total, self.least, self.most, self.parts = total, least, most, parts
        self.beside = beside
        self.held = 0

    @property
    def share(self) -> int:
        left = self.total - self.held
        if self.beside is not None:
            left = min(left, max(self.total, self.beside.total) - self.held - self.beside.held)
        return max(self.least, min(self.most, left // self.parts))

    def __index__(self) -> int:
        """In the place of a number that somebody asks for again and again: never out of date."""
        return self.share


class Held:
    """What one holder has of a budget: pieces one after another, `hold` for each, `drop` when it is gone."""

    __slots__ = ("budget", "size")

    def __init__(self, budget: ByteBudget) -> None:
        self.budget = budget
        self.size = 0

    def hold(self, size: int) -> None:
        self.size += size
        self.budget.held += size

    def drop(self, size: int | None = None) -> None:
        """So many of them, by default all."""
        gone = self.size if size is None else min(size, self.size)
        self.size -= gone
        self.budget.held -= gone
