"""Fits for a committee: their spread is that of the coefficients, and each kind goes with its potentials."""

from __future__ import annotations

import pytest
import torch

from mlopt.core import InputError
from mlopt.optimizers import Stage, Training
from mlopt.optimizers.fitting import DrawnStructures, Weights, fit_members
from mlopt.optimizers.fitting.least_squares import covariance_root, solve, triangle
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.potentials import BehlerParrinello, Committee, Mtp, StillingerWeber

pytest.importorskip("numba")

DATA = DrawnStructures(
    crystal={"element": "Si", "repeat": [1, 1, 1]},
    count=16,
    labeller=PotentialLabeller(potential=StillingerWeber()),
).draw(0)
SMALL = Mtp(degrees=[5, 4], cutoff=3.8, pair_functions=4)


def test_the_covariance_is_the_inverse_of_the_hessian() -> None:
    potential = SMALL.prepared(DATA)
    rows, degrees = triangle(potential, DATA, Weights()), potential.roughness()
    solution = solve(rows, degrees, strength=1e-6)
    root = covariance_root(rows, solution, degrees)
    p = len(solution.theta)

    def half(theta: torch.Tensor) -> float:
        """Half the sum of squares and of the prior, whose minimum `solve` is at."""
        return 0.5 * rows.residual(theta.numpy())

    upper = torch.from_numpy(rows.upper[:, :p])
    # the prior's share, from where its gradient cancels that of the squares
    assert degrees is not None
    penalty = torch.where(degrees > 0, degrees, torch.zeros_like(degrees))
    scale = (torch.from_numpy(rows.squares) / rows.n_forces).sqrt() * penalty
    bound = degrees > 0
    columns = (
        upper[:, bound] - upper[:, ~bound] @ torch.linalg.lstsq(upper[:, ~bound], upper[:, bound]).solution
    )
    top = torch.linalg.svdvals(columns / scale[bound])[0] ** 2
    hessian = upper.T @ upper + torch.diag(1e-6 * top * scale**2)
    found = root @ root.T / solution.deviation**2
    torch.testing.assert_close(found @ hessian, torch.eye(p, dtype=torch.float64), rtol=0, atol=2e-4)
    assert half(solution.theta) < half(solution.theta + root[:, -1])


@pytest.mark.parametrize("by", ["bootstrap", "covariance"])
def test_members_agree_near_the_data_and_differ_beyond(by: str) -> None:
    committee = Committee.of(*fit_members(DATA, SMALL, 6, by=by))  # type: ignore[arg-type]
    near = committee.spread(DATA.systems)
    far = committee.spread(DATA.systems.with_pos(0.85 * DATA.systems.pos))
    assert 0.0 < float(near.force.mean()) < 0.5 * float(far.force.mean())
    again = fit_members(DATA, SMALL, 6, by=by)[1]  # type: ignore[arg-type]
    assert torch.equal(again, fit_members(DATA, SMALL, 6, by=by, seed=0)[1])  # type: ignore[arg-type]
    assert not torch.equal(again, fit_members(DATA, SMALL, 6, by=by, seed=1)[1])  # type: ignore[arg-type]


def test_seeds_make_a_committee_of_networks() -> None:
    training = Training(stages=[Stage(evaluations=10)], validation=0.0)
    network = BehlerParrinello(cutoff=3.8, hidden=[3], functions="amp")
    committee = Committee.of(*fit_members(DATA, network, 3, training=training))
    assert len(committee.members) == 3 and float(committee.spread(DATA.systems).energy.mean()) > 0.0


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"`by: seeds` does not go with the potential Mtp; take bootstrap or"
    ):
        fit_members(DATA, SMALL, by="seeds")
    with pytest.raises(InputError, match=r"`by: bootstrap` does not go with .*; take seeds"):
        fit_members(DATA, BehlerParrinello(cutoff=3.8), by="bootstrap")
    with pytest.raises(InputError, match="`count` must be at least 2, got 1"):
        fit_members(DATA, SMALL, 1)
    with pytest.raises(InputError, match="`weights` plays no part in fits by seeds; leave it out"):
        fit_members(DATA, BehlerParrinello(cutoff=3.8), weights=Weights())
    with pytest.raises(InputError, match="`training` plays no part in fits by bootstrap; leave it out"):
        fit_members(DATA, SMALL, training=Training())
