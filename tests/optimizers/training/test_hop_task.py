"""The task `hop`: what a loss is, that all theta of an epoch meet the same problems, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mlopt.core.errors import ConfigError, InputError
from mlopt.core.files.weights import read_card
from mlopt.core.plugins import registry
from mlopt.core.plugins.plugin import build
from mlopt.core.protocols.learning import Learnable, Task
from mlopt.core.structures.spec import SystemSpec
from mlopt.optimizers.learned.hop.learnable import LearnedHop
from mlopt.optimizers.learned.hop.network import first_theta
from mlopt.optimizers.learned.hop.optimizer import LearnedHopping
from mlopt.optimizers.starts.starts import SphereStart
from mlopt.optimizers.training.tasks.hop import HopCase, HopTask
from mlopt.potentials import LennardJones

#: global minima of Lennard-Jones clusters
TARGETS = {"Ar5": -9.103852, "Ar6": -12.712062, "Ar7": -16.505384}


def task_of(*clusters: str, **settings: Any) -> HopTask:
    """Small ones, by the eager engine."""
    cases = [
        HopCase(
            system=SystemSpec(cluster=one),
            potential=LennardJones(),
            target=TARGETS[one],
            starts=4 * (1 + place),
        )
        for place, one in enumerate(clusters)
    ]
    return HopTask(
        systems=cases, **{"starts": 4, "force_calls": 200, "engine": "eager", "held_out": 5} | settings
    )


def some(count: int) -> torch.Tensor:
    """Networks that differ: (count, p)."""
    shares = [1.0] * 6
    theta = torch.stack([first_theta(shares, seed) for seed in range(count)])
    theta[:, -2] = torch.linspace(-2.0, 2.0, count, dtype=torch.float64)
    return theta


def test_registered() -> None:
    assert registry.load("task", "hop") is HopTask and issubclass(HopTask, Task)
    assert registry.load("learnable", "learned-hop") is LearnedHop and issubclass(LearnedHop, Learnable)
    assert registry.load("optimizer", "learned-hopping") is LearnedHopping


def test_each_theta_fares_as_alone() -> None:
    """Bit for bit; the same theta twice has the same losses; another epoch or seed has other starts."""
    task = task_of("Ar6", "Ar7")
    theta = some(3)
    table = task.table(theta[[0, 1, 2, 1]], epoch=3, seed=1)
    assert table.shape == (4, 12) and torch.equal(table[1], table[3])
    assert not torch.equal(table[0], table[1])
    for row in range(3):
        assert torch.equal(task.table(theta[row : row + 1], epoch=3, seed=1)[0], table[row])
    for other in ({"epoch": 4, "seed": 1}, {"epoch": 3, "seed": 2}):
        assert not torch.equal(task.table(theta[:1], **other)[0], table[0])


def test_the_loss_is_the_mean_over_starts() -> None:
    task, theta = task_of("Ar6", "Ar7"), some(2)
    table = task.table(theta, epoch=0)
    assert task.problems == 12
    torch.testing.assert_close(task.losses(theta, epoch=0), table.mean(1))
    # any pairs of theta and problem, in any order; further numbers are further starts
    problem = torch.tensor([11, 0, 5, 12])
    pairs = task.pair_losses(theta[[0, 1, 1, 0]], problem, epoch=0)
    assert torch.equal(pairs[:3], table[[0, 1, 1], problem[:3]])
    assert float(pairs[3]) != float(table[0, 0])


def test_hits_rank_before_misses_by_time_and_misses_by_height() -> None:
    """A longer budget: the same hits at a smaller share; a target out of reach: the height decides."""
    short, long = (task_of("Ar5", force_calls=calls).table(some(3), 0) for calls in (80, 400))
    assert bool((long < 1).all()) and bool((short > 1).any()) and bool((short < 1).any())
    hit = short < 1
    torch.testing.assert_close(short[hit] * 80, long[hit] * 400)
    assert bool((long[~hit] * 400 > 80).all())
    deep = HopCase(system=SystemSpec(cluster="Ar5"), potential=LennardJones(), target=-20.0)
    missed = HopTask(systems=[deep], starts=4, force_calls=400, engine="eager").table(some(1), 0)
    height = -9.103852 + 20.0
    assert missed.flatten().tolist() == pytest.approx([1.0 + height / (height + 0.2)] * 4, abs=1e-5)


def test_evaluation_is_on_starts_of_its_own() -> None:
    task, theta = task_of("Ar5", force_calls=300), some(2)
    found = task.evaluate(theta[0])
    assert found["Ar5.hit_rate"] == 1.0 and found["Ar5.hit_rate_low"] < 1.0 == found["Ar5.hit_rate_high"]
    assert 5 < found["Ar5.calls_to_hit_low"] < found["Ar5.calls_to_hit"] < 300
    assert 0.0 < found["held_out"] < 1.0
    never = task_of("Ar5", force_calls=2).evaluate(theta[0])
    assert never["Ar5.hits"] == 0.0 and "Ar5.calls_to_hit" not in never and 1.0 < never["held_out"] < 2.0


@pytest.mark.parametrize("name", ["hop-lj", "hop-lj38", "hop-au55"])
def test_the_task_that_a_card_tells_of_is_read(name: str) -> None:
    """Cards that ship have `cluster` and one `start` for all."""
    told = dict(read_card(name, "learned-hopping").training["task_family"])
    assert told.pop("name") == "hop" and "cluster" in told["systems"][0] and "start" in told
    task = build(HopTask, told)
    assert [one.label for one in task.systems] == [one["cluster"] for one in told["systems"]]
    assert {one.start for one in task.systems} == {
        SphereStart(**{k: v for k, v in told["start"].items() if k != "name"})
    }
    assert build(HopTask, task.config()) == task and "start" not in task.config()


def test_what_is_learned_has_names() -> None:
    family = LearnedHop(search=LearnedHopping(quench_tolerance=0.1))
    theta = family.start()
    assert torch.equal(theta, family.start()) and not torch.equal(theta, family.start(seed=1))
    assert family.named(theta)["quench_tolerance"] == pytest.approx(0.1)
    search = family.optimizer(theta)
    assert isinstance(search, LearnedHopping) and torch.equal(search.parameters, theta)
    # training can go on from weights
    again = LearnedHop(search=LearnedHopping(theta=some(1)[0].tolist()))
    assert torch.equal(again.start(), some(1)[0])


def test_what_is_refused() -> None:
    argon = {"name": "lennard-jones"}
    with pytest.raises(ConfigError, match="systems: list should have at least 1 item"):
        build(HopTask, {"systems": []})
    with pytest.raises(ConfigError, match=r"systems\.0\.system\.cluster: .*no element has the symbol 'Qq'"):
        build(HopTask, {"systems": [{"system": "Qq5", "potential": argon, "target": -1.0}]})
    with pytest.raises(ConfigError, match=r"systems\.0\.target: this setting is required"):
        build(HopTask, {"systems": [{"system": "Ar5", "potential": argon}]})
    with pytest.raises(ConfigError, match="force_calls: input should be greater than or equal to 1"):
        build(HopCase, {"system": "Ar5", "potential": argon, "target": -9.1, "force_calls": 0})
    gold = {"name": "gupta", "preset": "AgAu"}
    with pytest.raises(InputError, match="no parameters for Ar"):
        _ = build(HopTask, {"systems": [{"system": "Ar5", "potential": gold, "target": -1.0}]}).theta
    with pytest.raises(InputError, match="`start: given` needs positions, and Ar5 is a formula"):
        case = {"system": "Ar5", "potential": argon, "target": -9.1, "start": "given"}
        _ = build(HopTask, {"systems": [case]}).theta
    with pytest.raises(
        ConfigError, match="`shares` must be 6 positive numbers, for the displacement and 5 moves"
    ):
        build(LearnedHop, {"shares": [0.5, 0.5]})
    with pytest.raises(InputError, match="not finite"):
        task_of("Ar5").losses(some(1) * float("nan"), epoch=0)
