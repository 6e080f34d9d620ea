"""The learned optimizer: its inputs, symmetries, populations, derivatives, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver, unroll
from mlopt.core.driver.stop import Stop
from mlopt.core.errors import InputError
from mlopt.core.files.weights import save_weights
from mlopt.core.landscapes.landscape import AtomsLandscape, Landscape
from mlopt.core.plugins.plugin import build
from mlopt.core.testing import check_optimizer
from mlopt.core.testing.surfaces import quadratic, spins
from mlopt.optimizers import BasinHopping, SphereStart
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.learned.step.inputs import Inputs, coded
from mlopt.optimizers.learned.step.optimizer import Learned, LearnedFamily
from mlopt.potentials import LennardJones, StillingerWeber

TRAINING = dict.fromkeys(
    ("task_family", "horizon", "estimator", "seeds", "cost", "results", "command"), "test"
)
SIZES = [5, 7, 5]
#: settings that leave one group out, and how many inputs are left
WITHOUT = {
    "gradient": ({"gradient": False}, 46),
    "position": ({"position": False}, 46),
    "moments": ({"moments": False}, 36),
    "adam": ({"adam": False}, 42),
    "number": ({"number": False}, 47),
    "sines": ({"sines": False}, 39),
    "radial": ({"radial": False}, 32),
}
VARIANTS: dict[str, dict[str, Any]] = {
    **{f"without {name}": given for name, (given, _) in WITHOUT.items()},
    "all": {},
    "species": {"species": ["Ar", "Kr"]},
    "species, not its own": {"species": ["Ar", "Kr"], "identity": False},
    "messages": {"messages": 3, "species": ["Ar", "Kr"]},
    "tanh": {"activation": "tanh", "hidden": 8, "decays": [0.5]},
    "equivariant": {"equivariant": True, "species": ["Ar", "Kr"]},
    "equivariant, messages": {"equivariant": True, "messages": 2, "radial": False, "adam": False},
}


def noisy(family: LearnedFamily, n: int | None = None, seed: int = 0, noise: float = 0.1) -> torch.Tensor:
    """theta as a perturbation of a training makes it: (p,), or (n, p)."""
    start = family.start(seed)
    generator = torch.Generator().manual_seed(seed)
    shape = start.shape if n is None else (n, *start.shape)
    return start + noise * torch.randn(shape, generator=generator, dtype=torch.float64)


def downhill(settings: Inputs) -> torch.Tensor:
    """theta that takes steps of one size along the sign of the force: of component-wise ones with a gradient."""
    architecture = LearnedFamily(**settings.settings())._learned(None).architecture
    parts = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in architecture.shapes.items()}
    for unit, sign in ((0, 1.0), (1, -1.0)):
        parts["first"][1, unit] = parts["last"][unit, 0] = sign
        parts["second"][unit, unit] = 1.0
    parts["alpha"] += 1.0
    parts["beta"] += 1.0
    parts["gamma"] -= 3.0
    return torch.cat([one.flatten() for one in parts.values()])


def clusters(sizes: list[int] = SIZES, seed: int = 0, fixed: int = 0) -> tuple[AtomsLandscape, torch.Tensor]:
    """Of argon and krypton in turn."""
    number = torch.cat([torch.arange(n) for n in sizes])
    z, ptr = torch.where(number % 3 == 1, 36, 18), torch.tensor([0, *sizes]).cumsum(0)
    systems = Systems(torch.zeros(len(z), 3, dtype=torch.float64), z, ptr, fixed=number < fixed)
    landscape = AtomsLandscape(systems, LennardJones())
    return landscape, SphereStart().sample(
        systems, landscape.diameter, problem_keys(seed, torch.arange(len(sizes)))
    )


def walk(learned: Learned, landscape: Landscape, x: torch.Tensor, steps: int = 4) -> torch.Tensor:
    state = learned.init(landscape, x, torch.zeros(landscape.segments.n_problems, dtype=torch.int64))
    for _ in range(steps):
        x, state = learned.step(landscape, x, landscape.evaluate(x), state)
    return x


# inputs


@pytest.mark.parametrize("name", WITHOUT)
def test_groups_can_be_left_out(name: str) -> None:
    given, width = WITHOUT[name]
    assert Inputs().width == 48 and Inputs(**given).width == width
    assert name not in [group.name for group in Inputs(**given).groups]


def test_species_have_inputs_of_their_own() -> None:
    two = Inputs(species=["Ag", "Au"])
    assert two.width == 48 + 16 + 2 and two.numbers == (47, 79)
    assert Inputs(species=["Ag", "Au"], identity=False).width == 48 + 16


def test_coding() -> None:
    """As printed, with |x|: continuous where both forms meet."""
    x = torch.tensor(
        [1.0, -1.0, torch.e**5, -(torch.e**-5), torch.e**-10, 0.5 * torch.e**-10, 0.0], dtype=torch.float64
    )
    magnitude, sign = coded(x)
    torch.testing.assert_close(magnitude, torch.tensor([0, 0, 0.5, -0.5, -1, -1, -1], dtype=torch.float64))
    torch.testing.assert_close(sign, torch.tensor([1, -1, 1, -1, 1, 0.5, 0], dtype=torch.float64))


def test_inputs_are_what_the_table_says() -> None:
    """Every column of the first step, worked out by hand from force and positions."""
    landscape, x = clusters([6])
    settings, force = LearnedFamily(), landscape.evaluate(x).force
    seen: dict[str, torch.Tensor] = {}

    class Spy(Learned):
        def inputs(self, groups: Any, *given: Any) -> Any:
            columns = super().inputs(groups, *given)
            seen.update({group.name: column for group, column in zip(groups, columns, strict=True)})
            return columns

    spy = Spy(theta=noisy(settings))
    first = walk(spy, landscape, x, 1)
    pull = (force * landscape.diameter[:, None]).abs()
    assert torch.equal(seen["gradient"][..., 1], force.sign())
    torch.testing.assert_close(seen["gradient"][..., 0], pull.log() / 10)
    torch.testing.assert_close(seen["position"], torch.stack(coded(x - x.mean(0)), -1))
    for k, decay in enumerate(settings.decays):
        torch.testing.assert_close(seen["moments"][..., 4 * k], coded((1 - decay) * pull)[0])
        torch.testing.assert_close(seen["moments"][..., 4 * k + 2], ((1 - decay) ** 0.5 * pull).log() / 10)
        torch.testing.assert_close(seen["adam"][..., 2 * k], torch.zeros_like(pull), atol=1e-9, rtol=0)
        assert torch.equal(seen["adam"][..., 2 * k + 1], force.sign())
    assert torch.equal(seen["sines"], torch.zeros(1, 9, dtype=torch.float64))
    torch.testing.assert_close(seen["number"], torch.tensor([[6.0]], dtype=torch.float64).log() / 10)
    r = torch.cdist(x, x)
    smooth = torch.where((r < 2.5) & (r > 0), 0.5 * torch.cos(torch.pi * r / 2.5) + 0.5, 0.0)
    phi = (torch.exp(-0.035 * r * r) * smooth).sum(1)
    torch.testing.assert_close(seen["radial"][:, 3], phi.log() / 10)
    walk(spy, landscape, first, 2)  # the last of these steps is the second
    expected = torch.sin(1.0 / torch.tensor([1, 3, 10, 30, 100, 300, 1000, 3000, 10000], dtype=torch.float64))
    torch.testing.assert_close(seen["sines"][0], expected)


def test_what_a_landscape_lacks_is_absent() -> None:
    """Not made up: the columns of the network that would take it make no difference."""
    family = LearnedFamily(species=["Ar", "Kr"])
    learned = family.optimizer(noisy(family))
    for landscape, x, absent in (
        (*quadratic([4, 3]), {"radial", "identity"}),
        (*spins([4, 3]), {"radial", "identity", "position"}),
    ):
        assert {group.name for group in learned.groups} - {
            g.name for g in learned.present(landscape)
        } == absent
        state, evaluation = learned.init(landscape, x, torch.zeros(2)), landscape.evaluate(x)
        expected, _ = learned.step(landscape, x, evaluation, state)
        theta, at = learned.theta.clone(), 0
        first = learned.architecture.split(theta, theta).first  # a view
        for group in learned.groups:
            first[:, at : at + group.width] *= torch.nan if group.name in absent else 1.0
            at += group.width
        found, _ = learned.replace(theta=theta).step(landscape, x, evaluation, state)
        assert torch.isnan(theta).any() and torch.equal(found, expected) and not torch.equal(found, x)


# properties


@pytest.mark.parametrize("variant", ["all", "equivariant"])
def test_contract(variant: str, tmp_path: Path) -> None:
    """Batch equals loop, resume, counts, purity: bit for bit."""
    family = LearnedFamily(equivariant=variant == "equivariant")
    theta = downhill(family)
    if family.equivariant:  # along the force
        architecture = family._learned(None).architecture
        parts = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in architecture.shapes.items()}
        parts["last_bias"][0, 0] = parts["alpha"][0, 0] = 1.0
        parts["gamma"] -= 3.0
        theta = torch.cat([one.flatten() for one in parts.values()])
    path = tmp_path / "w.safetensors"
    save_weights(path, theta, "learned", family.settings(), TRAINING)
    surfaces = ("lennard-jones", "spins") if variant == "all" else ("spins",)
    check_optimizer(Learned(weights=str(path)), calls=21, surfaces=surfaces)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_population_is_many_alone(name: str) -> None:
    """Each problem with weights of its own, on features of atoms: as one by one."""
    family = LearnedFamily(**VARIANTS[name])
    landscape, x = clusters()
    theta = noisy(family, len(SIZES))
    theta[:, -1] += 3.0
    together = walk(family.optimizer(theta), landscape, x)
    assert float((together - x).abs().max()) > 1e-4, "something has moved"
    for p in range(len(SIZES)):
        index = torch.tensor([p])
        _, rows = landscape.segments.select(index)
        alone = walk(family.optimizer(theta[p]), landscape.select(index), x[rows])
        torch.testing.assert_close(together[rows], alone, rtol=0, atol=1e-12)
        part = family.optimizer(theta).select(index)
        assert torch.equal(part.theta, theta[index])


@pytest.mark.parametrize("name", VARIANTS)
def test_atoms_may_be_renumbered(name: str) -> None:
    family = LearnedFamily(**VARIANTS[name])
    learned = family.optimizer(noisy(family))
    landscape, x = clusters([8])
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    systems = landscape.systems
    other = AtomsLandscape(Systems(systems.pos[order], systems.z[order], systems.ptr), landscape.potential)
    torch.testing.assert_close(
        walk(learned, other, x[order]), walk(learned, landscape, x)[order], rtol=0, atol=1e-12
    )


def turned(x: torch.Tensor) -> torch.Tensor:
    """Turned about an axis, reflected and moved."""
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    return x @ q.T + torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("name", [name for name in VARIANTS if "equivariant" in name])
def test_the_equivariant_one_turns_with_the_system(name: str) -> None:
    family = LearnedFamily(**VARIANTS[name])
    learned = family.optimizer(noisy(family))
    landscape, x = clusters()
    found, expected = walk(learned, landscape, turned(x)), turned(walk(learned, landscape, x))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert float((walk(learned, landscape, x) - x).abs().max()) > 1e-4


def test_the_other_one_does_not() -> None:
    learned = LearnedFamily().optimizer(noisy(LearnedFamily()))
    landscape, x = clusters()
    assert (
        float((walk(learned, landscape, turned(x)) - turned(walk(learned, landscape, x))).abs().max()) > 1e-5
    )


@pytest.mark.parametrize("name", ["all", "equivariant"])
def test_nothing_moves_before_the_training(name: str) -> None:
    family = LearnedFamily(**VARIANTS[name])
    landscape, x = clusters()
    theta = family.start(3)
    assert torch.equal(walk(family.optimizer(theta), landscape, x), x)
    assert family.named(theta) == {"alpha": 0.1, "beta": 1.0, "gamma": -3.0}
    assert torch.equal(theta, family.start(3)) and not torch.equal(theta, family.start(4))
    first = family._learned(None).architecture.split(theta, theta).first
    assert abs(float(first.std()) * first.shape[1] ** 0.5 - 1.0) < 0.1


@pytest.mark.parametrize("name", ["tanh", "messages", "equivariant"])
def test_gradients_through_the_steps(name: str) -> None:
    """Against differences along a random direction of theta."""
    family = LearnedFamily(**VARIANTS[name] | {"activation": "tanh"})
    landscape, x = clusters([4, 5])
    theta = noisy(family, seed=5)
    direction = torch.randn(theta.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def last(theta: torch.Tensor) -> torch.Tensor:
        return unroll(landscape, family._learned(theta), x, steps=4)[1][-1].sum()

    theta.requires_grad_(True)
    (gradient,) = torch.autograd.grad(last(theta), theta)
    with torch.no_grad():
        h = 1e-6
        difference = (last(theta + h * direction) - last(theta - h * direction)) / (2 * h)
    assert abs(float(difference)) > 1e-4
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-5, atol=1e-8)


def test_fixed_rows_stay() -> None:
    landscape, x = clusters(fixed=2)
    moved = (walk(LearnedFamily().optimizer(noisy(LearnedFamily())), landscape, x) - x).abs().amax(1)
    assert landscape.fixed is not None
    assert (moved[landscape.fixed] == 0).all() and (moved[~landscape.fixed] > 0).all()


def test_lengths_are_in_diameters() -> None:
    """Scaled atoms with scaled energies move alike, by as many diameters."""
    landscape, x = clusters([6])
    wide = AtomsLandscape(landscape.systems, LennardJones(r0=2.0))
    learned = LearnedFamily().optimizer(noisy(LearnedFamily()))
    torch.testing.assert_close(
        walk(learned, wide, 2.0 * x), 2.0 * walk(learned, landscape, x), rtol=0, atol=1e-10
    )


# landscapes


def test_crystals_have_no_centre() -> None:
    """Shifting a crystal, or one of its atoms by a period, changes nothing but that."""
    a = 5.43
    base = torch.tensor(
        [[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]
    )
    x = base.double() * a / 4 + 0.1 * torch.randn(
        8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    cell = a * torch.eye(3, dtype=torch.float64)[None]
    systems = Systems(x, torch.full((8,), 14), torch.tensor([0, 8]), cell, torch.ones(1, 3, dtype=torch.bool))
    landscape = AtomsLandscape(systems, StillingerWeber())
    learned = LearnedFamily().optimizer(noisy(LearnedFamily()))
    there = x + torch.tensor([0.7, 0.1, -0.3], dtype=torch.float64)
    there[3, 0] += a
    found = walk(learned, landscape, there) - there
    torch.testing.assert_close(found, walk(learned, landscape, x) - x, rtol=0, atol=1e-9)
    assert float(found.abs().min()) > 0


def test_bands_of_atoms_have_features_of_each_image() -> None:
    landscape, x = clusters([5])
    _, y = clusters([5], seed=1)
    band = Band(landscape, x, y, 3)
    learned = LearnedFamily(position=False, number=False).optimizer(
        noisy(LearnedFamily(position=False, number=False))
    )
    start = torch.cat([x + t * (y - x) for t in (0.25, 0.5, 0.75)])
    assert "radial" in {group.name for group in learned.present(band)}
    state = learned.init(band, start, torch.zeros(1, dtype=torch.int64))
    evaluation = band.evaluate(start)
    found, _ = learned.step(band, start, evaluation, state)
    images = band.inner
    apart, _ = learned.step(
        images,
        start,
        images.evaluate(start).__class__(evaluation.energy, evaluation.force),
        learned.init(images, start, torch.zeros(3, dtype=torch.int64)),
    )
    torch.testing.assert_close(found, apart, rtol=0, atol=1e-12)


def test_it_can_be_the_quench_of_a_search() -> None:
    landscape, x = clusters()
    family = LearnedFamily()
    theta = noisy(family, len(SIZES))
    search = BasinHopping(quench=family.optimizer(theta), quench_calls=3)
    driver = Driver(landscape, search, Stop(10), engine="eager")
    progress = driver.advance(driver.begin(x, problem_keys(0, torch.arange(len(SIZES)))))
    assert driver.result(progress).calls.tolist() == [10] * 3
    assert progress.outcome.tally.quenches.tolist() == [3] * 3


# refusals


def test_settings_that_make_no_sense() -> None:
    for given, message in (
        ({"decays": [1.0]}, r"decays must lie in \[0, 1\)"),
        ({"species": ["Xx"]}, "'Xx' is not the symbol of an element"),
        ({"species": ["Au", "Au"]}, "an element is named twice"),
        ({"gradient": False, "position": False, "moments": False, "adam": False}, "would move alike"),
        ({"hidden": 6}, "multiple of 4"),
    ):
        with pytest.raises(InputError, match=message):
            build(LearnedFamily, given)
    with pytest.raises(InputError, match="`weights` is missing: a name"):
        build(Learned, {})
    with pytest.raises(InputError, match="not both"):
        build(Learned, {"weights": "lj-small", "theta": torch.zeros(3)})


def test_theta_that_does_not_fit() -> None:
    family = LearnedFamily()
    theta = noisy(family, 2)
    landscape, x = clusters()
    with pytest.raises(
        InputError,
        match=r"theta has 2691 numbers, but a network of 48 inputs, 32 hidden units and 2 outputs has 2693",
    ):
        family.optimizer(theta[0, :-2])
    with pytest.raises(InputError, match="theta has 2 rows for 3 problems"):
        walk(family.optimizer(theta), landscape, x)
    theta[1, 7] = torch.nan
    with pytest.raises(InputError, match=r"theta is not finite at \(1, 7\)"):
        family.optimizer(theta)
    with pytest.raises(InputError, match=r"theta must be a tensor"):
        family.optimizer("lj")  # type: ignore[arg-type]


def test_elements_that_it_does_not_know() -> None:
    landscape, x = clusters()
    family = LearnedFamily(species=["Ag", "Au"])
    with pytest.raises(InputError, match="tells Ag, Au apart and got Ar, Kr"):
        walk(family.optimizer(noisy(family)), landscape, x)
