"""The task `rollout`: losses of many theta in one batch, what they are measured by, and what it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from mlopt.core.batch.random import Stream, derive
from mlopt.core.driver.driver import minimize
from mlopt.core.errors import ConfigError, InputError
from mlopt.core.files.weights import read_card
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.plugins.plugin import build
from mlopt.core.protocols.learning import Learnable, MetaState
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.core.runs.experiment import Preempted
from mlopt.core.structures.spec import SystemSpec
from mlopt.core.testing.recorder import Recorder, Resumed
from mlopt.optimizers.experiments.meta_train.experiment import MetaTrain
from mlopt.optimizers.experiments.meta_train.theta import save_theta
from mlopt.optimizers.learned.step.optimizer import Learned, LearnedFamily
from mlopt.optimizers.local.adam import Adam
from mlopt.optimizers.local.gradient_descent import GradientDescent
from mlopt.optimizers.searches.basin_hopping import BasinHopping
from mlopt.optimizers.starts.starts import BoxStart, GivenStart
from mlopt.optimizers.training.es import ES, ESMC
from mlopt.optimizers.training.ga import GA
from mlopt.optimizers.training.outer_adam import OuterAdam
from mlopt.optimizers.training.pes import PES
from mlopt.optimizers.training.tasks.rollout import RolloutTask
from mlopt.optimizers.training.tasks.settings import HeldOut, Member, Reference, Truncation
from mlopt.optimizers.training.tasks.systems import labels_of
from mlopt.potentials import LennardJones, Morse

LJ7 = -16.505384


class LearnedAdam(Learnable):
    """Adam's step and the share of the mean that it keeps: a logarithm and a logit."""

    step: float = 0.003

    def start(self, seed: int = 0) -> torch.Tensor:
        return torch.tensor([math.log(self.step), 2.2], dtype=torch.float64)

    def optimizer(self, theta: torch.Tensor) -> Optimizer:
        return Adam().replace(step_size=theta[..., 0].exp(), beta1=theta[..., 1].sigmoid())

    def named(self, theta: torch.Tensor) -> dict[str, float]:
        return {"step_size": math.exp(float(theta[0])), "beta1": float(theta[1].sigmoid())}


class Hopper(Learnable):
    """Basin hopping's temperature."""

    def start(self, seed: int = 0) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.float64)

    def optimizer(self, theta: torch.Tensor) -> Optimizer:
        return BasinHopping().replace(temperature=theta[..., 0].exp())


def member(formula: str = "Ar7", potential: Any = None, **settings: Any) -> Member:
    given = {
        "system": SystemSpec(cluster=formula),
        "potential": potential or LennardJones(),
        "reference": LJ7,
    }
    return Member(**(given | settings))


def task(**settings: Any) -> RolloutTask:
    given: dict[str, Any] = {
        "members": [member()], "learnable": LearnedAdam(), "horizon": 30, "starts": 2,
        "held_out": HeldOut(starts=4, descent=10), "reference": Reference(starts=6), "engine": "eager",
    }  # fmt: skip
    return RolloutTask(**(given | settings))


MIXED = [
    member("Ar7"),
    member("Ar5", weight=2.0),
    member("Ar7", Morse()),
    member("Ar4Kr2", LennardJones(), start=BoxStart(edge=2.5)),
]


def population(b: int = 5) -> torch.Tensor:
    return (
        LearnedAdam().start() + 0.3 * torch.randn(b, 2, generator=torch.Generator().manual_seed(1)).double()
    )


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


def test_training_pays() -> None:
    """Adam's step on LJ7: what 30 steps reach from far too small a step, and from the one that ES finds."""
    one = task(starts=1)
    trainer = ES(population=32, outer=OuterAdam(step_size=0.1))
    state = MetaState(one.theta)
    for _ in range(25):
        state, _ = trainer.advance(one, state)
    fresh = torch.stack([one.theta, state.theta])
    before, after = task(starts=40).losses(fresh, 10_000).tolist()
    assert after < before - 0.15 and one.named(state.theta)["step_size"] > 0.01


@pytest.mark.parametrize("trainer", [ES(population=4), ESMC(population=4, common=True), GA(population=3),
                                     PES(population=4, segment=8, cohorts=2)],
                         ids=["es", "esmc", "ga", "pes"])  # fmt: skip
