"""Features of neighbourhoods: two layers with one interface, and the graphs that they sum over."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from ase.build import bulk, make_supercell
from feature_systems import CLOSE, F64, LAYERS, clusters, crystals, features, message, radial, widths

from mlopt.core import Segments, Systems
from mlopt.core.features.graph import Graph
from mlopt.core.features.neighbourhood import Neighbourhood
from mlopt.core.features.radial import ETAS, RadialFeatures


def reference(
    systems: Systems, diameter: torch.Tensor, species: tuple[int, ...], etas=ETAS, cutoff: float = 2.5
) -> np.ndarray:
    """The formula of the paper in loops, with images of every cell that can matter."""
    pos, z, d = systems.pos.detach().numpy(), systems.z.tolist(), diameter.numpy()
    out = np.zeros((len(pos), len(species), len(etas)))
    for one in range(len(systems)):
        rows = range(int(systems.ptr[one]), int(systems.ptr[one + 1]))
        cell, pbc = systems.cell[one].numpy(), systems.pbc[one].tolist()
        steps = [range(-4, 5) if periodic else range(1) for periodic in pbc]
        for i in rows:
            for j in rows:
                for image in np.ndindex(*(len(step) for step in steps)):
                    count = np.array([step[k] for step, k in zip(steps, image, strict=True)])
                    if i == j and not count.any():
                        continue
                    r = np.linalg.norm(pos[j] + count @ cell - pos[i]) / (0.5 * (d[i] + d[j]))
                    if r < cutoff:
                        smooth = 0.5 * (math.cos(math.pi * r / cutoff) + 1.0)
                        out[i, species.index(z[j])] += [math.exp(-eta * r * r) * smooth for eta in etas]
    return out.reshape(len(pos), -1)


def test_radial_features_are_the_sums_of_the_paper():
    systems = clusters(5, 1, 7)
    expected = reference(systems, widths(systems), (29, 79))
    np.testing.assert_allclose(features(radial(), systems).numpy(), expected, **CLOSE)
    assert radial().width == 16 and len(ETAS) == 8


def test_two_atoms_by_hand():
    x = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]], dtype=F64)
    graph = Graph.complete_of(Segments.uniform(1, 2))
    found = RadialFeatures([0.4], cutoff=2.0)(x, graph, diameter=torch.tensor([2.0, 4.0], dtype=F64))
    # r / d0 = 1, half way to the cutoff
    torch.testing.assert_close(found, torch.full((2, 1), 0.5 * math.exp(-0.4), dtype=F64), **CLOSE)


def test_small_cell_is_its_supercell():
    atoms = bulk(
        "Cu", "fcc", a=1.4
    )  # one atom, nearest neighbours at 0.99: eighteen images within the cutoff
    atoms.rattle(0.05, seed=1)
    pair = bulk("Cu", "fcc", a=1.4, cubic=True)
    pair.numbers[0] = 79
    for cell in (atoms, pair):
        small = Systems.from_atoms(cell)
        large = Systems.from_atoms(make_supercell(cell, np.diag([3, 3, 3]), order="atom-major"))
        found = {}
        for name, systems in {"small": small, "large": large}.items():
            graph = Graph.within(systems, 2.5 * 1.1)
            found[name] = [features(layer, systems, graph) for layer in (radial(), message())]
        np.testing.assert_allclose(found["small"][0], reference(small, widths(small), (29, 79)), **CLOSE)
        for few, many in zip(found["small"], found["large"], strict=True):
            torch.testing.assert_close(few.repeat_interleave(27, 0), many, **CLOSE)


def test_features_of_gold_do_not_vanish():
    """In angstrom the paper's cutoff of 2.5 is shorter than the bond of 2.88."""
    gold = Systems.from_atoms(bulk("Au", cubic=True))
    layer, diameter = RadialFeatures(), torch.full((4,), 2.88, dtype=F64)
    graph = Neighbourhood().graph(gold, diameter)
    assert (layer(gold.pos, graph, gold.z, diameter) > 1.0).all()
    assert (layer(gold.pos, graph, gold.z, torch.ones(4, dtype=F64)) == 0.0).all()


def test_lengths_scale_with_the_diameter():
    systems = clusters(6)
    for layer in (radial(), message()):
        graph = Graph.complete_of(systems.segments)
        large = layer(3.0 * systems.pos, graph, systems.z, 3.0 * widths(systems))
        torch.testing.assert_close(large, features(layer, systems), **CLOSE)


@LAYERS
def test_invariance(make):
    systems, layer = clusters(9), make()
    expected = features(layer, systems)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(2)))
    moved = systems.with_pos(systems.pos @ turn + torch.tensor([1.0, -2.0, 0.5], dtype=F64))
    torch.testing.assert_close(features(layer, moved), expected, rtol=1e-10, atol=1e-12)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    permuted = Systems(systems.pos[order], systems.z[order], systems.ptr)
    torch.testing.assert_close(features(layer, permuted), expected[order], rtol=1e-10, atol=1e-12)


