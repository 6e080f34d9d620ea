"""What the report of a network shows: what was found, its saddles, and how its minima hang together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core.atoms.units import Units
from mlopt.core.reporting.drawing import pyplot, save
from mlopt.core.reporting.summary import Card, Column, Figure, Summary, Table

if TYPE_CHECKING:
    from mlopt.optimizers.experiments.network.experiment import NetworkResult

#: rows of the table, and minima of the graph: the lowest of them
_ROWS, _LEAVES = 100, 300


def summarise(found: NetworkResult, numbers: Mapping[str, Any]) -> Summary:
    """Return the numbers of a network with what its report shows."""
    units = Units.of(found.network.potential.units)
    n_minima, n_saddles = (numbers[name] for name in ("minima", "transition_states"))
    lone = _lone(found)
    headline = (
        f"{_many(n_minima, 'minimum', 'minima')} and {_many(n_saddles, 'transition state', 'transition states')}; "
        f"lowest energy {units.say(numbers['best_energy'], '.6f')}"
        + ("" if found.complete else " (there may be more)")
    )
    figures = []
    if n_saddles and n_minima > 1:
        figures.append(Figure("Disconnectivity graph", "disconnectivity.svg", _caption(found)))
    return Summary(
        numbers,
        headline=headline,
        reached=found.complete,
        missed="the last rounds still brought something new, or a saddle joins an unknown minimum",
        cards=[
            *_cards(found, numbers, units),
            Card("minima without a saddle", lone, note="not joined to any other"),
        ],
        tables=[_saddles(found, units)] if n_saddles else [],
        figures=figures,
        remarks=numbers.get("warnings", ()),
    )


def draw(found: NetworkResult, folder: Path) -> None:
    """Write ``disconnectivity.svg``, where there are two minima and a saddle."""
    if len(found.minima) > 1 and found.saddles:
        save(_graph(found), folder / "disconnectivity.svg")


def _many(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"


def _lone(found: NetworkResult) -> int:
    joined = {end for pair in found.ends for end in pair if min(pair) >= 0 and pair[0] != pair[1]}
    return len(found.minima) - len(joined)


def _cards(found: NetworkResult, numbers: Mapping[str, Any], units: Units) -> list[Card]:
    unit = "" if units.reduced else units.energy
    barrier = numbers["lowest_barrier"]
    unknown = numbers["transition_states"] - numbers["connected"]
    joins = "all join two known minima" if not unknown else f"{numbers['connected']:,} join two known minima"
    return [
        Card("minima", numbers["minima"]),
        Card("transition states", numbers["transition_states"], note=joins),
        Card("lowest energy", f"{numbers['best_energy']:.6f}", unit),
        Card("lowest barrier", barrier, unit, "out of the lowest minimum"),
        Card("force calls", numbers["force_calls"], note=f"{numbers['rounds']:,} rounds"),
        Card(
            "complete",
            found.complete,
            note="nothing new in the last rounds" if found.complete else "there may be more",
        ),
    ]


def _saddles(found: NetworkResult, units: Units) -> Table:
    unit = "" if units.reduced else units.energy
    rows = [
        [
            str(row["saddle"] + 1),
            row["energy"],
            *("?" if row[name] is None else str(row[name] + 1) for name in ("minimum_1", "minimum_2")),
            row["barrier_1"],
            row["barrier_2"],
        ]
        for row in found.table()[:_ROWS]
    ]
    columns = [
        Column("saddle"),
        Column("energy", unit, 6),
        Column("from minimum"),
        Column("to minimum"),
        Column("barrier from", unit, 6),
        Column("barrier to", unit, 6),
    ]
    rest = f" The {_ROWS} lowest are shown." if len(found.saddles) > _ROWS else ""
    caption = f"Minima are numbered by energy, 1 is the lowest; ? is a minimum that was not reached.{rest}"
    return Table("Transition states", columns, rows, caption)


def _caption(found: NetworkResult) -> str:
    rest = f" The {_LEAVES} lowest minima are drawn." if len(found.minima) > _LEAVES else ""
    return (
        "Every line ends at a minimum. Two lines meet at the lowest saddle over which one gets from one to the"
        f" other.{rest}"
    )


@dataclass
class _Branch:
    """Minima that are joined up to some energy: ``leaves`` in the order in which they are drawn, and its way there."""

    energy: float
    leaves: list[int]
    inner: list[_Branch] = field(default_factory=list)


def _branches(energies: Sequence[float], saddles: Sequence[tuple[float, int, int]]) -> list[_Branch]:
    """Return the trees of minima with these energies; saddles (energy, minimum, minimum) by energy."""
    of = [_Branch(energy, [i]) for i, energy in enumerate(energies)]
    for energy, a, b in saddles:
        first, second = of[a], of[b]
        if first is second:
            continue
        # what hangs lower stands further left
        low, high = sorted((first, second), key=lambda one: min(energies[i] for i in one.leaves))
        new = _Branch(energy, low.leaves + high.leaves, [low, high])
        for leaf in new.leaves:
            of[leaf] = new
    return list({id(one): one for one in of}.values())


def _graph(found: NetworkResult) -> Any:
    """Draw the trees: energy upwards, each minimum a line that rises to where it joins others."""
    plt = pyplot()
    shown = min(len(found.minima), _LEAVES)
    energies = [one.energy for one in found.minima[:shown]]
    saddles = [
        (saddle.energy, a, b)
        for saddle, (a, b) in zip(found.saddles, found.ends, strict=True)
        if 0 <= a < shown and 0 <= b < shown and a != b
    ]
    trees = _branches(energies, saddles)
    place = {leaf: x for x, leaf in enumerate(leaf for tree in trees for leaf in tree.leaves)}
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for tree in trees:
        _draw_branch(axis, tree, place)
    if shown <= 30:
        for leaf, x in place.items():
            axis.annotate(
                str(leaf + 1), (x, energies[leaf]), xytext=(0, -4), textcoords="offset points",
                ha="center", va="top", fontsize=9,
            )  # fmt: skip
    axis.margins(0.08, 0.1)
    axis.set_xticks([])
    axis.set_ylabel(f"energy ({Units.of(found.network.potential.units).label})")
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
    return figure


def _draw_branch(axis: Any, tree: _Branch, place: Mapping[int, int]) -> None:
    """Draw all below a branch, without recursion: a long chain of minima is a deep tree."""
    centres: dict[int, float] = {}
    waiting = [(tree, False)]
    while waiting:
        branch, ready = waiting.pop()
        if not branch.inner:
            centres[id(branch)] = float(place[branch.leaves[0]])
        elif not ready:
            waiting += [(branch, True), *((one, False) for one in branch.inner)]
        else:
            ends = [centres[id(one)] for one in branch.inner]
            for one, x in zip(branch.inner, ends, strict=True):
                axis.plot([x, x], [one.energy, branch.energy], color="#3b6ea5", linewidth=1.2)
            axis.plot(ends, [branch.energy] * 2, color="#3b6ea5", linewidth=1.2)
            centres[id(branch)] = sum(ends) / len(ends)
