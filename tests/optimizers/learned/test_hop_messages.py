"""A learned hop that hears of neighbourhoods by messages: trained with the rest, the same in any batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver, minimize
from mlopt.core.driver.stop import Stop
from mlopt.core.errors import ConfigError, InputError
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.plugins.plugin import build
from mlopt.optimizers import SphereStart
from mlopt.optimizers.learned.hop.learnable import LearnedHop
from mlopt.optimizers.learned.hop.network import size_of
from mlopt.optimizers.learned.hop.optimizer import LearnedHopping
from mlopt.potentials import LennardJones

SEARCH = LearnedHopping(messages=3, quench_calls=8, quench_tolerance=0.5)
FAMILY = LearnedHop(search=SEARCH)


def clusters(*sizes: int) -> tuple[AtomsLandscape, torch.Tensor, torch.Tensor]:
    """Random starts, and keys."""
    number = sum(sizes)
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    pos = torch.zeros(number, 3, dtype=torch.float64)
    landscape = AtomsLandscape(Systems(pos, torch.full((number,), 18), ptr), LennardJones())
    keys = problem_keys(0, torch.arange(len(sizes)))
    return landscape, SphereStart().sample(landscape.systems, landscape.diameter, keys), keys


def thetas(count: int) -> torch.Tensor:
    """Networks that say something of everything: (count, p)."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(count, SEARCH.size, generator=generator, dtype=torch.float64)
    return FAMILY.start() + 0.3 * noise


def outcome(theta: torch.Tensor | None, *, search: LearnedHopping = SEARCH, calls: int = 120) -> Any:
    landscape, x, keys = clusters(6, 8, 7)
    driver = Driver(landscape, search.replace(theta=theta), Stop(calls), engine="eager")
    return driver.advance(driver.begin(x, keys)).outcome


def test_nothing_is_heard_where_training_starts() -> None:
    without = SEARCH.replace(messages=0)
    assert SEARCH.size > without.size == size_of(6)
    assert torch.equal(FAMILY.start()[: size_of(6)], LearnedHop(search=without).start())
    assert torch.equal(outcome(None).tally.x, outcome(None, search=without).tally.x)


def test_messages_change_what_is_said() -> None:
    theta = thetas(1)[0]
    deaf = theta.clone()
    deaf[size_of(6) :] = 0.0
    assert not torch.equal(outcome(theta).tally.energy, outcome(deaf).tally.energy)


def test_a_population_fares_as_one_by_one() -> None:
    population, (landscape, x, keys) = thetas(3), clusters(6, 8, 7)
    together = outcome(population)
    for problem in range(3):
        chosen = torch.tensor([problem])
        _, rows = landscape.segments.select(chosen)
        one = Driver(
            landscape.select(chosen),
            SEARCH.replace(theta=population[problem]),
            Stop(120),
            engine="eager",
        )
        alone = one.advance(one.begin(x[rows], keys[chosen])).outcome
        assert torch.allclose(alone.tally.energy, together.tally.energy[chosen], rtol=1e-9)


def test_what_is_heard_does_not_turn_with_the_cluster() -> None:
    landscape, x, _ = clusters(6, 8)
    search = SEARCH.replace(theta=thetas(1)[0])
    turn = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    )[0]
    heard, turned = search._heard(landscape, x), search._heard(landscape, x @ turn + 0.7)
    assert heard is not None and turned is not None and float(heard.abs().max()) > 0.05
    assert torch.allclose(heard, turned, atol=1e-10)


def test_refusals() -> None:
    landscape, x, _ = clusters(6)
    with pytest.raises(InputError, match="learned-hopping offers no kernel with `messages`"):
        minimize(landscape, SEARCH, x, force_calls=50, engine="fused")
    with pytest.raises(ConfigError, match=r"and 2 messages need \d+; give the `moves` and `messages`"):
        build(LearnedHopping, {"messages": 2, "theta": [0.0] * 227})
