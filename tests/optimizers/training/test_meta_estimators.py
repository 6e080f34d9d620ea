"""ES, ESMC, GA and PES on tasks whose gradients are known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mlopt.core.errors import ConfigError, InputError, MloptError
from mlopt.core.plugins.plugin import build
from mlopt.core.protocols.learning import MetaState, MetaTrainer, SegmentedTask, Task
from mlopt.optimizers.training.es import ES, ESMC
from mlopt.optimizers.training.ga import GA
from mlopt.optimizers.training.outer_adam import OuterAdam
from mlopt.optimizers.training.pes import PES
from mlopt.optimizers.training.population import centred_ranks, noise

#: three coordinates of different steepness
STEEPNESS = torch.tensor([1.0, 3.0, 0.3], dtype=torch.float64)


class Bowl(Task):
    """``sum(s (theta - c)^2)`` with the centre ``c`` of each problem; ``flip`` turns it over, ``edge`` has no value."""

    k: int = 2
    flip: bool = False
    noisy: bool = True
    edge: float = math.inf

    @property
    def theta(self) -> torch.Tensor:
        return torch.zeros(3, dtype=torch.float64)

    @property
    def problems(self) -> int:
        return self.k

    def centre(self, problem: torch.Tensor, epoch: int) -> torch.Tensor:
        return 1.0 + (0.1 * torch.sin(17.0 * problem + epoch) if self.noisy else 0.0 * problem)

    def pair_losses(
        self, theta: torch.Tensor, problem: torch.Tensor, epoch: int, seed: int = 0
    ) -> torch.Tensor:
        found = (STEEPNESS * (theta - self.centre(problem, epoch)[:, None]) ** 2).sum(-1)
        found = -found if self.flip else found
        return torch.where(theta[:, 0] > self.edge, torch.nan, found)

    def losses(self, theta: torch.Tensor, epoch: int, seed: int = 0) -> torch.Tensor:
        met = torch.arange(self.k)
        return torch.stack(
            [self.pair_losses(one.expand(self.k, -1), met, epoch, seed).mean() for one in theta]
        )

    def named(self, theta: torch.Tensor) -> dict[str, float]:
        return {}


class Plain(OuterAdam):
    """Theta moves by minus the gradient, so that a test can read it off."""

    def change(self, gradient: torch.Tensor, memory: dict[str, torch.Tensor]) -> torch.Tensor:
        return -gradient


def gradient_of(trainer: MetaTrainer, task: Task, theta: torch.Tensor, seed: int = 0) -> torch.Tensor:
    state, _ = trainer.replace(outer=Plain()).advance(task, MetaState(theta), seed)
    return theta - state.theta


def test_es_is_an_unbiased_gradient() -> None:
    """Exact in expectation for a quadratic: sigma cancels; 4 sigma of the mean of 40,000 pairs."""
    task, theta = Bowl(noisy=False), torch.tensor([0.5, 0.2, -1.0], dtype=torch.float64)
    true = 2.0 * STEEPNESS * (theta - 1.0)
    one = [gradient_of(ES(population=2000, sigma=0.3), task, theta, seed) for seed in range(40)]
    mean, error = torch.stack(one).mean(0), torch.stack(one).std(0) / math.sqrt(40)
    assert bool(((mean - true).abs() < 4.0 * error).all()) and bool((error < 0.04).all())


def test_a_pair_is_antithetic() -> None:
    """One pair of a linear function: the estimate is e (e . g) / sigma^2, to rounding, with any constant on top."""

    class Slope(Bowl):
        def pair_losses(
            self, theta: torch.Tensor, problem: torch.Tensor, epoch: int, seed: int = 0
        ) -> torch.Tensor:
            return 1000.0 * (1.0 + problem) + theta @ STEEPNESS

    theta = torch.ones(3, dtype=torch.float64)
    (e,) = noise(0, 0, torch.arange(1), 3, 0.1)
    found = gradient_of(ES(population=2), Slope(), theta)
    assert found.tolist() == pytest.approx((e * (e @ STEEPNESS) / 0.01).tolist(), rel=1e-9)


def test_esmc_is_es_where_nothing_is_clipped() -> None:
    """On top of a hill every perturbation improves; on its side ESMC differs, at the bottom of a bowl it is nothing."""
    top = torch.ones(3, dtype=torch.float64)
    hill = Bowl(flip=True, noisy=False)
    settings: dict[str, Any] = {"population": 20, "common": True}
    assert torch.equal(gradient_of(ESMC(**settings), hill, top), gradient_of(ES(**settings), hill, top))
    side = top + 0.2
    assert not torch.allclose(
        gradient_of(ESMC(**settings), hill, side), gradient_of(ES(**settings), hill, side)
    )
    assert gradient_of(ESMC(**settings), Bowl(noisy=False), top).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("common", [True, False])
def test_esmc_clips_every_problem_by_itself(common: bool) -> None:
    """Equation 4, written out with loops."""
    task, theta, sigma, pairs = Bowl(k=3), torch.full((3,), 0.9, dtype=torch.float64), 0.1, 4
    e, expected = noise(5, 0, torch.arange(pairs), 3, sigma), torch.zeros(3, dtype=torch.float64)
    for i in range(pairs):
        for j in range(3):
            met = torch.tensor([j if common else 3 * i + j])
            plain, plus, minus = (
                float(task.pair_losses((theta + shift)[None], met, 0)) for shift in (0.0 * e[i], e[i], -e[i])
            )
            expected += e[i] * (min(plain, plus) - min(plain, minus)) / (2 * sigma**2) / (3 * pairs)
    found = gradient_of(ESMC(population=8, common=common), task, theta, seed=5)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-9)


def test_what_is_not_finite_counts_as_the_clip_value() -> None:
    """ESMC: as L(theta), so the pair pushes away from the edge only as far as the other side improves."""
    task, theta = Bowl(k=1, noisy=False, edge=0.0), torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    (e,) = noise(0, 0, torch.arange(1), 3, 0.1)
    good = -e if e[0] > 0 else e
    plain = float(task.pair_losses(theta[None], torch.zeros(1), 0))
    improved = min(plain, float(task.pair_losses((theta + good)[None], torch.zeros(1), 0))) - plain
    found = gradient_of(ESMC(population=2), task, theta)
    assert found.tolist() == pytest.approx((good * improved / 0.02).tolist(), abs=1e-12)
    for trainer in (ES(population=20), GA(population=20)):
        state = MetaState(theta)
        for _ in range(10):
            state, metrics = trainer.advance(task, state)
            assert bool(torch.isfinite(state.theta).all()) and math.isfinite(metrics["loss"])
    for refusing in (ES(population=4), ESMC(population=4), GA(population=4)):
        with pytest.raises(MloptError, match="no loss of this epoch is finite"):
            refusing.advance(Bowl(edge=-9.0), MetaState(theta))


@pytest.mark.parametrize(
    "trainer",
    [
        ES(population=40),
        ES(population=40, common=True, fitness="rank"),
        ES(population=40, common=True, fitness="problem-rank"),
        ESMC(population=40),
        GA(population=40, sigma=0.03),
    ],
    ids=["es", "es-rank", "es-problem-rank", "esmc", "ga"],
)
def test_trainers_find_the_bottom_of_a_bowl(trainer: MetaTrainer) -> None:
    if not isinstance(trainer, GA):
        trainer = trainer.replace(outer=OuterAdam(step_size=0.05))
    task, state = Bowl(), MetaState(Bowl().theta)
    for _ in range(120):
        state, _ = trainer.advance(task, state, seed=1)
    assert state.epoch == 120
    assert float(task.losses(state.theta[None], 0)) < 0.03 * float(task.losses(task.theta[None], 0))


def test_ga_never_loses_its_best() -> None:
    task, state, last = Bowl(noisy=False), MetaState(Bowl().theta), math.inf
    for _ in range(60):
        before = state.theta
        state, metrics = GA(population=3).advance(task, state)
        now = float(task.losses(state.theta[None], 0))
        assert now <= last and metrics["loss"] == pytest.approx(now, rel=1e-12)
        assert bool(metrics["improved"]) == (not torch.equal(before, state.theta))
        last = now
    assert last < 1.0


def test_places_problem_by_problem_forget_how_much_each_weighs() -> None:
    class Scaled(Task):
        """Two problems of which one counts a thousand times as much; both are lowest at 0."""

        scale: float

        @property
        def theta(self) -> torch.Tensor:
            return torch.ones(2, dtype=torch.float64)

        @property
        def problems(self) -> int:
            return 2

        def losses(self, theta: torch.Tensor, epoch: int, seed: int = 0) -> torch.Tensor:
            raise AssertionError("trainers ask for pairs")

        def pair_losses(
            self, theta: torch.Tensor, problem: torch.Tensor, epoch: int, seed: int = 0
        ) -> torch.Tensor:
            one = theta.gather(1, (problem % 2)[:, None])[:, 0] ** 2
            return torch.where(problem % 2 == 0, one * self.scale, one)

        def named(self, theta: torch.Tensor) -> dict[str, float]:
            return {}

    trainer = ES(population=20, common=True, fitness="problem-rank")
    states = [trainer.advance(Scaled(scale=scale), MetaState(torch.ones(2)))[0] for scale in (1.0, 1e3)]
    assert torch.equal(states[0].theta, states[1].theta)
    with pytest.raises(ConfigError, match="compares losses of one problem; set `common: true`"):
        build(ES, {"fitness": "problem-rank"})


def test_ranks_share_places_and_forget_sizes() -> None:
    assert centred_ranks(torch.tensor([3.0, 1e9, -1.0])).tolist() == [0.0, 0.5, -0.5]
    assert centred_ranks(torch.tensor([2.0, 2.0, 5.0, 5.0])).tolist() == pytest.approx(
        [-1 / 3, -1 / 3, 1 / 3, 1 / 3]
    )
    assert centred_ranks(torch.ones(4)).tolist() == [0.0] * 4


def test_the_outer_step_decays() -> None:
    outer, memory = OuterAdam(), dict[str, torch.Tensor]()
    steps = [float(outer.change(torch.ones(1, dtype=torch.float64), memory)) for _ in range(21)]
    assert steps[0] == pytest.approx(-0.01, rel=1e-6) and steps[9] == pytest.approx(-0.01, rel=1e-6)
    assert steps[10] == pytest.approx(-0.0098, rel=1e-6) and steps[20] == pytest.approx(
        -0.01 * 0.98**2, rel=1e-6
    )


def test_perturbations_belong_to_pairs() -> None:
    whole = noise(3, 7, torch.arange(5), 4, 0.1)
    assert torch.equal(whole[2:4], noise(3, 7, torch.arange(2, 4), 4, 0.1))
    assert not torch.equal(whole, noise(3, 8, torch.arange(5), 4, 0.1))
    many = noise(0, 0, torch.arange(20_000), 2, 0.1)
    assert float(many.std()) == pytest.approx(0.1, rel=0.02) and float(many.mean().abs()) < 0.002


class Line(SegmentedTask):
    """``x <- a x + theta`` from x = 1, for ``steps`` steps; the loss is x^2 at the end. Its gradient is known.

    The first half of the run decides nothing if its effect on the second is not seen: that is what truncation loses.
    """

    steps: int = 12
    a: float = 0.9
    k: int = 1

    @property
    def theta(self) -> torch.Tensor:
        return torch.tensor([0.3], dtype=torch.float64)

    @property
    def length(self) -> int:
        return self.steps

    @property
    def problems(self) -> int:
        return self.k

    def begin(self, problem: torch.Tensor, epoch: int, seed: int = 0) -> torch.Tensor:
        return torch.ones(len(problem), dtype=torch.float64)

    def carry(self, run: torch.Tensor, theta: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        for _ in range(steps):
            run = self.a * run + theta[:, 0]
        return run, run**2

    def pair_losses(
        self, theta: torch.Tensor, problem: torch.Tensor, epoch: int, seed: int = 0
    ) -> torch.Tensor:
        return self.carry(self.begin(problem, epoch, seed), theta, self.steps)[1]

    def losses(self, theta: torch.Tensor, epoch: int, seed: int = 0) -> torch.Tensor:
        return self.pair_losses(theta, torch.zeros(len(theta)), epoch, seed)

    def named(self, theta: torch.Tensor) -> dict[str, float]:
        return {}

    def true_gradient(self) -> float:
        theta = self.theta.requires_grad_(True)
        self.losses(theta[None], 0).backward()
        assert theta.grad is not None
        return float(theta.grad[0])


class Still(OuterAdam):
    """Theta stays; what it would have moved by is noted."""

    def change(self, gradient: torch.Tensor, memory: dict[str, torch.Tensor]) -> torch.Tensor:
        memory["noted"] = torch.cat([memory.get("noted", gradient[:0]), gradient])
        return torch.zeros_like(gradient)


@pytest.mark.parametrize("cohorts", [1, 3])
def test_pes_is_unbiased_where_truncated_es_is_not(cohorts: int) -> None:
    """Summed over the four segments of a run, the estimates are the gradient of the whole run.

    Without the sum of perturbations a segment knows only what its own theta did: here that is 26% too much.
    """
    task, pairs = Line(), 30_000
    trainer = PES(population=2 * pairs, segment=3, sigma=0.05, cohorts=cohorts).replace(outer=Still())
    state = MetaState(task.theta)
    for _ in range(8):
        state, _ = trainer.advance(task, state)
    # the first runs of later cohorts are short; the second four epochs see whole runs, in turn
    found = float(state.memory["noted"][4:].sum())
    true = task.true_gradient()
    assert found == pytest.approx(true, rel=0.03)
    truncated, x = 0.0, torch.ones(1, dtype=torch.float64)
    for _ in range(4):
        theta = task.theta.requires_grad_(True)
        after, loss = task.carry(x.detach(), theta[None], 3)
        truncated += float(torch.autograd.grad(loss.sum(), theta)[0])
        x = after
    assert abs(truncated / true - 1.0) > 0.2


@pytest.mark.parametrize("cohorts", [1, 2])
def test_pes_resumes_with_the_same_bits(cohorts: int) -> None:
    """What is kept between epochs changes nothing: from a state alone, runs are computed again."""
    from mlopt.optimizers.training import pes

    task, trainer = Line(steps=10, k=2), PES(population=6, segment=3, cohorts=cohorts)
    whole = other = MetaState(task.theta)
    for epoch in range(9):
        whole, metrics = trainer.advance(task, whole)
        pes._living.clear()
        memory = {name: one.clone() for name, one in other.memory.items()}
        other, again = trainer.advance(task, MetaState(other.theta.clone(), epoch, memory))
        assert torch.equal(whole.theta, other.theta) and metrics == again
        # the same state twice: the runs of the first are used up
        assert torch.equal(trainer.advance(task, MetaState(other.theta, epoch + 1, other.memory))[0].theta,
                           trainer.advance(task, MetaState(other.theta, epoch + 1, other.memory))[0].theta)  # fmt: skip
    assert len(whole.memory["history"]) <= 3


def test_pes_learns() -> None:
    task, state = Line(), MetaState(Line().theta)
    trainer = PES(population=20, segment=4, sigma=0.02, outer=OuterAdam(step_size=0.02))
    for _ in range(120):
        state, _ = trainer.advance(task, state)
    assert float(task.losses(state.theta[None], 0)) < 0.05 * float(task.losses(task.theta[None], 0))


def test_states_are_not_changed() -> None:
    for trainer in (ES(population=4), ESMC(population=4), GA(population=4), PES(population=4, segment=6)):
        task = Line()
        first, _ = trainer.advance(task, MetaState(task.theta))
        before = {name: one.clone() for name, one in first.memory.items()} | {"theta": first.theta.clone()}
        trainer.advance(task, first)
        after = first.memory | {"theta": first.theta}
        assert first.epoch == 1 and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("cls", [ES, ESMC, PES])
def test_odd_populations_are_refused(cls: type) -> None:
    with pytest.raises(
        ValueError, match=r"must be even, because perturbations come in pairs .* take 80 or 82"
    ):
        cls(population=81)
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        cls(population=0)
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        GA(population=0)


def test_refusals() -> None:
    nan = torch.tensor([0.0, math.nan, 0.0], dtype=torch.float64)
    for trainer in (ES(population=2), ESMC(population=2), GA(population=2)):
        with pytest.raises(
            InputError, match=r"theta cannot be trained: entry 1 of 3 is nan. Start from other"
        ):
            trainer.advance(Bowl(), MetaState(nan))
    with pytest.raises(InputError, match="entry 0 of 1 is inf"):
        PES(population=2).advance(Line(), MetaState(torch.tensor([math.inf])))
    with pytest.raises(
        InputError, match="`pes` needs a task whose runs can be cut into segments, and Bowl has none"
    ):
        PES().advance(Bowl(), MetaState(Bowl().theta))
    with pytest.raises(InputError, match="`cohorts: 4` needs as many pairs and segments; there are 3 pairs"):
        PES(population=6, segment=3, cohorts=4).advance(Line(), MetaState(Line().theta))
    with pytest.raises(InputError, match="its history is too short"):
        PES(population=6, segment=3).advance(Line(), MetaState(Line().theta, epoch=2))
