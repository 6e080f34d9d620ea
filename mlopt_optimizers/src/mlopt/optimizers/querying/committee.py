"""Query by committee: the structures on which several fits disagree most."""

from __future__ import annotations

from typing import ClassVar, Literal

from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import spread
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.fittable import FittablePotential
from mlopt.optimizers.fitting.committees import fit_members
from mlopt.optimizers.querying.maxvol import Matrix
from mlopt.optimizers.querying.pool import Pool
from mlopt.optimizers.querying.strategy import Scored

_ATOMS = 4096


class CommitteeDisagreement(Scored):
    """Structures on which a committee disagrees most (Seung, Opper & Sompolinsky, COLT 1992).

    A potential that is a committee, such as one of networks trained from several seeds, is asked itself. Of one that is
    linear in its parameters, members are drawn from the posterior of the fit to the known labels.
    """

    needs_potential: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True

    of: Literal["force", "energy"] = setting(
        "force",
        "force: the largest disagreement about the force on an atom; energy: that about the energy per atom",
    )
    members: int = setting(8, "members that are drawn for a linear potential", ge=2)

    def _values(self, pool: Pool) -> Matrix:
        if pool.fitted is None:
            raise InputError(
                "committee: needs a potential: a committee, or one that is linear in its parameters"
            )
        found, theta = [], None
        for first, stop in pool.systems.segments.blocks(_ATOMS):
            part = pool.systems.select(torch.arange(first, stop))
            with torch.no_grad():
                told = pool.fitted.evaluate(part)
            energy, force = told.energy_spread, told.force_spread
            if energy is None or force is None:
                theta = self._drawn(pool) if theta is None else theta
                potential = pool.fittable("committee", linear=True)
                with torch.no_grad():
                    each = [potential.with_theta(one).evaluate(part) for one in theta]
                energy, force = spread(each)
            if self.of == "energy":
                found.append(energy / part.segments.counts.clamp(min=1))
            else:
                found.append(energy.new_zeros(len(part)).scatter_reduce(0, part.batch, force, "amax"))
        return torch.cat(found).double().cpu().numpy()

    def _drawn(self, pool: Pool) -> torch.Tensor:
        """Parameters of members (k, p)."""
        potential = pool.fitted
        if not isinstance(potential, FittablePotential) or not potential.linear:
            giver = pool.fitted.giver if pool.fitted is not None else "nothing"
            raise InputError(
                f"committee: {giver} is one potential and no committee; give a committee of several fits"
            )
        if not bool(pool.known.with_energy.any() | pool.known.with_force.any()):
            raise InputError("committee: needs known structures with labels; begin with d-optimal or random")
        seed = int(pool.key)
        return fit_members(pool.known, potential, self.members, by="covariance", seed=seed)[1]

    def _reason(self) -> str:
        return f"largest disagreement about the {self.of}"
