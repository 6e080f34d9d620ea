"""Lowest modes: against dense eigenvalues, closed forms and published ones; zero modes, fixed rows, bad input."""

from __future__ import annotations

import math

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.segments import Segments
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape
from mlopt.core.landscapes.manifold import UnitSphere
from mlopt.core.testing.surfaces import Watched, lennard_jones, quadratic, spins
from mlopt.optimizers.saddles.modes import lowest_modes, spectra
from mlopt.potentials.classical.lennard_jones import LennardJones

SIZES = [5, 1, 4, 5, 7]
METHODS = ["dense", "krylov"]


def muller_brown(n: int = 1) -> FunctionLandscape:
    rows = zip(
        (-200.0, -100.0, -170.0, 15.0),
        (-1.0, -1.0, -6.5, 0.7),
        (0.0, 0.0, 11.0, 0.6),
        (-10.0, -10.0, -6.5, 0.7),
        (1.0, 0.0, -0.5, -1.0),
        (0.0, 0.5, 1.5, 1.0),
        strict=True,
    )
    terms = list(rows)

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        total = torch.zeros_like(x[:, 0])
        for height, a, b, c, x0, y0 in terms:
            dx, dy = x[:, 0] - x0, x[:, 1] - y0
            total = total + height * torch.exp(a * dx * dx + b * dx * dy + c * dy * dy)
        return segments.sum(total)

    return FunctionLandscape(energy, Segments.uniform(n, 1))


def chain(n: int, exchange: float = 1.0, easy: float = 0.1, hard: float = 0.3) -> FunctionLandscape:
    """Open chain ``-J sum S.S - K sum Sz^2 + hard sum Sx^2``."""

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        rows = x.reshape(segments.n_problems, n, 3)
        pairs = (rows[:, 1:] * rows[:, :-1]).sum((-1, -2))
        single = hard * x[:, 0] ** 2 - easy * x[:, 2] ** 2
        return segments.sum(single) - exchange * pairs

    return FunctionLandscape(energy, Segments.uniform(1, n), UnitSphere())


