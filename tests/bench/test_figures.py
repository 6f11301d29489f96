"""What is made of measured figures: a line through points, a picture, a table, the closing line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.bench import rows_growth
from tests.bench.bench import Line
from tests.bench.curve import Curve
from tests.bench.fit import least_squares
from tests.bench.picture import curves_of, draw, strokes
from tests.bench.proc import MemoryWatch
from tests.bench.report import closing, figures_table
from tests.bench.rows_after import grown
from tests.bench.rows_growth import growth_line
from tests.bench.table import render

RISING = [(float(n), 5.0 + 0.5 * n) for n in (1, 10, 50, 200)]


def test_points_on_a_line_give_back_the_line() -> None:
    fit = least_squares(RISING)
    assert fit.slope == pytest.approx(0.5)
    assert fit.intercept == pytest.approx(5.0)
    assert fit.worst == pytest.approx(0.0, abs=1e-9)
    assert fit.r_squared == pytest.approx(1.0)


def test_a_point_beside_the_line_is_told_by_its_distance() -> None:
    fit = least_squares([(0.0, 0.0), (1.0, 3.0), (2.0, 0.0)])
    assert fit.slope == pytest.approx(0.0)
    assert fit.worst == pytest.approx(2.0)
    assert fit.r_squared == pytest.approx(0.0)


def test_one_place_is_no_line() -> None:
    with pytest.raises(ValueError, match="two places"):
        least_squares([(3.0, 1.0), (3.0, 2.0)])


@pytest.mark.parametrize(
    ("rises", "is_straight"),
    [
        ((5.0, 24.0, 30.0, 37.0), True),  # the first lies below the line of the others
        ((60.0, 24.0, 30.0, 37.0), False),  # the first lies above it
        ((5.0, 10.0, 20.0, 400.0), False),  # more than a line
    ],
)
def test_memory_may_grow_less_at_first_and_never_more_than_a_line(rises: tuple[float, ...], is_straight: bool) -> None:
    points = [(float(count), rise) for count, rise in zip(rows_growth.UPLOADS, rises, strict=True)]
    line = growth_line("uploads", "upload", points, line_from=10)
    assert line.holds is is_straight
    assert "KiB per upload" in line.measured


def test_fewer_points_are_drawn_and_no_peak_is_lost() -> None:
    series = [(n / 100, 50.0) for n in range(1000)]
    series[333] = (3.33, 900.0)
    series[334] = (3.34, 2.0)
    kept = strokes(series)
    assert len(kept) < 100
    assert {(3.33, 900.0), (3.34, 2.0), series[0], series[-1]} <= set(kept)
    assert kept == sorted(kept)


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    curves = {
        "naive": Curve([(n / 10, 60 + 100.0 * n) for n in range(50)], [(1.0, 2.0)], killed=True),
        "disk": Curve([(n / 10, 60.0) for n in range(50)], [(1.0, 2.0), (3.0, 4.0)]),
    }
    source = tmp_path / "bench.json"
    source.write_text(json.dumps({"curves": {name: asdict(curve) for name, curve in curves.items()}}))
    return source


def test_curves_survive_their_way_through_the_file_ours_first(measured: Path) -> None:
    curves = curves_of(measured)
    assert list(curves) == ["disk", "naive"]
    assert curves["naive"].killed
    assert curves["disk"].storms == [(1.0, 2.0), (3.0, 4.0)]
    assert curves["naive"].series[2] == (0.2, 260.0)


def test_a_picture_says_what_it_shows_and_is_the_same_each_time(measured: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="only make bench installs it")
    first, again = (draw(measured, tmp_path / name).read_text() for name in ("first.svg", "again.svg"))
    assert first == again
    for text in ("1.2 GB", "GAUZIAN, disk: most 60 MiB", "naive handler", "ended by the bench", "MiB resident"):
        assert text in first
    assert "GAUZIAN, S3" not in first


HELD = Line("a row", "5 MiB", "≤ 6 MiB", True, goal="≤ 4 MiB", reached=False)
BROKEN = Line("another", "9 | 9", "≤ 6", False, goal="≤ 4", reached=False)
FINE = Line("a row", "3 MiB", "≤ 6 MiB", True, goal="≤ 4 MiB", reached=True)


def test_the_table_has_a_column_for_each_store_and_marks_what_fails() -> None:
    table = figures_table({"disk": [HELD, BROKEN], "s3": [FINE]}, "two CPUs", quick=False)
    assert "| work | disk | S3 | must | goal |\n|---|---|---|---|---|" in table
    assert "| a row | 5 MiB | 3 MiB | ≤ 6 MiB | ≤ 4 MiB |" in table
    assert "| another | **9 / 9** (fails) | – | ≤ 6 | ≤ 4 |" in table
    assert "`make bench`: two CPUs" in table


def test_the_closing_line_counts_what_fails_and_which_goals_are_missed() -> None:
    said = closing({"disk": [HELD, BROKEN], "s3": [FINE]})
    assert "1 of 3 lines fail" in said
    assert "2 of 3 goals missed" in said
    assert "a row (disk): 5 MiB, ≤ 4 MiB" in said


def test_a_goal_missed_is_seen_beside_a_must_that_holds() -> None:
    assert render(HELD).split()[-5:] == ["ok", "≤", "4", "MiB", "NO"]


def test_a_process_that_grows_too_large_is_ended_by_its_watch() -> None:
    greedy = "import time; kept = bytearray(b'x' * (64 << 20)); print('ready', flush=True); time.sleep(30)"
    with subprocess.Popen([sys.executable, "-c", greedy], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with MemoryWatch(process.pid, every_seconds=0.01, most_mib=32) as watch:
            assert process.wait(10) == -9
    assert watch.killed


@pytest.mark.parametrize(
    ("descriptors", "sockets", "connections", "complaints"),
    [
        (18, 13, 9, 0),
        (17, 12, 8, 0),
        (19, 14, 10, 0),  # the pool has grown to its bound
        (19, 13, 9, 1),
        (20, 14, 10, 1),  # and a descriptor that is not its own
        (18, 14, 9, 1),
        (20, 15, 11, 3),  # more than the pool may have
    ],
)
def test_afterwards_only_the_pool_may_have_grown_and_only_to_its_bound(
    descriptors: int, sockets: int, connections: int, complaints: int
) -> None:
    before = {"descriptors": 18, "sockets": 13, "threads": 12, "database_connections": 9}
    now = {"descriptors": descriptors, "sockets": sockets, "threads": 40, "database_connections": connections}
    assert len(grown(before, now)) == complaints
