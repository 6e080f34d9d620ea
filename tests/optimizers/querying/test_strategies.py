"""Query strategies: the contract of all, what each promises, budgets, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from mlopt.core import Dataset, InputError, Potential, Systems
from mlopt.core.protocols import QueryStrategy
from mlopt.core.testing import check_query_strategy
from mlopt.optimizers.fitting import Weights, fit_members
from mlopt.optimizers.fitting.least_squares import solve, triangle
from mlopt.optimizers.labelling import PotentialLabeller
from mlopt.optimizers.querying import (
    ActiveSet,
    CommitteeDisagreement,
    DOptimal,
    ErrorReduction,
    FarthestPoint,
    ModelChange,
    Optimality,
    Passive,
    Random,
    Variance,
    d_optimal,
)
from mlopt.optimizers.querying.pool import Pool, mean_rows
from mlopt.optimizers.querying.posterior import Posterior
from mlopt.optimizers.querying.rows import label_rows
from mlopt.potentials import Committee, LennardJones, Mtp, SchNet

pytest.importorskip("numba")

KEY = torch.tensor(3)
ALL = [
    DOptimal(),
    DOptimal(rows="qs2", weights=Weights(stress=1.0)),
    DOptimal(rows="qs3"),
    DOptimal(rows="qs3", fill=True),
    Optimality(criterion="A"),
    Optimality(criterion="E"),
    Optimality(criterion="G"),
    Optimality(criterion="I"),
    Variance(),
    CommitteeDisagreement(),
    CommitteeDisagreement(of="energy", diverse=False),
    ModelChange(),
    ErrorReduction(draws=4),
    ErrorReduction(draws=4, measure="max"),
    FarthestPoint(),
    Random(),
    Passive(),
]


def images(count: int, seed: int = 0) -> list[Atoms]:
    """Skewed and shaken cells of two species and two sizes, some partly periodic, some free."""
    found = []
    for index in range(count):
        draw = np.random.default_rng(1000 * seed + index)
        atoms = bulk("Cu", cubic=True, a=3.8).repeat((1, 1, 1 + index % 2))
        atoms.symbols[index % 4] = "Au"
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.12 * draw.normal(size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.03 + 0.2 * draw.random(), seed=index)
        if index % 5 == 3:
            atoms.set_pbc([True, False, True])
        if index % 5 == 4:
            atoms.set_pbc(False)
            atoms.set_cell(None)
        found.append(atoms)
    return found


@pytest.fixture(scope="module")
def candidates() -> Systems:
    return Systems.from_atoms(images(24))


@pytest.fixture(scope="module")
def known() -> Dataset:
    return PotentialLabeller(potential=LennardJones(epsilon=0.2, r0=2.6, cutoff=4.5)).label(
        Systems.from_atoms(images(6, seed=1))
    )


@pytest.fixture(scope="module")
def basis() -> Mtp:
    return Mtp(elements=["Cu", "Au"], level=4, pair_functions=2, shortest=1.2, cutoff=4.5)


@pytest.mark.parametrize("strategy", ALL, ids=lambda one: f"{type(one).__name__}-{ALL.index(one)}")
def test_contract(strategy: QueryStrategy, candidates: Systems, known: Dataset, basis: Mtp) -> None:
    check_query_strategy(strategy, candidates, known, basis, count=5)
    assert type(strategy)(**strategy.config()) == strategy


@pytest.mark.parametrize("strategy", ALL, ids=lambda one: f"{type(one).__name__}-{ALL.index(one)}")
def test_repeats_are_not_chosen(
    strategy: QueryStrategy, candidates: Systems, known: Dataset, basis: Mtp
) -> None:
    """Each candidate comes three times, and a known one as well."""
    some = Systems.concatenate([candidates.select(list(range(10)) * 3), known.systems.select([2])])
    found = strategy.select(some, known, basis, 40, KEY)
    places = found.indices.tolist()
    assert len({one % 10 for one in places}) == len(places) > 0 and 30 not in places
    once = strategy.select(some.select(list(range(10))), known, basis, 40, KEY)
    assert [one % 10 for one in places] == once.indices.tolist()


@pytest.mark.parametrize("strategy", ALL, ids=lambda one: f"{type(one).__name__}-{ALL.index(one)}")
def test_budgets(strategy: QueryStrategy, candidates: Systems, known: Dataset, basis: Mtp) -> None:
    electrons = torch.zeros(24).index_add(0, candidates.batch, candidates.z.float())
    held = strategy.replace(cost="electrons", budget=900.0)
    found = held.select(candidates, known, basis, 24, KEY)
    assert 0 < float(electrons[found.indices].sum()) <= 900.0
    atoms = strategy.replace(cost="atoms", budget=3.0).select(candidates, known, basis, 24, KEY)
    assert not len(atoms.indices) and "the budget of 3 atoms is spent" in atoms.reason


@pytest.mark.parametrize("rows", ["qs1", "qs2", "qs3"])
def test_d_optimal_chooses_a_full_set_offline(rows: str, candidates: Systems, basis: Mtp) -> None:
    """Without a label, with an untrained basis: the chosen rows span all rows, by small coefficients."""
    strategy = DOptimal(rows=rows)
    nothing = Dataset(candidates.select([]))
    found = strategy.select(candidates, nothing, basis, 24, KEY)
    every = np.concatenate([block for block, _ in strategy.blocks(basis, candidates)])
    owners = np.concatenate([owner for _, owner in strategy.blocks(basis, candidates)])
    chosen = ActiveSet.of(every[np.isin(owners, found.indices.numpy())])
    assert chosen.rank == ActiveSet.of(every).rank
    c, outside = chosen.coefficients(every)
    assert not outside.any() and np.abs(c).max() < 1.01
    few = strategy.select(candidates, nothing, basis, 3, KEY)
    assert few.indices.tolist() == found.indices[:3].tolist()
    again = strategy.select(candidates, Dataset(candidates.select(found.indices)), basis, 24, KEY)
    assert not len(again.indices) and "no other label is worth it" in again.reason


def test_filling_goes_on_layer_by_layer(candidates: Systems, known: Dataset, basis: Mtp) -> None:
    plain = DOptimal().select(candidates, known, basis, 20, KEY)
    filled = DOptimal(fill=True).select(candidates, known, basis, 20, KEY)
    assert len(plain.indices) < 20 == len(filled.indices)
    assert filled.indices[: len(plain.indices)].tolist() == plain.indices.tolist()


@pytest.mark.parametrize("criterion", ["A", "G", "I"])
def test_gains_are_those_of_the_criterion(
    criterion: str, candidates: Systems, known: Dataset, basis: Mtp
) -> None:
    """Against the inverse of the information with each candidate added."""
    strategy = Optimality(criterion=criterion, ridge=1e-3)
    scores = strategy.select(candidates, known, basis, 1, KEY).scores.numpy()
    rows, old = mean_rows(basis, candidates), mean_rows(basis, known.systems)
    both = np.concatenate([rows, old])
    scale = np.sqrt((both**2).mean(0))
    rows, old = rows / scale, old / scale
    information = 1e-3 * np.eye(rows.shape[1]) + old.T @ old

    def measure(matrix: np.ndarray) -> float:
        variance = np.linalg.inv(matrix)
        own = np.einsum("nm,mk,nk->n", rows, variance, rows)
        return float({"A": np.trace(variance), "G": own.max(), "I": own.mean()}[criterion])

    gains = [measure(information) - measure(information + np.outer(row, row)) for row in rows]
    np.testing.assert_allclose(scores, gains, rtol=1e-5, atol=1e-5 * max(gains))


def test_variance_is_that_of_the_fit(candidates: Systems, known: Dataset, basis: Mtp) -> None:
    """Scores are the differences of posterior variances, by the covariances of both."""
    weights = Weights()
    scores = Variance().select(candidates, known, basis, 1, KEY).scores.numpy()
    pool = Pool.of(candidates, known, basis, KEY)
    covariance = (root := Posterior.of(basis, pool, weights, []).root) @ root.T
    rows = mean_rows(basis, candidates)
    each = label_rows(basis, candidates, weights)
    for index in (0, 7, 19):
        precision = np.linalg.pinv(covariance, rcond=1e-14, hermitian=True)
        after = np.linalg.inv(precision + each[index].T @ each[index])
        gain = np.einsum("nm,mk,nk->n", rows, covariance - after, rows).mean()
        assert scores[index] == pytest.approx(gain, rel=1e-3)
    solution = solve(triangle(basis, known, weights), basis.roughness())
    assert solution.deviation > 0


def test_a_label_narrows_the_posterior_as_it_narrows_the_fit(candidates: Systems, basis: Mtp) -> None:
    pool = Pool.of(candidates, Dataset(candidates.select([])), basis, KEY)
    rows = label_rows(basis, pool.systems, Weights())
    start = Posterior.of(basis, pool, Weights(), rows)
    one, both = start.after(rows[0]).after(rows[1]), start.after(np.concatenate(rows[:2]))
    np.testing.assert_allclose(
        one.root @ one.root.T, both.root @ both.root.T, rtol=1e-6, atol=1e-6 * (start.root**2).max()
    )


def test_rows_of_labels_are_those_of_the_fit(candidates: Systems, known: Dataset, basis: Mtp) -> None:
    weights = Weights(stress=0.5)
    each = np.concatenate(label_rows(basis, known.systems, weights))
    upper = triangle(basis, known, weights).upper[:, :-1]
    np.testing.assert_allclose(each.T @ each, upper.T @ upper, rtol=1e-9, atol=1e-9 * np.abs(each).max() ** 2)


def test_committees_are_asked_themselves(candidates: Systems, known: Dataset, basis: Mtp) -> None:
    prepared, theta = fit_members(known, basis, 4, by="covariance")
    committee = Committee.of(prepared, theta)
    for of in ("force", "energy"):
        strategy = CommitteeDisagreement(of=of, diverse=False)
        found = strategy.select(candidates, known.select([]), committee, 3, KEY)
        spread = committee.spread(candidates)
        wanted = spread.energy / candidates.segments.counts
        if of == "force":
            wanted = torch.stack([spread.force[candidates.batch == index].max() for index in range(24)])
        torch.testing.assert_close(found.scores, wanted)
        assert found.indices.tolist() == wanted.argsort(descending=True)[:3].tolist()


def test_values_of_alike_candidates_shrink(candidates: Systems, known: Dataset, basis: Mtp) -> None:
    """Ten nearly equal copies of the most valuable structure: scores alone would take them all."""
    best = int(ModelChange().select(candidates, known, basis, 1, KEY).indices[0])
    copies = [
        candidates.select([best]).with_pos(candidates[best].pos + 1e-6 * shift) for shift in range(1, 11)
    ]
    some = Systems.concatenate([candidates, *copies])
    alone = ModelChange(diverse=False).select(some, known, basis, 4, KEY).indices.tolist()
    apart = ModelChange().select(some, known, basis, 4, KEY).indices.tolist()
    alike = {best, *range(24, 34)}
    assert len(alike & set(alone)) == 4 and len(alike & set(apart)) == 1


def test_random_choices_follow_the_key(candidates: Systems, known: Dataset) -> None:
    choices = {
        tuple(Random().select(candidates, known, None, 4, torch.tensor(k)).indices.tolist())
        for k in range(20)
    }
    assert len(choices) == 20
    assert Passive().select(candidates, known, None, 3, KEY).indices.tolist() == [0, 1, 2]


def test_far_points_need_no_potential(candidates: Systems, known: Dataset) -> None:
    check_query_strategy(FarthestPoint(), candidates, known, None, count=5)
    odd = Systems.from_atoms([*images(8), bulk("Au", cubic=True, a=2.9)])
    assert FarthestPoint().select(odd, known, None, 1, KEY).indices.tolist() == [8]


def network() -> Potential:
    model = SchNet(elements=["Cu", "Au"], cutoff=4.0, hidden=4, rounds=1)
    return model.with_theta(model.start(1))


@pytest.mark.parametrize(
    "strategy", [DOptimal(), DOptimal(rows="qs3"), Optimality(), ModelChange(), FarthestPoint(), Random()]
)
def test_networks(strategy: QueryStrategy, candidates: Systems, known: Dataset) -> None:
    some = candidates.select(list(range(5)))
    found = strategy.select(some, known.select([0, 1]), network(), 2, KEY)
    assert len(found.indices) == 2


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (DOptimal(rows="qs2"), "d-optimal: the potential SchNet is not linear in its parameters"),
        (Variance(), "variance: the potential SchNet is not linear in its parameters"),
        (ErrorReduction(), "error-reduction: the potential SchNet is not linear in its parameters"),
        (CommitteeDisagreement(), "committee: the potential SchNet is one potential and no committee"),
    ],
)
def test_what_needs_a_linear_potential_says_so(
    strategy: QueryStrategy, message: str, candidates: Systems, known: Dataset
) -> None:
    with pytest.raises(InputError, match=message):
        strategy.select(candidates, known, network(), 2, KEY)


def test_what_is_missing_is_named(candidates: Systems, known: Dataset, basis: Mtp) -> None:
    nothing = known.select([])
    for strategy in (DOptimal(), Optimality(), Variance(), ModelChange(), ErrorReduction()):
        with pytest.raises(InputError, match="needs a potential"):
            strategy.select(candidates, known, None, 2, KEY)
        with pytest.raises(InputError, match="the potential LennardJones has no parameters to fit"):
            strategy.select(candidates, known, LennardJones(), 2, KEY)
    for strategy in (ErrorReduction(), CommitteeDisagreement()):
        with pytest.raises(
            InputError, match="needs known structures with labels; begin with d-optimal or random"
        ):
            strategy.select(candidates, nothing, basis, 2, KEY)


@pytest.mark.parametrize("rows", ["qs1", "qs2", "qs3"])
def test_rows_that_are_not_kept_are_computed_again(
    rows: str, candidates: Systems, known: Dataset, basis: Mtp, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = DOptimal(rows=rows, fill=True)
    kept = strategy.select(candidates, known, basis, 15, KEY).indices
    monkeypatch.setattr(d_optimal, "_KEPT", 0)
    assert strategy.select(candidates, known, basis, 15, KEY).indices.tolist() == kept.tolist()
