"""What a run leaves to be read: the table for README as Markdown, and the closing line."""

from __future__ import annotations

from tests.bench.bench import Line
from tests.bench.table import WORDS

TITLES = {"disk": "disk", "s3": "S3"}


def figures_table(results: dict[str, list[Line]], machine: str, *, quick: bool) -> str:
    """One line per row, one column per store; what a store did not measure is a dash."""
    stores = list(results)
    rows: dict[str, dict[str, Line]] = {}
    for store, lines in results.items():
        for line in lines:
            rows.setdefault(line.row, {})[store] = line
    command = "python -m tests.bench --quick" if quick else "make bench"
    out = [f"`{command}`: {machine}", ""]
    out += [
        f"| work | {' | '.join(TITLES[store] for store in stores)} | must | goal |",
        "|---" * (len(stores) + 3) + "|",
    ]
    for row, found in rows.items():
        cells = [_cell(found.get(store)) for store in stores]
        musts, goals = (_either([getattr(line, name) for line in found.values()]) for name in ("must", "goal"))
        out.append("| " + " | ".join(text.replace("|", "/") for text in (row, *cells, musts, goals)) + " |")
    return "\n".join(out) + "\n"


def _cell(line: Line | None) -> str:
    if line is None:
        return "–"
    return f"**{line.measured}** (fails)" if line.holds is False else line.measured


def _either(texts: list[str]) -> str:
    """One text where the stores agree, both where they do not."""
    return ", ".join(dict.fromkeys(text for text in texts if text)) or "–"


def closing(results: dict[str, list[Line]]) -> str:
    lines = [(store, line) for store, found in results.items() for line in found]
    failed = [f"{line.row} ({store})" for store, line in lines if line.holds is False]
    goals = [(store, line) for store, line in lines if line.reached is not None]
    missed = [f"{line.row} ({store}): {line.measured}, {line.goal}" for store, line in goals if not line.reached]
    said = f"{len(failed)} of {len(lines)} lines fail"
    said += "".join(f"\n  {WORDS[False]} {text}" for text in failed)
    said += f"\n{len(missed)} of {len(goals)} goals missed"
    return said + "".join(f"\n  {text}" for text in missed)
