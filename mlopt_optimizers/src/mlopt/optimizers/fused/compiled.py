"""Compiled kernels, kept between runs.

The module that `Writer` writes is named after a digest. The digest covers its text, the functions of the target, the
versions of Numba and LLVM, and the kind of processor. These determine the machine code. Later runs load the code that
the first one compiled.

Invariant: code that was just compiled and code that is loaded are the same instructions. Numba lets a function that was
not inlined be replaced by another of the same name. A process that compiles would then call the copies that it
optimised one by one before. A process that loads would call those of the object, and take sums in another order. So
targets inline every function into ``chunk``, and an object has no other function.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlopt.core.errors import MloptError
from mlopt.optimizers.fused import apart
from mlopt.optimizers.fused.cache import Place, cache_folder
from mlopt.optimizers.fused.imported import compiled
from mlopt.optimizers.fused.rollout import rollout as loop

_LOADED: dict[str, CompiledKernel] = {}

#: arrays with one block for each system, by the names of `rollout`
_BLOCKS = (
    *("x", "rows", "numbers", "counts", "best", "tally_numbers", "tally_counts"),
    *("atoms", "kinds", "runs", "cell", "trace", "ended", "settings"),
)
#: arrays that all systems share, and those that each thread of the CPU, or each system on CUDA, has for itself
_SHARED = ("table", "conditions", "limits", "trace_calls", "theta")
_OWN = ("scratch", "reals", "integers")
#: the order of the arguments of ``chunk`` behind ``first, last, n, calls, steps``
ARRAYS = (*_BLOCKS, *_SHARED, *_OWN)


def module_text(functions: str, rollout: str, columns: int, dtype: str, target: str) -> str:
    """Return the whole module for one combination. columns: of the potential's table."""
    numbers = "".join(f"table[pair, {column}], " for column in range(columns))
    given = {name: f"{name}[s]" for name in _BLOCKS} | {name: f"own({name}, s)" for name in _OWN}
    # one theta for each system, or one for all
    given["settings"] = "(settings[s], theta[s if len(theta) > 1 else 0])"
    arguments = [given.get(name, name) for name in inspect.signature(loop).parameters]
    bits = dtype.removeprefix("float")
    return f'''"""Written by mlopt for one combination of potential and optimizer; may be deleted."""
import math
import numpy as np
from mlopt.optimizers.fused.{target} import *

real = np.{dtype}
inf = np.inf
unsigned = np.uintp
exp = exp{bits}
log = log{bits}
total = total{bits}
highest = highest{bits}


@jit
def numbers_of(table, pair):
    return ({numbers})


{functions}

@entry
def chunk(first, last, n, calls, steps, {", ".join(ARRAYS)}):
    for s in range(first + team(), last, teams()):
        {rollout}({", ".join(arguments)})
'''


def load(text: str, target: str, announce: Callable[[str], None]) -> CompiledKernel:
    """Return the kernel with this module text. In one process, the same text gives the same kernel."""
    digest = hashlib.sha256("\0".join([text, *_stands_on(target)]).encode()).hexdigest()[:24]
    if digest not in _LOADED:
        _LOADED[digest] = CompiledKernel(text, f"rollout_{digest}")
    _LOADED[digest].announce = announce
    return _LOADED[digest]


class CompiledKernel:
    """The function ``chunk`` of a module, loaded, or compiled if nobody has done so before.

    function: the compiled function, after `warm` was called.
    announce: a function that receives a line when the kernel has to be compiled.
    """

    def __init__(self, text: str, name: str) -> None:
        self.text, self.name = text, name
        self.function: Any = None
        self.announce: Callable[[str], None] = lambda message: None

    def prepare(self, arrays: Sequence[tuple[str, int]], leave: Callable[[], bool]) -> float:
        """Compile the kernel in a process of its own, if need be, and return the seconds that took.

        arrays: dtype and number of dimensions of each of `ARRAYS`.
        leave: called again and again meanwhile; true gives up.
        """
        place = Place(cache_folder(), self.name)
        if self.function is not None or place.is_sound(self.text):
            return 0.0
        began = self._begin()
        with place.being_made(self.text) as made:
            whole = apart.compile_module(made.module, arrays, leave)
            if whole:
                place.take(made, self.text)
        return self._end(began) if whole else time.monotonic() - began

    def warm(self, call: Callable[[Any], None]) -> None:
        """Load the kernel, or compile it here. call: calls the function that it is given, for no system."""
        if self.function is not None:
            return
        place = Place(cache_folder(), self.name)
        if place.is_sound(self.text):
            self.function = compiled(place.module, call)
            return
        began = self._begin()
        with place.being_made(self.text) as made:
            self.function = compiled(made.module, call)
            with contextlib.suppress(MloptError, OSError):  # not kept, then
                place.take(made, self.text)
        self._end(began)

    def _begin(self) -> float:
        self.announce("compiling the fused kernel for this potential and optimizer (once; it is kept)")
        return time.monotonic()

    def _end(self, began: float) -> float:
        took = time.monotonic() - began
        self.announce(f"compiled in {took:.0f} s")
        return took


@lru_cache
def _stands_on(target: str) -> tuple[str, ...]:
    """Return everything that machine code depends on besides the text of its module."""
    import numba
    from numba.core import config
    from numba.core.registry import cpu_target

    parts = [
        Path(__file__).with_name(name).read_text()
        for name in ("device_math.py", "inlined.py", f"{target}.py")
    ]
    parts += [sys.version, numba.__version__, version("llvmlite")]
    parts.append(repr(cpu_target.target_context.codegen().magic_tuple()))  # the processor and what it can do
    parts.append(repr([getattr(config, name) for name in ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE")]))
    if target == "cuda":
        from numba import cuda

        parts.append(repr((cuda.__file__, [device.compute_capability for device in cuda.gpus])))
    return tuple(parts)
