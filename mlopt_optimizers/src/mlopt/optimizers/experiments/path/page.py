"""What the report of a path shows: cards, a table of the images, pictures of the way and of its ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlopt.core.atoms.units import Units
from mlopt.core.reporting.summary import Card, Column, Figure, Gallery, Structure, Summary, Table
from mlopt.optimizers.experiments.path import pictures

if TYPE_CHECKING:
    from mlopt.optimizers.experiments.path.result import PathResult

_ORDERS = {0: "no saddle: no direction goes down", 1: "a saddle of first order"}


def summarise(found: PathResult, numbers: Mapping[str, Any]) -> Summary:
    """Return the numbers of a path with what its report shows."""
    return Summary(
        numbers,
        reached=found.converged,
        missed=f"the path did not converge, its largest force is {found.fmax:.3g}",
        cards=_cards(found, numbers),
        tables=[_images(found)],
        figures=_figures(found),
        remarks=[
            _sentence(text)
            for text in (found.alignment, *found.notes, *found.analysis.notes, *found.warnings)
            if text
        ],
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _units(found: PathResult) -> Units:
    return Units.of(found.experiment.model.energy_units)


def _cards(found: PathResult, numbers: Mapping[str, Any]) -> list[Card]:
    unit = "" if _units(found).reduced else _units(found).energy
    cards = [
        Card("barrier", found.barrier_forward, unit, "from the start"),
        Card("barrier back", found.barrier_reverse, unit, "from the end"),
    ]
    order = found.negative_modes
    if order is not None:
        cards.append(Card("negative modes", order, note=_ORDERS.get(order, "a saddle of higher order")))
    joins = numbers.get("connects_the_ends")
    if joins is not None:
        note = "down from the saddle, on both sides" if joins else "the saddle leads to another minimum"
        cards.append(Card("connects the ends", joins, note=note))
    cards.append(Card("converged", found.converged, note=f"largest force {found.fmax:.2g}"))
    total = found.gradient_evaluations + found.other_evaluations
    cards.append(
        Card("evaluations", total, note=f"{found.gradient_evaluations:,} of images while they relaxed")
    )
    return cards + _rates(found)


def _rates(found: PathResult) -> list[Card]:
    temperature = found.experiment.saddle.temperature
    if temperature is None:
        return []
    if found.rate is None:
        return [Card("rate", None, note="there is none, see below")]
    reduced = _units(found).reduced
    at = f"at {temperature:g}" if reduced else f"at {temperature:g} K"
    second, per_second = ("", "") if reduced else ("s", "1/s")
    return [
        Card(
            "rate",
            f"{found.rate.at(temperature):.4g} {per_second}".strip(),
            note=f"{at}, prefactor {found.rate.prefactor:.3g} {per_second}".strip(),
        ),
        Card("lifetime", f"{found.rate.lifetime(temperature):.4g} {second}".strip(), note=at),
    ]


def _images(found: PathResult) -> Table:
    units, base = _units(found), float(found.energy[0])
    energy = "" if units.reduced else units.energy
    length = "" if units.reduced else units.length
    last = len(found.path) - 1
    rows = [
        [{0: "start", last: "end"}.get(k, str(k)), s, e, e - base]
        for k, (s, e) in enumerate(zip(found.s.tolist(), found.energy.tolist(), strict=True))
    ]
    columns = [
        Column("image"),
        Column("distance along the path", length, 4),
        Column("energy", energy, 6),
        Column("over the start", energy, 6),
    ]
    return Table("Images", columns, rows)


def _figures(found: PathResult) -> list[Figure | Gallery]:
    figures: list[Figure | Gallery] = [
        Figure(picture.title, f"{name}.svg", picture.caption) for name, picture in pictures.of(found).items()
    ]
    if found.experiment.model.masses() is not None:  # atoms, whose states are structures
        saddle = _units(found).say(found.barrier_forward)
        end = _units(found).say(float(found.energy[-1] - found.energy[0]))
        structures = (
            Structure("path.extxyz", 0, "start"),
            Structure("saddle.extxyz", 0, f"saddle, {saddle} above"),
            Structure("path.extxyz", -1, f"end, {end} above the start"),
        )
        figures.append(Gallery("Start, saddle and end", structures, "All three are seen from one direction."))
    return figures
