"""The figures about starts, as SVG: energy against calls, distribution of minima, success curve.

Each function returns a ``Figure``, or None where there is nothing to show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlopt.cli.report.axes import Axes
from mlopt.cli.report.search.starts import Start, Starts
from mlopt.core.reporting.spelling import rounded
from mlopt.core.reporting.statistics import Estimate, SuccessCurve


@dataclass(frozen=True)
class Figure:
    """A figure with its key: (class of the swatch, text) for each kind of mark. ``remark``: what is not shown."""

    svg: str
    key: tuple[tuple[str, str], ...]
    remark: str = ""


def best_start(starts: Sequence[Start]) -> Start | None:
    """Return the start that hit first, else the one with the lowest energy."""
    hits = [start for start in starts if start.first_hit is not None]
    if hits:
        return min(hits, key=lambda start: start.first_hit or 0.0)
    finite = [start for start in starts if start.energy is not None]
    return min(finite, key=lambda start: start.energy or 0.0, default=None)


def energy_figure(found: Starts, units: str) -> Figure | None:
    """Return the lowest energy so far of every start against force calls."""
    curves = _curves(found)
    if not curves:
        return None
    last = max(1.0, *(points[-1][0] for points in curves.values()))
    hits = [start.first_hit for start in found.starts if start.first_hit is not None]
    if len(hits) == len(curves):
        last = min(last, 3 * max(hits))  # nothing happens after it
    finals = [points[-1][1] for points in curves.values()]
    low, high = _energy_range(curves, finals, found.target, last)
    # Before any line comes into the frame there is nothing to see.
    first = min(
        (n for points in curves.values() for n, energy in points if energy <= high and n > 0), default=1.0
    )
    # Left of it by the grid's own spacing, so that the way down is seen.
    earlier = [n for points in curves.values() for n, _ in points if 0 < n < first]
    first = max(earlier, default=first / 1.5)
    axes = Axes.over(
        (min(first, last / 3), last),
        (low, high),
        ("force calls", f"energy ({units})"),
        logarithmic=True,
    )
    by_index = {start.index: start for start in found.starts}
    best = best_start(found.starts)
    # Mid-run there may be a trace but no starts yet.
    leader = best.index if best and best.index in curves else min(curves, key=lambda i: (curves[i][-1][1], i))
    paths: dict[str, list[str]] = {"other": [], "reached": [], "best": []}
    dots = []
    for index, points in curves.items():
        start = by_index.get(index)
        hit = start.first_hit if start else None
        kind = "best" if index == leader else "other" if hit is None else "reached"
        tip = f"start {index}: {points[-1][1]:.6f} after {points[-1][0]:,.0f} calls"
        if hit is not None:
            tip += f", target reached at {hit:,.0f}"
            level = found.target if found.target is not None else points[-1][1]
            dots.append(f'<circle class="{kind}" cx="{axes.x(hit):.1f}" cy="{axes.y(level):.1f}" r="3.5"/>')
        paths[kind].append(f'<path class="{kind}" d="{_steps(points, axes)}"><title>{tip}</title></path>')
    drawn = "".join([*paths["other"], *paths["reached"]]) + _target_line(axes, found.target, horizontal=True)
    key = [
        (
            "best",
            f"start {leader}, " + ("first to hit" if best and best.first_hit is not None else "the lowest"),
        )
    ]
    if paths["reached"]:
        key.append(("reached", "reached the target"))
    if paths["other"]:
        key.append(("other", "did not" if found.target is not None else "other starts"))
    if found.target is not None:
        key.append(("target", f"target {found.target:.6f}"))
    svg = axes.svg(
        drawn + "".join(paths["best"]) + "".join(dots), "energy", "Energy so far against force calls"
    )
    above = sum(energy > high for energy in finals)
    return Figure(svg, tuple(key), f"{above} of {len(finals)} starts ended above the frame." if above else "")


def _curves(found: Starts) -> dict[int, list[tuple[float, float]]]:
    """Return (calls, energy) points of each start, only where the energy changes, and its end."""
    indices = [start.index for start in found.starts]
    by_index = {start.index: start for start in found.starts}
    curves: dict[int, list[tuple[float, float]]] = {}
    width = len(found.trace_energy[0]) if found.trace_energy else 0
    for column in range(width):
        index = indices[column] if column < len(indices) else column
        start = by_index.get(index)
        end = start.calls if start and start.calls else math.inf
        hit = start.first_hit if start else None
        points: list[tuple[float, float]] = []
        latest = 0.0
        for calls, row in zip(found.trace_calls, found.trace_energy, strict=True):
            energy = row[column]
            if calls > end:
                break
            if hit is not None and energy is not None and latest < hit <= calls and points:
                # The grid is coarse: the drop belongs where the hit was.
                points.append((hit, energy))
            if energy is not None:
                latest = calls
                if not points or energy < points[-1][1]:
                    points.append((calls, energy))
        if start and start.energy is not None and start.calls:
            # The grid's last point may lie before the end; polishing is not part of the search, so it adds no drop.
            latest = start.calls
            if not points:
                points.append((start.calls, start.energy))
        if hit is not None and hit > latest and points and start and start.energy is not None:
            points.append((hit, start.energy))  # it was the polish that reached the target
            latest = hit
        if points:
            curves[index] = [*points, (latest, points[-1][1])]
    return curves


def _energy_range(
    curves: dict[int, list[tuple[float, float]]], finals: Sequence[float], target: float | None, last: float
) -> tuple[float, float]:
    """Return the range of energies to show: the bottom of the funnel, and the last half of the descent (log axis)."""
    low = min([*finals, *([target] if target is not None else [])])
    worst = _quantile(sorted(finals), 0.95)
    halfway = _quantile(sorted(_at(points, math.sqrt(max(last, 1.0))) for points in curves.values()), 0.5)
    # Random starts begin at huge energies: however few calls there are, the bottom must stay visible.
    high = max(worst, min(halfway, low + max(4 * (worst - low), 0.12 * abs(low))))
    span = max(high - low, 1e-6 * max(abs(low), 1.0), 1e-9)
    return low - 0.06 * span, high + 0.1 * span


def _at(points: Sequence[tuple[float, float]], calls: float) -> float:
    return next((energy for n, energy in reversed(points) if n <= calls), math.inf)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(math.ceil(share * len(ordered)), len(ordered)) - 1] if ordered else math.inf


def _steps(points: Sequence[tuple[float, float]], axes: Axes) -> str:
    (n, energy), rest = points[0], points[1:]
    x, y = axes.x(n), axes.y(energy)
    path = [f"M{x:.1f} {axes.y.end - 20:.0f}V{y:.1f}"] if len(points) > 2 else [f"M{x:.1f} {y:.1f}"]
    for n, energy in rest:
        path.append(f"H{axes.x(n):.1f}")
        if f"{axes.y(energy):.1f}" != f"{y:.1f}":
            y = axes.y(energy)
            path.append(f"V{y:.1f}")
    return "".join(path)


def _target_line(axes: Axes, target: float | None, horizontal: bool) -> str:
    """Return the mark at the target; a vertical one stands on zero."""
    if target is None:
        return ""
    if horizontal:
        return f'<path class="target" d="M{axes.x.start:g} {axes.y(target):.1f}H{axes.x.end:g}"/>'
    return f'<path class="target" d="M{axes.x(target):.1f} {axes.y(0.0):.1f}V{axes.y.end:g}"/>'


def distribution_figure(found: Starts, units: str) -> Figure | None:
    """Return the final energies of the starts: a histogram, with a line below it for each start."""
    finals = sorted(
        (start.energy, start.first_hit is not None) for start in found.starts if start.energy is not None
    )
    if len(finals) < 2:
        return None
    energies = [energy for energy, _ in finals]
    low = min([energies[0], *([found.target] if found.target is not None else [])])
    # A start that went wrong may end anywhere: it must not squeeze the others into one bar.
    quarter, middle = _quantile(energies, 0.75), _quantile(energies, 0.5)
    fence = quarter + 4 * max(quarter - low, middle - low)
    high = max(energy for energy in energies if energy <= fence)
    n_bins = min(max(math.ceil(2 * math.sqrt(len(energies))), 8), 40)
    smallest = 1e-5 * max(abs(low), 1.0)
    if high - low < smallest:
        n_bins = 1
    width = max((high - low) / max(n_bins - 1, 1), smallest)
    # The lowest energy is in the middle of the first bar, an empty one to its left.
    edges = [low + (i - 0.5) * width for i in range(n_bins + 1)]
    hits, others = [0] * n_bins, [0] * n_bins
    for energy, hit in finals:
        if energy <= edges[-1]:
            place = min(int((energy - edges[0]) / width), n_bins - 1)
            (hits if hit else others)[place] += 1
    most = max(a + b for a, b in zip(hits, others, strict=True))
    margin = width * (0.6 if n_bins > 1 else 4)
    axes = Axes.over(
        (edges[0] - margin, edges[-1] + margin),
        (-0.16 * most, 1.08 * most),
        (f"final energy ({units})", "starts"),
        x_calls=False,
        y_whole=True,
        height=300.0,
    )
    axes = Axes(**{**axes.__dict__, "y_labels": tuple(label for label in axes.y_labels if label[0] >= 0)})
    bars = []
    for i, (n_hits, n_others) in enumerate(zip(hits, others, strict=True)):
        x, right = axes.x(edges[i]) + 0.75, axes.x(edges[i + 1]) - 0.75
        for kind, base, count in (("reached", 0, n_hits), ("other", n_hits, n_others)):
            if count:
                y, bottom = axes.y(base + count), axes.y(base)
                tip = f"{count} from {edges[i]:.4f} to {edges[i + 1]:.4f}"
                bars.append(
                    f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{right - x:.1f}" '
                    f'height="{bottom - y:.1f}"><title>{tip}</title></rect>'
                )
    foot, head = axes.y(-0.14 * most), axes.y(-0.04 * most)
    # One short path for all starts of a kind that end at one energy.
    rug = "".join(
        f'<path class="rug {kind}" d="'
        + "".join(
            f"M{x}V{head:.1f}"
            for x in sorted({f"{axes.x(e):.1f} {foot:.1f}" for e, reached in finals if reached is hit})
        )
        + '"/>'
        for kind, hit in (("other", False), ("reached", True))
    )
    key = [("bar reached", "reached the target")] if any(hits) else []
    if any(others):
        key.append(("bar other", "did not" if found.target is not None else "starts"))
    if found.target is not None:
        key.append(("target", f"target {found.target:.6f}"))
    svg = axes.svg(
        _target_line(axes, found.target, horizontal=False) + "".join(bars) + rug,
        "distribution",
        "Histogram of the final energies",
    )
    above, failed = sum(energy > edges[-1] for energy in energies), len(found.starts) - len(energies)
    remarks = [f"{above} further up to {energies[-1]:.6g} are outside the frame."] if above else []
    remarks += (
        [f"{failed} without a finite energy {'is' if failed == 1 else 'are'} left out."] if failed else []
    )
    return Figure(svg, tuple(key), " ".join(remarks))


def success_figure(curve: SuccessCurve, mean: Estimate) -> Figure | None:
    """Return the fraction of starts that reached the target, with its band and the exponential law."""
    if curve.end <= 0:
        return None
    # Once all have hit the curve stays at one.
    end = 1.06 * curve.end if curve.fraction[-1] >= 1 else curve.end
    # A search that seldom hits would otherwise be a line at the bottom.
    top = min(1.02, max(0.05, 1.15 * max(curve.high)))
    axes = Axes.over(
        (0.0, end),
        (0.0, top),
        ("force calls", "starts that reached the target"),
        y_percent=True,
        height=300.0,
    )
    lower, upper = _staircase(curve, curve.low, axes), _staircase(curve, curve.high, axes)
    drawn = f'<path class="band" d="M{lower}L{" ".join(reversed(upper.split(" ")))}Z"/>'
    key = [("reached", "observed"), ("band", "95 % confidence")]
    if math.isfinite(mean.mean) and mean.mean > 0:
        law = [(end * i / 80, 1 - math.exp(-end * i / 80 / mean.mean)) for i in range(81)]
        drawn += f'<path class="law" d="M{"L".join(f"{axes.x(n):.1f},{axes.y(p):.1f}" for n, p in law)}"/>'
        key.append(("law", f"a hit equally likely at every call, mean {rounded(mean.mean)}"))
    drawn += f'<path class="reached" d="M{_staircase(curve, curve.fraction, axes)}"/>'
    return Figure(axes.svg(drawn, "success", "Fraction of starts that reached the target"), tuple(key))


def _staircase(curve: SuccessCurve, values: Sequence[float], axes: Axes) -> str:
    """Return the corners of a step function, as in ``x,y x,y``."""
    corners = []
    for n, until, value in zip(curve.calls, (*curve.calls[1:], axes.x.high), values, strict=True):
        corners += [f"{axes.x(n):.1f},{axes.y(value):.1f}", f"{axes.x(until):.1f},{axes.y(value):.1f}"]
    return " ".join(corners)
