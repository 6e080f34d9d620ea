"""Strings stay on their curve; profiles and summits against curves that are known."""

from __future__ import annotations

import math

import pytest
import torch

from mlopt.core.batch.random import problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.landscapes.landscape import FunctionLandscape
from mlopt.core.landscapes.manifold import UnitSphere
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.initial import geodesic, linear, perturb
from mlopt.optimizers.bands.profile import Profile, highest_point, image_at
from mlopt.optimizers.bands.string import String, evenly_spaced


def crooked(kind: type[Band] = Band) -> tuple[Band, torch.Tensor]:
    """Two bands of spins, of unlike size and number of images."""
    generator = torch.Generator().manual_seed(3)
    ends = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator)
    ends = ends / torch.linalg.vector_norm(ends, dim=-1, keepdim=True)

    def energy(x: torch.Tensor, segments: Segments) -> torch.Tensor:
        return segments.sum(torch.cos(3.0 * x[:, 0]) + x[:, 1] * x[:, 2])

    landscape = FunctionLandscape(energy, Segments(torch.tensor([0, 1, 4])), UnitSphere())
    band = kind(landscape, ends[0], ends[1], [6, 4])
    return band, perturb(band, geodesic(band), problem_keys(0, torch.arange(2)), 0.15)


def test_redistribution_keeps_the_curve() -> None:
    band, x = crooked()
    along = band.arc_length(x)
    even = evenly_spaced(band, x)
    assert float((even - x).abs().max()) > 0.01
    for problem in (0, 1):
        nodes = band.layout.nodes.ptr[problem : problem + 2]
        marks = along[nodes[0] : nodes[1]]
        steps = marks.diff()
        wanted = torch.linspace(0, 1, len(marks), dtype=torch.float64)[1:-1] * marks[-1]
        old, new = band.unpack(x)[problem], band.unpack(even)[problem][1:-1]
        for image, target in zip(new, wanted, strict=True):
            node = int((marks <= target).sum()) - 1
            a, b = old[node], old[node + 1]
            to, back = (torch.linalg.vector_norm(band.manifold.distance(p, image)) for p in (a, b))
            # on the geodesic between two neighbours, and as far along it as it should be
            assert abs(float(to + back - steps[node])) < 1e-12
            assert abs(float(marks[node] + to - target)) < 1e-12


def test_redistribution_leaves_even_paths_alone() -> None:
    band, _ = crooked()
    x = geodesic(band)
    assert torch.allclose(evenly_spaced(band, x), x, atol=1e-14)


def test_a_step_of_a_string_ends_evenly() -> None:
    string, x = crooked(String)
    plain, _ = crooked()
    force = string.evaluate(x).force
    assert torch.equal(force, plain.replace(spring=None).evaluate(x).force)
    moved = string.manifold.retract(x, 0.1 * force)
    assert torch.equal(moved, evenly_spaced(plain, plain.manifold.retract(x, 0.1 * force)))
    part = torch.tensor([1])
    _, rows = string.segments.select(part)
    chosen = string.manifold.select(part, rows)
    assert torch.equal(chosen.retract(x[rows], 0.1 * force[rows]), moved[rows])
    assert bool((string.manifold.distance(x, moved) == plain.manifold.distance(x, moved)).all())


def hills(x: torch.Tensor, segments: Segments) -> torch.Tensor:
    return segments.sum(x[:, 0] * (x[:, 0] - 1) * (x[:, 0] + 2.5) + 0 * x[:, 1])


def on_a_line(start: float, end: float, images: int) -> tuple[Band, torch.Tensor]:
    landscape = FunctionLandscape(hills, Segments.uniform(1, 1))
    points = torch.tensor([[start, 0.0], [end, 0.0]], dtype=torch.float64)
    band = Band(landscape, points[:1], points[1:], images)
    return band, linear(band)


def test_the_profile_of_a_cubic_is_the_cubic() -> None:
    band, x = on_a_line(-2.2, 0.9, 4)
    profile = Profile.of(band, x)
    s, energy = profile.curve(0, 50)
    place = torch.stack([s - 2.2, torch.zeros_like(s)], -1)
    assert torch.allclose(energy, hills(place, Segments.uniform(50, 1)), atol=1e-12)
    top = (-1.5 - math.sqrt(1.5**2 + 3 * 2.5)) / 3  # where 3 x^2 + 3 x - 2.5 = 0
    exact = top * (top - 1) * (top + 2.5)
    assert abs(float(profile.summit.energy[0]) - exact) < 1e-12
    assert abs(float(profile.summit.s[0]) - (top + 2.2)) < 1e-12
    at_ends = [place * (place - 1) * (place + 2.5) for place in (-2.2, 0.9)]
    assert abs(float(profile.barrier_forward[0]) - (exact - at_ends[0])) < 1e-12
    assert abs(float(profile.barrier_reverse[0]) - (exact - at_ends[1])) < 1e-12
    assert abs(float(profile.reaction_energy[0]) - (at_ends[1] - at_ends[0])) < 1e-12