@LAYERS
@pytest.mark.parametrize("listed", [False, True])
def test_derivatives(make, listed):
    systems, layer = clusters(4, 1, 3), make()
    graph = Graph.within(systems, 3.0) if listed else Graph.complete_of(systems.segments)
    pos = systems.pos.clone().requires_grad_()

    def function(x):
        return layer(x, graph, systems.z, widths(systems))

    assert torch.autograd.gradcheck(function, pos)
    assert torch.autograd.gradgradcheck(function, pos)


@LAYERS
@pytest.mark.parametrize("size", [5, 2])
def test_derivatives_in_equal_sizes(make, size):
    systems, layer = clusters(size, size), make()
    graph, pos = Graph.complete_of(systems.segments), systems.pos.clone().requires_grad_()

    def function(x):
        return layer(x, graph, systems.z, widths(systems))

    assert torch.autograd.gradcheck(function, pos)
    assert torch.autograd.gradgradcheck(function, pos)


@LAYERS
def test_rows_on_one_spot_have_finite_features_and_slopes(make):
    systems = clusters(4)
    pos = torch.zeros_like(systems.pos).requires_grad_()  # as `Systems.cluster` leaves them
    found = features(make(), systems.with_pos(pos))
    (slope,) = torch.autograd.grad(found.sum(), pos, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), pos)
    assert found.isfinite().all() and (slope == 0).all() and second.isfinite().all()


@pytest.mark.parametrize("sizes", [(5, 5, 5), (7, 1, 3, 7)])
def test_radial_features_in_a_batch_are_those_alone_bit_for_bit(sizes):
    systems, layer = clusters(*sizes), radial()
    together = features(layer, systems)
    alone = torch.cat([features(layer, systems[i]) for i in range(len(sizes))])
    assert torch.equal(together, alone)
    listed = features(layer, systems, Graph.within(systems, 2.8))
    listed_alone = [features(layer, systems[i], Graph.within(systems[i], 3.5)) for i in range(len(sizes))]
    assert torch.equal(listed, torch.cat(listed_alone))  # a longer reach adds zeros


@LAYERS
@pytest.mark.parametrize("sizes", [(6, 6), (7, 1, 3)])
def test_all_pairs_and_neighbour_list_agree(make, sizes):
    systems, layer = clusters(*sizes), make()
    together, listed = features(layer, systems), features(layer, systems, Graph.within(systems, 2.8))
    torch.testing.assert_close(together, listed, **CLOSE)
    alone = torch.cat([features(layer, systems[i]) for i in range(len(sizes))])
    torch.testing.assert_close(together, alone, **CLOSE)


@LAYERS
def test_continuous_at_the_cutoff(make):
    """Value and slope go to zero together; one neighbour less is no step."""
    layer, graph = make(), Graph.complete_of(Segments.uniform(1, 2))
    z, unit = torch.tensor([29, 79]), torch.ones(2, dtype=F64)

    def at(r: float) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.tensor([[0.0, 0.0, 0.0], [r, 0.0, 0.0]], dtype=F64, requires_grad=True)
        out = layer(x, graph, z, unit)
        return out.detach(), torch.autograd.grad(out.sum(), x)[0]

    (inner, slope), (outer, none), (far, _) = at(2.5 - 1e-6), at(2.5), at(100.0)
    assert torch.equal(outer, far) and (none == 0).all()
    assert not torch.equal(inner, outer)
    assert (inner - outer).abs().max() < 1e-10 and slope.abs().max() < 1e-4


def test_species_are_told_apart():
    systems = clusters(8)
    kinds, layer = systems.z, radial()
    both = features(layer, systems)
    blind = RadialFeatures()(systems.pos, Graph.complete_of(systems.segments), None, widths(systems))
    torch.testing.assert_close(both[:, :8] + both[:, 8:], blind, **CLOSE)
    copper = Systems(
        systems.pos[kinds == 29], kinds[kinds == 29], torch.tensor([0, int((kinds == 29).sum())])
    )
    torch.testing.assert_close(features(layer, copper)[:, :8], both[kinds == 29, :8], **CLOSE)
    assert (features(layer, copper)[:, 8:] == 0).all()
    recoloured = Systems(systems.pos, torch.where(kinds == 29, 79, 29), systems.ptr)
    assert not torch.allclose(features(message(), recoloured), features(message(), systems), atol=1e-4)


