"""What `rollout_speed.py` measures: each program steps an optimizer on the same systems, in a process of its own.

A peer is a function of a `Case` that prepares (and compiles) and returns ``run(steps)``, the seconds that so many steps
of the whole batch take. What it cannot do it says by `Unavailable`.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlopt.core import AtomsLandscape, Systems, minimize
from mlopt.core.batch.random import problem_keys
from mlopt.core.errors import InputError
from mlopt.optimizers import Adam, Fire, HarmonicStart
from mlopt.potentials import Gupta, LennardJones, StillingerWeber

SIGMA = 2.0 ** (-1.0 / 6.0)  # r0 = 1
SI_EDGE = 10.86
CUTOFF = 2.5
Run = Callable[[int], float]


class Unavailable(Exception):
    """A peer that is not installed, or cannot do this; says why."""


@dataclass(frozen=True)
class Case:
    """One measurement. system: such as LJ38, LJ38-cut, Au55, Si64. optimizer: adam or fire. least: seconds."""

    peer: str
    system: str
    optimizer: str
    batch: int
    threads: int
    least: float = 0.3
    repeats: int = 5

    @property
    def n_atoms(self) -> int:
        """Of each system."""
        return int("".join(filter(str.isdigit, self.system)))

    @property
    def potential(self) -> Any:
        """In mlopt."""
        if self.system.startswith("LJ"):
            return LennardJones(cutoff=CUTOFF) if self.system.endswith("-cut") else LennardJones()
        return Gupta(preset="au55-paper") if self.system == "Au55" else StillingerWeber(preset="paper")

    def starts(self, batch: int | None = None) -> Systems:
        """Soft spheres in a box, so that nobody spends the run on overlapping atoms; silicon: the crystal, shaken."""
        batch, n = batch or self.batch, self.n_atoms
        if self.system == "Si64":
            from ase.build import bulk

            crystal = Systems.from_atoms(bulk("Si", "diamond", a=SI_EDGE / 2, cubic=True) * (2, 2, 2))
            noise = torch.randn(batch * n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            systems = crystal.repeat(batch)
            return systems.with_pos(systems.pos + 0.1 * noise)
        systems = Systems.cluster([79 if self.system == "Au55" else 18] * n, batch)
        diameter = self.potential.diameter(systems.z)
        edge = max(3.0, 1.05 * n ** (1 / 3))
        keys = problem_keys(0, torch.arange(batch))
        return systems.with_pos(HarmonicStart(edge=edge).sample(systems, diameter, keys))


def mlopt_peer(engine: str, dtype: torch.dtype, device: str = "cpu") -> Callable[[Case], Run]:
    """`minimize` as a user calls it, driver and bookkeeping included."""

    def prepare(case: Case) -> Run:
        if device == "cuda" and not torch.cuda.is_available():
            raise Unavailable("no CUDA device")
        optimizer: Any = Adam() if case.optimizer == "adam" else Fire()

        def at(systems: Systems) -> Run:
            systems = systems.to(device, dtype)
            landscape = AtomsLandscape(systems, case.potential)

            def run(steps: int) -> float:
                began = time.perf_counter()
                minimize(landscape, optimizer, systems.pos, force_calls=steps, engine=engine)  # type: ignore[arg-type]
                if device == "cuda":
                    torch.cuda.synchronize()
                return time.perf_counter() - began

            return run

        try:
            at(case.starts(1))(3)
        except (InputError, NotImplementedError) as error:
            raise Unavailable(str(error)) from error
        return at(case.starts())

    return prepare


CPP = r"""
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>
#include <vector>
static double energy_force(int n, const double* x, const double* y, const double* z,
                           double* fx, double* fy, double* fz) {
  double total = 0;
  for (int i = 0; i < n; i++) {
    double e = 0, a = 0, b = 0, c = 0;
    for (int j = 0; j < n; j++) {
      double dx = x[i] - x[j], dy = y[i] - y[j], dz = z[i] - z[j], r2 = dx * dx + dy * dy + dz * dz;
      r2 = j == i ? 1e30 : r2;
      double inverse = 1 / r2, s = inverse * inverse * inverse, bound = s * (s - 1), w = 12 * bound * inverse;
      e += bound - s; a += w * dx; b += w * dy; c += w * dz;
    }
    total += e; fx[i] = a; fy[i] = b; fz[i] = c;
  }
  return .5 * total;
}
static double adam(int n, double* x, int steps) {
  std::vector<double> f(3 * n), m(3 * n), v(3 * n);
  double d1 = 1, d2 = 1, e = 0;
  for (int s = 0; s < steps; s++) {
    double now = energy_force(n, x, x + n, x + 2 * n, &f[0], &f[n], &f[2 * n]);
    e = s ? std::fmin(e, now) : now;
    d1 *= .9; d2 *= .999;
    double a = .01 / (1 - d1), c = 1 / std::sqrt(1 - d2);
    for (int i = 0; i < 3 * n; i++) {
      double q = f[i] * f[i];
      m[i] = f[i] + .9 * (m[i] - f[i]); v[i] = q + .999 * (v[i] - q);
      x[i] += a * m[i] / (std::sqrt(v[i]) * c + 1e-8);
    }
  }
  return e;
}
int main(int, char** argv) {
  int n = atoi(argv[2]), batch = atoi(argv[3]), steps = atoi(argv[4]), threads = atoi(argv[5]);
  std::vector<double> x(3 * n * batch), e(batch);
  std::ifstream(argv[1], std::ios::binary).read((char*)x.data(), x.size() * sizeof(double));
  auto began = std::chrono::steady_clock::now();
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; t++)
    pool.emplace_back([&, t] { for (int b = t; b < batch; b += threads) e[b] = adam(n, &x[3 * n * b], steps); });
  for (auto& one : pool) one.join();
  printf("%.9f %.6f\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count(), e[0]);
}
"""


def cpp_peer(case: Case) -> Run:
    """The same loop over all pairs in both directions, in plain C++: Adam on Lennard-Jones."""
    if not case.system.startswith("LJ") or case.system.endswith("-cut") or case.optimizer != "adam":
        raise Unavailable("written for Adam on Lennard-Jones without a cutoff")
    if shutil.which("g++") is None:
        raise Unavailable("there is no g++ (apt install g++)")
    folder = Path(tempfile.mkdtemp(prefix="mlopt-bench-"))
    (folder / "loop.cpp").write_text(CPP)
    flags = ["-O3", "-march=native", "-ffast-math", "-pthread"]
    subprocess.run(["g++", *flags, str(folder / "loop.cpp"), "-o", str(folder / "loop")], check=True)
    pos = case.starts().pos.reshape(case.batch, case.n_atoms, 3).transpose(1, 2).contiguous()
    (folder / "starts").write_bytes(pos.numpy().tobytes())

    def run(steps: int) -> float:
        given = map(str, (folder / "starts", case.n_atoms, case.batch, steps, case.threads))
        done = subprocess.run([str(folder / "loop"), *given], check=True, capture_output=True, text=True)
        return float(done.stdout.split()[0])

    return run


def jax_peer(dtype: str) -> Callable[[Case], Run]:
    """JAX-MD's energies (gradients by JAX) and FIRE, or Optax's Adam; vmapped, the loop inside the jitted function."""

    def prepare(case: Case) -> Run:
        if case.system.endswith("-cut"):
            raise Unavailable("measured without a cutoff only")
        jax, _ = needs("jax", "jax jax-md"), needs("jax_md", "jax jax-md")
        from jax_md import energy, minimize, smap, space

        if case.system == "Si64":
            displacement, shift = space.periodic(SI_EDGE)
            function = energy.stillinger_weber(displacement, cutoff=3.77)
        else:
            displacement, shift = space.free()
            metric = space.canonicalize_displacement_or_metric(displacement)
            function = (
                energy.gupta_gold55(displacement, cutoff=1e3)
                if case.system == "Au55"
                else smap.pair(energy.lennard_jones, metric, sigma=SIGMA, epsilon=1.0)
            )
        if case.optimizer == "fire":
            init, update = minimize.fire_descent(function, shift, dt_start=0.02, dt_max=0.04)
        else:
            init, update = _optax_adam(jax, needs("optax", "optax"), function, shift)

        def roll(x: Any, steps: Any) -> Any:
            state = jax.vmap(init)(x)
            return jax.lax.fori_loop(0, steps, lambda _, one: jax.vmap(update)(one), state)

        x = jax.numpy.asarray(case.starts().pos.numpy().reshape(case.batch, case.n_atoms, 3), dtype)
        jitted = jax.jit(roll).lower(x, 1).compile()

        def run(steps: int) -> float:
            began = time.perf_counter()
            jax.block_until_ready(jitted(x, steps))
            return time.perf_counter() - began

        return run

    return prepare


def _optax_adam(jax: Any, optax: Any, energy: Any, shift: Any) -> tuple[Any, Any]:
    rule = optax.adam(0.01)

    def init(x: Any) -> Any:
        return x, rule.init(x)

    def update(state: Any) -> Any:
        x, moments = state
        change, moments = rule.update(jax.grad(energy)(x), moments)
        return shift(x, change), moments

    return init, update


def ase_peer(case: Case) -> Run:
    """ASE's FIRE and LennardJones, one system; ASE has no batches."""
    _only_lj_fire(case, "ASE")
    needs("ase", "ase")
    from ase.calculators.lj import LennardJones as AseLennardJones
    from ase.optimize import FIRE

    start = case.starts(1).to_atoms()[0]

    def run(steps: int) -> float:
        atoms = start.copy()
        atoms.calc = AseLennardJones(sigma=SIGMA, epsilon=1.0, rc=1e3, smooth=False)
        began = time.perf_counter()
        FIRE(atoms, logfile=None).run(fmax=0.0, steps=steps)
        return (time.perf_counter() - began) * case.batch  # as if one after the other

    return run


