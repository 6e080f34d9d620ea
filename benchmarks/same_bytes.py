"""Compare results of the process that compiles a kernel with those of processes that load it.

    python benchmarks/same_bytes.py [--of "gupta/.*hopping"] [--again] [--list]

For every potential, free and periodic, every kind of optimizer with a kernel, in float64 and float32: a process with an
empty cache, another with what that one left, and a third with two threads. --again: a fourth with an empty cache of its
own, which compiles in the reverse order. --of: a regular expression for some of the combinations.
Prints a line for each combination, with the seconds of CPU that compiling took; exits with 1 if any bytes differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.stop import Stop
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.optimizers import LBFGS, Adam, BasinHopping, Fire, GradientDescent
from mlopt.optimizers.learned.hop.optimizer import LearnedHopping
from mlopt.optimizers.learned.step.optimizer import LearnedFamily
from mlopt.optimizers.moves.basic import Angular, Displacement, Exchange, Restart
from mlopt.optimizers.moves.cluster import Surface, Symmetrise, Twist
from mlopt.potentials import Gupta, LennardJones, Morse, StillingerWeber

FORCE_CALLS, SYSTEMS = 600, 3
#: each with an atomic number, and with the cutoff of its periodic version, in units of the atoms' diameter
POTENTIALS: dict[str, tuple[Potential, int, float | None]] = {
    "lennard-jones": (LennardJones(), 18, 1.9),
    "morse": (Morse(), 18, 1.9),
    "gupta": (Gupta(), 79, 1.9),
    "stillinger-weber": (StillingerWeber(), 14, None),
}
MOVES = (Displacement(), Angular(), Exchange(), Restart(), Twist(), Symmetrise(), Surface())


def optimizers() -> dict[str, Optimizer]:
    """Every kind that has a kernel of its own."""
    learned = LearnedFamily()
    made: dict[str, Optimizer] = {"gradient-descent": GradientDescent(step_size=1e-3), "adam": Adam()}
    made |= {f"fire {variant}": Fire(variant=variant) for variant in ("original", "2.0", "ase")}
    made |= {"lbfgs": LBFGS(), "learned": learned.optimizer(learned.start(0)), "hopping": BasinHopping()}
    made |= {f"hopping {type(move).__name__.lower()}": BasinHopping(moves=[move]) for move in MOVES}
    return made | {"learned hopping": LearnedHopping()}


def combinations() -> list[str]:
    """All names, as ``potential/optimizer/dtype``."""
    kinds = [name + cell for name in POTENTIALS for cell in ("", " periodic")]
    dtypes = ("float64", "float32")
    return [f"{kind}/{one}/{dtype}" for kind in kinds for dtype in dtypes for one in optimizers()]


def problem(kind: str, dtype: torch.dtype) -> AtomsLandscape:
    """Three systems on a distorted grid of their own: 13 atoms, or 27 in a cell."""
    name, _, periodic = kind.partition(" ")
    potential, z, cutoff = POTENTIALS[name]
    diameter = float(potential.diameter(torch.tensor([z])))
    n, side = (27, 3) if periodic else (13, 3)
    number = torch.arange(n)
    grid = torch.stack([number % side, number // side % side, number // side**2], -1).double()
    noise = torch.rand(SYSTEMS, n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pos = (diameter * (1.1 * grid + 0.2 * noise)).reshape(-1, 3).to(dtype)
    ptr = torch.arange(SYSTEMS + 1) * n
    cell = torch.eye(3, dtype=dtype).repeat(SYSTEMS, 1, 1) * (1.1 * side * diameter if periodic else 0.0)
    pbc = torch.full((SYSTEMS, 3), bool(periodic))
    if periodic and cutoff is not None:
        potential = potential.replace(cutoff=cutoff * diameter)
    systems = Systems(pos, torch.full((SYSTEMS * n,), z), ptr, cell=cell, pbc=pbc)
    return AtomsLandscape(systems, potential)


def run(name: str) -> str:
    """Digest of all that a run of one combination ends with."""
    kind, optimizer, dtype = name.split("/")
    landscape = problem(kind, getattr(torch, dtype))
    driver = Driver(landscape, optimizers()[optimizer], Stop(FORCE_CALLS), 5, "fused")
    progress = driver.begin(landscape.systems.pos, problem_keys(0, torch.arange(SYSTEMS)))
    tensors, meta = driver.advance(progress).to_checkpoint()
    parts = [json.dumps(meta).encode(), *(tensors[one].numpy().tobytes() for one in sorted(tensors))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def child(names: list[str]) -> None:
    """Print name, digest and seconds of CPU of each combination."""
    for name in names:
        began = time.process_time()
        print(json.dumps([name, run(name), time.process_time() - began]), flush=True)


def in_a_process(names: list[str], cache: Path, threads: int = 1) -> dict[str, tuple[str, float]]:
    """Digests and seconds, by name."""
    environment = os.environ | {"MLOPT_CACHE": str(cache), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--child", json.dumps(names)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: (digest, seconds) for name, digest, seconds in rows}


def main() -> None:
    """Compare, potential by potential."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--of", default="", metavar="REGEX", help="combinations to take")
    parser.add_argument("--again", action="store_true", help="compile a second time, in the reverse order")
    parser.add_argument("--list", action="store_true", help="only say which combinations there are")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(json.loads(arguments.child))
        return
    names = [name for name in combinations() if re.search(arguments.of, name)]
    if arguments.list:
        print("\n".join(names))
        return
    different = 0
    for kind in dict.fromkeys((name.split("/")[0], name.split("/")[2]) for name in names):
        group = [name for name in names if (name.split("/")[0], name.split("/")[2]) == kind]
        with tempfile.TemporaryDirectory() as folder:
            cold = in_a_process(group, Path(folder, "cache"))
            others = [in_a_process(group, Path(folder, "cache"), threads) for threads in (1, 2)]
            if arguments.again:
                others.append(in_a_process(group[::-1], Path(folder, "other")))
        for name in group:
            digest, seconds = cold[name]
            same = all(one[name][0] == digest for one in others)
            different += not same
            print(f"{name}: {digest} {'same' if same else 'DIFFERENT'}, {seconds:.1f} s", flush=True)
    print(f"{len(names)} combinations, {different} different")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
