"""Runs of `learn2hop.py`: the systems of the paper, trainings and contests in a folder."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Size:
    """How much is spent: on a training, and on an evaluation."""

    horizon: int
    population: int
    epochs: int
    calls: int
    starts: int
    seeds: int


SIZES = {
    "tiny": Size(60, 8, 2, 100, 3, 1),
    "small": Size(1000, 40, 80, 5_000, 50, 2),
    "paper": Size(50_000, 160, 1000, 50_000, 150, 10),
}
#: starts on which each member of a genetic algorithm is judged
GA_STARTS = 8
#: as the paper evaluates: 1,000 steps of gradient descent at the end
DESCENT = {"optimizer": {"name": "gradient-descent", "step_size": 1e-3}, "force_calls": 1000, "fmax": None}
LJ = {"name": "lennard-jones", "epsilon": 1.0, "r0": 1.0}
MINIMA = {10: -28.422532, 13: -44.326801, 16: -56.815742, 19: -72.659782, 22: -86.809782, 25: -102.372663,
          28: -117.822402, 31: -133.586422, 34: -150.044528, 38: -173.928427, 45: -213.784862, 55: -279.248470,
          65: -334.971532, 75: -397.492331, 85: -459.055799, 100: -557.039820}  # fmt: skip
ADAM = {"label": "Adam", "optimizer": {"name": "adam", "step_size": 0.01}}
FIRE = {"label": "FIRE", "optimizer": {"name": "fire"}}
PAPER_HOPPING = {
    "label": "basin hopping (paper)",
    "optimizer": {
        "name": "basin-hopping", "temperature": 0.0, "quench": {"name": "adam", "step_size": 0.01},
        "quench_calls": 5000, "quench_tolerance": 0.0,
        "moves": [{"name": "displacement", "step": 0.2, "distribution": "normal"}],
    },
}  # fmt: skip


#: basin hopping with L-BFGS quenches, tuned as in `first_encounter.py`
TUNED: dict[str, Any] = {
    "Au55": {
        "temperature": 0.25,
        "quench_tolerance": 0.03,
        "moves": [{"name": "displacement", "step": 0.264}, "angular"],
    },
    "si64": {"temperature": 0.2, "quench_calls": 500, "moves": [{"name": "displacement", "step": 0.2}]},
}


def lj(n: int) -> dict[str, Any]:
    """A Lennard-Jones cluster, from the start box with which the paper's baselines come out."""
    return {"system": {"cluster": f"Ar{n}"}, "potential": LJ, "target": MINIMA.get(n),
            "start": {"name": "harmonic", "edge": 2.0}}  # fmt: skip


def metal(formula: str, preset: str, target: float | None = None) -> dict[str, Any]:
    """A Gupta cluster."""
    return {"system": {"cluster": formula}, "potential": {"name": "gupta", "preset": preset}, "target": target,
            "start": {"name": "harmonic", "edge": 4.0}}  # fmt: skip


def learned(label: str, weights: str, **more: Any) -> dict[str, Any]:
    """A contestant."""
    return {"label": label, "optimizer": {"name": "learned", "weights": weights, **more}}


def trained(results: Path) -> str:
    """The file of weights that a training has left."""
    return str(results / "weights.safetensors")


class Work:
    """A folder of runs."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.size: Size = SIZES[arguments.size]
        self.folder = Path(arguments.out) / arguments.size
        self.threads, self.weights, self.systems = arguments.threads, arguments.weights, arguments.systems
        self.folder.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, config: dict[str, Any]) -> Path:
        """Run a configuration, or go on with it; returns the folder of its results."""
        folder = self.folder / re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
        if not folder.exists():
            source = self.folder / f"{folder.name}.yaml"
            plain = json.loads(json.dumps(config))  # YAML would say of equal parts that they are the same
            source.write_text(yaml.safe_dump(plain, sort_keys=False))
            command = ["run", str(source), "--out", str(folder)]
        else:
            command = ["resume", str(folder)]
        command += ["--json", "--threads", str(self.threads)]
        print(f"<!-- {name} -->", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "mlopt.cli", *command], check=True, stdout=subprocess.DEVNULL)
        return folder / "results"

    def train(
        self,
        name: str,
        members: Sequence[dict[str, Any]],
        trainer: str = "esmc",
        seed: int = 0,
        learnable: dict[str, Any] | None = None,
        **task: Any,
    ) -> Path:
        """Train on a family; returns the folder of its results, with ``weights.safetensors`` and ``history.json``.

        task: settings of the task, or ``population`` and ``epochs``, other than those of the size.
        """
        size = self.size
        given = {
            "horizon": size.horizon,
            "loss": "best" if size.horizon < 50_000 else "final",
            "held_out": {"starts": size.starts},
            **task,
        }
        population = given.pop("population", size.population)
        epochs = given.pop("epochs", size.epochs)
        if (
            trainer == "ga"
        ):  # all members meet the same starts: a few members on some starts, at the same cost
            population, given["starts"] = population // GA_STARTS, GA_STARTS
        config = {
            "experiment": "meta-train",
            "task": {
                "name": "rollout", "members": list(members), "learnable": {"name": "learned", **(learnable or {})},
                **given,
            },
            "trainer": {"name": trainer, "population": population},
            "epochs": epochs, "evaluate_every": max(10, epochs // 5), "seed": seed,
        }  # fmt: skip
        return self.run(f"train {name} {trainer} {seed}", config)

    def weights_of(self, *training: Any, **more: Any) -> str:
        """Those of ``--weights``, or else those that `train` comes to."""
        return self.weights or trained(self.train(*training, **more))

    def contest(
        self, name: str, systems: Sequence[dict[str, Any]], contestants: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Rows of a contest at the evaluation's force calls."""
        config = {
            "experiment": "contest", "systems": list(systems), "contestants": list(contestants),
            "starts": self.size.starts, "force_calls": self.size.calls, "stop": "start", "polish": DESCENT,
        }  # fmt: skip
        results = self.run(f"contest {name}", config)
        print(f"<!-- distribution of minima: {results / 'energies.svg'} -->", flush=True)
        return json.loads((results / "contest.json").read_text())["rows"]  # type: ignore[no-any-return]


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print Markdown."""
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join("-" if one is None else str(one) for one in row) + " |", flush=True)


def silicon(work: Work) -> dict[str, Any]:
    """64 silicon atoms in the cell of the crystal; the structure of the file is not used, only its cell."""
    from ase.build import bulk
    from ase.io import write

    file = (work.folder / "si64.extxyz").absolute()
    write(file, bulk("Si", "diamond", a=5.43, cubic=True).repeat(2))
    return {"system": {"file": str(file)}, "potential": {"name": "stillinger-weber", "preset": "paper"},
            "start": "box", "target": -277.196684, "tolerance": 0.01}  # fmt: skip
