"""Recipes that are written for a number: `lj2` to `lj150`, Lennard-Jones clusters of so many atoms."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_MINIMA = Path(__file__).with_name("lj_minima.txt")
_NAME = re.compile(r"lj([1-9][0-9]{0,2})")
#: atoms up to which plain basin hopping is quickest
_SMALL = 30

_TEXT = """\
# Lennard-Jones cluster of {n} atoms, to the lowest energy that is known (Cambridge Cluster Database)
experiment: search
system: {{cluster: Ar{n}}}
potential: {{name: lennard-jones, epsilon: 1.0, r0: 1.0}}
optimizer: {optimizer}
starts: 64
budget: {{force_calls: {calls}}}
target: {{energy: {energy:.6f}, tolerance: 1.0e-3, stop: run}}
seed: 0
"""


@cache
def lennard_jones_minima() -> dict[int, float]:
    """Return the lowest known energy of each size, in units of the well depth."""
    lines = _MINIMA.read_text(encoding="utf-8").splitlines()
    pairs = (line.split() for line in lines if not line.startswith("#"))
    return {int(n): float(energy) for n, energy in pairs}


def written(name: str) -> str | None:
    """Return the text of the recipe of that name, or None where there is none."""
    match = _NAME.fullmatch(name)
    if match is None:  # most names; the table is not read for them
        return None
    known = lennard_jones_minima()
    if int(match[1]) not in known:
        return None
    n = int(match[1])
    if n <= _SMALL:
        optimizer, calls = "{name: basin-hopping, temperature: 0.8, quench: {name: lbfgs}}", 200_000
    else:
        optimizer, calls = "{name: learned-hopping, weights: hop-lj}", 2_000_000
    return _TEXT.format(n=n, optimizer=optimizer, calls=calls, energy=known[n])


def families() -> dict[str, str]:
    """Return the names of the families, and a description of each."""
    known = lennard_jones_minima()
    what = "Lennard-Jones clusters of any other size, to the lowest energy that is known"
    return {f"lj{min(known)} ... lj{max(known)}": what}
