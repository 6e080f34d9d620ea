"""Hessian-vector products: against the dense Hessian of autograd, closed forms, and themselves in other batches."""

from __future__ import annotations

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.segments import Segments
from mlopt.core.landscapes.hessian import difference_product, differentiated_product, rigid_motions
from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape, Landscape
from mlopt.core.landscapes.manifold import UnitSphere
from mlopt.core.testing.surfaces import Watched, lennard_jones, quadratic, spins
from mlopt.potentials.ase.potential import AsePotential
from mlopt.potentials.classical.lennard_jones import LennardJones

SIZES = [5, 1, 4, 5, 7]


def tangent(landscape: Landscape, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return landscape.manifold.project(x, torch.randn(x.shape, dtype=x.dtype, generator=generator))


def riemannian(landscape: FunctionLandscape, x: torch.Tensor) -> torch.Tensor:
    """Dense ``P H P - diag(s . grad)`` of one problem, from autograd's Hessian of the energy in ambient space."""
    n, d = x.shape

    def energy(flat: torch.Tensor) -> torch.Tensor:
        return landscape.energy(flat.reshape(n, d), landscape.segments).sum()

    hessian = torch.autograd.functional.hessian(energy, x.flatten())
    if not isinstance(landscape.manifold, UnitSphere):
        return hessian
    gradient = torch.autograd.functional.jacobian(energy, x.flatten()).reshape(n, d)
    project = torch.block_diag(*[torch.eye(d, dtype=x.dtype) - torch.outer(s, s) for s in x])
    curved = torch.diag((gradient * x).sum(-1).repeat_interleave(d))
    return project @ (hessian - curved) @ project


@pytest.mark.parametrize("surface", [quadratic, lennard_jones, spins])
def test_products_are_the_dense_hessian(surface) -> None:
    landscape, x = surface(SIZES)
    v = tangent(landscape, x)
    exact = differentiated_product(landscape, x, v)
    nearly = difference_product(landscape, x, v)
    assert torch.equal(landscape.hessian_product(x, v), exact)
    for i in range(len(SIZES)):
        index = torch.tensor([i])
        _, rows = landscape.segments.select(index)
        matrix = riemannian(landscape.select(index), x[rows])
        expected = (matrix @ v[rows].flatten()).reshape(-1, 3)
        size = 1.0 + float(matrix.abs().max())
        assert torch.allclose(exact[rows], expected, rtol=0, atol=1e-12 * size)
        assert torch.allclose(nearly[rows], expected, rtol=0, atol=1e-7 * size)


@pytest.mark.parametrize("product", [difference_product, differentiated_product])
@pytest.mark.parametrize("surface", [lennard_jones, spins])
def test_symmetric_linear_and_the_same_alone(surface, product) -> None:
    landscape, x = surface(SIZES)
    u, v = tangent(landscape, x, 1), tangent(landscape, x, 2)
    hu, hv = product(landscape, x, u), product(landscape, x, v)
    close = {"rtol": 1e-6, "atol": 1e-4}
    assert torch.allclose(landscape.segments.dot(u, hv), landscape.segments.dot(v, hu), **close)
    assert torch.allclose(product(landscape, x, 3.0 * u), 3.0 * hu, **close)
    for i in range(len(SIZES)):
        index = torch.tensor([i, i])  # twice the same: images of a band do so
        _, rows = landscape.segments.select(index)
        alone = product(landscape.select(index), x[rows], u[rows])
        assert torch.allclose(alone, hu[rows], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("product", [difference_product, differentiated_product])
def test_biaxial_spin(product) -> None:
    """E = -K1 Sx^2 - K2 Sz^2: minimum {2 K1, 2 (K1 - K2)}, saddle {-2 K1, -2 K2}, pole {2 (K2 - K1), 2 K2}."""
    k1, k2 = 1.0, -2.0
    weights = torch.tensor([-k1, 0.0, -k2], dtype=torch.float64)
    landscape = FunctionLandscape(lambda x, s: s.sum(x * x * weights), Segments.uniform(6, 1), UnitSphere())
    unit = torch.eye(3, dtype=torch.float64)
    x = unit.repeat_interleave(2, 0)
    v = unit[[1, 2, 0, 2, 0, 1]]
    found = (product(landscape, x, v) * v).sum(-1)
    expected = [2 * k1, 2 * (k1 - k2), -2 * k1, -2 * k2, 2 * (k2 - k1), 2 * k2]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-8)


def cluster(n: int = 6, fixed: list[int] | None = None) -> AtomsLandscape:
    generator = torch.Generator().manual_seed(3)
    grid = torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 3)[:n]
    pos = 1.1 * grid + 0.05 * torch.randn(n, 3, dtype=torch.float64, generator=generator)
    mask = torch.zeros(n, dtype=torch.bool)
    mask[fixed or []] = True
    systems = Systems(pos, torch.full((n,), 18), torch.tensor([0, n]), fixed=mask)
    return AtomsLandscape(systems, LennardJones())


