"""Axes of an SVG figure: scales, round ticks, labels. Colours and text sizes are in `stylesheet.py`."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 680.0, 370.0
# Room for labels at the text size that phones get.
LEFT, RIGHT, TOP, BOTTOM = 84.0, 30.0, 30.0, 56.0


@dataclass(frozen=True)
class Scale:
    """A map of numbers in [low, high] to a stretch of the page, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a number; infinities and distant numbers are drawn a little outside."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-12))
        share = (value - low) / (high - low)
        return self.start + (self.end - self.start) * min(max(share, -0.25), 1.25)

    def ticks(self, most: int = 6) -> list[float]:
        """Return about ``most`` round numbers within the scale."""
        if self.logarithmic:
            return _log_ticks(self.low, self.high, most)
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        step = next(step * f for f in (1, 2, 5, 10, 20) if (self.high - self.low) / (step * f) <= most)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    candidates: list[float] = []
    for factors in ((1, 2, 5), (1, 3), (1,)):
        candidates = [f * 10.0**d for d in decades for f in factors]
        candidates = [value for value in candidates if low * 0.999 <= value <= high * 1.001]
        if len(candidates) <= most:
            return candidates
    return candidates[:: math.ceil(len(candidates) / most)]


def counted(value: float) -> str:
    """Spell a number of force calls for an axis: 500, 20k, 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def decimals(ticks: Sequence[float]) -> int:
    """Return the decimals that tell neighbouring ticks apart."""
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=1.0)
    return min(max(0, -math.floor(math.log10(step) + 1e-9)), 9) if step > 0 else 0


@dataclass(frozen=True)
class Axes:
    """A frame with an x and a y scale, drawn around its content."""

    x: Scale
    y: Scale
    x_title: str
    y_title: str
    x_labels: tuple[tuple[float, str], ...]
    y_labels: tuple[tuple[float, str], ...]

    @classmethod
    def over(
        cls,
        x: tuple[float, float],
        y: tuple[float, float],
        titles: tuple[str, str],
        *,
        x_calls: bool = True,
        logarithmic: bool = False,
        y_whole: bool = False,
        y_percent: bool = False,
        height: float = HEIGHT,
    ) -> Axes:
        """Return axes over two ranges; ``x_calls`` labels x as numbers of calls, else both as plain numbers."""
        across = Scale(*x, LEFT, WIDTH - RIGHT, logarithmic)
        up = Scale(*y, height - BOTTOM, TOP)
        x_ticks, y_ticks = across.ticks(6), up.ticks(5)
        if y_whole:
            y_ticks = [tick for tick in y_ticks if tick == round(tick)]
        x_places, y_places = decimals(x_ticks), decimals(y_ticks)
        return cls(
            across,
            up,
            *titles,
            tuple((tick, counted(tick) if x_calls else f"{tick:.{x_places}f}") for tick in x_ticks),
            tuple(
                (tick, f"{100 * tick:.{max(0, y_places - 2)}f} %" if y_percent else f"{tick:.{y_places}f}")
                for tick in y_ticks
            ),
        )

    def svg(self, inside: str, name: str, label: str, outside: str = "") -> str:
        """Return the figure: ``inside`` is clipped to the frame, ``outside`` is not."""
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        grid, text = [], []
        for tick, caption in self.y_labels:
            y = self.y(tick)
            grid.append(f"M{left:g} {y:.1f}H{right:g}")
            text.append(
                f'<text class="tick" x="{left - 8:g}" y="{y:.1f}" dy=".35em" text-anchor="end">{caption}</text>'
            )
        marks = []
        for tick, caption in self.x_labels:
            x = self.x(tick)
            marks.append(f"M{x:.1f} {bottom:g}v5")
            text.append(
                f'<text class="tick" x="{x:.1f}" y="{bottom + 8:g}" dy=".9em" text-anchor="middle">{caption}</text>'
            )
        height = bottom + BOTTOM
        return (
            f'<svg class="figure" viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{html.escape(label)}">'
            f'<clipPath id="{name}-frame"><rect x="{left:g}" y="{top:g}" width="{right - left:g}" '
            f'height="{bottom - top:g}"/></clipPath>'
            f'<path class="grid" d="{"".join(grid)}"/>'
            f'<g clip-path="url(#{name}-frame)">{inside}</g>'
            f'<path class="axis" d="M{left:g} {bottom:g}H{right:g}{"".join(marks)}"/>'
            f"{''.join(text)}{outside}"
            f'<text class="title" x="{(left + right) / 2:g}" y="{height - 8:g}" text-anchor="middle">'
            f"{html.escape(self.x_title)}</text>"
            f'<text class="title" x="{left:g}" y="{top - 10:g}">{html.escape(self.y_title)}</text></svg>'
        )