def test_rounds_carry_further_than_the_cutoff():
    x = torch.tensor([[0.0, 0, 0], [2.0, 0, 0], [4.0, 0, 0]], dtype=F64)
    graph, z = Graph.complete_of(Segments.uniform(1, 3)), torch.tensor([29, 29, 29])
    slopes = []
    for rounds in (1, 2):
        pos = x.clone().requires_grad_()
        found = message(rounds)(pos, graph, z)
        slopes.append(torch.autograd.grad(found[0].sum(), pos)[0][2].abs().max())
    assert slopes[0] == 0 and slopes[1] > 1e-8


def test_first_round_is_a_round_of_messages():
    """The shortcut of the first round gives what messages in full do."""
    systems, layer = clusters(5, 3), message(1)
    graph = Graph.complete_of(systems.segments)
    _, r, smooth = layer.edges(systems.pos, graph, widths(systems))
    source, target = graph.edge_index
    centres = torch.arange(5, dtype=F64) * 0.5
    basis = torch.exp(-0.5 * ((r - centres[:, None]) / 0.5) ** 2) * smooth
    state = layer.embedding[:, (systems.z == 79).long()]
    said = (layer.filters[0].weight @ basis) * state[:, source]
    heard = torch.zeros_like(state).index_add(1, target, said).T / 12.0
    expected = layer.last(state.T + layer.outer[0](torch.nn.functional.silu(layer.inner[0](heard))))
    torch.testing.assert_close(features(layer, systems), expected, **CLOSE)


@pytest.mark.parametrize("rounds", [1, 2])
def test_populations_of_weights(rounds):
    layer, systems = message(rounds), clusters(5, 5)
    graph = Graph.complete_of(systems.segments)

    def call(weights):
        return torch.func.functional_call(layer, weights, (systems.pos, graph, systems.z, widths(systems)))

    weights = {
        name: torch.stack([one.detach(), 2.0 * one.detach()]) for name, one in layer.named_parameters()
    }
    together = torch.func.vmap(call)(weights)
    for index in range(2):
        alone = call({name: one[index] for name, one in weights.items()})
        torch.testing.assert_close(together[index], alone, **CLOSE)
    assert not torch.allclose(together[0], together[1])


@LAYERS
def test_a_layer_is_a_module(make):
    from torch_geometric.nn import MessagePassing

    layer, systems = make(), clusters(5)
    assert isinstance(layer, torch.nn.Module) and isinstance(layer, MessagePassing)
    assert features(layer, systems).shape == (5, layer.width)
    twin = copy.deepcopy(layer)
    assert torch.equal(features(twin, systems), features(layer, systems))
    if list(layer.parameters()):
        features(layer, systems).square().sum().backward()
        unused = [name for name, one in layer.named_parameters() if one.grad is None or not one.grad.any()]
        assert not unused


@LAYERS
def test_dtype_is_that_of_the_points(make):
    systems, layer = clusters(6).to(dtype=torch.float32), make().float()
    found = features(layer, systems)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), features(make(), systems.to(dtype=F64)), rtol=1e-4, atol=1e-4)


@LAYERS
@pytest.mark.parametrize("listed", [False, True])
def test_a_broken_system_affects_itself_only(make, listed):
    systems, layer = clusters(5, 4, 5), make()
    pos = systems.pos.clone()
    pos[6] = float("nan")
    broken = systems.with_pos(pos)
    graphs = [Graph.within(s, 3.0) if listed else Graph.complete_of(s.segments) for s in (systems, broken)]
    fine, found = features(layer, systems, graphs[0]), features(layer, broken, graphs[1])
    assert torch.equal(found[:5], fine[:5]) and torch.equal(found[9:], fine[9:])
    assert found[5:9].isnan().all()


@LAYERS
def test_no_edges(make):
    layer = make()
    for systems in (clusters(1), clusters(1, 1), Systems.cluster([], 0), Systems.cluster([], 2)):
        for graph in (Graph.complete_of(systems.segments), Graph.within(systems, 3.0)):
            assert graph.n_edges == 0
            found = features(layer, systems, graph)
            assert found.shape == (len(systems.pos), layer.width) and found.isfinite().all()


@pytest.mark.gpu
@LAYERS
def test_cuda(make):
    for systems, reach in ((clusters(6, 6), None), (clusters(6, 3), None), (crystals(), 5.0)):
        graph = Graph.complete_of(systems.segments) if reach is None else Graph.within(systems, reach)
        there = systems.to("cuda")
        far = Graph.complete_of(there.segments) if reach is None else Graph.within(there, reach)
        assert torch.equal(far.edge_index.cpu(), graph.edge_index)
        found = features(make().cuda(), there, far)
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), features(make(), systems, graph), rtol=1e-10, atol=1e-10)
        assert Neighbourhood().graph(there, widths(there)).edge_index.is_cuda
