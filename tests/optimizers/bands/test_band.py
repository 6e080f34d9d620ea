"""Bands: what holds for every path on every manifold, and each force against its formula."""

from __future__ import annotations

import pytest
import torch
from band_places import IMAGES, PLACES, SETTINGS, clusters, made, spins

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.driver.driver import minimize
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import AtomsLandscape, FunctionLandscape
from mlopt.core.protocols.optimizer import Optimizer
from mlopt.core.testing.surfaces import Watched
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.initial import geodesic, perturb
from mlopt.optimizers.bands.springs import ConstantSpring, EnergyWeightedSpring
from mlopt.optimizers.bands.string import String
from mlopt.optimizers.bands.tangents import (
    CentralTangent,
    ImprovedTangent,
    SigmoidTangent,
    Surroundings,
    Tangent,
)
from mlopt.optimizers.local.adam import Adam
from mlopt.optimizers.local.bfgs import BFGS
from mlopt.optimizers.local.conjugate_gradients import ConjugateGradients
from mlopt.optimizers.local.fire import Fire
from mlopt.optimizers.local.gradient_descent import GradientDescent
from mlopt.optimizers.local.lbfgs import LBFGS
from mlopt.optimizers.local.velocity_projection import VelocityProjection


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("place", PLACES)
def test_batch_equals_loop(place: str, settings: str) -> None:
    band, x = made(place, **SETTINGS[settings])
    whole = band.evaluate(x)
    assert bool(torch.isfinite(whole.force).all()) and float(whole.force.abs().max()) > 1e-3
    for chosen in ([0], [1], [2], [2, 0], [1, 1]):
        problems = torch.tensor(chosen)
        _, rows = band.segments.select(problems)
        part = band.select(problems).evaluate(x[rows])
        assert torch.equal(part.energy, whole.energy[problems])
        assert torch.equal(part.force, whole.force[rows])


