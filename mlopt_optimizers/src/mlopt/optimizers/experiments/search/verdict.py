"""The verdict on a search, in one sentence and on cards: lowest energy, success rate and cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from mlopt.core.reporting.spelling import counted, rounded
from mlopt.core.reporting.statistics import Estimate, mean_calls_to_hit, wilson
from mlopt.core.reporting.summary import Card

#: the driver's default tolerance: a minimum farther below the target is another one
_BELOW = 1e-3
#: a difference from the target that six decimals do not show
_NOTHING = 5e-7


@dataclass(frozen=True)
class Verdict:
    """The outcome of the starts of a search.

    energies: the energy of each start, None if not finite.
    first_hits: force calls until each start reached the target, None if it did not.
    calls: force calls of each start.
    lowest: lowest energy of the whole search.
    target: the energy to reach, if any.
    failed: number of starts that ended at a non-finite energy.
    force_calls: force calls of the whole run.
    minima: number of distinct minima.
    unit: unit of energies, empty in reduced units.
    """

    energies: Sequence[float | None]
    first_hits: Sequence[float | None]
    calls: Sequence[float]
    lowest: float | None
    target: float | None = None
    failed: int = 0
    force_calls: int | None = None
    minima: int = 0
    unit: str = ""

    @cached_property
    def hits(self) -> int:
        """The number of starts that reached the target."""
        return sum(hit is not None for hit in self.first_hits)

    @cached_property
    def cost(self) -> Estimate | None:
        """Force calls to the first hit; None without a target."""
        if self.target is None or not self.calls:
            return None
        return mean_calls_to_hit(self.first_hits, self.calls)

    @property
    def headline(self) -> str:
        """The outcome in one sentence without its subject."""
        many = counted(len(self.energies), "start")
        if self.lowest is None:
            return f"no finite energy in {many}"
        lowest = f"{self.lowest:.6f} {self.unit}".strip()
        if self.target is None or self.cost is None:
            return f"lowest energy {lowest} in {many}{self._repeated()}"
        target, cost = f"{self.target:.6f}", self.cost
        if not self.hits:
            return (
                f"did not reach the target {target} in {many}; lowest {lowest}, {self.lowest - self.target:.4g} above; "
                f"a hit takes more than {rounded(cost.low)} force calls on average [95%]"
            )
        beaten = ""
        if self.lowest < self.target - _BELOW:
            beaten = f", and {lowest}, {self.target - self.lowest:.4g} below it"
        return (
            f"reached the target {target}{beaten} in {self.hits:,} of {many}; mean {rounded(cost.mean)} force calls to "
            f"first hit [95% {rounded(cost.low)}–{rounded(cost.high)}]"
        )

    def _repeated(self) -> str:
        """Return a phrase on how many starts agree, the best evidence for the lowest minimum without a target."""
        if len(self.energies) < 2 or self.lowest is None:
            return ""
        same = sum(one is not None and one < self.lowest + _BELOW for one in self.energies)
        return f", found by {same} of them" if same else ""

    @property
    def cards(self) -> list[Card]:
        """The cards at the top of the report."""
        cards = []
        if self.lowest is not None:
            off = None if self.target is None else self.lowest - self.target
            gap = (
                "" if off is None else "the target" if abs(off) < _NOTHING else f"{off:+.6f} from the target"
            )
            cards.append(Card("lowest energy", f"{self.lowest:.6f}", self.unit, gap))
        failed = f"{self.failed} failed (not finite)" if self.failed else ""
        cards.append(Card("starts", len(self.energies), note=failed))
        if self.cost is not None:
            rate = wilson(self.hits, len(self.energies))
            interval = f"{100 * rate.mean:.3g} % [{100 * rate.low:.2g}–{100 * rate.high:.3g}]"
            cards.append(
                Card("reached the target", f"{self.hits:,} of {len(self.energies):,}", note=interval)
            )
            note = "with its 95 % interval" if math.isfinite(self.cost.mean) else "95 %, one-sided"
            cards.append(Card("mean calls to first hit", self.cost, note=note))
        if self.force_calls is not None:
            cards.append(Card("force calls in all", self.force_calls))
        if self.minima:
            cards.append(Card("distinct minima", self.minima))
        return cards
