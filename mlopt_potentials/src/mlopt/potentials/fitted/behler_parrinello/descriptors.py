"""Descriptors of structures, which a fit computes once: inputs of the networks, and slopes, from which forces follow.

Autograd through gathers over pairs is slow and takes much memory. Here forces are one compiled sum over pairs. So is
the transpose of that sum, which the gradient of a loss on forces needs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.potentials.fitted.behler_parrinello.compiled import compiled
from mlopt.potentials.fitted.behler_parrinello.functions import SymmetryFunctions
from mlopt.potentials.fitted.neighbourhoods import arrays, gather
from mlopt.potentials.fitted.threads import chunks, in_threads

#: atoms that one thread takes at a time
CHUNK = 64


def compiled_values(functions: SymmetryFunctions, systems: Systems) -> torch.Tensor:
    """Return the functions of each atom, (n_atoms, count) float64, without their derivatives.

    Raises:
        InputError: a structure has a position or a cell that is not finite.
    """
    return _computed(functions, systems, False)[0]


def _computed(
    functions: SymmetryFunctions, systems: Systems, slopes: bool
) -> tuple[torch.Tensor, NDArray[np.float32], tuple[Any, Any, Any]]:
    """Functions, their slopes in single precision, and the pairs: begin, other, vector."""
    begin, other, vector, lost = arrays(systems, functions.cutoff)
    if bool(lost.any()):
        raise InputError(
            f"structure {int(torch.nonzero(lost)[0])} of the data has a position or a cell that is no number"
        )
    n_atoms, count = len(systems.pos), functions.count
    value = np.zeros((n_atoms, count))
    slope = np.zeros((len(other) if slopes else 0, 3, count), dtype=np.float32)
    kind = functions.kinds(systems).cpu().numpy()
    run = compiled()["functions"]
    in_threads(
        lambda first, last: run(first, last, begin, other, kind, vector, *functions.arguments, value, slope),
        chunks(n_atoms, CHUNK),
    )
    return torch.from_numpy(value), slope, (begin, other, vector)


@dataclass(frozen=True, eq=False)
class Descriptors:
    """The inputs of the networks at given positions, with the slopes from which forces are computed.

    inputs (n_atoms, count): the functions, shifted and scaled.
    atoms: the indices of the atoms of each species.
    kind (n_atoms,): the index of each atom's species.
    slope (n_pairs, 3, count) float32: derivative of the centre's inputs with respect to the vector to the other atom.
    Rounding to float32 changes forces by a relative 1e-7. The gradient of a loss is exact for the rounded slopes.
    """

    inputs: torch.Tensor
    atoms: list[torch.Tensor]
    kind: torch.Tensor
    slope: NDArray[np.float32]
    begin: NDArray[np.int64]
    other: NDArray[np.int64]
    vector: NDArray[np.float64]
    system: NDArray[np.int64]
    n_systems: int

    @classmethod
    def of(cls, functions: SymmetryFunctions, systems: Systems, scale: torch.Tensor) -> Descriptors:
        """Compute the descriptors of ``systems``.

        scale (n_species, 2, count): mean and deviation of each function.

        Raises:
            InputError: a structure has a position or a cell that is not finite.
        """
        value, slope, pairs = _computed(functions, systems, True)
        kind = functions.kinds(systems)
        own = scale[kind]
        centre = np.repeat(kind.numpy(), np.diff(pairs[0]))
        slope /= scale[:, 1].numpy().astype(np.float32)[centre][:, None]
        atoms = [torch.nonzero(kind == index).flatten() for index in range(len(functions.species))]
        batch = systems.batch.cpu().numpy()
        return cls((value - own[:, 0]) / own[:, 1], atoms, kind, slope, *pairs, batch, len(systems))

    def forces(self, steep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return forces (k, n_atoms, 3) and virials dE/dstrain (k, n_systems, 3, 3).

        Both are differentiable any number of times.

        steep (k, n_atoms, count): derivative of each atom's energy with respect to its inputs.
        """
        found: tuple[torch.Tensor, torch.Tensor] = _linear()(steep, self)
        return found

    def pulled(self, steep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the same as `forces`, without a graph."""
        table = steep.detach().contiguous().numpy()
        k, n_atoms = len(table), len(self.inputs)
        pull = np.zeros((k, len(self.other), 3))
        run, gathered = compiled()["pulled"], gather()
        in_threads(
            lambda first, last: run(first, last, self.begin, self.slope, table, pull), chunks(n_atoms, CHUNK)
        )
        force, virial = np.zeros((k, n_atoms, 3)), np.zeros((k, self.n_systems, 3, 3))
        for index in range(k):
            gathered(
                self.begin, self.other, self.system, self.vector, pull[index], force[index], virial[index]
            )
        return torch.from_numpy(force), torch.from_numpy(virial)

    def pushed(self, force: torch.Tensor, virial: torch.Tensor) -> torch.Tensor:
        """Apply the transpose of `pulled`, without a graph: (k, n_atoms, count)."""
        out = np.zeros((len(force), *self.inputs.shape))
        both = (one.detach().contiguous().numpy() for one in (force, virial))
        change, strain = both
        run = compiled()["pushed"]
        in_threads(
            lambda first, last: run(
                first, last, self.begin, self.other, self.system, self.vector, self.slope, change, strain, out
            ),
            chunks(len(self.inputs), CHUNK),
        )
        return torch.from_numpy(out)


@functools.cache
def _linear() -> Any:
    """Return `Descriptors.pulled` as a function of autograd, which is made at its first use because it needs torch.

    It is linear, so its derivative is its transpose, and the derivative of that is `Descriptors.pulled` again.
    """

    class Forces(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, steep: torch.Tensor, descriptors: Descriptors
        ) -> tuple[torch.Tensor, torch.Tensor]:
            ctx.descriptors = descriptors
            return descriptors.pulled(steep)

        @staticmethod
        def backward(ctx: Any, *change: torch.Tensor) -> tuple[torch.Tensor, None]:
            return Back.apply(*change, ctx.descriptors), None  # type: ignore[no-untyped-call]

    class Back(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, force: torch.Tensor, virial: torch.Tensor, descriptors: Descriptors
        ) -> torch.Tensor:
            ctx.descriptors = descriptors
            return descriptors.pushed(force, virial)

        @staticmethod
        def backward(ctx: Any, *change: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
            force, virial = Forces.apply(change[0], ctx.descriptors)  # type: ignore[no-untyped-call]
            return force, virial, None

    return Forces.apply