def test_training_resumed_after_each_epoch_ends_with_the_same_bits(trainer: Any, tmp_path: Any) -> None:
    from mlopt.optimizers.training import pes

    def experiment() -> MetaTrain:
        family = task(
            members=[member(reference=None), MIXED[1]], horizon=24, reference=Reference(starts=2, steps=60)
        )
        return MetaTrain(task=family, trainer=trainer, epochs=5, evaluate_every=2)

    whole = experiment().run(Recorder(tmp_path / "whole"))
    context, pieces = Recorder(tmp_path / "pieces", pauses=0), 0
    while True:
        pieces += 1
        pes._living.clear()
        try:
            found = experiment().run(context)
            break
        except Preempted:
            context = Resumed(context, pauses=0)
    assert pieces == 5
    assert torch.equal(found.theta, whole.theta) and found.history == whole.history
    assert found.summary() | {"wall_s": 0} == whole.summary() | {"wall_s": 0}
    for name in ("theta.safetensors", "history.json", "theta/epoch-000004.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "pieces" / name).read_bytes()
    assert max(len(one) for one in context.saved) < 10_000


def test_parameters_alone_can_be_read_by_anyone(tmp_path: Any) -> None:
    from safetensors import safe_open

    found = MetaTrain(task=task(), trainer=GA(population=2), epochs=1).run(Recorder(tmp_path))
    with safe_open(tmp_path / "theta.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("theta"), found.theta)
        made_by = json.loads(file.metadata()["made_by"])
    assert made_by == {"task": "RolloutTask", "trainer": "GA", "seed": 0, "epoch": 1}


def test_training_starts_from_parameters_of_another(tmp_path: Any) -> None:
    found = MetaTrain(task=task(), trainer=GA(population=2), epochs=2).run(Recorder(tmp_path))
    file = str(tmp_path / "theta.safetensors")
    again = MetaTrain(task=task(), trainer=GA(population=2), epochs=1, theta=file)
    assert torch.equal(again.first_theta(), found.theta)
    ahead = MetaTrain(
        task=task(), trainer=ES(population=2, outer=OuterAdam(step_size=1e-12)), epochs=1, theta=file
    )
    assert ahead.run().theta.tolist() == pytest.approx(found.theta.tolist(), abs=1e-10)
    with pytest.raises(
        InputError, match=r"theta.safetensors: 2 parameters, and this task has 1: it was trained with"
    ):
        MetaTrain(task=task(learnable=Hopper()), trainer=ES(), theta=file).check()
    with pytest.raises(InputError, match=r"nowhere: cannot be read \(No such file"):
        again.replace(theta="nowhere").check()
    (tmp_path / "bad").write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(InputError, match=r"bad: no file of parameters"):
        again.replace(theta=str(tmp_path / "bad")).check()
    save_theta(tmp_path / "nan", torch.tensor([0.0, math.nan]), again.made_by(1))
    with pytest.raises(InputError, match=r"nan: holds NaN or infinity"):
        again.replace(theta=str(tmp_path / "nan")).check()


def test_weights_are_written_as_their_optimizer_reads_them(tmp_path: Any) -> None:
    class Network(LearnedAdam):
        def write_weights(self, theta: torch.Tensor, path: Path, training: Mapping[str, Any]) -> None:
            path.with_suffix(".json").write_text(json.dumps([theta.tolist(), training]))

    found = MetaTrain(task=task(learnable=Network()), trainer=GA(population=2), epochs=1).run(
        Recorder(tmp_path)
    )
    theta, training = json.loads((tmp_path / "weights.json").read_text())
    assert (
        theta == found.theta.tolist() and training["horizon"] == 30 and training["results"] == found.held_out
    )
    assert training["estimator"] == {"name": "ga", "population": 2, "sigma": 0.1}


def test_a_network_is_trained_and_used(tmp_path: Any) -> None:
    """From nothing to a file of weights that the optimizer reads, and that does what was trained."""
    family = task(learnable=LearnedFamily(), horizon=20)
    found = MetaTrain(task=family, trainer=ESMC(population=4), epochs=2, evaluate_every=2).run(
        Recorder(tmp_path)
    )
    weights = str(tmp_path / "weights.safetensors")
    assert found.start.tolist() != found.theta.tolist()
    systems = family.members[0].loaded
    landscape = AtomsLandscape(systems, LennardJones())
    x = family.members[0].start.sample(systems, landscape.diameter, torch.tensor([5]))
    read = minimize(landscape, Learned(weights=weights), x, force_calls=21, engine="eager")
    kept = minimize(landscape, LearnedFamily().optimizer(found.theta), x, force_calls=21, engine="eager")
    still = minimize(landscape, LearnedFamily().optimizer(family.theta), x, force_calls=21, engine="eager")
    assert torch.equal(read.x, kept.x) and not torch.equal(still.x, kept.x)
    assert read_card(weights, "learned").training["results"] == found.held_out


def test_pieces_of_time_end_before_the_time_is_up() -> None:
    """An epoch takes longer than the limit: each piece does one, and stops with a checkpoint."""
    experiment = MetaTrain(task=task(), trainer=GA(population=2), epochs=3, max_minutes=1e-6)
    whole = experiment.replace(max_minutes=None).run()
    context, pieces = Recorder(), 0
    for _ in range(5):
        try:
            found = experiment.run(context)
            break
        except Preempted:
            pieces, context = pieces + 1, Resumed(context)
    assert pieces == 2 and torch.equal(found.theta, whole.theta)


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
