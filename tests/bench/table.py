"""The verdicts as a table people can read."""

from __future__ import annotations

import textwrap

from tests.bench.bench import Line

ROW, MEASURED, MUST, GOAL = 50, 30, 26, 18
NOTE = 120
WORDS = {True: "ok", False: "NO", None: "-"}


def heading(store: str, machine: str) -> str:
    title = f"{'row':<{ROW}} {'measured':<{MEASURED}} {'must':<{MUST}} ok? {'goal':<{GOAL}} reached?"
    return f"\n{store}: {machine}\n{title}\n{'─' * len(title)}"


def render(line: Line) -> str:
    """One verdict: the figures in columns, the note below them."""
    cells = [
        textwrap.wrap(text, width) or [""]
        for text, width in ((line.row, ROW), (line.measured, MEASURED), (line.must, MUST), (line.goal, GOAL))
    ]
    rows = []
    for number in range(max(map(len, cells))):
        row, measured, must, goal = (cell[number] if number < len(cell) else "" for cell in cells)
        verdict = WORDS[line.holds] if number == 0 else ""
        reached = WORDS[line.reached] if number == 0 and line.goal else ""
        columns = f"{row:<{ROW}} {measured:<{MEASURED}} {must:<{MUST}} {verdict:<3} {goal:<{GOAL}} {reached}"
        rows.append(columns.rstrip())
    rows += textwrap.wrap(line.note, NOTE, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(rows)
