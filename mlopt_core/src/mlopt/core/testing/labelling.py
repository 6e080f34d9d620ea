"""The contracts of query strategies and labellers, as functions to call in tests."""

from __future__ import annotations

from collections.abc import Iterator

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.digest import structure_digest
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.landscapes.potential import Potential
from mlopt.core.lazy import torch
from mlopt.core.protocols.labeller import Labeller
from mlopt.core.protocols.query import QueryStrategy, Selection


def check_query_strategy(
    strategy: QueryStrategy,
    candidates: Systems,
    known: Dataset,
    fitted: Potential | None = None,
    count: int = 2,
) -> None:
    """Check that a choice is valid and repeatable, and that no argument has changed.

    The same structures must be chosen in whatever order they come, unless the strategy is `in_order`. The strategy must
    answer also without candidates, with a count of 0, and without known structures. One that `needs_labels` may refuse
    the last case.

    Raises:
        AssertionError: names the strategy and the property.
    """
    name, key, n = type(strategy).__name__, torch.tensor(7), len(candidates)
    before, labels = candidates.pos.clone(), known.digest()
    found = strategy.select(candidates, known, fitted, count, key)
    _check_selection(found, n, count, name)
    again = strategy.select(candidates, known, fitted, count, key)
    assert found.indices.tolist() == again.indices.tolist(), f"{name}: the same key gives another choice"
    assert torch.equal(candidates.pos, before), f"{name} changes the candidates"
    assert known.digest() == labels, f"{name} changes the known structures"
    _check_selection(strategy.select(candidates, known, fitted, 0, key), n, 0, name)
    everything = strategy.select(candidates, known, fitted, n + 3, key)
    _check_selection(everything, n, n, name)
    none = strategy.select(candidates.select([]), known, fitted, count, key)
    _check_selection(none, 0, 0, f"{name} without candidates")
    if not strategy.in_order:
        turned = strategy.select(candidates.select(list(range(n))[::-1]), known, fitted, count, key)
        digests = [structure_digest(candidates[place]) for place in range(n)]
        wanted = [digests[place] for place in found.indices.tolist()]
        told = [digests[n - 1 - place] for place in turned.indices.tolist()]
        assert told == wanted, f"{name} chooses other structures if candidates come in another order"
    try:
        alone = strategy.select(candidates, known.select([]), fitted, count, key)
    except InputError:
        assert strategy.needs_labels, f"{name} refuses to choose where nothing is known; set `needs_labels`"
    else:
        _check_selection(alone, n, count, f"{name} where nothing is known")


def _check_selection(found: Selection, n: int, count: int, name: str) -> None:
    indices = found.indices
    assert indices.dtype == torch.int64 and indices.ndim == 1, f"{name}: indices must be a vector of int64"
    assert len(indices) <= count, f"{name} chooses {len(indices)} where at most {count} were asked for"
    assert len(set(indices.tolist())) == len(indices), f"{name} chooses one candidate twice"
    assert all(0 <= one < n for one in indices.tolist()), f"{name} chooses a candidate that is not there"
    assert tuple(found.scores.shape) == (n,), f"{name}: scores must be one number a candidate"
    assert found.reason.strip() and "\n" not in found.reason, f"{name} must say its reason in one line"


def check_labeller(labeller: Labeller, systems: Systems) -> None:
    """Check that labels are in order, that each is whole or NaN, and that a batch gives the labels of its structures.

    The stream must give the same labels, each once, and must take no structure before it has use for it.

    Raises:
        AssertionError: names the labeller and the property.
    """
    name, before = type(labeller).__name__, systems.pos.clone()
    labeller.check()
    found = labeller.label(systems)
    assert torch.equal(systems.pos, before), f"{name} changes the structures"
    assert len(found) == len(systems), f"{name} returns {len(found)} structures for {len(systems)}"
    assert torch.equal(found.systems.pos, systems.pos.to(found.systems.pos)), (
        f"{name} changes positions or their order"
    )
    for index in range(len(systems)):
        alone = labeller.label(systems[index])
        part = found.select([index])
        for label in ("energy", "force", "stress"):
            one, other = getattr(alone, label), getattr(part, label)
            assert torch.allclose(one, other, rtol=1e-10, atol=1e-10, equal_nan=True), (
                f"{name}: the {label} of structure {index} depends on the others of its batch"
            )
        known = [bool(part.with_energy[0]), bool(part.with_force[0])]
        assert any(known) or part.source[0], (
            f"{name} does not say in `source` why structure {index} has no label"
        )
    assert len(labeller.label(systems.select([]))) == 0, f"{name} cannot label nothing"
    _check_stream(labeller, found, name)


def _check_stream(labeller: Labeller, expected: Dataset, name: str) -> None:
    systems, taken, seen = expected.systems, 0, set()

    def given() -> Iterator[Systems]:
        nonlocal taken
        for index in range(len(systems)):
            taken += 1
            yield systems[index]

    for done in labeller.stream(given()):
        if done is None:
            continue
        assert len(done.indices) == len(done.data), (
            f"{name}: a part of the stream has as many labels as indices"
        )
        assert done.seconds >= 0.0, f"{name}: the stream tells a negative time"
        for place, index in enumerate(done.indices):
            assert index not in seen, f"{name}: the stream gives structure {index} twice"
            assert index < taken, f"{name}: the stream gives structure {index}, which it has not taken"
            seen.add(index)
            one, other = done.data.select([place]), expected.select([index])
            assert torch.equal(one.systems.pos, other.systems.pos), f"{name}: the stream mixes up structures"
            for label in ("energy", "force", "stress"):
                assert torch.allclose(
                    getattr(one, label), getattr(other, label), rtol=1e-10, atol=1e-10, equal_nan=True
                ), f"{name}: the {label} of structure {index} is another in the stream"
    assert len(seen) == len(systems), f"{name}: the stream gives {len(seen)} labels of {len(systems)}"
