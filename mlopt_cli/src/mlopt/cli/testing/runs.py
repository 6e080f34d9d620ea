"""Runs for `mlopt.core.testing.kills`: a function that starts or resumes a run, and one that reads its results."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

_LJ7 = "{system: {cluster: Ar7}, potential: lennard-jones, target: -16.505384, reference: -16.5}"
#: a second or two of each kind of run, and the files of it that must not depend on kills
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "search": (
        """
experiment: search
system: {cluster: Ar13}
potential: lennard-jones
optimizer: basin-hopping
starts: 4
budget: {force_calls: 400}
engine: auto
minima: {keep: 5}
""",
        ("metrics.jsonl", "results/starts.json", "results/trace.json", "results/minima.extxyz"),
    ),
    "compiled": (
        """
experiment: search
system: {cluster: Ar13}
potential: lennard-jones
optimizer: {name: fire}
starts: 20
budget: {force_calls: 20000}
engine: fused
minima: {keep: 5}
""",
        ("metrics.jsonl", "results/starts.json", "results/trace.json", "results/minima.extxyz"),
    ),
    "training": (
        f"""
experiment: meta-train
task: {{name: rollout, members: [{_LJ7}], learnable: classic, horizon: 40, starts: 2, held_out: {{starts: 4}},
  engine: auto}}
trainer: {{name: esmc, population: 8}}
epochs: 40
evaluate_every: 10
""",
        ("metrics.jsonl", "results/history.json", "results/theta.safetensors"),
    ),
    "contest": (
        """
experiment: contest
systems:
  - {system: {cluster: Ar7}, potential: lennard-jones, target: -16.505384}
  - {system: {cluster: Ar13}, potential: lennard-jones}
contestants: [{label: fire, optimizer: fire}, {label: hops, optimizer: basin-hopping}]
starts: 3
force_calls: 200
engine: auto
""",
        (
            "metrics.jsonl",
            "results/01-fire-on-Ar7/starts.json",
            "results/02-hops-on-Ar7/trace.json",
            "results/03-fire-on-Ar13/starts.json",
            "results/04-hops-on-Ar13/minima.extxyz",
        ),
    ),
    "path": (
        """
experiment: path
model:
  name: heisenberg
  lattice: {kind: chain, repeat: [1]}
  units: reduced
  anisotropy: [{axis: [1, 0, 0], k: 1.0}, {axis: [0, 0, 1], k: -2.0}]
initial: {kind: ferromagnet, direction: [1, 0, 0]}
final: {kind: ferromagnet, direction: [-1, 0, 0]}
start: {axis: [0, 0, 1], disturbance: 0.05}
band: {images: 5}
optimizer: {name: gradient-descent, step_size: 0.02}
fmax: 1.0e-6
""",
        ("metrics.jsonl", "results/path.ovf", "results/profile.csv"),
    ),
    "network": (
        """
experiment: network
system: {cluster: Ar5}
potential: {name: lennard-jones, epsilon: 1.0, r0: 1.0}
searches: 12
force_calls: 200
patience: 2
""",
        ("metrics.jsonl", "results/network.json", "results/minima.extxyz", "results/saddles.extxyz"),
    ),
    "fit": (
        """
experiment: fit
data:
  drawn:
    crystal: {element: Si, repeat: [1, 1, 1]}
    count: 40
    labeller: {name: potential, potential: stillinger-weber}
  leave_out: 0.25
potential: {name: mtp, degrees: [7, 6], cutoff: 3.8, pair_functions: 6}
scan: {pair_functions: [4, 6]}
folds: 6
""",
        ("metrics.jsonl", "results/potential.mtp", "results/errors.json", "results/worst.extxyz"),
    ),
    "md": (
        """
