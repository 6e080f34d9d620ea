"""The contract of fittable potentials, as a function to call in tests."""

from __future__ import annotations

from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.protocols.fittable import Design, FittablePotential
from mlopt.core.testing.potential import PotentialTolerance, check_potential


def check_fittable(
    potential: FittablePotential,
    systems: Systems,
    tolerance: PotentialTolerance | None = None,
    *,
    scale: float = 0.1,
    seed: int = 0,
) -> None:
    """Check the contracts of potentials and of theta on ``systems`` (float64).

    Random numbers of the size ``scale`` are added to the parameters, because those of an unfitted potential may be
    zero.

    Raises:
        AssertionError: names the potential, the property and the deviation.
    """
    limits = tolerance or PotentialTolerance()
    generator = torch.Generator().manual_seed(seed)
    start = potential.parameters
    if start.ndim == 2:
        start = start[0]
    noise = torch.randn(start.shape, generator=generator, dtype=torch.float64)
    theta = start + scale * noise
    moved = potential.with_theta(theta)
    check_potential(moved, systems, tolerance)
    name = type(potential).__name__
    try:
        _check_rows(moved, systems, limits)
        _check_row_gradients(moved, systems, limits, generator)
        _check_gradients(moved, systems, limits, generator)
        _check_own_theta(moved, systems, limits, generator)
        _check_nonlinear(moved, systems, limits, generator)
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from error


def _close(found: torch.Tensor, wanted: torch.Tensor, relative: float, what: str) -> None:
    off = float((found - wanted).abs().max()) if wanted.numel() else 0.0
    limit = relative * max(1.0, float(wanted.abs().max()) if wanted.numel() else 0.0)
    assert off <= limit, f"{what}: off by {off:.3g}, more than {limit:.3g}"


def _check_rows(potential: FittablePotential, systems: Systems, limits: PotentialTolerance) -> None:
    """Check that rows times theta, plus the fixed parts, are energy, force and stress."""
    cells = bool((systems.volume > 0).all())
    design = potential.design(systems, force=True, stress=cells, row_energy=True)
    if design is None:
        return
    theta = potential.parameters
    p = theta.shape[-1]
    found = potential.evaluate(systems, stress=cells)
    n, n_atoms = len(systems), len(systems.pos)
    shapes = {"energy": (n, p), "force": (n_atoms, 3, p), "row_energy": (n_atoms, p), "stress": (n, 3, 3, p)}
    for part, shape in shapes.items():
        rows = getattr(design, part)
        if rows is None:
            assert part in ("stress", "row_energy") and not (part == "stress" and cells), (
                f"design has no `{part}`"
            )
            continue
        assert tuple(rows.shape) == shape, f"design.{part} has the shape {tuple(rows.shape)}, not {shape}"
        if part == "row_energy":
            summed = rows.new_zeros(n, p).index_add(0, systems.batch, rows)
            _close(summed, design.energy, 1e-10, "rows of atoms, summed over each system")
            continue
        fixed = getattr(design, f"fixed_{part}")
        told = rows @ theta + (0.0 if fixed is None else fixed)
        _close(told, getattr(found, part), limits.gradient, f"design.{part} times theta")
    few = potential.design(systems, force=False)
    assert isinstance(few, Design) and few.force is None, "design gives forces that nobody asked for"
    _close(few.energy, design.energy, 1e-12, "design.energy without forces")


def _check_row_gradients(
    potential: FittablePotential, systems: Systems, limits: PotentialTolerance, generator: torch.Generator
) -> None:
    """Check derivatives of energies, and of those of atoms, with respect to theta."""
    theta = potential.parameters
    whole = potential.energy_gradients(systems)
    wanted = (len(systems), theta.shape[-1])
    assert tuple(whole.shape) == wanted, f"energy_gradients has the shape {tuple(whole.shape)}, not {wanted}"
    assert not whole.requires_grad, "energy_gradients carries a graph"
    way = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
    way = way / way.norm()
    ahead, behind = (
        potential.with_theta(theta + sign * limits.step * way).evaluate(systems).energy for sign in (1, -1)
    )
    _close(whole @ way, (ahead - behind) / (2.0 * limits.step), limits.difference, "energy_gradients")
    try:
        rows = potential.row_gradients(systems)
    except InputError:
        return  # it has no energies of atoms
    assert not rows.requires_grad, "row_gradients carries a graph"
    summed = whole.new_zeros(wanted).index_add(0, systems.batch, rows)
    _close(summed, whole, 1e-10, "row_gradients, summed over each system")
    evaluation, again = potential.evaluate_rows(systems)
    _close(again, rows, 1e-10, "rows of evaluate_rows")
    _close(evaluation.force, potential.evaluate(systems).force, limits.gradient, "forces of evaluate_rows")


