"""What came out of a run, in numbers and in one sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlopt.cli.report.read import Record, number
from mlopt.core.reporting.statistics import Estimate, SuccessCurve, kaplan_meier, mean_calls_to_hit, wilson

# As tolerant as the driver's own default: a minimum that far below the target is another one.
_BELOW = 1e-3


@dataclass(frozen=True)
class Outcome:
    """``rate``, ``mean`` and ``curve`` are None without a target."""

    sentence: str
    best: float | None
    n_starts: int
    n_hits: int
    n_failed: int
    force_calls: float | None
    rate: Estimate | None
    mean: Estimate | None
    curve: SuccessCurve | None

    @classmethod
    def of(cls, record: Record) -> Outcome:
        """Evaluate a record; the starts speak, the summary only where they are silent."""
        starts = record.starts
        energies = [start.energy for start in starts if start.energy is not None]
        told = number(record.summary.get("best_energy"))
        best = min(energies + ([told] if told is not None else []), default=None)
        # The summary counts the polishing as well.
        counts = [sum(start.calls for start in starts)] if starts else []
        counts += [n for n in [number(record.summary.get("force_calls"))] if n is not None]
        calls = max(counts, default=None)
        n_starts = len(starts) or int(number(record.summary.get("starts")) or 0)
        n_hits = sum(start.first_hit is not None for start in starts)
        rate = mean = curve = None
        if record.target is not None and starts:
            hits = [start.first_hit for start in starts]
            rate = wilson(n_hits, n_starts)
            mean = mean_calls_to_hit(hits, [start.calls for start in starts])
            curve = kaplan_meier(hits, [start.watched for start in starts])
        failed = sum(start.failed for start in starts)
        outcome = cls("", best, n_starts, n_hits, failed, calls, rate, mean, curve)
        return cls(**{**outcome.__dict__, "sentence": outcome._sentence(record)})

    def _sentence(self, record: Record) -> str:
        name, so_far = record.name, " so far" if record.partial else ""
        headline = record.summary.get("headline")  # other kinds of run say themselves what came out
        if headline:
            return f"{name}: {headline}"
        many = f"{self.n_starts:,} start{'' if self.n_starts == 1 else 's'}"
        if self.best is None:
            if not self.n_starts:
                return (
                    f"{name}: no results yet"
                    if record.partial
                    else f"{name}: {record.state}, no starts recorded"
                )
            return f"{name}: no finite energy in {many}{so_far}"
        lowest = record.with_unit(energy(self.best))
        if record.target is None or not self.n_starts:
            where = f" in {many}" if self.n_starts else ""
            return f"{name}: lowest energy {lowest}{where}{so_far}{self._repeated(record)}"
        target = energy(record.target)
        if self.n_hits == 0:
            bound = (
                f"; a hit takes more than {rounded(self.mean.low)} force calls on average [95%]"
                if self.mean
                else ""
            )
            return (
                f"{name}: did not reach the target {target} in {many}{so_far}; lowest {lowest}, "
                f"{self.best - record.target:.4g} above{bound}"
            )
        beaten = (
            f", and {lowest}, {record.target - self.best:.4g} below it"
            if self.best < record.target - _BELOW
            else ""
        )
        calls = (
            f"mean {rounded(self.mean.mean)} force calls to first hit "
            f"[95% {rounded(self.mean.low)}–{rounded(self.mean.high)}]"
            if self.mean
            else ""
        )
        return f"{name}: reached the target {target}{beaten} in {self.n_hits:,} of {many}{so_far}; {calls}"

    def _repeated(self, record: Record) -> str:
        """Say how many starts agree: without a target, the best hint that the lowest is the lowest."""
        if self.n_starts < 2 or self.best is None:
            return ""
        same = sum(start.energy is not None and start.energy < self.best + _BELOW for start in record.starts)
        return f", found by {same} of them" if same else ""


def energy(value: float | None) -> str:
    """Spell an energy: six decimals, as reference tables do."""
    return "–" if value is None else f"{value:.6f}"


def plain(value: float | None) -> str:
    """Spell a count, or a dash."""
    return "–" if value is None else f"{value:,.0f}"


def rounded(value: float) -> str:
    """Spell a number of calls to three digits: 391,000."""
    if not math.isfinite(value):
        return "∞"
    if value == 0:
        return "0"
    places = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(places, 0) if abs(value) < 100 else 0}f}"