def diagonal(stiffness: torch.Tensor) -> FunctionLandscape:
    """``sum stiffness x^2 / 2`` over the rows of a problem."""

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return segments.sum(0.5 * stiffness.repeat(segments.n_problems)[:, None] * x * x)

    return FunctionLandscape(energy, Segments.uniform(1, len(stiffness)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("surface", [quadratic, lennard_jones, spins])
def test_eigenpairs(surface, method) -> None:
    """Orthonormal tangent vectors with ``H v = value v``, lowest first, the same as eigh of the whole matrix."""
    landscape, x = surface(SIZES)
    modes = lowest_modes(landscape, x, 4, method=method, tolerance=1e-10)
    segments = landscape.segments
    there = torch.isfinite(modes.values)
    assert torch.equal(there, modes.converged)
    assert bool((modes.values[:, 1:] >= modes.values[:, :-1] - 1e-9).all())
    size = 1e-8 * (1.0 + modes.scale)
    for k, vector in enumerate(modes.vectors):
        product = landscape.hessian_product(x, vector)
        value = torch.where(there[:, k], modes.values[:, k], 0.0)
        error = product - segments.scale(value, vector)
        assert bool((segments.dot(error, error).sqrt() <= size).all())
        assert torch.equal(landscape.manifold.project(x, vector).sub(vector).abs() < 1e-12, vector == vector)
        for j, other in enumerate(modes.vectors):
            expected = (there[:, k] & (j == k)).to(x)
            assert torch.allclose(segments.dot(vector, other), expected, atol=1e-9)
    for i, (values, _) in enumerate(spectra(landscape, x)):
        m = min(4, len(values))
        assert torch.allclose(modes.values[i, :m], values[:m], rtol=1e-9, atol=float(size[i]))
        assert not torch.isfinite(modes.values[i, m:]).any()


@pytest.mark.parametrize("method", METHODS)
def test_alone_as_in_a_batch(method) -> None:
    landscape, x = lennard_jones(SIZES)
    whole = lowest_modes(landscape, x, 3, method=method, tolerance=1e-10)
    for i in range(len(SIZES)):
        index = torch.tensor([i])
        _, rows = landscape.segments.select(index)
        alone = lowest_modes(landscape.select(index), x[rows], 3, method=method, ids=index, tolerance=1e-10)
        assert torch.allclose(alone.values[0], whole.values[i], rtol=1e-9, atol=1e-7)
    again = lowest_modes(landscape, x, 3, method=method, tolerance=1e-10)
    assert torch.equal(again.values, whole.values) and torch.equal(again.vectors, whole.vectors)


def test_many_degenerate_modes_by_krylov() -> None:
    """Ten copies of each of a few eigenvalues: single vectors would find one of each."""
    n = 300
    landscape = diagonal(torch.arange(n, dtype=torch.float64) // 10 - 1.0)
    modes = lowest_modes(landscape, torch.zeros(n, 1, dtype=torch.float64), 13, method="krylov")
    expected = torch.tensor([-1.0] * 10 + [0.0] * 3, dtype=torch.float64)
    assert torch.allclose(modes.values[0], expected, atol=1e-6)
    assert int(modes.count_negative()[0]) == 10
    assert modes.near_zero()[0].tolist() == [False] * 10 + [True] * 3
    assert bool(modes.converged.all())


def test_unconverged_says_so() -> None:
    n = 400
    stiffness = torch.linspace(-1.0, 400.0, n, dtype=torch.float64)
    landscape = diagonal(stiffness)
    modes = lowest_modes(
        landscape, torch.zeros(n, 1, dtype=torch.float64), 4, method="krylov", max_products=30
    )
    assert not modes.converged.all()
    assert int(modes.calls[0]) <= 36
    # yet some eigenvalue lies within the residual
    gaps = (stiffness - modes.values[0, :, None]).abs().amin(1)
    assert bool((gaps <= modes.residual[0]).all())


def test_muller_brown() -> None:
    """Facts: eigenvalues at the three minima and two saddles."""
    points = [
        (-0.558223635, 1.441725842, 410.53, 4068.20),
        (-0.822001559, 0.624312803, -750.86, 490.24),
        (-0.050010823, 0.466694105, 221.04, 1479.20),
        (0.212486582, 0.292988325, -735.25, 510.89),
        (0.623499405, 0.028037759, 543.84, 3005.40),
    ]
    table = torch.tensor(points, dtype=torch.float64)
    modes = lowest_modes(muller_brown(5), table[:, :2], 3)
    assert torch.allclose(modes.values[:, :2], table[:, 2:], rtol=0, atol=0.006)
    assert not torch.isfinite(modes.values[:, 2]).any()
    assert modes.count_negative().tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("method", METHODS)
def test_chain_turns_coherently_up_to_six_spins(method) -> None:
    """The uniform state across the easy axis is a saddle of first order iff J (1 - cos(pi / N)) > K."""
    for n, index in ((6, 1), (7, 2)):
        x = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64).repeat(n, 1)
        modes = lowest_modes(chain(n), x, 4, method=method, tolerance=1e-10)
        assert int(modes.count_negative()[0]) == index
        lowest = [2.0 * (1.0 - math.cos(math.pi * k / n)) - 0.2 for k in range(2)]
        assert modes.values[0, :2].tolist() == pytest.approx(lowest, abs=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_rigid_motions_and_fixed_atoms_are_no_modes(method) -> None:
    """A pair has one mode; with an atom fixed too, for turns about that atom are rigid as well."""
    pos = torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=torch.float64).repeat(2, 1)
    fixed = torch.tensor([False, False, True, False])
    systems = Systems(pos, torch.full((4,), 18), torch.tensor([0, 2, 4]), fixed=fixed)
    landscape = AtomsLandscape(systems, LennardJones())
    modes = lowest_modes(landscape, pos, 3, method=method)
    for i in range(2):
        factor = 1.0 if i == 0 else 0.5
        assert modes.values[i].tolist() == pytest.approx([144.0 * factor, math.inf, math.inf], rel=1e-9)
    assert not modes.vectors[:, 2].any()


def test_periodic_crystal_has_no_translations() -> None:
    from ase.build import bulk

    atoms = bulk("Ar", "fcc", a=1.55, cubic=True).repeat((2, 2, 2))
    systems = Systems.from_atoms(atoms)
    potential = LennardJones(cutoff=1.5, shift="force")
    landscape = AtomsLandscape(systems, potential)
    values = spectra(landscape, systems.pos)[0][0]
    assert len(values) == 3 * len(atoms) - 3
    assert float(values[0]) > 1.0
    modes = lowest_modes(landscape, systems.pos, 5, method="krylov")
    assert torch.allclose(modes.values[0], values[:5], rtol=1e-6)


def test_calls_are_counted() -> None:
    landscape, x = lennard_jones([4, 4])
    watched = Watched(landscape)
    for method in METHODS:
        watched.calls[0] = 0
        modes = lowest_modes(watched, x, 2, method=method, max_products=10)
        assert watched.calls[0] == int(modes.calls.sum())


def test_guess_helps() -> None:
    n = 900
    stiffness = torch.linspace(1.0, 50.0, n, dtype=torch.float64)
    stiffness[7] = -3.0
    landscape = diagonal(stiffness)
    x = torch.zeros(n, 1, dtype=torch.float64)
    guess = torch.zeros(1, n, 1, dtype=torch.float64)
    guess[0, 7] = 2.0
    helped = lowest_modes(landscape, x, 1, guess=guess)
    alone = lowest_modes(landscape, x, 1)
    assert float(helped.values) == pytest.approx(-3.0) == float(alone.values)
    assert int(helped.calls) < int(alone.calls)


def test_near_zero_and_negative() -> None:
    """Default: 1e-4 of the stiffest mode; or an absolute limit, as Spirit has."""
    landscape = diagonal(torch.tensor([-2.0, -1e-5, 1e-5, 3.0, 100.0], dtype=torch.float64))
    modes = lowest_modes(landscape, torch.zeros(5, 1, dtype=torch.float64), 5)
    assert float(modes.scale) == pytest.approx(100.0)
    assert modes.near_zero()[0].tolist() == [False, True, True, False, False]
    assert int(modes.count_negative()) == 1
    assert int(modes.count_negative(absolute=1e-6)) == 2
    assert int(modes.count_negative(relative=0.05)) == 0


def test_bad_input() -> None:
    landscape, x = lennard_jones([4, 3])
    with pytest.raises(InputError, match="`k` must be at least 1, got 0"):
        lowest_modes(landscape, x, 0)
    with pytest.raises(InputError, match=r"`x` must have shape \(7, d\) to fit the landscape, got \(6, 3\)"):
        lowest_modes(landscape, x[:6], 1)
    with pytest.raises(InputError, match=r"`guess` must have shape \(m, 7, 3\)"):
        lowest_modes(landscape, x, 1, guess=x)
    twice = x.clone()
    twice[5] = twice[4]
    for method in METHODS:
        with pytest.raises(
            InputError, match="Hessian of problem 1 is not finite: look for atoms that coincide"
        ):
            lowest_modes(landscape, twice, 1, method=method)
