"""Thermostats sample the canonical ensemble: moments within four standard errors, which are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from mlopt.core.batch.random import Draws, problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.landscapes.landscape import FunctionLandscape
from mlopt.optimizers.dynamics import Bussi, Langevin, NoseHoover, kinetic_energy
from mlopt.optimizers.dynamics.integrator import Integrator
from mlopt.optimizers.dynamics.mechanics import thermal_velocities

#: walkers, each an independent sample; rows of each; temperature; time step
WALKERS, ROWS, KT, STEP = 4000, 4, 0.7, 0.2
STIFF = (1.0, 2.0, 3.0)
ERRORS = 4.0


def trap() -> tuple[FunctionLandscape, torch.Tensor]:
    """Independent harmonic oscillators, at rest at the bottom, where they are not in equilibrium."""

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return segments.sum(0.5 * x * x * torch.tensor(STIFF, dtype=x.dtype))

    landscape = FunctionLandscape(energy, Segments.uniform(WALKERS, ROWS))
    return landscape, torch.zeros(WALKERS * ROWS, 3, dtype=torch.float64)


def equilibrium() -> torch.Tensor:
    """Positions (walkers * rows, 3) from the canonical ensemble of the trap."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(WALKERS * ROWS, 3, dtype=torch.float64, generator=generator)
    return normal * (KT / torch.tensor(STIFF, dtype=torch.float64)).sqrt()


def sample(integrator: Integrator, x: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions (walkers * rows, 3) and kinetic energies (walkers,) after ``steps`` from ``x``."""
    landscape, _ = trap()
    state = integrator.init(landscape, x, problem_keys(5, torch.arange(WALKERS)))
    for _ in range(steps):
        last = x
        x, state = integrator.step(landscape, x, landscape.evaluate(x), state)
    return last, kinetic_energy(landscape, state.velocity)


def check_moments(values: torch.Tensor, mean: float, variance: float, kurtosis: float) -> None:
    """Compare mean and variance with those expected; kurtosis: fourth central moment over the squared variance."""
    n = values.numel()
    assert abs(float(values.mean()) - mean) < ERRORS * math.sqrt(variance / n)
    assert abs(float(values.var()) / variance - 1.0) < ERRORS * math.sqrt((kurtosis - 1.0) / n)


def check_kinetic(kinetic: torch.Tensor, freedom: int, scale: float = 1.0) -> None:
    """Compare with the gamma distribution of shape f / 2."""
    half = 0.5 * freedom
    check_moments(kinetic, half * KT * scale, half * (KT * scale) ** 2, 3.0 + 6.0 / half)


def test_initial_velocities_are_canonical() -> None:
    landscape, x = trap()
    key = problem_keys(0, torch.arange(WALKERS))
    draws = Draws(key, torch.zeros_like(key), landscape.segments)
    velocity = thermal_velocities(landscape, x, draws, KT, x.new_zeros(0, *x.shape))
    check_kinetic(kinetic_energy(landscape, velocity), 3 * ROWS)


def test_langevin_samples_the_canonical_ensemble() -> None:
    """Positions are exact at any time step; the kinetic energy is low by a known factor, 1 - (w dt)^2 / 4."""
    langevin = Langevin(time_step=STEP, temperature=KT, friction=1.0, initial_temperature=0.0)
    x, kinetic = sample(langevin, trap()[1], steps=60)
    for column, stiffness in zip(x.unbind(1), STIFF, strict=True):
        check_moments(column, 0.0, KT / stiffness, 3.0)
    factors = [1.0 - 0.25 * stiffness * STEP**2 for stiffness in STIFF]
    expected = 0.5 * KT * ROWS * sum(factors)
    variance = 0.5 * KT**2 * ROWS * sum(one * one for one in factors)
    check_moments(kinetic, expected, variance, 3.0 + 12.0 / (3 * ROWS))


def test_bussi_keeps_the_canonical_ensemble() -> None:
    """Positions and velocities in equilibrium stay there, although both couple to the random factors."""
    bussi = Bussi(time_step=0.05, temperature=KT, relaxation_time=0.3)
    x, kinetic = sample(bussi, equilibrium(), steps=200)
    check_kinetic(kinetic, 3 * ROWS)
    for column, stiffness in zip(x.unbind(1), STIFF, strict=True):
        check_moments(column, 0.0, KT / stiffness, 3.0)


def test_bussi_relaxes_at_its_rate_to_the_canonical_kinetic_energy() -> None:
    """The mean kinetic energy of free rows decays to its target as exp(-t / relaxation time)."""
    free = FunctionLandscape(lambda x, segments: 0.0 * segments.sum(x), Segments.uniform(WALKERS, ROWS))
    bussi = Bussi(time_step=0.1, temperature=KT, relaxation_time=1.0, initial_temperature=4.0 * KT)
    x = torch.zeros(WALKERS * ROWS, 3, dtype=torch.float64)
    state = bussi.init(free, x, problem_keys(1, torch.arange(WALKERS)))
    first = kinetic_energy(free, state.velocity).mean()
    for _ in range(11):  # the first of them is at the start
        x, state = bussi.step(free, x, free.evaluate(x), state)
    target = 1.5 * ROWS * KT
    expected = target + (float(first) - target) * math.exp(-1.0)
    kinetic = kinetic_energy(free, state.velocity)
    assert abs(float(kinetic.mean()) - expected) < ERRORS * float(kinetic.std()) / math.sqrt(WALKERS)
    torch.testing.assert_close(
        kinetic - kinetic_energy(free, bussi.init(free, x, state.key).velocity), state.heat
    )
    for _ in range(100):
        x, state = bussi.step(free, x, free.evaluate(x), state)
    check_kinetic(kinetic_energy(free, state.velocity), 3 * ROWS)


def test_nose_hoover_keeps_the_canonical_ensemble() -> None:
    """Positions, velocities and thermostats in equilibrium stay there, and hot velocities cool down."""
    landscape, _ = trap()
    time, freedom = 0.8, 3 * ROWS
    chains = NoseHoover(time_step=0.05, temperature=KT, relaxation_time=time)
    x = equilibrium()
    state = chains.init(landscape, x, problem_keys(2, torch.arange(WALKERS)))
    masses = KT * time**2 * torch.tensor([freedom, 1.0, 1.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    rates = torch.randn(WALKERS, 3, dtype=torch.float64, generator=generator) * (KT / masses).sqrt()
    state = replace(state, rates=rates)
    for _ in range(200):
        x, state = chains.step(landscape, x, landscape.evaluate(x), state)
    check_kinetic(kinetic_energy(landscape, state.velocity), freedom)
    for rate, mass in zip(state.rates.unbind(1), masses.tolist(), strict=True):
        check_moments(rate, 0.0, KT / mass, 3.0)
    hot = chains.replace(initial_temperature=2.0 * KT)
    state = hot.init(landscape, x, problem_keys(2, torch.arange(WALKERS)))
    kept = []
    for _ in range(400):
        x, state = hot.step(landscape, x, landscape.evaluate(x), state)
        kept.append(float(kinetic_energy(landscape, state.velocity).mean()))
    assert kept[0] == pytest.approx(freedom * KT, rel=0.05)
    assert sum(kept[200:]) / 200 == pytest.approx(0.5 * freedom * KT, rel=0.05)