def torchsim_peer(case: Case) -> Run:
    """TorchSim's FIRE on the whole batch, without a neighbour list (faster for clusters than with one)."""
    _only_lj_fire(case, "TorchSim")
    torch_sim = needs("torch_sim", "torch-sim-atomistic==0.3.0")
    from torch_sim.models.lennard_jones import LennardJonesModel
    from torch_sim.optimizers import fire

    model = LennardJonesModel(SIGMA, 1.0, dtype=torch.float64, use_neighbor_list=False, cutoff=1e3)
    structures = case.starts().to_atoms()
    for atoms in structures:
        atoms.cell = [100.0] * 3  # TorchSim wants a cell
    state = torch_sim.io.atoms_to_state(structures, torch.device("cpu"), torch.float64)
    init, update = fire(model)

    def run(steps: int) -> float:
        moving = init(state.clone())
        began = time.perf_counter()
        for _ in range(steps):
            moving = update(moving)
        return time.perf_counter() - began

    return run


def _only_lj_fire(case: Case, name: str) -> None:
    if not case.system.startswith("LJ") or case.system.endswith("-cut") or case.optimizer != "fire":
        raise Unavailable(f"{name} has no Adam, and neither this Gupta nor Stillinger-Weber potential")


def needs(module: str, packages: str) -> Any:
    """The module, or what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"not installed: `pip install {packages}` ({error})") from error


PEERS: dict[str, Callable[[Case], Run]] = {
    "fused float64": mlopt_peer("fused", torch.float64),
    "fused float32": mlopt_peer("fused", torch.float32),
    "eager": mlopt_peer("eager", torch.float64),
    "C++": cpp_peer,
    "JAX-MD float64": jax_peer("float64"),
    "JAX-MD float32": jax_peer("float32"),
    "ASE": ase_peer,
    "TorchSim": torchsim_peer,
    "eager CUDA float64": mlopt_peer("eager", torch.float64, "cuda"),
    "eager CUDA float32": mlopt_peer("eager", torch.float32, "cuda"),
    "fused CUDA float64": mlopt_peer("fused", torch.float64, "cuda"),
    "fused CUDA float32": mlopt_peer("fused", torch.float32, "cuda"),
}


def best_of(run: Run, least: float, repeats: int) -> tuple[float, int]:
    """Least seconds a step, and the steps of one measurement, which takes ``least`` seconds or more."""
    steps, seconds = 4, run(4)
    while seconds < least:
        steps = max(2 * steps, min(50 * steps, int(1.3 * steps * least / max(seconds, 1e-9))))
        seconds = run(steps)
    return min([seconds, *(run(steps) for _ in range(repeats - 1))]) / steps, steps


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _status_mb(name: str) -> float | None:
    """A line of /proc/self/status in MB, or None where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith(name)), None)


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def measure(case: Case) -> dict[str, Any]:
    """Microseconds a system and step, seconds of preparation, and how far memory grew beyond the prepared program's."""
    torch.set_num_threads(case.threads)
    began = time.perf_counter()
    try:
        run = PEERS[case.peer](case)
        prepared = time.perf_counter() - began
        own = case.peer != "C++" and _reset_peak()
        before = (_status_mb("VmRSS") if own else None) or _peak_mb()
        per_step, steps = best_of(run, case.least, case.repeats)
        after = (_status_mb("VmHWM") if own else None) or _peak_mb()
    except Unavailable as error:
        return {"unavailable": " ".join(str(error).split())}
    except torch.cuda.OutOfMemoryError:
        return {"unavailable": "out of GPU memory"}
    return {
        "us": per_step / case.batch * 1e6,
        "steps": steps,
        "prepare_s": prepared,
        "memory_mb": None if case.peer == "C++" else max(0.0, after - before),
    }


def child(task: str) -> None:
    """Measure one case, given as JSON, and print the answer as the last line."""
    case = Case(**json.loads(task))
    # JAX takes as many threads as it sees cores
    if hasattr(os, "sched_setaffinity") and "CUDA" not in case.peer:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: case.threads])
    print(json.dumps(measure(case)))
