"""The task `rollout`: losses of many theta in one batch, what they are measured by, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from rollout_tasks import LJ7, MIXED, Hopper, LearnedAdam, member, population, task

from mlopt.core.batch.random import Stream, derive
from mlopt.core.driver.driver import minimize
from mlopt.core.errors import ConfigError, InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.plugins.plugin import build
from mlopt.core.protocols.learning import Learnable
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.optimizers.experiments.meta_train.experiment import MetaTrain
from mlopt.optimizers.local.gradient_descent import GradientDescent
from mlopt.optimizers.starts.starts import BoxStart, GivenStart
from mlopt.optimizers.training.es import ES
from mlopt.optimizers.training.tasks.rollout import RolloutTask
from mlopt.optimizers.training.tasks.settings import HeldOut, Reference, Truncation
from mlopt.optimizers.training.tasks.systems import labels_of
from mlopt.potentials import LennardJones


@pytest.mark.parametrize(
    "settings", [{}, {"loss": "best"}, {"dtype": "float32"}], ids=["final", "best", "float32"]
)
def test_a_population_in_one_batch_is_each_alone(settings: dict[str, Any]) -> None:
    mixed = task(members=MIXED[:3], starts=4, **settings)
    theta = population()
    problem = torch.arange(8).repeat(5)
    rows = torch.arange(5).repeat_interleave(8)
    together = mixed.pair_losses(theta[rows], problem, epoch=3, seed=2)
    assert len(torch.unique(mixed.member_of(problem, 3, 2))) == 3
    for i in range(0, 40, 7):
        alone = mixed.pair_losses(theta[rows[i : i + 1]], problem[i : i + 1], epoch=3, seed=2)
        assert torch.equal(alone[0], together[i])
    assert torch.equal(mixed.losses(theta, 3, 2), together.reshape(5, 8)[:, :4].mean(1))
    assert together.dtype == torch.float64 and len(torch.unique(together)) == 40


def test_the_loss_is_the_energy_of_an_ordinary_run() -> None:
    """Adam from the same start, after the same number of steps, over the reference."""
    one = task(horizon=40)
    theta = LearnedAdam(step=0.01).start()
    (loss,) = one.pair_losses(theta[None], torch.tensor([1]), epoch=5, seed=9)
    key = derive(derive(9, Stream.EPOCH, 5, torch.tensor([1])), Stream.START)
    systems = one.members[0].loaded
    landscape = AtomsLandscape(systems, LennardJones())
    x = one.members[0].start.sample(systems, landscape.diameter, key)
    adam = LearnedAdam().optimizer(theta)
    found = minimize(landscape, adam, x, force_calls=41, engine="eager")
    assert float(loss) == pytest.approx(float(found.energy[0]) / abs(LJ7), rel=1e-12)
    best = task(horizon=40, loss="best").pair_losses(theta[None], torch.tensor([1]), epoch=5, seed=9)
    energies = [
        float(minimize(landscape, adam, x, force_calls=k, engine="eager").energy[0]) for k in range(1, 42)
    ]
    assert float(best) == pytest.approx(min(energies) / abs(LJ7), rel=1e-12)


def test_all_theta_of_an_epoch_meet_the_same_problems() -> None:
    one = task(members=MIXED[:2])
    twice = population(1).expand(2, -1)
    a, b = one.losses(twice, 4)
    assert float(a) == float(b)
    epochs = {float(one.losses(twice[:1], epoch, seed)) for epoch in range(3) for seed in range(2)}
    assert len(epochs) == 6


def test_members_take_turns_by_weight() -> None:
    family = task(members=[member(weight=1.0), member("Ar5", weight=3.0)], starts=4)
    one = family.member_of(torch.arange(4), epoch=1)
    assert one.tolist().count(0) == 1  # of four problems exactly one, in every epoch
    counts = torch.stack(
        [torch.bincount(family.member_of(torch.arange(40), e), minlength=2) for e in range(20)]
    )
    assert counts.tolist() == [[10, 30]] * 20
    rare = task(members=[member(weight=0.1), member("Ar5", weight=0.9)], starts=2)
    share = sum(int((rare.member_of(torch.arange(2), e) == 0).sum()) for e in range(1000)) / 2000
    assert 0.08 < share < 0.12


def test_what_diverges_counts_as_the_clip_value() -> None:
    wild = torch.tensor([[800.0, 2.2], [-5.0, 2.2]], dtype=torch.float64)
    found = task(clip=2.0).losses(wild, 0)
    assert float(found[0]) == 2.0 and float(found[1]) < 2.0


def test_the_reference_is_the_best_of_adam() -> None:
    """Computed once, from starts of its own, the same whatever is trained with which seed."""
    one = task(members=[member(reference=None), member("Ar5")], horizon=300)
    (value, given) = one.references.tolist()
    assert given == LJ7 and LJ7 - 1e-6 < value < -12.0
    assert one.references is one.references
    again = task(members=[member(reference=None)], horizon=300, learnable=LearnedAdam(step=1.0), batch=2)
    assert again.references.tolist() == [value]
    assert one.with_constants(torch.tensor([-1.0, -2.0])).references.tolist() == [-1.0, -2.0]
    assert one.references.tolist() == [value, LJ7]


def test_schedules_of_length() -> None:
    grow = Truncation(kind="grow", shortest=10, epochs=4)
    assert [grow.steps(1000, epoch, 0) for epoch in (0, 2, 4, 9)] == [10, 100, 1000, 1000]
    drawn = [Truncation(kind="log-uniform", shortest=10).steps(1000, epoch, 0) for epoch in range(400)]
    assert 10 <= min(drawn) < 15 and 700 < max(drawn) <= 1000
    assert sum(one < 100 for one in drawn) / 400 == pytest.approx(0.5, abs=0.08)
    assert Truncation().steps(7, 0, 0) == Truncation(kind="grow", shortest=100).steps(7, 0, 0) == 7
    short = task(truncation=grow, horizon=1000)
    same = task(horizon=10)
    assert torch.equal(short.losses(population(2), 0), same.losses(population(2), 0))


@pytest.mark.parametrize("loss", ["final", "best"])
def test_segments_are_a_whole_run(loss: str) -> None:
    family = task(members=MIXED[:3], horizon=30, loss=loss, starts=3)
    theta, problem = population(6), torch.arange(6)
    whole = family.pair_losses(theta, problem, epoch=2)
    run = family.begin(problem, epoch=2)
    for steps in (7, 20, 3):
        run, found = family.carry(run, theta, steps)
    assert torch.equal(found, whole)


def test_a_run_that_fails_in_a_segment_stays_at_the_clip_value() -> None:
    one = task(clip=3.0)
    problem, calm = torch.arange(2), LearnedAdam().start().expand(2, -1)
    wild = torch.stack([calm[0], torch.tensor([800.0, 2.2], dtype=torch.float64)])
    run, _ = one.carry(one.begin(problem, 0), wild, 5)
    for _ in range(2):
        run, found = one.carry(run, calm, 5)
        assert float(found[1]) == 3.0 and float(found[0]) < 3.0
    both = one.begin(problem, 0)
    for _ in range(2):  # nobody is left to go on
        both, found = one.carry(both, wild[1].expand(2, -1), 5)
    assert found.tolist() == [3.0, 3.0]


def test_held_out_numbers() -> None:
    """Against a run by hand: the starts of no epoch, the horizon, then descent."""
    one = task(members=[member(target=LJ7, tolerance=0.5), member("Ar5", reference=-9.1)], horizon=400,
               held_out=HeldOut(starts=8, descent=100))  # fmt: skip
    theta = LearnedAdam(step=0.02).start()
    row = one.evaluate(theta)
    assert list(row) == ["held_out", "Ar7.mean", "Ar7.min", "Ar7.hits", "Ar5.mean", "Ar5.min"]
    assert LJ7 - 1e-6 <= row["Ar7.min"] <= row["Ar7.mean"] < -14.0
    assert -9.104 < row["Ar5.min"] <= row["Ar5.mean"] < -8.0
    assert row["held_out"] == pytest.approx(
        (row["Ar7.mean"] / 16.505384 + row["Ar5.mean"] / 9.1) / 2, rel=1e-9
    )
    assert one.evaluate(theta, seed=1) != row and task(members=one.members, horizon=400, batch=3,
        held_out=one.held_out).evaluate(theta) == row  # fmt: skip
    lost = one.evaluate(torch.tensor([800.0, 2.2], dtype=torch.float64))
    assert lost["Ar7.lost"] == 8.0 and lost["Ar7.hits"] == 0.0 and lost["held_out"] == one.clip
    twins = task(members=[member(), member()])
    assert labels_of(twins.members) == ["Ar7#0", "Ar7#1"]


def test_a_search_is_judged_by_its_best() -> None:
    hopping = task(learnable=Hopper(), horizon=200)
    losses = hopping.losses(torch.tensor([[0.0], [1.0]], dtype=torch.float64), 0)
    assert bool((losses < -0.9).all()) and bool((losses >= -1.0001).all())


def test_bad_input() -> None:
    def refused(match: str, **settings: Any) -> None:
        given = {"members": [{"system": {"cluster": "Ar7"}, "potential": "lennard-jones"}]}
        with pytest.raises(ConfigError, match=match):
            build(RolloutTask, {"learnable": LearnedAdam(), **given, **settings})

    refused("horizon: .*greater than or equal to 1", horizon=0)
    refused("members: the family has no members; give one at least", members=[])
    refused(
        "members.0.weight",
        members=[{"system": {"cluster": "Ar7"}, "potential": "lennard-jones", "weight": 0}],
    )
    refused("members.0.reference", members=[{"system": {"cluster": "Ar7"}, "potential": "lennard-jones",
                                             "reference": 1.0}])  # fmt: skip
    refused("batch", batch=0)
    with pytest.raises(InputError, match="`start: given` needs positions, and Ar7 is a formula"):
        MetaTrain(task=task(members=[member(start=GivenStart())]), trainer=ES()).check()
    with pytest.raises(InputError, match=r"sees no CUDA device|only"):
        MetaTrain(task=task(device="cuda:99"), trainer=ES()).check()
    with pytest.raises(
        InputError, match=r"the best of 2 Adam runs of Ar7 has the energy .* give `reference`"
    ):
        _ = task(members=[member(reference=None, start=BoxStart(edge=0.5))],
                 reference=Reference(starts=2, steps=1, step_size=1e-9)).references  # fmt: skip
    with pytest.raises(InputError, match="3 references for 1 members"):
        task().with_constants(torch.ones(3))

    class Broken(LearnedAdam):
        def start(self, seed: int = 0) -> torch.Tensor:
            return torch.tensor([math.nan, 0.0])

    with pytest.raises(InputError, match="starts at parameters that are no vector of finite numbers"):
        MetaTrain(task=task(learnable=Broken()), trainer=ES()).run()


def test_descent_alone_is_what_it_says() -> None:
    """The learnable of plain descent, evaluated: another check of the batch against one run by hand."""

    class Descent(Learnable):
        def start(self, seed: int = 0) -> torch.Tensor:
            return torch.tensor([math.log(2e-3)], dtype=torch.float64)

        def optimizer(self, theta: torch.Tensor) -> Optimizer:
            return GradientDescent(max_step=0.1).replace(step_size=theta[..., 0].exp())

    one = task(learnable=Descent(), horizon=500, starts=6)
    slow, fast = one.losses(torch.tensor([[-9.0], [-6.0]], dtype=torch.float64), 0).tolist()
    assert fast < slow


@pytest.mark.slow
def test_engines_agree() -> None:
    theta = population(3)
    for settings in ({}, {"loss": "best"}, {"members": MIXED[:3]}):
        eager, fused = (task(engine=engine, **settings).losses(theta, 1) for engine in ("eager", "fused"))
        assert fused.tolist() == pytest.approx(eager.tolist(), rel=1e-7)
    family = task(engine="fused")
    whole = family.pair_losses(theta, torch.arange(3), 0)
    run = family.begin(torch.arange(3), 0)
    for steps in (11, 19):
        run, found = family.carry(run, theta, steps)
    assert found.tolist() == pytest.approx(whole.tolist(), rel=1e-9)