@pytest.mark.parametrize(
    "optimizer",
    [
        LBFGS(max_step=0.1),
        BFGS(max_step=0.1),
        ConjugateGradients(max_step=0.1),
        Fire(),
        VelocityProjection(),
        GradientDescent(max_step=0.1),
        Adam(),
    ],
    ids=["lbfgs", "bfgs", "conjugate-gradients", "fire", "velocity-projection", "gradient-descent", "adam"],
)
@pytest.mark.parametrize("kind", [Band, String])
@pytest.mark.parametrize("place", ["spins", "clusters"])
def test_a_relaxation_does_not_depend_on_the_batch(
    place: str, kind: type[Band], optimizer: Optimizer
) -> None:
    landscape, start, end = PLACES[place]()
    band = kind(landscape, start, end, IMAGES)
    x = geodesic(band)
    whole = minimize(band, optimizer, x, force_calls=25)
    for i in range(3):
        problem = torch.tensor([i])
        _, rows = band.segments.select(problem)
        alone = minimize(band.select(problem), optimizer, x[rows], force_calls=25)
        assert torch.equal(alone.x, whole.x[rows]) and torch.equal(alone.energy, whole.energy[problem])


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("place", PLACES)
def test_a_reversed_path_feels_reversed_forces(place: str, settings: str) -> None:
    band, x = made(place, **SETTINGS[settings])
    paths = [path.flip(0) for path in band.unpack(x)]
    back = Band(band.landscape, band.end, band.start, IMAGES, **SETTINGS[settings])
    turned = torch.cat([path[1:-1].reshape(-1, x.shape[1]) for path in paths])
    forces = back.unpack(back.evaluate(turned).force)
    for there, here in zip(band.unpack(band.evaluate(x).force), forces, strict=True):
        assert torch.allclose(there[1:-1], here[1:-1].flip(0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("place", PLACES)
def test_tangents_are_normal_and_forces_perpendicular(place: str, settings: str) -> None:
    band, x = made(place, **SETTINGS[settings])
    frames, images = band.layout.frames, band.look(x)
    ones = torch.ones_like(images.energy)
    assert torch.allclose(frames.dot(images.tangent, images.tangent), ones, atol=1e-14)
    assert torch.allclose(band.manifold.project(x, images.tangent), images.tangent, atol=1e-14)
    force = band.replace(spring=None, climb=0, nudge="single").evaluate(x).force
    assert torch.allclose(
        band.manifold.project(x, force), force, atol=1e-10 * float(images.force.abs().max())
    )
    along = frames.dot(force, images.tangent) / frames.dot(images.force, images.force).sqrt()
    assert float(along.abs().max()) < 1e-14
    pull = band.replace(climb=0, nudge="single").evaluate(x).force - force
    across = frames.scale(-frames.dot(pull, images.tangent), images.tangent, pull)
    assert float(across.abs().max()) < 1e-12 * (1.0 + float(images.force.abs().max()))


@pytest.mark.parametrize("place", PLACES)
def test_even_springs_are_at_rest(place: str) -> None:
    band, _ = made(place, spring=3.0)
    x = geodesic(band)
    loose = band.replace(spring=None).evaluate(x).force
    assert torch.allclose(band.evaluate(x).force, loose, rtol=0, atol=1e-12 * float(loose.abs().max()))
    images = band.look(x)
    assert torch.allclose(images.gap_behind, images.gap_ahead, rtol=1e-10)


def loop_tangent(before: float, here: float, after: float) -> tuple[float, float]:
    """Weights of Henkelman & Jónsson 2000, eqs. 8-11, written as they stand."""
    if after > here > before:
        return 0.0, 1.0
    if after < here < before:
        return 1.0, 0.0
    large, small = max(abs(after - here), abs(before - here)), min(abs(after - here), abs(before - here))
    return (small, large) if after > before else (large, small)


def surroundings(triples: list[tuple[float, float, float]], rise: list[float] | None = None) -> Surroundings:
    before, energy, after = torch.tensor(triples, dtype=torch.float64).T
    slope = torch.zeros_like(energy) if rise is None else torch.tensor(rise, dtype=torch.float64)
    chain = Segments.uniform(1, len(triples))
    return Surroundings(chain, energy, before, after, slope, before[:1], after[-1:])


def test_improved_tangent_is_the_published_one() -> None:
    triples = [
        (0.0, 1.0, 2.0),
        (2.0, 1.0, 0.0),
        (0.0, 2.0, 1.0),
        (1.0, 2.0, 0.0),
        (1.0, 0.0, 3.0),
        (3.0, 0.0, 1.0),
    ]
    triples += [(1.0, 1.0, 2.0), (2.0, 1.0, 1.0), (1.0, 2.0, 1.0 + 1e-9)]
    minus, plus = ImprovedTangent().weights(surroundings(triples))
    for i, triple in enumerate(triples):
        a, b = loop_tangent(*triple)
        assert abs(float(plus[i] / (plus[i] + minus[i])) - b / (a + b)) < 1e-14


def test_ties_are_bisected() -> None:
    for tangent in (ImprovedTangent(), CentralTangent(), SigmoidTangent()):
        minus, plus = tangent.weights(surroundings([(1.0, 2.0, 1.0), (1.0, 1.0, 1.0), (2.0, 1.0, 2.0)]))
        assert torch.equal(minus, plus) and bool((plus > 0).all())


def test_sigmoid_tangent_is_the_papers_and_does_not_overflow() -> None:
    beta, a, b = 3.0, torch.tensor([0.2, -0.4, 1.1]), torch.tensor([0.1, 0.3, -0.2])
    images = surroundings([(0.0, 0.0, 0.0)] * 3, (a + b).tolist())
    minus, plus = SigmoidTangent(beta=beta).weights(images)
    up = torch.exp(beta * a) + torch.exp(beta * b)
    printed = up / (up + torch.exp(-beta * a) + torch.exp(-beta * b))
    assert torch.allclose(plus, printed.double(), atol=1e-6)
    assert torch.allclose(plus + minus, torch.ones(3, dtype=torch.float64), atol=1e-15)
    steep = surroundings([(0.0, 0.0, 0.0)] * 2, [900.0, -900.0])
    assert [one.tolist() for one in SigmoidTangent(beta=beta).weights(steep)] == [[0.0, 1.0], [1.0, 0.0]]


def test_energy_weighted_springs() -> None:
    images = surroundings([(0.0, 2.0, 4.0), (2.0, 4.0, 3.0), (4.0, 3.0, 1.0), (3.0, 0.5, 1.0)])
    minus, plus = EnergyWeightedSpring(k_low=1.0, k_high=5.0).stiffness(images)
    # the higher end is at 1, the highest image at 4: k = 1 + 4 (E - 1) / 3 with the higher of the two nodes
    assert torch.allclose(
        torch.as_tensor(minus), torch.tensor([7 / 3, 5.0, 5.0, 11 / 3], dtype=torch.float64)
    )
    assert torch.allclose(torch.as_tensor(plus), torch.tensor([5.0, 5.0, 11 / 3, 1.0], dtype=torch.float64))
    downhill = surroundings([(5.0, 4.0, 3.0), (4.0, 3.0, 0.0)])
    for k in EnergyWeightedSpring(k_low=1.0, k_high=5.0).stiffness(downhill):
        assert torch.equal(torch.as_tensor(k), torch.ones(2, dtype=torch.float64))


def ridge(x: torch.Tensor, segments: Segments) -> torch.Tensor:
    """Heights of two summits, 1 at x = 1 and 2 at x = 3, along x; a channel along y."""
    return segments.sum(torch.sin(torch.pi * x[:, 0] / 2) ** 2 * (0.5 + 0.5 * x[:, 0]) + 3.0 * x[:, 1] ** 2)


def test_the_highest_maxima_climb() -> None:
    landscape = FunctionLandscape(ridge, Segments.uniform(1, 1))
    ends = torch.tensor([[0.0, 0.0]], dtype=torch.float64), torch.tensor([[4.0, 0.0]], dtype=torch.float64)
    for climb, expected in ((0, []), (1, [5]), (2, [1, 5]), (5, [1, 5])):
        band = Band(landscape, *ends, 7, climb=climb)
        images = band.look(geodesic(band))
        assert torch.nonzero(images.climbing).flatten().tolist() == expected
    slope = Band(landscape, ends[0], torch.tensor([[0.9, 0.0]], dtype=torch.float64), 4, climb=2)
    assert not bool(slope.look(geodesic(slope)).climbing.any())  # no maximum, no climber


@pytest.mark.parametrize("place", PLACES)
def test_a_climbing_image_is_pushed_up(place: str) -> None:
    band, x = made(place, climb=1)
    frames, images, force = band.layout.frames, band.look(x), band.evaluate(x).force
    expected = images.force - 2.0 * frames.scale(frames.dot(images.force, images.tangent), images.tangent)
    rows = frames.rows_of(images.climbing)
    assert bool(rows.any()) and torch.allclose(force[rows], expected[rows], rtol=1e-12)
    assert torch.equal(force[~rows], band.replace(climb=0).evaluate(x).force[~rows])


@pytest.mark.parametrize("place", PLACES)
def test_the_second_nudge_is_perpendicular_to_path_and_force(place: str) -> None:
    band, x = made(place, spring=2.0)
    frames, images = band.layout.frames, band.look(x)
    across = band.replace(spring=None).evaluate(x).force
    nudge = band.replace(nudge="double").evaluate(x).force - band.evaluate(x).force
    size = float(images.force.abs().max())
    if x.shape[1] == 2:  # a plane has no such direction
        assert float(nudge.abs().max()) < 1e-12 * size
        return
    assert float(nudge.abs().max()) > 1e-3
    assert float(frames.dot(nudge, images.tangent).abs().max()) < 1e-12 * size
    assert float(frames.dot(nudge, across).abs().max()) < 1e-11 * size**2
    # the whole spring force is that along the path, this, and a part along the force
    whole = 2.0 * (images.ahead - images.behind)
    rest = whole - nudge
    rest = frames.scale(-frames.dot(rest, images.tangent), images.tangent, rest)
    share = frames.dot(rest, across) / frames.dot(across, across)
    assert torch.allclose(rest, frames.scale(share, across), atol=1e-9 * float(whole.abs().max()))
    faded = band.replace(nudge="switched").evaluate(x).force - band.evaluate(x).force
    pull = frames.scale(-frames.dot(whole, images.tangent), images.tangent, whole)
    ratio = frames.dot(across, across) / frames.dot(pull, pull)
    expected = frames.scale(2.0 / torch.pi * torch.atan(ratio), nudge)
    assert torch.allclose(faded, expected, atol=1e-10 * size)


def test_settings_may_differ_from_band_to_band() -> None:
    landscape, start, end = spins()
    k, beta = torch.tensor([0.5, 1.0, 2.0]).double(), torch.tensor([1.0, 3.0, 9.0]).double()
    many = Band(
        landscape, start, end, IMAGES,
        tangent=SigmoidTangent().replace(beta=beta), spring=ConstantSpring().replace(k=k),
    )  # fmt: skip
    x = perturb(many, geodesic(many), problem_keys(0, torch.arange(3)))
    force = many.evaluate(x).force
    for i in range(3):
        one = Band(
            landscape, start, end, IMAGES,
            tangent=SigmoidTangent(beta=float(beta[i])), spring=float(k[i]),
        )  # fmt: skip
        rows = many.segments.batch == i
        assert torch.equal(force[rows], one.evaluate(x).force[rows])
        part = many.select(torch.tensor([i]))
        assert torch.equal(part.evaluate(x[rows]).force, force[rows])


def test_fixed_atoms_stay() -> None:
    landscape, start, end = clusters()
    assert isinstance(landscape, AtomsLandscape)
    fixed = torch.zeros(16, dtype=torch.bool)
    fixed[[0, 5, 6, 11]] = True
    end = torch.where(fixed[:, None], start, end)
    held = Systems(landscape.systems.pos, landscape.systems.z, landscape.systems.ptr, fixed=fixed)
    for kind in (Band, String):
        band = kind(AtomsLandscape(held, landscape.potential), start, end, IMAGES)
        x = perturb(band, geodesic(band), problem_keys(0, torch.arange(3)))
        found = minimize(band, LBFGS(max_step=0.1), x, force_calls=30)
        still = fixed[band.layout.source]
        assert torch.equal(found.x[still], start[band.layout.source][still])
        assert float((found.x - x)[~still].abs().max()) > 0.01
    rounded = torch.where(fixed[:, None], end + 1e-6, end)  # as files have it
    band = Band(AtomsLandscape(held, landscape.potential), start, rounded, IMAGES)
    assert float(band.evaluate(geodesic(band)).force[fixed[band.layout.source]].abs().max()) == 0.0
    moved = end.clone()
    moved[5] += 1.0
    with pytest.raises(
        InputError, match=r"atom 1 \(Ar\) of problem 1 is fixed but differs between start and end by 1"
    ):
        Band(AtomsLandscape(held, landscape.potential), start, moved, IMAGES)


def test_every_image_is_evaluated_once_and_counted() -> None:
    landscape, start, end = spins()
    assert landscape.calls_per_evaluation.tolist() == [1, 1, 1]
    watched = Watched(landscape)
    band = Band(watched, start, end, IMAGES)
    assert watched.calls[0] == 6  # the ends
    assert band.calls_per_evaluation.tolist() == IMAGES
    assert band.select(torch.tensor([2, 0])).calls_per_evaluation.tolist() == [4, 3]
    found = minimize(band, Fire(), geodesic(band), force_calls=5)
    assert int((found.calls * band.calls_per_evaluation).sum()) == watched.calls[0] - 6


def test_a_band_of_bands() -> None:
    """A band is a landscape like another: images of it are bands."""
    landscape, start, end = spins()
    band = Band(landscape, start, end, IMAGES)
    one = geodesic(band)
    other = perturb(band, one, problem_keys(1, torch.arange(3)), 0.2)
    outer = Band(band, one, other, 2)
    assert outer.calls_per_evaluation.tolist() == [6, 12, 8]
    x = geodesic(outer)
    inner = band.select(torch.arange(3).repeat_interleave(2)).evaluate(x)
    images = outer.look(x)
    assert torch.equal(images.energy, inner.energy) and torch.equal(images.force, inner.force)
    along = outer.layout.frames.dot(outer.replace(spring=None).evaluate(x).force, images.tangent)
    assert float(along.abs().max()) < 1e-13


@pytest.mark.parametrize("place", PLACES)
def test_single_precision(place: str) -> None:
    landscape, start, end = PLACES[place]()
    if isinstance(landscape, AtomsLandscape):
        landscape = AtomsLandscape(landscape.systems.to(dtype=torch.float32), landscape.potential)
    band = Band(landscape, start.float(), end.float(), IMAGES, climb=1)
    x = geodesic(band)
    found = band.evaluate(x)
    double, _ = made(place, climb=1)
    assert found.force.dtype == found.energy.dtype == torch.float32
    expected = double.evaluate(geodesic(double))
    assert torch.allclose(found.energy.double(), expected.energy, rtol=1e-3)


def test_pack_and_unpack() -> None:
    band, x = made("clusters")
    paths = band.unpack(x)
    assert [tuple(path.shape) for path in paths] == [(5, 4, 3), (8, 7, 3), (6, 5, 3)]
    assert torch.equal(paths[1][0], band.start[4:11]) and torch.equal(paths[1][-1], band.end[4:11])
    assert torch.equal(band.pack(paths), x) and torch.equal(band.pack([path[1:-1] for path in paths]), x)
    with pytest.raises(InputError, match=r"problem 2 must have shape \(4, 5, 3\), or 6 images with its ends"):
        band.pack([*paths[:2], paths[2][:3]])
    with pytest.raises(InputError, match="one path for each of the 3 problems"):
        band.pack(paths[:2])


class Lopsided(Tangent):
    """A plugin of a stranger: always ahead."""

    def weights(self, images: Surroundings) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros_like(images.energy), torch.ones_like(images.energy)


def test_tangents_of_ones_own() -> None:
    band, x = made("spins", tangent=Lopsided())
    images = band.look(x)
    expected = band.layout.frames.scale(1.0 / images.gap_ahead, images.ahead)
    assert torch.allclose(images.tangent, expected, atol=1e-14)
