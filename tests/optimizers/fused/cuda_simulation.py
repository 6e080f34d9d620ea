"""Rollouts on Numba's simulator of CUDA beside those of the CPU; `test_fused_cuda` runs this in a process of its own.

Two things are put into the simulator. It has no exchange between threads of a warp: here with warps of two, so that a
block has several. And the one of Numba itself looks up `cuda` in a way that is not safe with threads.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

os.environ["NUMBA_ENABLE_CUDASIM"] = "1"  # read when Numba is imported

import numpy as np
import torch
from numba import cuda
from numba.cuda.simulator import kernel as simulator
from numba.cuda.simulator.kernelapi import FakeCUDAModule

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.stop import Stop
from mlopt.core.kernels import lanes
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.optimizers import LBFGS, Adam, BasinHopping, Fire, GradientDescent
from mlopt.optimizers.fused import cuda as target
from mlopt.optimizers.fused import launch
from mlopt.optimizers.learned.step.optimizer import LearnedFamily
from mlopt.potentials import Gupta, LennardJones, StillingerWeber

WARP, LANES = 2, 4


def exchanged(self: Any, mask: int, value: Any, apart: int) -> Any:
    """What the lane has whose number differs by ``apart``; all threads of the block call it."""
    me = threading.current_thread().thread_id  # type: ignore[attr-defined]
    values = self.__dict__.setdefault("values", {})
    values[me] = value
    self.syncthreads()
    found = values[me ^ apart]
    self.syncthreads()
    return found


class Current:
    """`cuda` within the kernel that runs."""

    def __getattr__(self, name: str) -> Any:
        return getattr(simulator._get_kernel_context(), name)


launched = simulator.FakeCUDAKernel.__call__


def called(self: Any, *arguments: Any) -> Any:
    return self.fn(*arguments) if self._device else launched(self, *arguments)


class Simulated(launch.Blocks):
    """Blocks of few threads, fewer of them than systems, on the memory of the CPU."""

    def lanes(self, n: int) -> int:
        return LANES

    def room(self, work: launch.Work, device: torch.device) -> int:
        return 2

    def on(self, device: torch.device) -> AbstractContextManager[Any]:
        return nullcontext()

    def view(self, tensor: torch.Tensor) -> Any:
        return tensor.numpy()

    def wait(self, device: torch.device) -> None:
        pass


def corners(sizes: list[int], a: float, z: int) -> Systems:
    """Clusters whose atoms are corners of a distorted cube."""
    number = torch.cat([torch.arange(n) for n in sizes])
    grid = torch.stack([number % 2, number // 2 % 2, number // 4], -1).to(torch.float64)
    noise = torch.rand(grid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    return Systems(a * (grid + 0.2 * noise), torch.full_like(number, z), ptr, fixed=number < 0)


def advance(case: tuple[Any, ...], launcher: launch.Launcher) -> Progress:
    optimizer, potential, systems, calls = case
    launch.LAUNCHERS["cpu"] = launcher
    driver = Driver(AtomsLandscape(systems, potential), optimizer, Stop(calls), 3, "fused")
    return driver.advance(driver.begin(systems.pos.clone(), problem_keys(0, torch.arange(len(systems)))))


LJ, SMALL = LennardJones(), corners([3, 5, 3], 1.05, 18)
CAPPED = GradientDescent(step_size=1e-3, max_step=0.05)
FAMILY = LearnedFamily(species=["Ar", "Kr"], hidden=4, activation="tanh")
THETA = FAMILY.start() + 0.2 * torch.sin(torch.arange(3)[:, None] + 1.7 * torch.arange(len(FAMILY.start())))
# as other tests have them, so that the kernels of the CPU are compiled once
CASES = {
    "gradient descent": (CAPPED, LJ, SMALL, 6),
    "adam": (Adam(), LJ, SMALL, 6),
    "fire": (Fire(delay=3), LJ, SMALL, 8),
    "lbfgs": (LBFGS(), LJ, corners([4], 1.05, 18), 4),
    "basin hopping": (BasinHopping(quench_calls=3, quench_tolerance=0.5), LJ, corners([4], 1.05, 18), 8),
    "gupta": (CAPPED, Gupta(preset="au55-paper"), corners([4, 5], 2.8, 79), 4),
    "learned": (FAMILY.optimizer(THETA), LJ, corners([3, 5, 3], 1.05, 18), 5),
    "silicon": (CAPPED, StillingerWeber(), corners([4, 5], 2.4, 14), 4),
}


@target.entry
def numbers(key: Any, counter: Any, given: Any, uniform: Any, normal: Any, sums: Any, most: Any) -> None:
    i = target.lane()
    uniform[i] = target.uniform(key[0], counter[0] + i)
    normal[i] = target.normal(key[0], counter[0] + i, 3)
    for row in range(len(given)):
        sums[row, i] = target.total64(given[row, i])
        most[row, i] = target.highest64(given[row, i])


def check_numbers() -> None:
    given = np.array([[0.1, 0.2, 0.3, -4.0], [1.0, np.nan, 2.0, 3.0], [-1.0, -2.0, -3.0, -np.inf]])
    sums, most = np.zeros_like(given), np.zeros_like(given)
    uniform, normal, key = np.zeros(LANES), np.zeros(LANES), -5
    numbers[1, LANES, 0, target.SHARED](np.array([key]), np.array([7]), given, uniform, normal, sums, most)
    assert uniform.tolist() == [lanes.uniform(key, 7 + i) for i in range(LANES)]
    assert normal.tolist() == [lanes.normal(key, 7 + i, 3) for i in range(LANES)]
    assert sums[0].tolist() == [(0.1 + 0.2) + (0.3 - 4.0)] * LANES and np.isnan(sums[1]).all()
    assert (most[0] == 0.3).all() and np.isnan(most[1]).all() and (most[2] == -1.0).all()


def check_case(name: str) -> None:
    expected, found = advance(CASES[name], launch.Threads()), advance(CASES[name], Simulated())
    (ours, about), (theirs, about_theirs) = expected.to_checkpoint(), found.to_checkpoint()
    assert about == about_theirs
    for field, value in ours.items():
        torch.testing.assert_close(theirs[field], value, rtol=1e-8, atol=1e-8, equal_nan=True, msg=field)


if __name__ == "__main__":
    sys.setswitchinterval(1e-5)  # the simulator asks the threads in turn whether they wait
    warnings.simplefilter("ignore")  # integers that wrap around
    assert "simulator" in str(type(cuda.jit(lambda: None))), "no simulator"
    FakeCUDAModule.shfl_xor_sync = exchanged
    simulator.FakeCUDAKernel.__call__ = called
    target.cuda, target.WARP = Current(), WARP
    torch.set_num_threads(1)
    for chosen in sys.argv[1:]:
        check_numbers() if chosen == "numbers" else check_case(chosen)
        print(f"{chosen}: the same")
