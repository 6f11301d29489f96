"""`python -m tests.bench.picture FILE.json OUT.svg`: the memory picture, drawn from a run's figures and nothing else.

The axis is logarithmic: fifty MiB and several thousand are to be read from the same picture.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.curve import Curve
from tests.bench.payload import GB, MIB

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROMISE_MIB = 1.2 * GB / MIB
LEAST_MIB = 30.0
# So much of a second becomes one upright stroke from its least to its most: no peak is lost, and the file stays small.
STROKE_SECONDS = 0.5
SIZE_INCHES = (9.6, 5.0)


@dataclass(frozen=True)
class Style:
    label: str
    colour: str
    width: float


STYLES = {
    "disk": Style("GAUZIAN, disk", "#0b6e4f", 1.8),
    "s3": Style("GAUZIAN, S3", "#1f77b4", 1.8),
    "naive": Style("naive handler: the body, then a place", "#c0392b", 1.4),
    "naive, asks first": Style("naive handler: a place, then the body", "#e08e0b", 1.4),
}
SETTINGS: Any = {
    "svg.hashsalt": "gauzian",  # the same data give the same file
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def curves_of(source: Path) -> dict[str, Curve]:
    told: dict[str, Any] = json.loads(source.read_text())["curves"]
    return {name: Curve.from_json(told[name]) for name in STYLES if name in told}


def strokes(series: list[tuple[float, float]], seconds: float = STROKE_SECONDS) -> list[tuple[float, float]]:
    """At most four points for each stretch of time: its first, its least, its most, its last, in their order."""
    stretches: dict[int, list[tuple[float, float]]] = {}
    for point in series:
        stretches.setdefault(int(point[0] / seconds), []).append(point)
    kept = []
    for points in stretches.values():
        edges = (points[0], min(points, key=lambda p: p[1]), max(points, key=lambda p: p[1]), points[-1])
        kept += sorted(set(edges))
    return kept


def draw(source: Path, target: Path) -> Path:
    """ImportError without matplotlib. The suffix of `target` is the kind of picture."""
    import matplotlib
    from matplotlib.figure import Figure

    curves = curves_of(source)
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        _scales(axes, curves)
        axes.axhline(PROMISE_MIB, color="#555555", linewidth=1, linestyle=(0, (6, 4)))
        edge = axes.get_yaxis_transform()
        promise = f"promised: at most 1.2 GB ({PROMISE_MIB:.0f} MiB)"
        axes.text(1, PROMISE_MIB * 1.05, promise, color="#555555", ha="right", transform=edge)
        for row, (name, curve) in enumerate(curves.items()):
            _curve(axes, curve, STYLES[name], 0.015 + 0.018 * row)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=2, frameon=False)
        # Its date would make two pictures of the same data differ.
        dateless: dict[str, Any] = {"metadata": {"Date": None}} if target.suffix == ".svg" else {"dpi": 110}
        figure.savefig(target, facecolor="white", **dateless)
    return target


def _scales(axes: Axes, curves: dict[str, Curve]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    most = max((mib for curve in curves.values() for _, mib in curve.series), default=0.0)
    rounds = max((len(curve.storms) for curve in curves.values()), default=0)
    axes.set_title(
        f"Memory of the server process: {rounds} storms of 1000 clients × 10 MiB, 50 places", loc="left", fontsize=11
    )
    axes.set_yscale("log")
    axes.set_ylim(LEAST_MIB, max(2 * PROMISE_MIB, 1.4 * most))
    axes.yaxis.set_major_locator(FixedLocator([50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("MiB resident (logarithmic)")
    axes.set_xlabel("seconds (bars at the foot: when a storm was on)")
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)


def _curve(axes: Axes, curve: Curve, style: Style, height: float) -> None:
    points = strokes(curve.series)
    seconds, mib = [point[0] for point in points], [point[1] for point in points]
    most = max(mib, default=0.0)
    axes.plot(seconds, mib, color=style.colour, linewidth=style.width, label=f"{style.label}: most {most:.0f} MiB")
    for begin, end in curve.storms:
        axes.plot([begin, end], [height, height], color=style.colour, linewidth=3, transform=axes.get_xaxis_transform())
    if curve.killed and points:
        axes.annotate("ended by the bench", points[-1], color=style.colour)


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    print(draw(Path(sys.argv[1]), Path(sys.argv[2])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
