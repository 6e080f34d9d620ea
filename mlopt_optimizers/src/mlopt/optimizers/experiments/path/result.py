"""The result of a path run: a relaxed path, the analysis of its saddle, and the summary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mlopt.core.reporting.summary import Card, Column, Figure, Gallery, Structure, Summary, Table
from mlopt.optimizers.experiments.path import pictures
from mlopt.optimizers.experiments.path.analysis import Analysis
from mlopt.optimizers.experiments.path.relaxed import RelaxedPath
from mlopt.optimizers.saddles.connect import Connection
from mlopt.optimizers.saddles.modes import Modes
from mlopt.optimizers.saddles.rates import Rate

_ORDERS = {0: "no saddle: no direction goes down", 1: "a saddle of first order"}


@dataclass(frozen=True, kw_only=True)
class PathResult(RelaxedPath):
    """The outcome of a path run.

    analysis: the analysis of the saddle.
    temperature: temperature of the rate, K or an energy in reduced units; None if no rate was asked for.
    alignment: description of how the final state was aligned with the initial one.
    notes: remarks on the initial path, and on pictures that could not be drawn.
    warnings: warnings of the potential.
    gradient_evaluations: evaluations of the images while all bands were relaxed.
    other_evaluations: evaluations of the ends, and in the analysis.
    wall_s: seconds over all sittings.
    """

    analysis: Analysis = Analysis()
    temperature: float | None = None
    alignment: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    gradient_evaluations: int
    other_evaluations: int
    wall_s: float = 0.0

    @property
    def modes(self) -> Modes | None:
        """The lowest modes of the saddle, if they were asked for."""
        return self.analysis.modes

    @property
    def connection(self) -> Connection | None:
        """The minima that a descent from the saddle reaches on both sides."""
        return self.analysis.connection

    @property
    def rate(self) -> Rate | None:
        """The rate across the saddle, if it was asked for."""
        return self.analysis.rate

    @property
    def negative_modes(self) -> int | None:
        """The number of negative modes: 1 for a first-order saddle, 0 for no saddle; None if not computed."""
        return self.analysis.negative_modes

    @property
    def note(self) -> str:
        """Further remarks in one line."""
        return "; ".join((*self.notes, *self.analysis.notes))

    @property
    def headline(self) -> str:
        """The outcome in one line."""
        order = self.negative_modes
        kind = {None: "", 0: "; no saddle", 1: "; saddle of first order"}.get(
            order, f"; {order} negative modes"
        )
        short = "" if self.converged else " (not converged)"
        forward, back = (self.units.say(one) for one in (self.barrier_forward, self.barrier_reverse))
        return f"barrier {forward}, back {back}{kind}{short}"

    def summary(self) -> Summary:
        """Return the numbers that ``mlopt run --json`` prints, and the content of the report."""
        said = (self.alignment, *self.notes, *self.analysis.notes, *self.warnings)
        return Summary(
            self._numbers(),
            headline=self.headline,
            reached=self.converged,
            missed=f"the path did not converge, its largest force is {self.fmax:.3g}",
            cards=[*self._cards(), *self._rate_cards()],
            tables=[self._images()],
            figures=self._figures(),
            remarks=[_sentence(text) for text in said if text],
        )

    def _numbers(self) -> dict[str, Any]:
        values = [] if self.modes is None else self.modes.values[0].tolist()
        rate, temperature = self.rate, self.temperature
        saddles = [float(self.energy[k]) for k in self.tops]
        return {
            "converged": self.converged,
            "barrier_forward": self.barrier_forward,
            "barrier_reverse": self.barrier_reverse,
            "saddle_energy": self.saddle_energy,
            "saddle_energies": saddles if len(saddles) > 1 else None,
            "negative_modes": self.negative_modes,
            "eigenvalues": None if self.modes is None else [one for one in values if math.isfinite(one)],
            "connects_the_ends": self.analysis.joins,
            "gradient_evaluations": self.gradient_evaluations,
            "other_evaluations": self.other_evaluations,
            "images": len(self.path) - 2,
            "fmax": self.fmax,
            "alignment": self.alignment or None,
            "prefactor": None if rate is None else rate.prefactor,
            "lifetime_s": None if rate is None or temperature is None else rate.lifetime(temperature),
            "note": self.note or None,
            "wall_s": round(self.wall_s, 3),
            "units": str(self.units),
        } | ({"warnings": list(self.warnings)} if self.warnings else {})

    def _cards(self) -> list[Card]:
        unit = "" if self.units.reduced else self.units.energy
        cards = [
            Card("barrier", self.barrier_forward, unit, "from the start"),
            Card("barrier back", self.barrier_reverse, unit, "from the end"),
        ]
        order, joins = self.negative_modes, self.analysis.joins
        if order is not None:
            cards.append(Card("negative modes", order, note=_ORDERS.get(order, "a saddle of higher order")))
        if joins is not None:
            note = "down from the saddle, on both sides" if joins else "the saddle leads to another minimum"
            cards.append(Card("connects the ends", joins, note=note))
        cards.append(Card("converged", self.converged, note=f"largest force {self.fmax:.2g}"))
        total = self.gradient_evaluations + self.other_evaluations
        note = f"{self.gradient_evaluations:,} of images while they relaxed"
        return [*cards, Card("evaluations", total, note=note)]

    def _rate_cards(self) -> list[Card]:
        if self.temperature is None:
            return []
        if self.rate is None:
            return [Card("rate", None, note="there is none, see below")]
        reduced = self.units.reduced
        at = f"at {self.temperature:g}" if reduced else f"at {self.temperature:g} K"
        second, per_second = ("", "") if reduced else ("s", "1/s")
        value = f"{self.rate.at(self.temperature):.4g} {per_second}".strip()
        note = f"{at}, prefactor {self.rate.prefactor:.3g} {per_second}".strip()
        lifetime = f"{self.rate.lifetime(self.temperature):.4g} {second}".strip()
        return [Card("rate", value, note=note), Card("lifetime", lifetime, note=at)]

    def _images(self) -> Table:
        energy, length = ("", "") if self.units.reduced else (self.units.energy, self.units.length)
        last, base = len(self.path) - 1, float(self.energy[0])
        rows = [
            [{0: "start", last: "end"}.get(k, str(k)), s, e, e - base]
            for k, (s, e) in enumerate(zip(self.s.tolist(), self.energy.tolist(), strict=True))
        ]
        columns = [
            Column("image"),
            Column("distance along the path", length, 4),
            Column("energy", energy, 6),
            Column("over the start", energy, 6),
        ]
        return Table("Images", columns, rows)

    def _figures(self) -> list[Figure | Gallery]:
        figures: list[Figure | Gallery] = [
            Figure(picture.title, f"{name}.svg", picture.caption)
            for name, picture in pictures.of(self).items()
        ]
        if self.model.masses() is not None:  # atoms, whose states are structures
            saddle = self.units.say(self.barrier_forward)
            end = self.units.say(float(self.energy[-1] - self.energy[0]))
            structures = (
                Structure("path.extxyz", 0, "start"),
                Structure("saddle.extxyz", 0, f"saddle, {saddle} above"),
                Structure("path.extxyz", -1, f"end, {end} above the start"),
            )
            figures.append(
                Gallery("Start, saddle and end", structures, "All three are seen from one direction.")
            )
        return figures


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
