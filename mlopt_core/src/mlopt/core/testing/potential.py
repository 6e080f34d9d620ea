"""The contract of potentials, as a function to call in tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from mlopt.core.atoms.systems import Systems
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch


@dataclass(frozen=True)
class PotentialTolerance:
    """The allowed deviations, relative to the larger of 1 and the largest entry of the system.

    gradient: closed-form force against autograd of `energy`, float64.
    difference: forces, stress and second derivatives against central finite differences.
    step: of those differences, in units of length (a strain for stress).
    invariance: translation, rotation and permutation of atoms.
    batch: a batch against its systems alone; 0 asks for the same bits.
    single: float32 against float64.
    """

    gradient: float = 1e-10
    difference: float = 1e-6
    step: float = 2e-6
    invariance: float = 1e-9
    batch: float = 0.0
    single: float = 1e-3


def check_potential(
    potential: Potential, systems: Systems, tolerance: PotentialTolerance | None = None, *, seed: int = 0
) -> None:
    """Check the contract on ``systems``: float64, at positions away from singularities and discontinuities.

    Include systems of different sizes and, if the potential supports it, periodicity. Derivatives by autograd are
    skipped for a potential that is not differentiable.

    Raises:
        AssertionError: names the potential, the property, the system and the deviation.
    """
    torch.manual_seed(seed)
    potential.check(systems)
    try:
        _check_all(potential, systems, tolerance or PotentialTolerance())
    except AssertionError as error:
        raise AssertionError(f"{type(potential).__name__}: {error}") from error


def _check_all(potential: Potential, systems: Systems, limits: PotentialTolerance) -> None:
    _check_shapes(potential, systems)
    _check_no_mutation(potential, systems)
    _check_forces(potential, systems, limits)
    _check_batch(potential, systems, limits)
    _check_invariances(potential, systems, limits)
    _check_stress(potential, systems, limits)
    if potential.differentiable:
        _check_second_derivatives(potential, systems, limits)
    _check_failing_alone(potential, systems, limits)
    _check_small_systems(potential, systems)
    _check_single_precision(potential, systems, limits)


def _compare(what: str, got: torch.Tensor, expected: torch.Tensor, owner: torch.Tensor, limit: float) -> None:
    """Compare two tensors whose first dimension belongs to the systems ``owner``."""
    for system in torch.unique(owner).tolist():
        a, b = got[owner == system], expected[owner == system]
        if torch.equal(a, b):
            continue
        scale = max(1.0, float(b.abs().max()))
        error = float((a - b).abs().max()) / scale
        assert error <= limit, (  # not `error > limit`, which lets NaN pass
            f"{what}: system {system} is off by {error:.2e} (relative to {scale:.3g}); allowed: {limit:.0e}"
        )


def _each(systems: Systems) -> torch.Tensor:
    return torch.arange(len(systems))


def _fields(found: Evaluation, systems: Systems) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Yield name, value and owning systems of every field of an evaluation."""
    yield "energy", found.energy, _each(systems)
    yield "force", found.force, systems.batch
    if found.row_energy is not None:
        yield "row_energy", found.row_energy, systems.batch
    if found.stress is not None:
        yield "stress", found.stress, _each(systems)


def _compare_evaluations(
    what: str, got: Evaluation, expected: Evaluation, systems: Systems, limit: float
) -> None:
    pairs = zip(_fields(got, systems), _fields(expected, systems), strict=True)
    for (name, value, owner), (_, reference, _) in pairs:
        _compare(f"{what}, {name}", value, reference, owner, limit)


def _check_shapes(potential: Potential, systems: Systems) -> None:
    found = potential.evaluate(systems, stress=bool(systems.pbc.all()))
    n, n_atoms = len(systems), len(systems.pos)
    expected = {"energy": (n,), "force": (n_atoms, 3), "row_energy": (n_atoms,), "stress": (n, 3, 3)}
    for name, value, owner in _fields(found, systems):
        shape = tuple(value.shape)
        assert shape == expected[name], f"shapes: {name} is {shape}, should be {expected[name]}"
        assert value.dtype == systems.pos.dtype, f"dtype: {name} is {value.dtype}, pos {systems.pos.dtype}"
        bad = owner[~value.isfinite().reshape(len(value), -1).all(-1)]
        assert not len(bad), f"finite: {name} of system {int(bad[0])} is not finite"
        assert not value.requires_grad, f"gradient: {name} carries a graph though `pos` asks for none"
    _compare(
        "energy and evaluate agree", potential.energy(systems).detach(), found.energy, _each(systems), 1e-12
    )
    if found.row_energy is not None:
        total = systems.segments.sum(found.row_energy)
        _compare("row_energy sums to energy", total, found.energy, _each(systems), 1e-12)
    width = potential.diameter(systems.z)
    assert tuple(width.shape) == (n_atoms,), (
        f"shapes: diameter is {tuple(width.shape)}, should be {(n_atoms,)}"
    )
    assert bool((width > 0).all()), "diameter: must be positive for every atom"


