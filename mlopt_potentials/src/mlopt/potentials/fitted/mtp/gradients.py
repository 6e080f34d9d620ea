"""Derivatives of atoms' energies with respect to all parameters, those of the radial functions as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.atoms.systems import Systems
from mlopt.core.lazy import torch
from mlopt.potentials.fitted.neighbourhoods import Neighbourhoods

if TYPE_CHECKING:
    from mlopt.potentials.fitted.mtp.basis import Basis


def radial_gradients(basis: Basis, systems: Systems, theta: torch.Tensor) -> list[torch.Tensor]:
    """Return the derivative of each atom's energy with respect to the coefficients of radial functions.

    The result is a tensor (n_atoms, n_species, n_species, n_functions, n_chebyshev) for each set of radial functions,
    without a graph. The energy of an atom depends on its own sums over neighbours alone. One backward pass through the
    products therefore serves all atoms.

    theta: (p,).
    """
    n_atoms, k, table = len(systems.pos), len(basis.species), basis.table
    with torch.no_grad():
        near, kind = Neighbourhoods.of(systems, basis.cutoff), basis.kinds(systems)
        r = torch.linalg.vector_norm(near.vector, dim=-1)
        powers = basis.powers(near.vector / r[:, None])
        parts = [one.values(r, kind[near.centre], kind[near.other]) for one in basis.sets]
        where = list(zip(basis.set_of.tolist(), basis.place_of.tolist(), strict=True))
        basic = [(where[m], m, powers[a, b, c]) for m, a, b, c in table.basic.tolist()]
        columns = torch.stack([parts[which][:, place] * power for (which, place), _, power in basic])
        sums = r.new_zeros(len(basic), n_atoms).index_add(1, near.centre, columns)
    with torch.enable_grad():
        sums.requires_grad_(True)
        own = theta.detach().to(sums)[k:].reshape(k, -1)[kind]
        (slope,) = torch.autograd.grad((basis.scalars_of(sums) * own).sum(), sums)
    pulls = r.new_zeros(len(where), len(r))
    for index, (_, m, power) in enumerate(basic):
        pulls[m] += slope[index, near.centre] * power
    found = []
    of_pair = near.centre * k + kind[near.other]
    for index, one in enumerate(basis.sets):
        raw = one.raw(r)
        total = r.new_zeros(one.n_functions, n_atoms * k, one.n_chebyshev)
        for m, (which, place) in enumerate(where):
            if which == index:
                total[place].index_add_(0, of_pair, pulls[m][:, None] * raw)
        whole = r.new_zeros(n_atoms, k, k, one.n_functions, one.n_chebyshev)
        parts_of = total.reshape(one.n_functions, n_atoms, k, one.n_chebyshev).permute(1, 2, 0, 3)
        whole[torch.arange(n_atoms, device=r.device), kind] = parts_of
        found.append(whole)
    return found
