"""The fused engine on CUDA: simulated, compiled to PTX, and, where there is a GPU, run beside the CPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.engine import choose_engine
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Stop
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.optimizers import LBFGS, Adam, Angular, BasinHopping, Displacement, Exchange, Fire, GradientDescent
from mlopt.optimizers.fused import engine, launch
from mlopt.optimizers.fused.compiled import ARRAYS
from mlopt.optimizers.learned.step.optimizer import LearnedFamily
from mlopt.optimizers.moves.cluster import Surface, Symmetrise, Twist
from mlopt.potentials import Gupta, LennardJones, StillingerWeber

pytest.importorskip("numba")

LJ = LennardJones()
CAPPED = GradientDescent(step_size=1e-3, max_step=0.05)
MOVES = [
    Displacement(distribution="normal"),
    Angular(),
    Exchange(probability=0.5),
    Twist(),
    Symmetrise(probability=0.5),
    Surface(),
]


def clusters(sizes: list[int], a: float, z: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Systems:
    """Corners of distorted cubes."""
    number = torch.cat([torch.arange(n) for n in sizes])
    grid = torch.stack([number % 3, number // 3 % 3, number // 9], -1).to(torch.float64)
    noise = torch.rand(grid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pos = (a * (grid + 0.15 * noise)).to(dtype)
    return Systems(pos, torch.tensor(z)[number % len(z)], torch.tensor([0, *sizes]).cumsum(0))


def boxes(a: float, z: int, dtype: torch.dtype = torch.float64) -> Systems:
    """Small periodic ones."""
    one = clusters([9, 9], a, (z,), dtype)
    cell = torch.diag(torch.tensor([3.1 * a, 3.1 * a, 2.2 * a], dtype=dtype)).expand(2, 3, 3)
    return Systems(one.pos, one.z, one.ptr, cell, torch.ones(2, 3, dtype=torch.bool))


# simulated


def simulate(*names: str) -> None:
    script = Path(__file__).with_name("cuda_simulation.py")
    done = subprocess.run(
        [sys.executable, str(script), *names], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [f"{name}: the same" for name in names]


def test_simulated_rollouts() -> None:
    """In one process: it takes seconds to begin."""
    simulate("numbers", "gradient descent", "adam", "fire", "lbfgs")


@pytest.mark.slow
def test_simulated_networks() -> None:
    simulate("learned")


@pytest.mark.slow
def test_simulated_searches_and_potentials() -> None:
    simulate("basin hopping", "gupta", "silicon")


# compiled


@lru_cache(maxsize=1)
def no_compiler() -> str | None:
    """Why nothing can be compiled to PTX here, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from numba import cuda, float64

            cuda.compile_ptx(lambda x: None, (float64[:],), cc=(8, 0))
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


class WrittenError(Exception):
    """Ends a rollout before its first step."""


class Noted(launch.Launcher):
    """Notes what CUDA would be given."""

    target = "cuda"

    def __init__(self) -> None:
        self.text = ""
        self.dtypes: list[tuple[np.dtype[Any], int]] = []

    def refusal(self) -> str | None:
        return None

    def run(self, kernel: str, work: launch.Work) -> float:
        self.text = kernel
        for name in ARRAYS:
            dtype = work.space[name][1] if name in work.space else work.arrays[name].dtype
            ndim = 2 if name in work.space else work.arrays[name].ndim
            self.dtypes.append((torch.zeros(1, dtype=dtype).numpy().dtype, ndim))
        raise WrittenError