def _check_no_mutation(potential: Potential, systems: Systems) -> None:
    names = ("pos", "z", "ptr", "cell", "pbc", "fixed")
    before = {name: getattr(systems, name).clone() for name in names}
    first = potential.evaluate(systems)
    kept = {name: value.clone() for name, value, _ in _fields(first, systems)}
    again = potential.evaluate(systems)
    for name in names:
        assert torch.equal(getattr(systems, name), before[name]), f"no mutation: evaluate changed `{name}`"
    for name, value, _ in _fields(first, systems):
        assert torch.equal(value, kept[name]), (
            f"no mutation: the second call changed `{name}` of the first result"
        )
    _compare_evaluations("the same twice", again, first, systems, 0.0)


def _check_forces(potential: Potential, systems: Systems, limits: PotentialTolerance) -> None:
    found = potential.evaluate(systems)
    if potential.differentiable:
        pos = systems.pos.clone().requires_grad_(True)
        energy = potential.energy(systems.with_pos(pos))
        (gradient,) = torch.autograd.grad(energy.sum(), pos)
        _compare(
            "force is minus the gradient by autograd", found.force, -gradient, systems.batch, limits.gradient
        )
    for _ in range(3):
        way = torch.randn_like(systems.pos)
        ahead = potential.evaluate(systems.with_pos(systems.pos + limits.step * way)).energy
        behind = potential.evaluate(systems.with_pos(systems.pos - limits.step * way)).energy
        slope = (ahead - behind) / (2 * limits.step)
        work = -systems.segments.dot(found.force, way)
        _compare("force is minus the slope of the energy", work, slope, _each(systems), limits.difference)


def _check_batch(potential: Potential, systems: Systems, limits: PotentialTolerance) -> None:
    stress = bool(systems.pbc.all())
    found = potential.evaluate(systems, stress=stress)
    for index in range(len(systems)):
        chosen = torch.tensor([index])
        alone = potential.evaluate(systems[index], stress=stress)
        part = found.select(chosen, systems.segments.select(chosen)[1])
        what = f"system {index} alone and in the batch"
        _compare_evaluations(what, part, alone, systems[index], limits.batch)
    order = torch.randperm(2 * len(systems)) % len(systems)
    mixed = systems.select(order)
    expected = found.select(order, systems.segments.select(order)[1])
    _compare_evaluations(
        "a permuted and doubled batch",
        potential.evaluate(mixed, stress=stress),
        expected,
        mixed,
        limits.batch,
    )


def _check_invariances(potential: Potential, systems: Systems, limits: PotentialTolerance) -> None:
    found = potential.evaluate(systems)
    shift = torch.randn(len(systems), 3, dtype=systems.pos.dtype)
    shifted = potential.evaluate(systems.with_pos(systems.pos + systems.segments.rows_of(shift)))
    _compare_evaluations("translation", shifted, found, systems, limits.invariance)

    turn = torch.linalg.qr(torch.randn(3, 3, dtype=systems.pos.dtype))[0]
    turned = potential.evaluate(replace(systems, pos=systems.pos @ turn, cell=systems.cell @ turn))
    expected = Evaluation(found.energy, found.force @ turn, found.row_energy)
    _compare_evaluations("rotation", turned, expected, systems, limits.invariance)

    ptr = systems.ptr.tolist()
    order = torch.cat([a + torch.randperm(b - a) for a, b in pairwise(ptr)])
    swapped = replace(systems, pos=systems.pos[order], z=systems.z[order], fixed=systems.fixed[order])
    row_energy = None if found.row_energy is None else found.row_energy[order]
    expected = Evaluation(found.energy, found.force[order], row_energy)
    _compare_evaluations("permutation", potential.evaluate(swapped), expected, systems, limits.invariance)


