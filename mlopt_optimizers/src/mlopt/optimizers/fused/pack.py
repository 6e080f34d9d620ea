"""Packing of a batch's tensors into blocks of contiguous numbers, one for each system, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from mlopt.core.batch.segments import Segments
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.core.lazy import torch
from mlopt.core.protocols.optimizer import State


@dataclass(frozen=True)
class Bucket:
    """Systems of one size. problems (b,), rows (b * n,) int64: their indices."""

    n: int
    problems: torch.Tensor
    rows: torch.Tensor

    def rows_in(self, value: torch.Tensor, axis: int = 0) -> torch.Tensor:
        """Return a field over rows as (b, w, n), component after component."""
        part = value.index_select(axis, self.rows).movedim(axis, 0)
        return part.reshape(len(self.problems), self.n, -1).transpose(1, 2)

    def rows_out(self, target: torch.Tensor, block: torch.Tensor, axis: int = 0) -> None:
        """Write a block (b, w, n) of `rows_in` back into ``target``."""
        shape = target.movedim(axis, 0).shape[1:]
        part = block.transpose(1, 2).reshape(len(self.rows), *shape).movedim(0, axis)
        target.index_copy_(axis, self.rows, part.to(target.dtype))


def buckets_of(segments: Segments) -> list[Bucket]:
    """Return all problems, by size."""
    if segments.size is not None:
        counts, device = (segments.n_problems, segments.n_rows), segments.ptr.device
        return [Bucket(segments.size, *(torch.arange(count, device=device) for count in counts))]
    return [Bucket(size, problems, rows) for size, problems, rows in segments.buckets]


@dataclass(frozen=True)
class Packed:
    """A packed state: rows (b, w * n), numbers (b, f), counts (b, i) int64."""

    rows: torch.Tensor
    numbers: torch.Tensor
    counts: torch.Tensor


def pack(state: State, bucket: Bucket, like: torch.Tensor, spare: tuple[int, int] = (0, 0)) -> Packed:
    """Return the part of a state that belongs to ``bucket``, with numbers in the dtype of ``like``.

    spare: how many zeros come behind numbers and behind counts.
    """
    b = len(bucket.problems)
    rows, numbers, counts = [like.new_zeros(b, 0)], list[torch.Tensor](), list[torch.Tensor]()
    for value, kind, axis in _leaves(state):
        if kind == "row":
            rows.append(bucket.rows_in(value, axis).reshape(b, -1).to(like.dtype))
        else:
            part = value.index_select(0, bucket.problems).reshape(b, -1)
            (numbers if value.is_floating_point() else counts).append(part)
    numbers.append(like.new_zeros(b, spare[0]))
    counts.append(torch.zeros(b, spare[1], dtype=torch.int64, device=like.device))
    return Packed(
        torch.cat(rows, 1).contiguous(),
        torch.cat([part.to(like.dtype) for part in numbers], 1).contiguous(),
        torch.cat([part.to(torch.int64) for part in counts], 1).contiguous(),
    )


def unpack(state: State, parts: list[tuple[Bucket, Packed]]) -> Any:
    """Return the state that the packed parts describe. state: one with the same fields."""
    made = [value.clone() for value, _, _ in _leaves(state)]
    for bucket, packed in parts:
        row = number = count = 0
        b, n = len(bucket.problems), bucket.n
        for value, (_, kind, axis) in zip(made, _leaves(state), strict=True):
            if kind == "row":
                width = value.numel() // value.shape[axis] if value.shape[axis] else 0
                block = packed.rows[:, row * n : (row + width) * n].reshape(b, width, n)
                bucket.rows_out(value, block, axis)
                row += width
                continue
            width = value[0].numel() if len(value) else 0
            if value.is_floating_point():
                part = packed.numbers[:, number : number + width]
                number += width
            else:
                part = packed.counts[:, count : count + width]
                count += width
            value.index_copy_(0, bucket.problems, part.reshape(b, *value.shape[1:]).to(value.dtype))
    return _rebuilt(state, iter(made))


def _leaves(state: State) -> Iterator[tuple[torch.Tensor, str, int]]:
    """Give the tensors of a state by its fields, nested states last, each with its kind and the axis of rows."""
    for one in fields(state):
        if one.metadata["kind"] != "state":
            yield getattr(state, one.name), one.metadata["kind"], one.metadata["axis"]
    for one in fields(state):
        if one.metadata["kind"] == "state":
            yield from _leaves(getattr(state, one.name))


def _rebuilt(state: State, values: Iterator[torch.Tensor]) -> Any:
    own = {one.name: next(values) for one in fields(state) if one.metadata["kind"] != "state"}
    inner = {
        one.name: _rebuilt(getattr(state, one.name), values)
        for one in fields(state)
        if one.metadata["kind"] == "state"
    }
    return replace(state, **own, **inner)


def offsets(state: State, name: str) -> int:
    """Return the place of field ``name`` of a state among the packed rows, numbers or counts."""
    places = {"row": 0, "number": 0, "count": 0}
    for one in fields(state):
        if one.metadata["kind"] == "state":
            continue
        value = getattr(state, one.name)
        row = one.metadata["kind"] == "row"
        kind = "row" if row else "number" if value.is_floating_point() else "count"
        if one.name == name:
            return places[kind]
        places[kind] += value.numel() // max(1, value.shape[one.metadata["axis"]])
    raise KeyError(name)


@dataclass(frozen=True)
class PackedAtoms:
    """The constant properties of systems: atoms (b, 5 n + 13), kinds (b, n), runs (b, r), cell (b, 12)."""

    atoms: torch.Tensor
    kinds: torch.Tensor
    runs: torch.Tensor
    cell: torch.Tensor


def atoms_of(
    landscape: AtomsLandscape, bucket: Bucket, species: tuple[int, ...], like: torch.Tensor
) -> PackedAtoms:
    """Return the properties of a bucket's atoms, with kinds as positions in ``species``."""
    systems, b, n = landscape.systems, len(bucket.problems), bucket.n
    pbc = systems.pbc[bucket.problems]
    periodic = pbc.any(-1)[:, None]
    free = ~systems.fixed[bucket.rows].reshape(b, n)
    z = systems.z[bucket.rows].reshape(b, n)
    traits = [
        landscape.potential.diameter(systems.z)[bucket.rows].reshape(b, n).to(like),
        (free & ~periodic).to(like),
        free.to(like),
        z.to(like),
        landscape.inertia[bucket.rows].reshape(b, n).to(like),
    ]
    kinds = torch.zeros_like(z)
    for place, number in enumerate(species):
        kinds = torch.where(z == number, place, kinds)
    cell = torch.cat([systems.cell[bucket.problems].reshape(b, 9).to(like), pbc.to(like)], 1)
    thermal = like.new_full((b, 1), landscape.boltzmann)
    return PackedAtoms(
        torch.cat([*traits, cell, thermal], 1).contiguous(),
        kinds.contiguous(),
        _runs(kinds),
        cell.contiguous(),
    )


def _runs(kinds: torch.Tensor) -> torch.Tensor:
    """Return the places (b, r + 1) where atoms of another kind begin, and n, from ``kinds (b, n)``.

    Systems with fewer runs begin with empty ones.
    """
    b, n = kinds.shape
    change = torch.ones(b, n, dtype=torch.bool, device=kinds.device)
    change[:, 1:] = kinds[:, 1:] != kinds[:, :-1]
    most = int(change.sum(1).max()) if b and n else 0
    places = torch.where(change, torch.arange(n, device=kinds.device), -1)
    starts = places.sort(1).values[:, n - most :].clamp(min=0)
    return torch.cat([starts, starts.new_full((b, 1), n)], 1).contiguous()