def test_atoms_with_fixed_ones() -> None:
    landscape = cluster(fixed=[0, 3])
    x, v = landscape.systems.pos, torch.ones(6, 3, dtype=torch.float64)
    v[2] = 5.0
    exact, nearly = landscape.hessian_product(x, v), difference_product(landscape, x, v)
    assert not exact[[0, 3]].any() and not nearly[[0, 3]].any()
    assert torch.allclose(exact, nearly, rtol=0, atol=1e-5)
    moved = v.clone()
    moved[[0, 3]] = -7.0  # what fixed atoms are said to do is not looked at
    assert torch.equal(landscape.hessian_product(x, moved), exact)


def test_calls_are_as_said() -> None:
    landscape, x = lennard_jones(SIZES)
    watched = Watched(landscape)  # does not say that it can be differentiated
    difference_product(watched, x, tangent(landscape, x))
    assert watched.calls[0] == watched.hessian_calls * len(SIZES) == 2 * len(SIZES)
    assert landscape.hessian_calls == 1
    assert AtomsLandscape(cluster().systems, AsePotential(calculator="lj")).hessian_calls == 2


def test_zero_vector_and_constant_energy() -> None:
    landscape, x = lennard_jones([1, 3])
    zero = torch.zeros_like(x)
    assert torch.equal(difference_product(landscape, x, zero), zero)
    assert torch.equal(differentiated_product(landscape, x, zero), zero)
    alone = AtomsLandscape(Systems.cluster([18]), LennardJones())
    one = torch.ones(1, 3, dtype=torch.float64)
    assert not alone.hessian_product(torch.zeros_like(one), one).any()


def test_single_precision() -> None:
    landscape, x = lennard_jones([5])
    v = tangent(landscape, x)
    expected = landscape.hessian_product(x, v)
    found = difference_product(landscape, x.float(), v.float())
    assert found.dtype == torch.float32
    assert float((found - expected).norm() / expected.norm()) < 2e-2


def test_rigid_motions_cost_no_energy() -> None:
    """At a stationary point they are the zero modes; orthonormal; five of a linear molecule, three of an atom."""
    x = torch.tensor(
        [[0, 0, 0], [1, 0.2, 0], [0.3, 1, 0], [0, 0.1, 1.3], [0, 0, 0], [1, 1, 1], [2, 2, 2], [7, 7, 7]],
        dtype=torch.float64,
    )
    segments = Segments(torch.tensor([0, 4, 7, 8]))
    motions = rigid_motions(x, segments, torch.zeros(3, 3, dtype=torch.bool), None)
    gram = torch.stack([segments.sum_stack(motions * one) for one in motions], -1)
    off = gram - torch.diag_embed(torch.diagonal(gram, dim1=1, dim2=2))
    assert float(off.abs().max()) < 1e-12
    diagonal = torch.diagonal(gram, dim1=1, dim2=2)
    assert diagonal.sum(-1).round().tolist() == [6, 5, 3]
    assert torch.allclose(diagonal, diagonal.round(), rtol=0, atol=1e-12)


def test_rigid_motions_keep_distances() -> None:
    landscape = cluster()
    x = landscape.systems.pos
    motions = landscape.free_motions(x)
    assert motions is not None and len(motions) == 6
    for motion in motions:
        change = torch.cdist(x + 1e-6 * motion, x + 1e-6 * motion) - torch.cdist(x, x)
        assert float(change.abs().max()) < 1e-11


@pytest.mark.parametrize(("fixed", "left"), [([0], 3), ([0, 1], 1), ([0, 1, 2], 0), ([0, 1, 2, 5], 0)])
def test_rigid_motions_spare_fixed_atoms(fixed: list[int], left: int) -> None:
    landscape = cluster(fixed=fixed)
    motions = landscape.free_motions(landscape.systems.pos)
    assert motions is not None
    assert float((motions * motions).sum()) == pytest.approx(left, abs=1e-9)
    assert float(motions[:, fixed].abs().max()) < 1e-7


def test_periodic_systems_only_translate() -> None:
    systems = cluster().systems
    pbc = torch.tensor([[True, False, False]])
    motions = rigid_motions(systems.pos, systems.segments, pbc, None)
    assert float((motions * motions).sum()) == pytest.approx(3.0)
    assert torch.allclose(motions[:3].std(1), torch.zeros(3, 3, dtype=torch.float64), atol=1e-12)
