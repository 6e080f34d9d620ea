"""The contract of optimizers, as a function to call in tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TypeAlias

from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver, minimize, unroll
from mlopt.core.driver.external import ExternalOptimizer
from mlopt.core.driver.progress import Progress
from mlopt.core.driver.result import Result
from mlopt.core.driver.stop import Reason, Stop
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.landscapes.manifold import UnitSphere
from mlopt.core.lazy import torch
from mlopt.core.plugins import registry
from mlopt.core.plugins.plugin import FromRegistry, build
from mlopt.core.protocols.optimizer import Optimizer, State
from mlopt.core.testing.surfaces import Watched, lennard_jones, pass_between_bowls, quadratic, spins

#: rows of the problems in a batch: unlike sizes, a single row, and equal ones
_SIZES = [5, 1, 4, 5, 7]
Surface: TypeAlias = (
    "Callable[[list[int]], tuple[Landscape, torch.Tensor]]"  # a string: torch is not imported for it
)
_SURFACES: dict[str, Surface] = {
    "quadratic": quadratic,
    "lennard-jones": lennard_jones,
    "spins": spins,
}


def check_optimizer(
    optimizer: Optimizer,
    *,
    calls: int = 40,
    surfaces: tuple[str, ...] | Mapping[str, Surface] = ("quadratic", "lennard-jones", "spins"),
    converges_within: int = 2000,
    differentiable: str | None = None,
    seed: int = 0,
) -> None:
    """Check the contract of `Optimizer`, or the applicable part for an `ExternalOptimizer`, on the CPU.

    calls: length of the runs that are compared, in force calls.
    surfaces: names of landscapes, by default a bowl, clusters, and spins on unit spheres. Leave out those that the
        optimizer refuses. Others may be added by name, as functions that take the numbers of rows and return a
        landscape and a point.
    converges_within: number of force calls after which forces in the bowl must be below 1e-5. A search must only get
        below the energy of its start. A saddle search must find the pass between two bowls.
    differentiable: the name of a setting with respect to which steps can be differentiated (see `unroll`), if any.

    Raises:
        AssertionError: names the property and the surface that it failed on.
    """
    _check_config(optimizer)
    for name in surfaces:
        landscape, x = (surfaces if isinstance(surfaces, Mapping) else _SURFACES)[name](_SIZES)
        key = problem_keys(seed, torch.arange(len(_SIZES)))
        where = f"{type(optimizer).__name__} on {name}"
        _check_batch(optimizer, landscape, x, key, calls, where)
        _check_resume(optimizer, landscape, x, key, calls, where)
        _check_failure_alone(optimizer, landscape, x, key, calls, where)
        _check_counts(optimizer, landscape, x, key, calls, where)
        _check_fixed_rows(optimizer, landscape, x, key, calls, where)
        bowl = name == "quadratic" and not optimizer.searching
        if optimizer.seeks == "minimum":
            _check_progress(optimizer, landscape, x, where, converges_within if bowl else calls, bowl)
        if not isinstance(optimizer, ExternalOptimizer):
            _check_purity(optimizer, landscape, x, key, calls, where)
            _check_state(optimizer, landscape, x, key, calls, where)
            _check_single_precision(optimizer, landscape, x, key, calls, where)
    if optimizer.seeks == "saddle":
        _check_saddle(optimizer, converges_within)
    if differentiable is not None:
        _check_derivative(optimizer, differentiable)


def _run(
    optimizer: Optimizer,
    landscape: Landscape,
    x: torch.Tensor,
    key: torch.Tensor,
    calls: int,
    pause_after: int | None = None,
    until: int | None = None,
) -> tuple[Driver, Progress]:
    """Run to the end of the budget, to ``until`` calls, or until ``pause`` has been asked ``pause_after`` times."""
    driver = Driver(landscape, optimizer, Stop(force_calls=calls), keep=3)
    asked = [0]

    def pause() -> bool:
        asked[0] += 1
        return pause_after is not None and asked[0] > pause_after

    return driver, driver.advance(driver.begin(x, key), pause, until)


def _finish(
    optimizer: Optimizer, landscape: Landscape, x: torch.Tensor, key: torch.Tensor, calls: int
) -> Result:
    driver, progress = _run(optimizer, landscape, x, key, calls)
    return driver.result(progress)


def _same_result(got: Result, expected: Result, what: str, trace: bool = True) -> None:
    """Compare bit for bit; NaN equals NaN."""
    assert got.reason == expected.reason, f"{what}: reasons differ, {got.reason} against {expected.reason}"
    for one in fields(Result):
        if one.name in ("landscape", "reason") or (one.name.startswith("trace") and not trace):
            continue
        a, b = getattr(got, one.name), getattr(expected, one.name)
        same = a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())
        worst = (
            (a.double() - b.double()).abs().nan_to_num().max()
            if a.shape == b.shape and a.numel()
            else "shapes"
        )
        assert same, f"{what}: `{one.name}` is not the same bit for bit (differs by {worst})"


def _part(result: Result, landscape: Landscape, problems: list[int]) -> Result:
    index = torch.tensor(problems)
    _, rows = landscape.segments.select(index)
    kept = {}
    for one in fields(Result):
        value = getattr(result, one.name)
        if one.name == "reason":
            value = [value[i] for i in problems]
        elif one.name in ("x", "pool_x"):
            value = value[rows]
        elif one.name == "trace_energy":
            value = value[:, index]
        elif one.name not in ("landscape", "trace_calls"):
            value = value[index]
        kept[one.name] = value
    return Result(**kept)


def _check_batch(
    optimizer: Optimizer, landscape: Landscape, x: torch.Tensor, key: torch.Tensor, calls: int, where: str
) -> None:
    """Check that a problem gives the same result alone, in the whole batch, and in another order."""
    whole = _finish(optimizer, landscape, x, key, calls)
    for i in range(len(key)):
        index = torch.tensor([i])
        _, rows = landscape.segments.select(index)
        alone = _finish(optimizer, landscape.select(index), x[rows], key[index], calls)
        what = f"{where}: problem {i} of the batch against the same alone"
        _same_result(alone, _part(whole, landscape, [i]), what)
    order = [3, 1, 4, 0, 2]
    index = torch.tensor(order)
    _, rows = landscape.segments.select(index)
    permuted = _finish(optimizer, landscape.select(index), x[rows], key[index], calls)
    _same_result(permuted, _part(whole, landscape, order), f"{where}: a batch in another order")
    many = torch.zeros(37, dtype=torch.int64)  # equal sizes take another path through the reductions
    _, rows = landscape.segments.select(many)
    copies = _finish(optimizer, landscape.select(many), x[rows], key[many], calls)
    what = f"{where}: the last of 37 copies of problem 0"
    _same_result(_part(copies, landscape.select(many), [36]), _part(whole, landscape, [0]), what)


def _check_resume(
    optimizer: Optimizer, landscape: Landscape, x: torch.Tensor, key: torch.Tensor, calls: int, where: str
) -> None:
    """Check that a run saved and loaded between two steps ends as an uninterrupted one."""
    from safetensors.torch import load, save

    whole = _finish(optimizer, landscape, x, key, calls)
    external = isinstance(optimizer, ExternalOptimizer)
    for after in [0, 2] if external else [0, 1, calls // 3, calls - 1]:
        driver, paused = _run(optimizer, landscape, x, key, calls, pause_after=after)
        tensors, meta = paused.to_checkpoint()
        data = save({name: tensor.clone().contiguous() for name, tensor in tensors.items()})
        fresh = driver.begin(x, key)
        fresh.load_checkpoint(load(data), meta)
        what = (
            f"{where}: paused after {after} {'problems' if external else 'steps'}, saved, loaded and resumed"
        )
        _same_result(driver.result(driver.advance(fresh)), whole, what)
    if not external:
        driver, part = _run(optimizer, landscape, x, key, calls, until=calls // 2)
        what = f"{where}: advanced until call {calls // 2}"
        assert part.calls == calls // 2, f"{what}, and stopped at call {part.calls}"
        _same_result(driver.result(driver.advance(part)), whole, f"{what}, then to the end")


def _check_failure_alone(
    optimizer: Optimizer, landscape: Landscape, x: torch.Tensor, key: torch.Tensor, calls: int, where: str
) -> None:
    """Check that an energy that becomes NaN ends its problem, with that reason, and affects no other."""
    whole = _finish(optimizer, landscape, x, key, calls)
    others = [0, 1, 3, 4]
    for first in (1, 2, calls // 3):
        poisoned = _finish(optimizer, Watched(landscape, poison=(2, first)), x, key, calls)
        what = f"{where}: energy of problem 2 NaN from call {first} on"
        assert poisoned.reason[2] is Reason.NON_FINITE, f"{what}: the reason given is {poisoned.reason[2]}"
        rest = _part(poisoned, landscape, others)
        _same_result(rest, _part(whole, landscape, others), f"{what}: the others", trace=False)


def _check_counts(
    optimizer: Optimizer, landscape: Landscape, x: torch.Tensor, key: torch.Tensor, calls: int, where: str
) -> None:
    """Check that every evaluation is counted, and that no more are made than allowed."""
    watched = Watched(landscape)
    result = _finish(optimizer, watched, x, key, calls)
    counted = result.calls.tolist()
    assert counted == [calls] * len(key), f"{where}: of {calls} allowed force calls, {counted} were counted"
    assert watched.calls[0] == sum(counted), (
        f"{where}: {watched.calls[0]} force calls made, {sum(counted)} counted"
    )


def _check_fixed_rows(
    optimizer: Optimizer, landscape: Landscape, x: torch.Tensor, key: torch.Tensor, calls: int, where: str
) -> None:
    """Check that rows that are declared fixed, and feel no force, stay in place."""
    pinned = torch.zeros(len(x), dtype=torch.bool)
    pinned[::3] = True
    watched = Watched(landscape, pinned=pinned)
    result = _finish(optimizer, watched, x, key, calls)
    moved = float((result.x - x)[pinned].abs().max())
    # on a sphere a step of length zero still renormalises
    limit = 1e-12 if isinstance(landscape.manifold, UnitSphere) else 0.0
    assert moved <= limit, f"{where}: a fixed row has moved by {moved:.3g}"


def _check_progress(
    optimizer: Optimizer, landscape: Landscape, x: torch.Tensor, where: str, calls: int, converges: bool
) -> None:
    """Check that the energy falls; for a local optimizer, to the bottom of a bowl."""
    before = landscape.evaluate(x).energy
    result = minimize(landscape, optimizer, x, force_calls=calls, fmax=None if optimizer.searching else 1e-5)
    # the last step may be one that the optimizer would take back: the lowest of the later half counts
    later = result.trace_energy[len(result.trace_energy) // 2 :]
    rise = (torch.cat([later, result.energy[None]]).amin(0) - before).max()
    assert float(rise) <= 1e-9, (
        f"{where}: after {calls} force calls the energy is higher by {float(rise):.3g}"
    )
    if isinstance(landscape.manifold, UnitSphere):
        off = (torch.linalg.vector_norm(result.x, dim=-1) - 1.0).abs().max()
        assert float(off) < 1e-9, (
            f"{where}: points have left the unit sphere by {float(off):.3g}; use `retract`"
        )
    if converges:
        left = result.fmax.tolist()
        assert all(result.converged.tolist()), (
            f"{where}: not converged in {calls} force calls, forces left: {left}"
        )


def _walk(
    optimizer: Optimizer, landscape: Landscape, x: torch.Tensor, key: torch.Tensor, steps: int
) -> tuple[torch.Tensor, State]:
    state = optimizer.init(landscape, x, key)
    with torch.no_grad():
        for _ in range(steps):
            x, state = optimizer.step(landscape, x, landscape.evaluate(x), state)
    return x, state


def _check_saddle(optimizer: Optimizer, calls: int) -> None:
    """Check that the optimizer climbs to the pass, at the origin."""
    landscape, x = pass_between_bowls(_SIZES)
    result = minimize(landscape, optimizer, x, force_calls=calls, fmax=1e-5)
    where = f"{type(optimizer).__name__} on the way to a pass"
    assert all(result.converged.tolist()), (
        f"{where}: not there in {calls} force calls, forces left: {result.fmax}"
    )
    off = float(result.x.abs().max())
    assert off < 1e-4, f"{where}: ended {off:.3g} away from it"


def _check_purity(
    optimizer: Optimizer, landscape: Landscape, x: torch.Tensor, key: torch.Tensor, calls: int, where: str
) -> None:
    """Check that `step` changes none of its arguments and gives the same result twice."""
    x, state = _walk(optimizer, landscape, x, key, calls // 2)
    evaluation = landscape.evaluate(x)
    arguments = {"x": x, "energy": evaluation.energy, "force": evaluation.force} | state.tensors("state.")
    before = {name: tensor.clone() for name, tensor in arguments.items()}
    first, then = optimizer.step(landscape, x, evaluation, state)
    for name, tensor in arguments.items():
        assert _same(tensor, before[name]), f"{where}: `step` has changed its argument `{name}`"
    second, _ = optimizer.step(landscape, x, evaluation, state)
    assert _same(first, second), f"{where}: `step` gave two answers to one question"
    assert then.tensors().keys() == state.tensors().keys(), f"{where}: the state has changed its fields"


def _check_state(
    optimizer: Optimizer, landscape: Landscape, x: torch.Tensor, key: torch.Tensor, calls: int, where: str
) -> None:
    """Check the shapes of the fields, and that `where`, `select`, `put` and `with_tensors` are consistent."""
    segments = landscape.segments
    start = optimizer.init(landscape, x, key)
    _, state = _walk(optimizer, landscape, x, key, calls // 2)
    mask = torch.tensor([True, False, True, False, False])
    chosen, rest = torch.nonzero(mask).flatten(), torch.nonzero(~mask).flatten()
    _, rows = segments.select(chosen)
    _, rest_rows = segments.select(rest)
    mixed = state.where(mask, start, segments)
    _same_state(mixed.select(chosen, rows), state.select(chosen, rows), f"{where}: `where`, chosen problems")
    _same_state(mixed.select(rest, rest_rows), start.select(rest, rest_rows), f"{where}: `where`, the others")
    put = start.put(chosen, rows, state.select(chosen, rows))
    _same_state(put, mixed, f"{where}: `put` of a selection against `where`")
    _same_state(start.with_tensors(state.tensors()), state, f"{where}: `with_tensors` of `tensors`")


def _same_state(got: State, expected: State, what: str) -> None:
    other = expected.tensors()
    for name, tensor in got.tensors().items():
        assert _same(tensor, other[name]), (
            f"{what}: field `{name}` differs; is it declared per row or per problem?"
        )


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | (a.isnan() & b.isnan())).all())


def _check_single_precision(
    optimizer: Optimizer, landscape: Landscape, x: torch.Tensor, key: torch.Tensor, calls: int, where: str
) -> None:
    """Check that float32 in gives finite float32 out."""
    start = optimizer.init(landscape, x.float(), key).tensors()
    after, state = _walk(optimizer, landscape, x.float(), key, min(calls, 20))
    assert after.dtype == torch.float32, f"{where}: float32 points became {after.dtype}"
    assert bool(torch.isfinite(after).all()), f"{where}: float32 points became non-finite"
    for name, tensor in state.tensors().items():
        expected = start[name].dtype
        assert tensor.dtype == expected, (
            f"{where}: state `{name}` began as {expected} and became {tensor.dtype}"
        )


def _check_derivative(optimizer: Optimizer, name: str, steps: int = 12, shift: float = 1e-5) -> None:
    """Compare the derivative of the energy after some steps by autograd with central differences (relative)."""
    value = float(getattr(optimizer, name))

    for surface in (quadratic, lennard_jones):
        landscape, x = surface([4, 5])

        def last(theta: torch.Tensor, landscape: Landscape = landscape, x: torch.Tensor = x) -> torch.Tensor:
            _, energies = unroll(landscape, optimizer.replace(**{name: theta}), x, steps=steps)
            return energies[-1].sum()

        theta = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(last(theta), theta)
        up, down = (last(torch.tensor(value * (1 + sign * shift), dtype=torch.float64)) for sign in (1, -1))
        difference = float(up - down) / (2 * shift * value)
        off = abs(float(gradient) - difference)
        assert off <= 1e-5 * max(1.0, abs(difference)), (
            f"{type(optimizer).__name__}: derivative of the energy after {steps} steps with respect to `{name}` is "
            f"{float(gradient):.8g}, finite differences say {difference:.8g}"
        )


def _check_config(optimizer: Optimizer) -> None:
    """Check that the settings, as plain data, make the same optimizer again."""
    cls = type(optimizer)
    for name, field in cls.model_fields.items():
        marker = next((m for m in field.metadata if isinstance(m, FromRegistry)), None)
        if marker and registry.name_of(marker.kind, type(getattr(optimizer, name))) is None:
            return  # a plugin without a name cannot be written down
    again = build(cls, optimizer.config())
    assert again == optimizer, f"{cls.__name__}: built from its own `config()` it became {again!r}"
