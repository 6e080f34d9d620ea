"""What a potential may not do to a run: change the point, or return what does not fit it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.segments import Segments
from mlopt.core.driver.driver import minimize
from mlopt.core.errors import PluginError
from mlopt.core.landscapes.evaluation import Evaluation, check_evaluation, version
from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.testing import check_potential
from mlopt.optimizers import LBFGS
from mlopt.potentials import LennardJones


class Spoiled(LennardJones):
    """Lennard-Jones whose answer is changed by ``fault``."""

    fault: Any = None

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        return self.fault(systems, super().evaluate(systems, stress=stress))  # type: ignore[no-any-return]


def collapse(systems: Systems, found: Evaluation) -> Evaluation:
    systems.pos.mul_(0.9)
    return found


def collapse_by_numpy(systems: Systems, found: Evaluation) -> Evaluation:
    systems.pos.numpy()[:] *= 0.9
    return found


def dimers() -> Systems:
    pos = torch.tensor([[0.0, 0, 0], [1.3, 0, 0]] * 3, dtype=torch.float64)
    return Systems(pos, torch.full((6,), 18), torch.tensor([0, 2, 4, 6]))


FAULTS = {
    "sum of forces": (
        lambda _, found: replace(found, force=found.force.sum(0)),
        r"`force` a tensor of shape \(3,\), torch.float64 on cpu; it must be a tensor of shape \(6, 3\)",
    ),
    "column of energies": (
        lambda _, found: replace(found, energy=found.energy[:, None]),
        r"`energy` a tensor of shape \(3, 1\), .* it must be a tensor of shape \(3,\)",
    ),
    "one energy": (
        lambda _, found: replace(found, energy=found.energy.sum()),
        r"`energy` a tensor of shape \(\), .* it must be a tensor of shape \(3,\)",
    ),
    "single precision": (
        lambda _, found: replace(found, energy=found.energy.float()),
        r"`energy` a tensor of shape \(3,\), torch.float32 .* shape \(3,\), torch.float64",
    ),
    "forces in single precision": (
        lambda _, found: replace(found, force=found.force.float()),
        "`force` .*torch.float32 on cpu; it must be",
    ),
    "a float": (lambda _, found: replace(found, energy=1.0), "`energy` an object of type float"),
    "nothing": (lambda _, found: replace(found, force=None), "`force` nothing; it must be"),
    "no evaluation": (lambda _, found: found.energy, "`energy` nothing"),
    "shares": (
        lambda _, found: replace(found, row_energy=found.row_energy[:2]),
        r"`row_energy` a tensor of shape \(2,\)",
    ),
    "in place": (collapse, "changed the positions in place while it was evaluated"),
    "in place, unseen by torch": (collapse_by_numpy, "changed the positions in place"),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_the_driver_names_the_potential(name: str) -> None:
    fault, message = FAULTS[name]
    systems = dimers()
    landscape = AtomsLandscape(systems, Spoiled(fault=fault))
    with pytest.raises(PluginError, match=rf"the potential Spoiled .*{message}"):
        minimize(landscape, LBFGS(), systems.pos, force_calls=20, engine="eager")


@pytest.mark.parametrize("fault", [collapse, FAULTS["column of energies"][0]])
def test_the_contract_names_the_potential(fault: Any) -> None:
    with pytest.raises(AssertionError, match=r"^Spoiled: "):
        check_potential(Spoiled(fault=fault), dimers())


def test_a_landscape_of_ones_own_is_looked_at_as_well() -> None:
    segments = Segments(torch.tensor([0, 2, 4]))
    x = torch.ones(4, 1, dtype=torch.float64)
    landscape = FunctionLandscape(lambda x, _: (x * x).sum()[None], segments)
    with pytest.raises(PluginError, match=r"the landscape FunctionLandscape .*shape \(2,\)"):
        minimize(landscape, LBFGS(), x, force_calls=5)


def test_what_is_sound_passes() -> None:
    systems = dimers()
    found = LennardJones().evaluate(systems, stress=True)
    assert check_evaluation(found, systems.pos, 3, version(systems.pos), "nobody") is found
    with torch.inference_mode():  # such tensors count no versions
        frozen = systems.pos.clone()
        assert bool(AtomsLandscape(systems, LennardJones()).evaluate(frozen).energy.isfinite().all())
    broken = systems.pos.clone()
    broken[0] = torch.nan  # unlike itself, and yet not changed
    done = minimize(AtomsLandscape(systems, LennardJones()), LBFGS(), broken, force_calls=5)
    assert done.failed.tolist() == [True, False, False]


class Plain(Potential):
    """A pair by autograd alone."""

    def energy(self, systems: Systems) -> torch.Tensor:
        ptr = systems.ptr.tolist()
        return torch.stack([torch.pdist(systems.pos[a:b]).sum() for a, b in pairwise(ptr)])


@pytest.mark.parametrize("potential", [Plain(), LennardJones(), LennardJones(cutoff=2.5)])
def test_stress_needs_three_lattice_vectors(potential: Potential) -> None:
    """It is NaN without them, never infinite; with them it does not ask what is periodic."""
    one = dimers()[0]
    cells = torch.zeros(3, 3, 3, dtype=torch.float64)
    cells[1, :2] = 8.0 * torch.eye(3, dtype=torch.float64)[:2]
    cells[2] = 8.0 * torch.eye(3, dtype=torch.float64)
    batch = Systems(one.pos.repeat(3, 1), one.z.repeat(3), torch.tensor([0, 2, 4, 6]), cells)
    stress = potential.evaluate(batch, stress=True).stress
    assert stress is not None
    assert bool(stress[:2].isnan().all()) and bool(stress[2].isfinite().all())
    force = potential.evaluate(one).force
    expected = -(one.pos[1, 0] - one.pos[0, 0]) * force[1, 0] / 8.0**3
    assert float(stress[2, 0, 0]) == pytest.approx(float(expected), rel=1e-12)