def _loss(potential: FittablePotential, systems: Systems, pull: torch.Tensor) -> torch.Tensor:
    """Return a number that depends on energies and forces."""
    found = potential.evaluate(systems)
    return (found.energy**2).sum() + (found.force * pull).sum()


def _check_gradients(
    potential: FittablePotential, systems: Systems, limits: PotentialTolerance, generator: torch.Generator
) -> None:
    """Check the gradient in theta of a loss on energies and forces against differences, with constant positions."""
    pull = torch.randn(systems.pos.shape, generator=generator, dtype=torch.float64)
    theta = potential.parameters.detach().clone().requires_grad_(True)
    assert not systems.pos.requires_grad
    loss = _loss(potential.with_theta(theta), systems, pull)
    assert loss.requires_grad, "energy and force do not depend on theta where only theta asks for gradients"
    (slope,) = torch.autograd.grad(loss, theta)
    way = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
    way = way / way.norm()
    step = limits.step
    with torch.no_grad():
        ahead, behind = (
            _loss(potential.with_theta(theta.detach() + sign * step * way), systems, pull) for sign in (1, -1)
        )
    _close(slope @ way, (ahead - behind) / (2.0 * step), limits.difference, "gradient of a loss in theta")


def _check_nonlinear(
    potential: FittablePotential, systems: Systems, limits: PotentialTolerance, generator: torch.Generator
) -> None:
    """Check that `nonlinear` parameters are those that are set, and gradients in them, with constant positions."""
    values = potential.nonlinear
    if values is None or not values.numel():
        return
    same = potential.with_nonlinear(values).evaluate(systems).energy
    _close(
        same, potential.evaluate(systems).energy, limits.gradient, "energy under its `nonlinear` parameters"
    )
    values = values + 0.1 * torch.randn(values.shape, generator=generator, dtype=torch.float64)
    moved = potential.with_nonlinear(values)
    told = moved.nonlinear
    assert told is not None
    _close(told, values, 1e-14, "`nonlinear` of `with_nonlinear`")
    _check_rows(moved, systems, limits)
    pull = torch.randn(systems.pos.shape, generator=generator, dtype=torch.float64)
    point = values.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(_loss(potential.with_nonlinear(point), systems, pull), point)
    way = torch.randn(values.shape, generator=generator, dtype=torch.float64)
    way = way / way.norm()
    ahead, behind = (
        _loss(potential.with_nonlinear(values + sign * limits.step * way), systems, pull) for sign in (1, -1)
    )
    slopes = (ahead - behind) / (2.0 * limits.step)
    _close(slope @ way, slopes, limits.difference, "gradient of a loss in the `nonlinear` parameters")


def _check_own_theta(
    potential: FittablePotential, systems: Systems, limits: PotentialTolerance, generator: torch.Generator
) -> None:
    """Check that a batch with one theta per system equals each system with its theta."""
    theta = potential.parameters.detach()
    noise = torch.randn((len(systems), len(theta)), generator=generator, dtype=torch.float64)
    own = theta * (1.0 + 0.01 * noise)
    together = potential.with_theta(own).evaluate(systems)
    for index in range(len(systems)):
        alone = potential.with_theta(own[index]).evaluate(systems[index])
        _close(
            together.energy[index],
            alone.energy[0],
            limits.gradient,
            f"energy of system {index} under its own theta",
        )
        rows = together.force[int(systems.ptr[index]) : int(systems.ptr[index + 1])]
        _close(rows, alone.force, limits.gradient, f"force on system {index} under its theta")
