"""The record of an active run: every label with what triggered it, and every fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.lazy import torch
from mlopt.optimizers.experiments.active.learned import Learned
from mlopt.optimizers.experiments.active.wishes import Wish, cores
from mlopt.optimizers.fitting.metrics import Errors


@dataclass
class Record:
    """The history of an active run, in plain data that a checkpoint keeps.

    labels: one mapping for each label, with ``round``, ``trigger``, ``walker``, the walker's force ``calls`` until
        then, ``grade``, and the labelled ``energy`` per atom. ``energy_error`` per atom and ``force_error``, the
        largest of a force, are errors of the potential before the label. ``atoms`` is the number of atoms labelled. For
        a cut-out, ``atom`` is the walker's atom in its middle. Its forces are those of its core, and it has no error of
        the energy.
    rounds: one mapping for each fit, with the number of ``labels`` so far and of structures ``asked`` for. ``before``
        and ``after`` are errors on the new labels before and after the fit. They are root mean squares of energies per
        atom and of components of forces. The numbers of the fit follow, see `Learned.told`.
    failed: number of labels that could not be computed.
    """

    labels: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    failed: int = 0

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Self:
        """Return the record that `plain` was called on."""
        return cls(**plain)

    def plain(self) -> dict[str, Any]:
        """Return all as plain data."""
        return asdict(self)

    @property
    def tested(self) -> bool:
        """Whether any fit was compared with labels that it did not know."""
        return any("force_before" in one for one in self.rounds)

    @property
    def graded(self) -> bool:
        """Whether any label has a finite grade."""
        return any(one.get("grade") is not None for one in self.labels)

    def begun(self, learned: Learned, paid: bool) -> None:
        """Enter the first fit; paid: whether its labels were computed by this run."""
        if paid:
            per_atom = (learned.data.energy / learned.data.systems.segments.counts).tolist()
            self.labels += [
                {"round": 0, "trigger": "beginning", "energy": energy, "grade": None} for energy in per_atom
            ]
        self._fitted(learned, len(learned.data), {})

    def round(
        self, before: Learned, after: Learned, new: Dataset, wishes: Sequence[Wish], asked: int
    ) -> None:
        """Enter new labels, the wishes that they fulfil, and the fits before and after them."""
        old, then = Errors.of(before.potential, new), Errors.of(after.potential, new)
        known = cores(wishes)[:, None]
        largest = new.systems.segments.max(torch.where(known, old.force.abs(), 0.0).amax(-1))
        energy = new.energy / new.systems.segments.counts
        whole = torch.tensor([one.core is None for one in wishes])
        for place, wish in enumerate(wishes):
            self.labels.append(
                wish.told()
                | {
                    "round": len(self.rounds),
                    "atoms": len(wish.structure.pos),
                    "energy": float(energy[place]),
                    "force_error": float(largest[place]),
                }
                | ({"energy_error": float(old.energy[place])} if whole[place] else {})
            )
        errors = {}
        for name, one in (("before", old), ("after", then)):
            if bool(whole.any()):
                errors[f"energy_{name}"] = float((one.energy[whole] ** 2).mean().sqrt())
            errors[f"force_{name}"] = float((one.force[known[:, 0]] ** 2).mean().sqrt())
        self._fitted(after, asked, errors)

    def polished(self, after: Learned, new: Dataset) -> None:
        """Enter the labels of a relaxation by labels alone, and the fit after them."""
        per_atom = (new.energy / new.systems.segments.counts).tolist()
        self.labels += [
            {"round": len(self.rounds), "trigger": "polish", "energy": energy, "grade": None}
            for energy in per_atom
        ]
        self._fitted(after, len(new), {})

    def has_cut(self, wish: Wish, atom: int) -> bool:
        """Return whether the surroundings of this atom were labelled at this point of the walker."""
        return any(
            (one.get("walker"), one.get("calls"), one.get("atom")) == (wish.walker, wish.calls, atom)
            for one in self.labels
        )

    def _fitted(self, learned: Learned, asked: int, errors: dict[str, float]) -> None:
        self.rounds.append(
            {
                "labels": len(self.labels),
                "asked": asked,
                **errors,
                **learned.told(),
                "lowest": learned.lowest,
            }
        )

    def numbers(self) -> dict[str, Any]:
        """Return the row of metrics of the last fit."""
        return dict(self.rounds[-1])

    def line(self) -> str:
        """Return the state of the run in one line."""
        last = self.rounds[-1]
        told = f"{len(self.labels)} labels, {len(self.rounds) - 1} rounds"
        if last["lowest"] is not None:
            told += f", lowest energy {last['lowest']:.6g}"
        if "force_before" in last:
            told += f", error of the last forces {last['force_before']:.3g} before and {last['force_after']:.3g} after"
        return told