experiment: md
system: {crystal: {element: Si, repeat: [1, 1, 1]}}
potential: stillinger-weber
integrator: {name: langevin, time_step: 1.0, temperature: 900, friction: 0.02}
walkers: 3
steps: 400
every: 10
engine: eager
""",
        ("metrics.jsonl", "results/observables.csv", "results/walkers.json", "results/walker-0001.extxyz"),
    ),
    "active": (
        """
experiment: active
system: {crystal: {element: Si, repeat: [1, 1, 1]}}
potential: {name: mtp, level: 6, cutoff: 3.8}
labeller: {name: potential, potential: stillinger-weber}
optimizer: {name: langevin, time_step: 2.0, temperature: 2500, friction: 0.02}
walkers: 3
force_calls: 200
begin: {structures: 3, displacement: 0.05}
asking: {labels: 3}
""",
        ("metrics.jsonl", "results/labels.csv", "results/labels.extxyz", "results/potential.safetensors"),
    ),
    "active search": (
        """
experiment: active
system: Au6
potential: {name: mtp, level: 8, cutoff: 5.0}
labeller: {name: potential, potential: gupta}
optimizer: {name: basin-hopping, temperature: 0.4}
walkers: 3
force_calls: 400
soften: 3.0
begin: {structures: 5}
asking: {labels: 3, patience: 2}
engine: eager
""",
        ("metrics.jsonl", "results/labels.csv", "results/minima.extxyz", "results/potential.safetensors"),
    ),
    "fit by training": (
        """
experiment: fit
data:
  drawn:
    crystal: {element: Si, repeat: [1, 1, 1]}
    count: 40
    labeller: {name: potential, potential: stillinger-weber}
  leave_out: 0.25
potential: {name: behler-parrinello, cutoff: 3.8, hidden: [6], functions: amp}
scan: {hidden: [[4], [6]]}
training:
  seeds: 2
  every: 10
  stages:
    - {optimizer: {name: annealing, steps: 60, calibration: 10, step_size: 0.02}, evaluations: 30}
    - {optimizer: {name: adam, step_size: 0.01}, evaluations: 40, batch: 8}
    - {optimizer: bfgs, evaluations: 40}
""",
        ("metrics.jsonl", "results/potential.safetensors", "results/errors.json", "results/worst.extxyz"),
    ),
}
#: modules that every run needs: imported once, before processes are forked
IMPORTED = (
    "torch",
    "ase.io",
    "ase.io.extxyz",
    "ase.db",
    "ase.db.sqlite",
    "scipy.spatial",
    "mlopt.optimizers",
    "mlopt.cli.report.page",
)


def small_run(kind: str, folder: Path, cold_cache: bool = False) -> Callable[[Path], int]:
    """Return a function that starts or resumes a run of one of `KINDS` at a path and returns its exit code.

    It writes the configuration into ``folder``, and serves `check_kills`.

    cold_cache: give each run its own empty cache of kernels, and compile where the engine is chosen automatically.
    """
    for module in IMPORTED:  # once here instead of in every child
        importlib.import_module(module)
    config = folder / f"{kind.replace(' ', '-')}.yaml"
    text = KINDS[kind][0]
    config.write_text(text.replace("engine: auto", "engine: fused") if cold_cache else text)

    def start_or_resume(path: Path) -> int:
        from mlopt.cli.main import cli

        if cold_cache:
            os.environ["MLOPT_CACHE"] = f"{path}-cache"
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        # killed before the marker was written, a run has nothing to resume and starts again
        begun = (path / ".mlopt-run").exists()
        where = ["resume", str(path)] if begun else ["run", str(config), "--out", str(path)]
        try:
            cli.main([*where, "--quiet", "--checkpoint-every", "0.05"])
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return start_or_resume


def results(kind: str) -> Callable[[Path], bytes]:
    """Return a function that reads the part of a run that must be the same, byte for byte.

    That function raises OSError if something is missing.
    """

    def read(path: Path) -> bytes:
        return b"\0".join((path / name).read_bytes() for name in KINDS[kind][1])

    return read
