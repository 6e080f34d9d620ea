"""Manifolds: the properties that make them one, and periodic differences against ASE."""

from __future__ import annotations

import pytest
import torch

from mlopt.core.landscapes.manifold import Flat, Manifold, UnitSphere


def sphere_points(n: int = 200, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, dtype=torch.float64, generator=generator)
    unit: torch.Tensor = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return unit


def crystal(n: int = 50) -> Flat:
    cell = torch.tensor([[4.0, 0, 0], [1.0, 5.0, 0], [0.5, 0.5, 6.0]], dtype=torch.float64)
    return Flat(cell.expand(n, 3, 3), torch.ones(n, 3, dtype=torch.bool))


@pytest.mark.parametrize("manifold", [Flat(), UnitSphere()])
@pytest.mark.parametrize("size", [1e-8, 1e-3, 1.0, 3.0])
def test_difference_undoes_retract(manifold: Manifold, size: float) -> None:
    x = sphere_points()
    tangent = manifold.project(x, sphere_points(seed=1))
    tangent = size * tangent / torch.linalg.vector_norm(tangent, dim=-1, keepdim=True)
    y = manifold.retract(x, tangent)
    assert torch.allclose(manifold.difference(x, y), tangent, rtol=1e-7, atol=1e-14)
    assert torch.allclose(manifold.distance(x, y), torch.full((200,), size, dtype=torch.float64), rtol=1e-7)
    assert torch.equal(manifold.retract(x, torch.zeros_like(x)), x) or isinstance(manifold, UnitSphere)


def test_the_sphere_is_not_left() -> None:
    sphere, x = UnitSphere(), sphere_points()
    for step in range(100):
        x = sphere.retract(x, sphere.project(x, 10.0 * sphere_points(seed=step)))
    assert torch.allclose(
        torch.linalg.vector_norm(x, dim=-1), torch.ones(200, dtype=torch.float64), atol=1e-15
    )
    vector = sphere.project(x, sphere_points(seed=1))
    assert float((vector * x).sum(-1).abs().max()) < 1e-15
    assert torch.allclose(sphere.project(x, vector), vector, atol=1e-15)


def test_transport_keeps_angles_and_stays_tangent() -> None:
    sphere, x, y = UnitSphere(), sphere_points(), sphere_points(seed=1)
    pair = torch.stack([sphere.project(x, sphere_points(seed=seed)) for seed in (2, 3)])
    carried = sphere.transport(x, y, pair)
    assert float((carried * y).sum(-1).abs().max()) < 1e-10
    for a, b in ((0, 0), (0, 1), (1, 1)):
        assert torch.allclose((carried[a] * carried[b]).sum(-1), (pair[a] * pair[b]).sum(-1), atol=1e-10)
    assert torch.equal(sphere.transport(x, y, pair[0]), carried[0])
    # the geodesic's own direction is carried to minus the direction back
    assert torch.allclose(
        sphere.transport(x, y, sphere.difference(x, y)), -sphere.difference(y, x), atol=1e-10
    )
    assert torch.allclose(sphere.transport(y, x, carried), pair, atol=1e-10)


def test_close_and_opposite_points_have_exact_distances() -> None:
    sphere = UnitSphere()
    x = torch.tensor([[1.0, 0, 0]], dtype=torch.float64)
    for angle in (1e-12, 1e-7, 3.14159):
        y = torch.tensor([[1.0, 0, 0]], dtype=torch.float64) * torch.cos(torch.tensor(angle).double())
        y[0, 1] = torch.sin(torch.tensor(angle).double())
        assert float(sphere.distance(x, y)) == pytest.approx(angle, rel=1e-6)
    assert torch.equal(sphere.difference(x, -x), torch.zeros_like(x))
    assert float(sphere.distance(x, -x)) == pytest.approx(torch.pi)


def test_periodic_differences_are_those_of_ase() -> None:
    from ase.geometry import find_mic

    flat = crystal()
    assert flat.cell is not None
    generator = torch.Generator().manual_seed(0)
    x = 20.0 * torch.rand(50, 3, dtype=torch.float64, generator=generator)
    direction = sphere_points(50)
    share = torch.rand(50, 1, dtype=torch.float64, generator=generator)
    shifts = torch.randint(-3, 4, (50, 1, 3), generator=generator).double()
    short = 1.9 * share * direction  # below half the smallest height of the cell
    y = x + short + (shifts @ flat.cell)[:, 0]
    expected, _ = find_mic((y - x).numpy(), flat.cell[0].numpy(), pbc=True)
    assert torch.allclose(flat.difference(x, y), torch.as_tensor(expected), atol=1e-10)
    assert torch.allclose(flat.difference(x, y), short, atol=1e-10)
    assert torch.allclose(flat.distance(x, y), torch.linalg.vector_norm(short, dim=-1), atol=1e-10)
    assert torch.equal(flat.retract(x, short), x + short)  # unwrapped


def test_open_directions_are_not_wrapped() -> None:
    cell = torch.diag(torch.tensor([4.0, 4.0, 0.0], dtype=torch.float64))[None]
    slab = Flat(cell, torch.tensor([[True, True, False]]))
    x, y = torch.zeros(1, 3).double(), torch.tensor([[3.9, 0.0, 50.0]]).double()
    assert torch.allclose(slab.difference(x, y), torch.tensor([[-0.1, 0.0, 50.0]]).double())
    kept = slab.select(torch.tensor([0]), torch.tensor([0]))
    assert kept.cell is not None and torch.equal(kept.cell, cell)


@pytest.mark.parametrize("manifold", [Flat(), UnitSphere(), crystal()])
def test_rows_do_not_depend_on_the_batch(manifold: Manifold) -> None:
    n = 50 if isinstance(manifold, Flat) and manifold.cell is not None else 2000
    x, y, vector = sphere_points(n), sphere_points(n, 1), sphere_points(n, 2)
    calls = {
        "project": (x, vector),
        "retract": (x, vector),
        "difference": (x, y),
        "distance": (x, y),
        "transport": (x, y, vector),
    }
    for name, arguments in calls.items():
        whole = getattr(manifold, name)(*arguments)
        for size in (1, 3, 7):
            for first in range(0, n - size, 1 + n // 50):
                rows = torch.arange(first, first + size)
                part = getattr(manifold.select(rows, rows), name)(*(one[rows] for one in arguments))
                assert torch.equal(part, whole[rows]), (name, size, first)


def test_antipodes_have_no_single_shortest_path() -> None:
    x = sphere_points(5)
    y = torch.stack([x[0], -x[1], x[2], -x[3], x[0]])
    y[3] = UnitSphere().retract(y[3:4], UnitSphere().project(y[3:4], 5e-5 * x[0:1]))[0]
    assert UnitSphere().ambiguous(x, y).tolist() == [False, True, False, True, False]
    assert not bool(Flat().ambiguous(x, -x).any())
