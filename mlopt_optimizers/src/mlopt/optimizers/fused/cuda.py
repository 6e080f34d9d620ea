"""The lanes of CUDA: the threads of a block, which works on one system at a time.

NaN and infinity keep their meaning, so no function is compiled with Numba's ``fastmath``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import cuda, float32, float64

from mlopt.optimizers.fused import device_math

#: threads that exchange values without memory; a block has a whole number of them
WARP = 32
#: bytes of shared memory that a block needs: a number for each warp, of which it has at most 32
SHARED = 32 * 8
_ALL = 0xFFFFFFFF

#: every function of a kernel
jit: Callable[[Callable[..., Any]], Any] = cuda.jit(device=True)

#: functions that return a part of an array, which on CUDA must not remain calls
view: Callable[[Callable[..., Any]], Any] = cuda.jit(device=True, inline="always")

#: what Python calls
entry = cuda.jit(cache=True)

isfinite = jit(device_math.isfinite)
uniform = jit(device_math.uniform)
box_muller = jit(device_math.box_muller)
# as exact as those of the CPU, and nothing has to be vectorised
exp64 = exp32 = math.exp
log64 = log32 = math.log


@jit
def team() -> Any:
    """Return the number of this block."""
    return cuda.blockIdx.x


@jit
def teams() -> Any:
    """Return the number of blocks that share the systems."""
    return cuda.gridDim.x


@view
def own(array: Any, s: Any) -> Any:
    """Return the row of this block, whichever system it works on."""
    return array[cuda.blockIdx.x]


@jit
def lane() -> Any:
    """See `mlopt.core.kernels.lanes`, also for the functions below."""
    return cuda.threadIdx.x


@jit
def lanes() -> Any:
    """Return the number of threads of a block."""
    return cuda.blockDim.x


@jit
def sync() -> None:
    """Wait at a barrier of the block."""
    cuda.syncthreads()


@jit
def normal(key: Any, counter: Any, apart: Any) -> Any:
    """Return a standard normal number (Box & Muller)."""
    return box_muller(uniform(key, counter), uniform(key, counter + apart))


@jit
def plus(a: Any, b: Any) -> Any:
    """Return the sum, for `total`."""
    return a + b


@jit
def larger(a: Any, b: Any) -> Any:
    """Return the larger value, for `highest`; NaN if one is NaN."""
    return a if a > b or a != a else b


def _over_lanes(combine: Any, dtype: Any) -> Any:
    """Return a function that combines the values of all lanes, in an order that depends on their number alone.

    Every lane gets the same bits. Within a warp partners exchange values and do the same, so `combine` must be
    commutative. Between warps each lane combines the values for itself. The function ends with a barrier.
    """

    @jit
    def over_lanes(value: Any) -> Any:
        apart = WARP // 2
        while apart > 0:
            value = combine(value, cuda.shfl_xor_sync(_ALL, value, apart))
            apart //= 2
        if cuda.blockDim.x > WARP:
            of_warps = cuda.shared.array(
                0, dtype
            )  # of a size known only at the launch: others are linked twice
            if cuda.threadIdx.x % WARP == 0:
                of_warps[cuda.threadIdx.x // WARP] = value
            cuda.syncthreads()
            value = of_warps[0]
            for warp in range(1, cuda.blockDim.x // WARP):
                value = combine(value, of_warps[warp])
        cuda.syncthreads()
        return value

    return over_lanes


total64, total32 = _over_lanes(plus, float64), _over_lanes(plus, float32)
highest64, highest32 = _over_lanes(larger, float64), _over_lanes(larger, float32)
