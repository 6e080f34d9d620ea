"""Compare results of the process that compiles a kernel with those of processes that load it.

    python benchmarks/same_bytes.py [--of "gupta/.*hopping"] [--again] [--list]

For every potential, free and periodic, every kind of optimizer with a kernel, in float64 and float32: a process with an
empty cache, another with what that one left, and a third with two threads. --again: a fourth with an empty cache of its
own, which compiles in the reverse order. --of: a regular expression for some of the combinations.
Prints a line for each combination, with the seconds of CPU that compiling took; exits with 1 if any bytes differ. That
every search hops, and no two moves do the same, is checked: else nothing would have been compared.
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
from mlopt.core.batch.random import Draws, problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.stop import Stop
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.protocols.move import Move
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.optimizers import LBFGS, Adam, BasinHopping, Fire, GradientDescent
from mlopt.optimizers.learned.hop.optimizer import LearnedHopping
from mlopt.optimizers.learned.step.optimizer import LearnedFamily
from mlopt.optimizers.moves.basic import Angular, Displacement, Exchange, Restart
from mlopt.optimizers.moves.cluster import Surface, Symmetrise, Twist
from mlopt.potentials import Gupta, LennardJones, Morse, StillingerWeber

FORCE_CALLS, SYSTEMS = 600, 3
#: each with atomic numbers, of which the second is for exchanges, and with the cutoff of its periodic version, in units
#: of the atoms' diameter
POTENTIALS: dict[str, tuple[Potential, tuple[int, ...], float | None]] = {
    "lennard-jones": (LennardJones(), (18, 36), 1.9),
    "morse": (Morse(), (18, 36), 1.9),
    "gupta": (Gupta(), (79, 47), 1.9),
    "stillinger-weber": (StillingerWeber(), (14,), None),
}
ALLOY = Gupta(preset="AgAu")
#: by the names of their classes; at the usual threshold no atom of gold is loose
MOVES: dict[str, Move] = {
    type(one).__name__.lower(): one
    for one in (
        Displacement(), Angular(threshold=0.9), Exchange(), Restart(), Twist(), Symmetrise(), Surface(),
    )
}  # fmt: skip
#: these leave periodic systems as they are
OF_CLUSTERS = ("angular", "restart", "twist", "symmetrise", "surface")
#: no other species, and no three atoms in touch, among which a fourth could be put
IDLE = r"stillinger-weber.*hopping (exchange|surface)"


def optimizers() -> dict[str, Optimizer]:
    """Every kind that has a kernel of its own."""
    learned = LearnedFamily()
    made: dict[str, Optimizer] = {"gradient-descent": GradientDescent(step_size=1e-3), "adam": Adam()}
    made |= {f"fire {variant}": Fire(variant=variant) for variant in ("original", "2.0", "ase")}
    made |= {"lbfgs": LBFGS(), "learned": learned.optimizer(learned.start(0)), "hopping": BasinHopping()}
    made |= {f"hopping {name}": BasinHopping(moves=[move]) for name, move in MOVES.items()}
    return made | {"learned hopping": LearnedHopping()}


def combinations() -> list[str]:
    """All names, as ``potential/optimizer/dtype``."""
    kinds = [name + cell for name in POTENTIALS for cell in ("", " periodic")]
    dtypes = ("float64", "float32")
    names = [f"{kind}/{one}/{dtype}" for kind in kinds for dtype in dtypes for one in optimizers()]
    return [one for one in names if not re.search(IDLE, one)]


def problem(kind: str, dtype: torch.dtype, move: str) -> AtomsLandscape:
    """Three systems on a distorted grid of their own: 13 atoms, or 27 in a cell.

    Of two species where a move exchanges them. One is free where a move leaves those in a cell as they are.
    """
    name, _, periodic = kind.partition(" ")
    potential, species, cutoff = POTENTIALS[name]
    if (name, move) == ("gupta", "exchange"):
        potential = ALLOY
    diameter = float(potential.diameter(torch.tensor(species[:1])))
    n, side = (27, 3) if periodic else (13, 3)
    number = torch.arange(n)
    grid = torch.stack([number % side, number // side % side, number // side**2], -1).double()
    noise = torch.rand(SYSTEMS, n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pos = (diameter * (1.1 * grid + 0.2 * noise)).reshape(-1, 3).to(dtype)
    ptr = torch.arange(SYSTEMS + 1) * n
    cell = torch.eye(3, dtype=dtype).repeat(SYSTEMS, 1, 1) * (1.1 * side * diameter if periodic else 0.0)
    pbc = torch.full((SYSTEMS, 3), bool(periodic))
    if move in OF_CLUSTERS:
        pbc[-1], cell[-1] = False, 0.0
    number = torch.arange(SYSTEMS * n)
    z = torch.tensor(species)[number % len(species) if move == "exchange" else 0 * number]
    if periodic and cutoff is not None:
        potential = potential.replace(cutoff=cutoff * diameter)
    systems = Systems(pos, z, ptr, cell=cell, pbc=pbc)
    return AtomsLandscape(systems, potential)


def run(name: str) -> str:
    """Digest of all that a run of one combination ends with."""
    kind, optimizer, dtype = name.split("/")
    move = optimizer.removeprefix("hopping ")
    landscape = problem(kind, getattr(torch, dtype), move)
    driver = Driver(landscape, optimizers()[optimizer], Stop(FORCE_CALLS), 5, "fused")
    progress = driver.begin(landscape.systems.pos, problem_keys(0, torch.arange(SYSTEMS)))
    tensors, meta = driver.advance(progress).to_checkpoint()
    tally = progress.outcome.tally
    if "hopping" in optimizer and not bool(tally.pool_energy.isfinite().any()):
        raise SystemExit(f"{name}: no quench has ended, and nothing has hopped")
    if move in MOVES and torch.equal(moved(landscape, tally.x, MOVES[move]), tally.x):
        raise SystemExit(f"{name}: the move leaves everything where it is")
    parts = [json.dumps(meta).encode(), *(tensors[one].numpy().tobytes() for one in sorted(tensors))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def moved(landscape: AtomsLandscape, x: torch.Tensor, move: Move) -> torch.Tensor:
    """Where a move puts ``x (n_rows, 3)``."""
    energies = landscape.evaluate(x).row_energy
    keys = problem_keys(1, torch.arange(SYSTEMS))
    draws = Draws(keys, torch.zeros_like(keys), landscape.segments)
    return move.propose(landscape, x, energies, x.new_ones(SYSTEMS), draws)


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
        hopping: dict[str, str] = {}
        for name in group:
            digest, seconds = cold[name]
            if "hopping" in name and (other := hopping.setdefault(digest, name)) != name:
                raise SystemExit(f"{name} and {other} do the same")
            same = all(one[name][0] == digest for one in others)
            different += not same
            print(f"{name}: {digest} {'same' if same else 'DIFFERENT'}, {seconds:.1f} s", flush=True)
    print(f"{len(names)} combinations, {different} different")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
