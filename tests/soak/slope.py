"""Does a level rise? The slope that most pairs of samples agree on, how sure it is, and what that means.

Theil-Sen: the median of the slopes of all pairs; a few outliers do not move it. Its bounds are order statistics of the
same slopes (Sen 1968, by Kendall's variance), so nothing is assumed about how the noise is distributed. Three verdicts:
a level rises, it does not, or the run cannot tell. The last one is no pass: a run that could not have seen the leak we
look for has shown nothing.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

HOUR = 3600.0
WARM_UP_SHARE = 0.25  # of the samples: pools, threads and caches become as large as they get
LEAST_SAMPLES = 6  # after the warm-up; below it no bound of this kind means anything
SURE = 2.326  # standard normal, one-sided 99 %


class Verdict(Enum):
    FLAT = "ok"
    RISES = "RISES"
    UNSURE = "cannot tell"


@dataclass(frozen=True)
class Slope:
    """Per hour: the estimate, and the bounds that each hold with 99 %."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Rule:
    """What counts as noise, and what must be found (both as a slope per hour).

    `step`: the rise over all samples that may be one step, as when an allocator takes another arena or a pool another
    connection: in a short run it weighs more than `noise_per_hour`.
    """

    noise_per_hour: float
    step: float
    find_per_hour: float

    def allowed(self, hours: float) -> float:
        return max(self.noise_per_hour, self.step / hours)


Samples = Sequence[tuple[float, float]]  # seconds, level


def without_warm_up(samples: Samples, share: float = WARM_UP_SHARE) -> Samples:
    return samples[math.ceil(len(samples) * share) :]


def slope_of(samples: Samples) -> Slope:
    """Of at least two samples at different times."""
    slopes = sorted(
        (later[1] - earlier[1]) / (later[0] - earlier[0]) * HOUR
        for earlier, later in itertools.combinations(sorted(samples), 2)
        if later[0] > earlier[0]
    )
    if not slopes:
        raise ValueError("a slope needs two samples at different times")
    n = len(samples)
    reach = SURE * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    lowest, highest = (len(slopes) - reach) / 2, (len(slopes) + reach) / 2
    return Slope(
        statistics.median(slopes),
        slopes[max(0, math.floor(lowest) - 1)] if lowest >= 1 else -math.inf,
        slopes[min(len(slopes), math.ceil(highest) + 1) - 1] if highest <= len(slopes) - 1 else math.inf,
    )


@dataclass(frozen=True)
class Judgement:
    """The verdict on one level, with what it rests on. `slope` is None when there were too few samples."""

    verdict: Verdict
    first: float
    last: float
    samples: int
    slope: Slope | None = None
    allowed: float = math.inf


def judge(samples: Samples, rule: Rule, *, warm_up: float = WARM_UP_SHARE) -> Judgement:
    """Rises: surely more than noise. Flat: surely less than what must be found. Else it cannot tell."""
    used = without_warm_up(samples, warm_up)
    first, last = (used[0][1], used[-1][1]) if used else (math.nan, math.nan)
    if len(used) < LEAST_SAMPLES or used[-1][0] <= used[0][0]:
        return Judgement(Verdict.UNSURE, first, last, len(used))
    slope = slope_of(used)
    allowed = rule.allowed((used[-1][0] - used[0][0]) / HOUR)
    if slope.low > allowed:
        verdict = Verdict.RISES
    elif allowed < rule.find_per_hour and slope.high < rule.find_per_hour:
        verdict = Verdict.FLAT
    else:
        verdict = Verdict.UNSURE
    return Judgement(verdict, first, last, len(used), slope, allowed)
