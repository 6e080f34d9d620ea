"""Launchers, which run a compiled kernel on the systems of a batch by threads of the CPU or blocks of CUDA."""

from __future__ import annotations

import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mlopt.core.lazy import torch
from mlopt.optimizers.fused.compiled import ARRAYS

#: atoms for which a block of CUDA has one more warp, and the largest number of those
_WARP, _MOST_WARPS = 32, 4
#: share of the free memory of a GPU for the space that blocks have for themselves
_SHARE = 0.25


@dataclass(frozen=True)
class Work:
    """Steps for some systems of one size.

    n, systems: size and number of the systems.
    calls: force calls that they have made.
    steps: steps that they take.
    arrays: arrays that all systems share, and blocks with a row for each system.
    space: the count and dtype of numbers that each team of lanes needs for itself.
    """

    n: int
    systems: int
    calls: int
    steps: int
    arrays: Mapping[str, torch.Tensor]
    space: Mapping[str, tuple[int, torch.dtype]]


class Launcher(ABC):
    """A runner of kernels on one kind of device. target: the module with its lanes."""

    target: str

    @abstractmethod
    def refusal(self) -> str | None:
        """Return one sentence that says why nothing can be run, or None."""

    def prepare(self, kernel: Any, work: Work, leave: Callable[[], bool]) -> float:
        """Compile beforehand, where that is possible; see `CompiledKernel.prepare`."""
        return 0.0

    @abstractmethod
    def run(self, kernel: Any, work: Work) -> float:
        """Do the work in place, and return the seconds that took without compiling."""


class Threads(Launcher):
    """The launcher for the CPU. A system stays with one thread."""

    target = "cpu"

    def refusal(self) -> str | None:
        """See `Launcher.refusal`."""
        return None

    def prepare(self, kernel: Any, work: Work, leave: Callable[[], bool]) -> float:
        """See `Launcher.prepare`."""
        seconds: float = kernel.prepare([(str(one.dtype), one.ndim) for one in self.arguments(work)], leave)
        return seconds

    def arguments(self, work: Work) -> list[Any]:
        """Return the arguments of a kernel in one thread, with space of its own."""
        own = {name: torch.zeros(size, dtype=dtype) for name, (size, dtype) in work.space.items()}
        return [(own[name] if name in own else work.arrays[name]).numpy() for name in ARRAYS]

    def run(self, kernel: Any, work: Work) -> float:
        """See `Launcher.run`."""

        def take(first: int, last: int, given: list[Any]) -> None:
            kernel.function(first, last, work.n, work.calls, work.steps, *given)

        kernel.warm(lambda function: function(0, 0, work.n, work.calls, work.steps, *self.arguments(work)))
        began = time.perf_counter()
        threads = min(torch.get_num_threads(), work.systems)
        if threads == 1:
            take(0, work.systems, self.arguments(work))
        else:
            parts = 4 * threads  # systems need unlike times: whoever is done takes the next part
            bounds = sorted({work.systems * part // parts for part in range(parts + 1)})
            with ThreadPoolExecutor(threads) as pool:
                local = threading.local()

                def job(first: int, last: int) -> None:
                    if not hasattr(local, "given"):
                        local.given = self.arguments(work)
                    take(first, last, local.given)

                for done in [pool.submit(job, first, last) for first, last in pairwise(bounds)]:
                    done.result()
        return time.perf_counter() - began


class Blocks(Launcher):
    """The launcher for CUDA. A system stays with one block of threads."""

    target = "cuda"

    def refusal(self) -> str | None:
        """See `Launcher.refusal`."""
        try:
            from numba import cuda

            if cuda.is_available():
                return None
            reason = "it finds no driver or no NVVM"
        except ImportError as error:
            reason = str(error)
        return f"Numba cannot compile for CUDA ({reason}); `pip install 'mlopt-optimizers[cuda]'`."

    def run(self, kernel: Any, work: Work) -> float:
        """See `Launcher.run`."""
        from mlopt.optimizers.fused.cuda import SHARED

        like = work.arrays["x"]
        blocks = min(work.systems, self.room(work, like.device))
        own = {
            name: torch.zeros(blocks, size, dtype=dtype, device=like.device)
            for name, (size, dtype) in work.space.items()
        }
        with self.on(like.device):
            # Numba's stream and torch's wait for each other: nothing beside slices of tenths of a second
            self.wait(like.device)
            given = [self.view(_wide(own[name] if name in own else work.arrays[name])) for name in ARRAYS]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that few systems leave most of the GPU idle
                shape = (blocks, self.lanes(work.n), 0, SHARED)
                kernel.warm(lambda function: function[shape](0, 0, work.n, work.calls, work.steps, *given))
                launch = kernel.function[shape]
            self.wait(like.device)
            began = time.perf_counter()
            launch(0, work.systems, work.n, work.calls, work.steps, *given)
            self.wait(like.device)
            return time.perf_counter() - began

    def lanes(self, n: int) -> int:
        """Return the threads of a block for n atoms, a function of n alone, because the order of sums depends on it."""
        return _WARP * max(1, min(_MOST_WARPS, -(-n // _WARP)))

    def room(self, work: Work, device: torch.device) -> int:
        """Return the number of blocks for which there is space."""
        each = sum(size * dtype.itemsize for size, dtype in work.space.values())
        return max(1, int(_SHARE * self.memory(device)) // max(1, each))

    def memory(self, device: torch.device) -> int:
        """Return the number of free bytes."""
        return int(torch.cuda.mem_get_info(device)[0])

    def on(self, device: torch.device) -> AbstractContextManager[Any]:
        """Have Numba work on this device."""
        from numba import cuda

        where: AbstractContextManager[Any] = cuda.gpus[device.index]
        return where

    def view(self, tensor: torch.Tensor) -> Any:
        """Return the memory of a tensor as an array of Numba's."""
        from numba import cuda

        return cuda.as_cuda_array(tensor)

    def wait(self, device: torch.device) -> None:
        """Wait until the device has done all its work."""
        torch.cuda.synchronize(device)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor with at least one column. Numba would compile anew for an array without any."""
    return tensor if tensor.ndim == 1 or tensor.shape[1] else tensor.new_zeros(len(tensor), 1)


#: by type of device
LAUNCHERS: dict[str, Launcher] = {"cpu": Threads(), "cuda": Blocks()}
