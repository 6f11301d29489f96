"""A straight line through measured points, and how far the worst of them is from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fit:
    slope: float
    intercept: float
    worst: float  # the largest distance of a point from the line
    r_squared: float  # 1 when all points are on it; 0 when the line explains nothing

    def at(self, x: float) -> float:
        return self.intercept + self.slope * x


def least_squares(points: list[tuple[float, float]]) -> Fit:
    """Needs points at two places at least."""
    count = len(points)
    middle_x, middle_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    if not spread:
        raise ValueError("a line needs points at two places")
    slope = sum((x - middle_x) * (y - middle_y) for x, y in points) / spread
    intercept = middle_y - slope * middle_x
    distances = [y - intercept - slope * x for x, y in points]
    total = sum((y - middle_y) ** 2 for _, y in points)
    explained = 1 - sum(distance**2 for distance in distances) / total if total else 1.0
    return Fit(slope, intercept, max(map(abs, distances)), explained)