def _check_stress(potential: Potential, systems: Systems, limits: PotentialTolerance) -> None:
    whole = torch.nonzero(systems.pbc.all(-1)).flatten()
    if not len(whole):
        return
    systems = systems.select(whole)
    stress = potential.evaluate(systems, stress=True).stress
    assert stress is not None, "stress: asked for, but None"
    _compare("stress is symmetric", stress, stress.mT, _each(systems), limits.invariance)
    for _ in range(2):
        strain = torch.randn(3, 3, dtype=systems.pos.dtype)
        strain = limits.step * 0.5 * (strain + strain.T)
        energies = []
        for sign in (1.0, -1.0):
            stretch = torch.eye(3, dtype=strain.dtype) + sign * strain
            bent = replace(systems, pos=systems.pos @ stretch, cell=systems.cell @ stretch)
            energies.append(potential.evaluate(bent).energy)
        slope = (energies[0] - energies[1]) / 2
        work = (stress * strain).sum((-1, -2)) * systems.volume
        limit = limits.difference
        _compare(
            "stress is the slope along a strain",
            work / limits.step,
            slope / limits.step,
            _each(systems),
            limit,
        )


def _check_second_derivatives(potential: Potential, systems: Systems, limits: PotentialTolerance) -> None:
    """Compare the second derivative along two directions by autograd with finite differences."""
    pos = systems.pos.clone().requires_grad_(True)
    left, right = torch.randn_like(pos), torch.randn_like(pos)
    force = potential.evaluate(systems.with_pos(pos)).force
    assert force.requires_grad, "differentiable: the force carries no graph though `pos` asks for one"
    (product,) = torch.autograd.grad((force * left).sum(), pos)
    ahead = potential.evaluate(systems.with_pos(systems.pos + limits.step * right)).force
    behind = potential.evaluate(systems.with_pos(systems.pos - limits.step * right)).force
    slope = (ahead - behind) / (2 * limits.step)
    dot = systems.segments.dot
    _compare(
        "second derivative", dot(product, right), dot(slope, left), _each(systems), 10 * limits.difference
    )


def _check_failing_alone(potential: Potential, systems: Systems, limits: PotentialTolerance) -> None:
    found = potential.evaluate(systems)
    for bad in (float("nan"), float("inf")):
        broken = systems.pos.clone()
        broken[0] = bad
        batch = Systems.concatenate([systems.with_pos(broken), systems])
        both = potential.evaluate(batch)
        first = int(systems.batch[0])
        what = f"a system with a position at {bad} fails alone"
        own = both.force[
            batch.batch == first
        ]  # an atom at infinity may have zero energy, and then must have zero force
        sound = bool(both.energy[first].isfinite()) and bool(own.isfinite().all())
        assert not sound, f"{what}: its energy is {float(both.energy[first])} and its force is finite"
        rest = torch.tensor([index for index in range(len(batch)) if index != first])
        expected = found.select(rest % len(systems), systems.segments.select(rest % len(systems))[1])
        part = both.select(rest, batch.segments.select(rest)[1])
        _compare_evaluations(what, part, expected, batch.select(rest), limits.batch)


def _check_small_systems(potential: Potential, systems: Systems) -> None:
    pos, z = systems.pos[:1], systems.z[:1]
    for sizes in ([0], [1], [1, 0, 1]):
        n = sum(sizes)
        ptr = torch.tensor([0, *sizes]).cumsum(0)
        small = Systems(pos.repeat(n, 1), z.repeat(n), ptr)
        found = potential.evaluate(small)
        what = f"free systems of {sizes} atoms"
        assert tuple(found.energy.shape) == (len(sizes),), f"{what}: energy is {tuple(found.energy.shape)}"
        assert tuple(found.force.shape) == (n, 3), f"{what}: force is {tuple(found.force.shape)}"
        assert bool(found.energy.isfinite().all()), f"{what}: energy is {found.energy.tolist()}"
        assert not bool((found.force.abs() > 1e-12).any()), f"{what}: a lone atom feels a force"
        empty = found.energy[torch.tensor(sizes) == 0]
        assert bool((empty == 0).all()), f"{what}: an empty system has energy {empty.tolist()}"


def _check_single_precision(potential: Potential, systems: Systems, limits: PotentialTolerance) -> None:
    found = potential.evaluate(systems)
    single = potential.evaluate(systems.to(dtype=torch.float32))
    for name, value, _ in _fields(single, systems):
        assert value.dtype == torch.float32, f"float32: {name} is {value.dtype}"
    back = Evaluation(
        single.energy.double(),
        single.force.double(),
        None if single.row_energy is None else single.row_energy.double(),
    )
    _compare_evaluations("float32", back, found, systems, limits.single)