@pytest.mark.parametrize(("start", "end", "summit"), [(-3.0, -1.6, 1.4), (-0.9, 0.4, 0.0), (0.5, 2.0, 1.5)])
def test_a_summit_may_be_an_end(start: float, end: float, summit: float) -> None:
    band, x = on_a_line(start, end, 3)
    assert abs(float(Profile.of(band, x).summit.s[0]) - summit) < 1e-12
    found = highest_point(band, x)
    assert abs(float(found.s[0]) - summit) < 1e-4
    assert float(found.energy[0]) >= float(torch.maximum(band.at_start.energy, band.at_end.energy)[0])


@pytest.mark.parametrize("images", [1, 2, 3, 6, 7])
def test_the_highest_point_is_the_summit_of_the_landscape(images: int) -> None:
    band, x = on_a_line(-2.2, 0.9, images)
    top = (-1.5 - math.sqrt(1.5**2 + 3 * 2.5)) / 3
    found = highest_point(band, x)
    assert abs(float(found.energy[0]) - top * (top - 1) * (top + 2.5)) < 1e-12
    assert abs(float(found.s[0]) - (top + 2.2)) < 1e-5
    point = image_at(band, x, found.node, found.share)
    assert abs(float(point[0, 0]) - top) < 1e-5


def test_summits_of_a_batch_are_those_of_its_parts() -> None:
    band, x = crooked()
    profile, highest = Profile.of(band, x), highest_point(band, x)
    for i in (0, 1):
        part = torch.tensor([i])
        _, rows = band.segments.select(part)
        alone = Profile.of(band.select(part), x[rows])
        assert torch.equal(alone.summit.energy, profile.summit.energy[i : i + 1])
        assert torch.equal(alone.barrier_reverse, profile.barrier_reverse[i : i + 1])
        assert torch.equal(highest_point(band.select(part), x[rows]).energy, highest.energy[i : i + 1])
        first, last = band.layout.nodes.ptr[i : i + 2].tolist()
        assert float(highest.energy[i]) >= float(profile.energy[first:last].max())
        s, energy = profile.curve(i, 2001)
        assert abs(float(energy.max() - profile.summit.energy[i])) < 1e-5
        assert torch.equal(s[-1], profile.s[last - 1])


def test_slopes_are_derivatives_along_the_path() -> None:
    """A quarter of a circle about the pole: dE/ds is known, and the parabola through neighbours finds its direction."""
    landscape = FunctionLandscape(
        lambda x, segments: segments.sum(torch.sin(2.0 * torch.atan2(x[:, 1], x[:, 0]))),
        Segments.uniform(1, 1),
        UnitSphere(),
    )
    height = 0.6  # a circle of latitude, which is no geodesic
    angle = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.7, 0.8, 1.0], dtype=torch.float64)
    circle = torch.stack([height * angle.cos(), height * angle.sin(), (0 * angle + 1 - height**2).sqrt()], -1)
    band = Band(landscape, circle[:1], circle[-1:], 5)
    profile = Profile.of(band, circle[1:-1])
    expected = 2.0 * torch.cos(2.0 * angle) / height
    assert torch.allclose(profile.slope[1:-1], expected[1:-1], atol=1e-7)
    assert torch.allclose(profile.slope[[0, -1]], expected[[0, -1]], atol=0.01)


@pytest.mark.parametrize("measure", ["profile", "highest point"])
def test_summits_are_differentiable(measure: str) -> None:
    band, x = crooked()

    def value(point: torch.Tensor) -> torch.Tensor:
        if measure == "profile":
            return Profile.of(band, point).summit.energy.sum()
        return highest_point(band, point, calls=30).energy.sum()

    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(x), x)
    assert float(gradient.abs().max()) > 0.1
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        step = band.manifold.project(
            x.detach(), torch.randn(*x.shape, dtype=torch.float64, generator=generator)
        )
        ahead, behind = (value(band.manifold.retract(x.detach(), h * step)).detach() for h in (1e-5, -1e-5))
        slope = float(ahead - behind) / 2e-5
        assert abs(slope - float((gradient * step).sum())) < 1e-6 * (1.0 + abs(slope))
