"""The disconnectivity graph of a network: energy upwards, and the energy at which minima join.

Source: O. M. Becker and M. Karplus, J. Chem. Phys. 106 (1997) 1495.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlopt.core.reporting.drawing import pyplot, save

#: minima that are drawn: the lowest of them
LEAVES = 300


@dataclass
class Branch:
    """Minima that are joined below some energy: ``leaves`` in drawing order, and the branch's inner structure."""

    energy: float
    leaves: list[int]
    inner: list[Branch] = field(default_factory=list)


def branches(energies: Sequence[float], saddles: Sequence[tuple[float, int, int]]) -> list[Branch]:
    """Return the trees of minima with these energies.

    saddles: (energy, minimum, minimum), sorted by energy.
    """
    of = [Branch(energy, [i]) for i, energy in enumerate(energies)]
    for energy, a, b in saddles:
        first, second = of[a], of[b]
        if first is second:
            continue
        # what hangs lower stands further left
        low, high = sorted((first, second), key=lambda one: min(energies[i] for i in one.leaves))
        new = Branch(energy, low.leaves + high.leaves, [low, high])
        for leaf in new.leaves:
            of[leaf] = new
    return list({id(one): one for one in of}.values())


def draw(energies: Sequence[float], saddles: Sequence[tuple[float, int, int]], unit: str, file: Path) -> None:
    """Write the graph of the lowest minima, each a line that rises to the energy at which it joins others.

    energies: of the minima, lowest first. saddles: (energy, minimum, minimum) by energy, -1 for an unknown minimum.
    """
    plt = pyplot()
    shown = min(len(energies), LEAVES)
    joining = [(top, a, b) for top, a, b in saddles if 0 <= a < shown and 0 <= b < shown and a != b]
    trees = branches(energies[:shown], joining)
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
    axis.set_ylabel(f"energy ({unit})")
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
    save(figure, file)


def _draw_branch(axis: Any, tree: Branch, place: Mapping[int, int]) -> None:
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
