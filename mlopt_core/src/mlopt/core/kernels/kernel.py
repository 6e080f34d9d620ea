"""Kernels: scalar functions, with their numbers, that potentials, optimizers and moves offer to the fused engine.

A kernel function is a plain Python function at the top level of a module. It uses the part of Python that Numba
compiles: loops, arithmetic, ``math``, and arrays that are indexed. It may call other such functions of its module, and
those of `mlopt.core.kernels.lanes` and `mlopt.core.kernels.records`. Numbers at the top level of the module are
constants to it. The engine reads the source and writes one module for each combination of potential and optimizer. It
compiles that module for the CPU or for CUDA. Called directly, kernel functions run in Python, which is slow but allows
debugging.

A team of lanes works on one system: one lane on the CPU, a block of threads on CUDA. Loops over atoms are written ``for
i in range(lane(), n, lanes())``, and sums over atoms end with ``total(...)``. Call `sync` between writing data and
reading what other lanes wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


class NoKernelError(Exception):
    """The refusal of a kernel. Its message is a clause without a full stop, and names the part that offers none."""


@dataclass(frozen=True)
class Kernel:
    """A function for the fused engine, with the parts that it calls and with its numbers.

    function: a plain Python function. Its last argument, ``settings``, holds the numbers listed below. Helper functions
        of the same kernel receive the same numbers. A different kernel that it calls receives its own.
    settings: numbers, or tensors with one number a problem. They can change without compiling anew.
    constants: integers and booleans that are compiled in, such as the length of a memory. Keys are the names that the
        function uses.
    parts: plain functions, other kernels, or sequences of kernels. Keys are the names under which the function calls
        them. The kernels of a sequence are called in turn with the same arguments.
    theta: numbers that are too many for ``settings``, such as the weights of a network. They are a tensor (p,), or
        (n_problems, p) where each problem has its own. A function gets its problem's array (p,) by
        `mlopt.core.kernels.lanes.theta_of`.
    """

    function: Callable[..., Any]
    settings: tuple[Any, ...] = ()
    constants: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, Callable[..., Any] | Kernel | Sequence[Kernel]] = field(default_factory=dict)
    theta: Any = None


@dataclass(frozen=True)
class PotentialKernel:
    """A potential for the fused engine.

    function: ``evaluate(n, x, force, row_energy, kinds, runs, table, cell, reals, integers, settings) -> energy``. It
        fills ``force (3 n,)`` and ``row_energy (n,)`` at ``x (3 n,)``. Vectors are stored as all x, then all y, then
        all z. `mlopt.potentials.kernels` has functions to build on. A pair potential needs its `pair_kernel` alone.
    table: numbers for each ordered pair of species, (K, K, p) nested tuples; (1, 1, p) for a potential of one species.
        In ``evaluate`` it is an array (K * K, p).
    species: the atomic numbers of the K rows; empty where the potential does not tell species apart.
    cutoff: distance beyond which atoms do not interact. None for a kernel that takes all pairs, which serves free
        clusters only.
    reals, integers: functions of the number of atoms n that return how many numbers of scratch space a system needs.
    constants, parts, theta: as in `Kernel`. The coefficients of a fitted potential are theta, so they are not compiled
        in.
    lanes: ``one`` for a function that does not share its work among lanes. It then runs on the CPU only.
    """

    function: Callable[..., Any]
    table: Sequence[Sequence[Sequence[float]]]
    species: tuple[int, ...] = ()
    cutoff: float | None = None
    reals: Callable[[int], int] = lambda n: 0
    integers: Callable[[int], int] = lambda n: 0
    constants: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    theta: Any = None
    lanes: Literal["any", "one"] = "any"


@dataclass(frozen=True)
class OptimizerKernel:
    """An optimizer for the fused engine.

    Its state is that of the eager optimizer, packed into three flat arrays. The fields come in the order of their
    declaration, nested states last. ``rows`` has the fields over rows, component after component (n numbers each).
    ``numbers`` has the floating-point fields over problems, ``counts`` the integer and boolean ones.

    init: ``init(s: Start, settings)`` writes the state before the first step at ``s.x``.
    step: ``step(s: Step, settings)`` moves ``s.x`` and brings the state up to date. ``s.scratch`` has 10 n numbers for
        any use, and in addition those of ``reals``.
    finish: ``finish(s: Memory, settings)`` is called before the state is handed back.
    spare_numbers, spare_counts: extra places at the end of ``numbers`` and ``counts``. They start at 0 and are not
        handed back.
    reals: function of n that returns the additional scratch numbers for a system of n atoms.

    The records are those of `mlopt.core.kernels.records`.
    """

    init: Kernel
    step: Kernel
    finish: Kernel | None = None
    spare_numbers: int = 0
    spare_counts: int = 0
    reals: Callable[[int], int] = lambda n: 0
