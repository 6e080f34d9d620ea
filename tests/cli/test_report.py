"""The report: every kind of run gives a sound page, and nothing in a run's files can put code into it."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Decahedron, Icosahedron, Octahedron
from ase.io import write

from mlopt.cli import pictures
from mlopt.cli.record import number, read_record
from mlopt.cli.report import write_report
from mlopt.core.errors import RunDirectoryError

TARGET = -173.928427
CONFIG = """experiment: search
system: {cluster: Ar38}
potential: {name: lennard-jones, epsilon: 1.0, r0: 1.0}
optimizer: {name: basin-hopping, temperature: 0.8, step: 0.36, quench: {name: lbfgs}}
starts: 64
budget: {force_calls: 200000}
seed: 0
"""


def clusters() -> list[Atoms]:
    """Structures of 38 atoms: the truncated octahedron, and two icosahedra that lack atoms."""
    shell = Icosahedron("Ar", 3, latticeconstant=1.6)
    order = np.argsort(np.linalg.norm(shell.positions - shell.positions.mean(axis=0), axis=1), kind="stable")
    whole = Octahedron("Ar", 4, cutoff=1, latticeconstant=1.56)
    others = [Atoms("Ar38", positions=shell.positions[np.r_[order[:13], order[k : k + 25]]]) for k in (13, 30)]
    return [Atoms("Ar38", positions=whole.positions), *others]


def fake_run(
    folder: Path,
    n_starts: int = 64,
    *,
    target: float | None = TARGET,
    mean: float = 1.2e6,
    budget: int = 200_000,
    failed: int = 0,
    structures: list[Atoms] | None = None,
    status: str = "finished",
    config: str = CONFIG,
    seed: int = 0,
) -> Path:
    """Write what a search leaves: starts whose first hits are exponential, minima below a noisy way down."""
    generator = np.random.default_rng(seed)
    (folder / "results").mkdir(parents=True)
    (folder / "config.resolved.yaml").write_text(config)
    (folder / "env.json").write_text(json.dumps({"python": "3.11", "versions": {"torch": "2.13"}}))
    (folder / "STATUS.json").write_text(json.dumps({"state": status, "updated": "2026-01-01T00:00:00Z"}))
    bottom = TARGET if target is None else target
    levels = bottom + np.array([0.0, 0.676, 0.77, 0.79, 1.1, 1.4, 1.7, 2.2, 2.9])
    grid = np.unique(np.geomspace(1, budget, 90).astype(int))
    trace = np.full((len(grid), n_starts), np.nan)
    starts: list[dict[str, Any]] = []
    for i in range(n_starts):
        hit = int(generator.exponential(mean)) + 150
        reached = hit <= budget
        energy = float(levels[0] if reached else generator.choice(levels[1:], p=np.ones(8) / 8))
        slack = 0.19 * abs(bottom) * (grid / 80.0) ** -0.62 * generator.lognormal(0, 0.5, len(grid))
        way = np.minimum.accumulate(np.maximum(energy + slack, energy + 0.6 * reached + 1e-4 * (not reached)))
        way[grid < 60] = 1e4 * generator.lognormal(0, 1, int((grid < 60).sum()))
        trace[:, i] = np.minimum.accumulate(np.where(reached & (grid >= hit), energy, way))
        row = {"index": i, "energy": float(trace[-1, i]), "fmax": 3e-3, "calls": budget, "quenches": budget // 40}
        row |= {"first_hit": hit if reached else None, "reason": "budget", "polished_energy": energy}
        if i >= n_starts - failed:
            row |= {"energy": None, "fmax": None, "calls": 210, "first_hit": None, "reason": "non-finite"}
            row["polished_energy"] = None
            trace[:, i] = np.nan
        starts.append(row)
    results = folder / "results"
    (results / "starts.json").write_text(json.dumps(starts))
    energies = [[None if math.isnan(e) else e for e in row] for row in trace.tolist()]
    (results / "trace.json").write_text(json.dumps({"calls": grid.tolist(), "energy": energies}))
    finite = [row["polished_energy"] for row in starts if row["polished_energy"] is not None]
    summary = {"experiment": "search", "status": status, "best_energy": min(finite, default=None)}
    summary |= {"target_energy": target, "starts": n_starts, "wall_s": 812.4}
    (results / "summary.json").write_text(json.dumps(summary))
    images = []
    for rank, atoms in enumerate(clusters() if structures is None else structures):
        image = atoms.copy()
        image.info.update(point_group=["Oh", "C5v", "Cs"][rank % 3], hits=9 - rank, rank=rank + 1, start=rank, calls=99)
        image.calc = SinglePointCalculator(image, energy=float(levels[rank % 9]), forces=np.zeros((len(atoms), 3)))
        images.append(image)
    if images:
        write(results / "minima.extxyz", images, format="extxyz")
    return folder