def ptx(optimizer: Optimizer, potential: Potential, systems: Systems, cc: tuple[int, int], tmp: Path) -> str:
    from numba import cuda, from_dtype, int64, types, void

    noted = Noted()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(launch.LAUNCHERS, "cpu", noted)
        patch.setattr(engine, "load", lambda text, target, announce: text)
        with pytest.raises(WrittenError):
            advance(optimizer, potential, systems, 5, "cpu")
    path = tmp / "kernel.py"
    path.write_text(noted.text)
    spec = importlib.util.spec_from_file_location("kernel", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arrays = [types.Array(from_dtype(dtype), ndim, "C") for dtype, ndim in noted.dtypes]
    with pytest.MonkeyPatch.context() as patch:
        # functions that kernels call are compiled for the device that is there
        there = SimpleNamespace(compute_capability=cc)
        patch.setattr("numba.cuda.dispatcher.get_current_device", lambda: there)
        text, _ = cuda.compile_ptx(module.chunk.py_func, void(*[int64] * 5, *arrays), cc=cc)
    return str(text)


def networks(systems: int) -> Optimizer:
    """One for each system."""
    family = LearnedFamily(species=["Ar", "Si"])
    start = family.start()
    noise = torch.randn(systems, len(start), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return family.optimizer(start + 0.1 * noise)


COMPILED: dict[str, tuple[Optimizer, Potential, Systems]] = {
    "lennard-jones, gradient descent": (CAPPED, LJ, clusters([5], 1.1, (18,))),
    "lennard-jones, adam": (Adam(), LJ, clusters([5], 1.1, (18,))),
    "lennard-jones, fire": (Fire(), LJ, clusters([5], 1.1, (18,))),
    "lennard-jones, lbfgs": (LBFGS(), LJ, clusters([5], 1.1, (18,))),
    "lennard-jones, every move": (BasinHopping(moves=MOVES), LJ, clusters([5], 1.1, (18, 36))),
    "lennard-jones, cut": (CAPPED, LennardJones(cutoff=2.5, shift="force"), boxes(1.1, 18)),
    "alloy, lbfgs": (LBFGS(), Gupta(), clusters([5], 2.8, (79, 29))),
    "gold, cut": (CAPPED, Gupta(cutoff=5.5), boxes(2.8, 79)),
    "silicon": (Fire(), StillingerWeber(), boxes(2.6, 14)),
    "lennard-jones, networks": (networks(3), LJ, clusters([5, 40, 5], 1.1, (18,))),
    "silicon, networks": (networks(2), StillingerWeber(), boxes(2.6, 14)),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("dtype", "cc"), [(torch.float64, (9, 0)), (torch.float32, (8, 0))], ids=str)
@pytest.mark.parametrize("name", COMPILED)
def test_compiles_to_ptx(name: str, dtype: torch.dtype, cc: tuple[int, int], tmp_path: Path) -> None:
    if no_compiler() is not None:
        pytest.skip(f"no PTX compiler: {no_compiler()}")
    optimizer, potential, systems = COMPILED[name]
    text = ptx(optimizer, potential, systems.to(dtype=dtype), cc, tmp_path)
    assert f".target sm_{cc[0]}{cc[1]}" in text and ".entry" in text
    assert "bar.sync" in text and "shfl.sync" in text
    assert ("fma.rn.f64" if dtype == torch.float64 else "fma.rn.f32") in text


# run


def advance(
    optimizer: Optimizer, potential: Potential, systems: Systems, calls: int, device: str, **stop: Any
) -> Progress:
    systems = systems.to(device=device)
    driver = Driver(AtomsLandscape(systems, potential), optimizer, Stop(calls, **stop), 3, "fused")
    keys = problem_keys(0, torch.arange(len(systems), device=device))
    return driver.advance(driver.begin(systems.pos.clone(), keys))


def beside(case: tuple[Optimizer, Potential, Systems], calls: int, tolerance: float, **stop: Any) -> None:
    (ours, about), (theirs, about_theirs) = (
        advance(*case, calls, device, **stop).to_checkpoint() for device in ("cpu", "cuda")
    )
    assert about == about_theirs and list(ours) == list(theirs)
    for name, value in ours.items():
        assert theirs[name].device.type == "cuda", name
        torch.testing.assert_close(
            theirs[name].cpu(), value, rtol=tolerance, atol=tolerance, equal_nan=True, msg=name
        )


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COMPILED)
def test_a_gpu_does_what_the_cpu_does(name: str) -> None:
    beside(COMPILED[name], 15, 1e-7)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
def test_sizes_that_need_blocks_of_other_sizes() -> None:
    """Up to more atoms than a block has threads, some of which converge before others."""
    systems = clusters([3, 33, 70, 140, 3], 1.1, (18,))
    beside((CAPPED, LJ, systems), 60, 1e-7, fmax=0.5)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
def test_single_precision_on_a_gpu() -> None:
    beside((Fire(), LJ, clusters([8, 13], 1.1, (18,), torch.float32)), 10, 1e-3)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
def test_more_systems_than_blocks_and_the_same_bits_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    systems = clusters([13] * 40, 1.1, (18,))
    optimizer = BasinHopping(quench_calls=20)
    whole = advance(optimizer, LJ, systems, 300, "cuda").to_checkpoint()[0]
    monkeypatch.setattr(launch.Blocks, "room", lambda self, work, device: 7)
    monkeypatch.setattr(engine, "_FIRST_STEPS", 3)
    again = advance(optimizer, LJ, systems, 300, "cuda").to_checkpoint()[0]
    for name, value in whole.items():
        assert torch.equal(value.nan_to_num(), again[name].nan_to_num()), name


def test_without_cuda_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba.cuda", None)
    monkeypatch.delattr(sys.modules["numba"], "cuda", raising=False)
    monkeypatch.setitem(launch.LAUNCHERS, "cpu", launch.Blocks())
    with pytest.raises(InputError, match=r"Numba cannot compile for CUDA .*mlopt-optimizers\[cuda\]"):
        advance(CAPPED, LJ, clusters([5], 1.1, (18,)), 5, "cpu")


def test_auto_leaves_gpus_to_the_eager_engine() -> None:
    landscape = AtomsLandscape(clusters([5], 1.1, (18,)), LJ)
    assert choose_engine("auto", landscape, CAPPED, 10**7) is not None
    there = SimpleNamespace(ptr=SimpleNamespace(device=torch.device("cuda")), n_rows=5)
    landscape.segments = there  # type: ignore[assignment]
    assert choose_engine("auto", landscape, CAPPED, 10**7) is None
