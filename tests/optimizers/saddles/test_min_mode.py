"""Minimum-mode following: the contract, known saddles of surfaces, clusters and spins, and what settings refuse."""

from __future__ import annotations

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.segments import Segments
from mlopt.core.driver.driver import minimize
from mlopt.core.errors import ConfigError
from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape
from mlopt.core.landscapes.manifold import UnitSphere
from mlopt.core.plugins.plugin import build
from mlopt.core.testing import check_optimizer
from mlopt.core.testing.surfaces import Watched
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.saddles.min_mode import Dimer
from mlopt.optimizers.saddles.modes import lowest_modes
from mlopt.optimizers.searches.basin_hopping import BasinHopping
from mlopt.potentials.classical.lennard_jones import LennardJones


def test_contract() -> None:
    check_optimizer(Dimer(), calls=20, converges_within=600)


def muller_brown(n: int) -> FunctionLandscape:
    terms = [
        (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
        (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
        (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
        (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
    ]

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        total = torch.zeros_like(x[:, 0])
        for height, a, b, c, x0, y0 in terms:
            dx, dy = x[:, 0] - x0, x[:, 1] - y0
            total = total + height * torch.exp(a * dx * dx + b * dx * dy + c * dy * dy)
        return segments.sum(total)

    return FunctionLandscape(energy, Segments.uniform(n, 1))


def test_muller_brown_from_guesses() -> None:
    """Facts: both saddles, energies to 1e-8; from points a tenth away, and from the slopes of two minima."""
    saddles = torch.tensor([[-0.822001559, 0.624312803], [0.212486582, 0.292988325]], dtype=torch.float64)
    start = torch.cat([saddles + 0.1, saddles - 0.1, torch.tensor([[-0.1, 0.5], [0.5, 0.1]])])
    landscape = muller_brown(len(start))
    result = minimize(
        landscape, Dimer(inner=LBFGS(max_step=0.1, scale=1e-3)), start, fmax=1e-7, force_calls=300
    )
    assert bool(result.converged.all())
    energies = torch.tensor([-40.66484351, -72.24894011], dtype=torch.float64)
    assert float((result.energy[:, None] - energies).abs().amin(1).max()) < 2e-8
    assert float((result.energy[[0, 1, 2, 3]] - energies.repeat(2)).abs().max()) < 2e-8
    assert float(torch.cdist(result.x, saddles).amin(1).max()) < 2e-9
    assert lowest_modes(landscape, result.x, 2).count_negative().tolist() == [1] * len(start)
    assert int(result.calls.max()) < 120


def test_biaxial_spins() -> None:
    """Spins beside the minima +-x climb to the saddles +-y, energy 0; the poles are maxima."""
    generator = torch.Generator().manual_seed(2)
    weights = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    landscape = FunctionLandscape(lambda x, s: s.sum(x * x * weights), Segments.uniform(20, 1), UnitSphere())
    x = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64) + 0.2 * torch.randn(
        20, 3, dtype=torch.float64, generator=generator
    )
    x = x / x.norm(dim=-1, keepdim=True)
    result = minimize(landscape, Dimer(), x, fmax=1e-9, force_calls=400)
    assert bool(result.converged.all())
    assert float(result.energy.abs().max()) < 1e-14
    assert float((result.x[:, 1].abs() - 1.0).abs().max()) < 1e-12


def test_chain_of_spins_turns_over() -> None:
    """Five spins, J = 1, K = 0.1: all turn together through the hard axis' plane, barrier N K."""
    n, copies = 5, 4

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        rows = x.reshape(segments.n_problems, n, 3)
        pairs = (rows[:, 1:] * rows[:, :-1]).sum((-1, -2))
        return segments.sum(0.3 * x[:, 0] ** 2 - 0.1 * x[:, 2] ** 2) - pairs

    landscape = FunctionLandscape(energy, Segments.uniform(copies, n), UnitSphere())
    generator = torch.Generator().manual_seed(4)
    x = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    x = x + 0.1 * torch.randn(n * copies, 3, dtype=torch.float64, generator=generator)
    result = minimize(landscape, Dimer(), x / x.norm(dim=-1, keepdim=True), fmax=1e-8, force_calls=600)
    assert bool(result.converged.all())
    assert result.energy.tolist() == [pytest.approx(-(n - 1.0), abs=1e-10)] * copies
    assert lowest_modes(landscape, result.x, 3).count_negative().tolist() == [1] * copies


def test_clusters_end_at_known_saddles() -> None:
    """LJ7 from shaken minima: every end is one of the 12 known transition states."""
    known = """-15.444734 -15.319864 -15.283421 -15.097846 -15.033384 -15.026438 -14.816400 -14.811130 -14.596946
        -14.568061 -14.548573 -12.548938"""
    energies = torch.tensor([float(word) for word in known.split()], dtype=torch.float64)
    n = 24
    generator = torch.Generator().manual_seed(0)
    landscape = AtomsLandscape(Systems.cluster([18] * 7, n), LennardJones())
    start = torch.randn(7 * n, 3, dtype=torch.float64, generator=generator)
    minima = minimize(landscape, LBFGS(max_step=0.1), start, fmax=1e-3, force_calls=400, engine="eager")
    shaken = minima.x + 0.15 * torch.randn(7 * n, 3, dtype=torch.float64, generator=generator)
    watched = Watched(landscape)
    result = minimize(watched, Dimer(), shaken, fmax=1e-6, force_calls=300)
    assert watched.calls[0] == int(result.calls.sum()), "every evaluation is counted"
    ended = result.converged
    assert int(ended.sum()) > n // 3
    assert float((result.energy[ended, None] - energies).abs().amin(1).max()) < 2e-6


def test_rigid_motion_is_not_followed() -> None:
    """Following a shift or a turn would move the cluster; the saddle of LJ4 is the rhombus."""
    flat = torch.tensor([[-0.5, 0, 0], [0.5, 0, 0], [0, 0.85, 0], [0, -0.85, 0]], dtype=torch.float64)
    landscape = AtomsLandscape(Systems(flat, torch.full((4,), 18), torch.tensor([0, 4])), LennardJones())
    rhombus = minimize(landscape, LBFGS(), flat, fmax=1e-9, force_calls=200)  # it stays in its plane
    generator = torch.Generator().manual_seed(1)
    start = rhombus.x + 0.03 * torch.randn(4, 3, dtype=torch.float64, generator=generator)
    result = minimize(landscape, Dimer(), start, fmax=1e-8, force_calls=300)
    assert bool(result.converged.all())
    assert float(result.energy[0]) == pytest.approx(float(rhombus.energy[0]), abs=1e-10)
    assert float((result.x.mean(0) - start.mean(0)).abs().max()) < 1e-9


def test_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="inner: basinHopping is a search, which does not end at a minimum"):
        build(Dimer, {"inner": BasinHopping()})
    with pytest.raises(
        ConfigError, match="inner: dimer ends at a saddle, not at a minimum; take lbfgs or fire"
    ):
        build(Dimer, {"inner": Dimer()})
    with pytest.raises(ConfigError, match="quench: dimer ends at a saddle"):
        build(BasinHopping, {"quench": Dimer()})
    with pytest.raises(ConfigError, match="length"):
        build(Dimer, {"length": 0.0})
