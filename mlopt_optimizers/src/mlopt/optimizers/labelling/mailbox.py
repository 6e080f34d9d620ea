"""Labels from elsewhere: structures go out as one file, and come back labelled as another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.elements import SYMBOLS
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.files import atomic
from mlopt.core.lazy import torch
from mlopt.core.plugins.input_file import AbsolutePath
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.labeller import Finished, Labeller
from mlopt.core.quoting import cause, one_line, quoted
from mlopt.core.runs.experiment import Preempted
from mlopt.core.structures.labels import labelled
from mlopt.core.structures.read import read_atoms
from mlopt.core.structures.write import write_extxyz
from mlopt.optimizers.labelling.identity import structure_keys
from mlopt.optimizers.labelling.units import unlike_units

if TYPE_CHECKING:
    from ase import Atoms

#: files of the folder, and the entry of `info` by which structures are told apart
OUT, BACK, ID = "to-label.extxyz", "labelled.extxyz", "label_id"
#: angstrom by which positions may come back changed: programs round them
_ROUNDED = 1e-4
#: faults of a file that a message lists
_LISTED = 10


class Mailbox(Labeller):
    """Labels that somebody computes elsewhere, with any program.

    Structures are written to ``to-label.extxyz``, each with a ``label_id``, and the run ends with exit code 75. Put
    energies, forces and, where known, stresses into ``labelled.extxyz`` in the same folder, keep each ``label_id``, and
    resume the run. Structures that do not come back are asked for again.
    """

    running = Labeller.running | {"folder"}

    folder: AbsolutePath = setting(..., "folder of the two files; made if absent")

    def label(self, systems: Systems) -> Dataset:
        """See `Labeller.label`; the labels have to be there.

        Raises:
            Preempted: there are structures without a label; they have been written out.
            InputError: what came back has faults.
        """
        systems = systems.to(dtype=torch.float64)
        parts = {index: done.data for done in self.stream(systems) if done for index in done.indices}
        return (
            Dataset.concatenate([parts[index] for index in range(len(systems))])
            if parts
            else Dataset(systems)
        )

    def stream(self, systems: Iterable[Systems]) -> Iterator[Finished | None]:
        """See `Labeller.stream`; what came back is yielded first.

        Raises:
            Preempted: as `label`.
            InputError: as `label`; sound labels of the same file have been yielded.
        """
        asked = [one.to("cpu", torch.float64) for one in systems]
        if not asked:
            return
        keys = {structure_keys(one, self.reads)[0][:16]: index for index, one in enumerate(asked)}
        found, faults = self._returned(asked, keys)
        if found and (said := unlike_units(Dataset.concatenate(list(found.values())))):
            raise InputError(f"{self._path(BACK)}: {said}")
        for index, data in found.items():
            yield Finished((index,), data, 0.0)
        if faults:
            more = [f"and {len(faults) - _LISTED} more"] if len(faults) > _LISTED else []
            raise InputError("\n".join([*faults[:_LISTED], *more]))
        missing = {key: asked[index] for key, index in keys.items() if index not in found}
        if missing:
            self._send(missing)
            raise Preempted(
                f"{len(missing)} structures to label are in {self._path(OUT)}; put their labels into {BACK} beside it, "
                f"keep each {ID}, and go on"
            )

    def _path(self, name: str) -> Path:
        return Path(self.folder, name)

    def _send(self, systems: dict[str, Systems]) -> None:
        images = []
        for key, one in systems.items():
            atoms = one.to_atoms()[0]
            atoms.info[ID] = key
            images.append(atoms)
        try:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be made a folder: {error.strerror}") from error
        write_extxyz(self._path(OUT), images)

    def _returned(self, asked: list[Systems], keys: dict[str, int]) -> tuple[dict[int, Dataset], list[str]]:
        """Return the sound labels of what was asked for, and one line about each that is not."""
        path = self._path(BACK)
        if not Path(self.folder).is_dir():
            return {}, []
        found: dict[int, Dataset] = {}
        faults: list[str] = []
        try:
            if not atomic.read_bytes(path).strip():
                return found, faults
        except FileNotFoundError:
            return found, faults
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {cause(error)}") from error
        for number, atoms in enumerate(read_atoms(path)):
            where = f"{path}: frame {number} (counted from 0)"
            key = atoms.info.get(ID)
            if key is None:
                faults.append(f"{where} has no `{ID}`: copy that of {OUT}")
            elif str(key) in keys:  # others were asked for earlier, and are recorded
                index = keys[str(key)]
                trouble = _other_atoms(atoms, asked[index])
                if trouble is None and index in found:
                    trouble = f"a second structure with the {ID} {quoted(str(key))}"
                if trouble is None:
                    try:
                        data = labelled([atoms], name=where)
                    except InputError as error:
                        faults.append(one_line(error))
                        continue
                    if bool(data.with_energy[0]) and bool(data.with_force[0]):
                        found[index] = Dataset(
                            asked[index], data.energy, data.force, data.stress, source=(f"{BACK}: {key}",)
                        )
                        continue
                    trouble = "an energy and forces are needed"
                faults.append(f"{where}: {trouble}")
        return found, faults


def _other_atoms(atoms: Atoms, own: Systems) -> str | None:
    """Say how a structure that came back differs from the one that was sent, or return None."""
    from ase.geometry import find_mic

    z, pbc = own.z.tolist(), own.pbc[0].numpy()
    cell, pos = own.cell[0].numpy(), own.pos.numpy()
    if atoms.numbers.tolist() != z:
        if sorted(atoms.numbers.tolist()) == sorted(z):
            return f"its atoms are in another order than in {OUT}"
        return f"its atoms are {atoms.get_chemical_formula()}, those of {OUT} {_formula(z)}"
    if (atoms.pbc != pbc).any():
        return f"its periodic directions are {atoms.pbc.tolist()}, those of {OUT} {pbc.tolist()}"
    if pbc.any() and (off := float(np.abs(atoms.cell.array - cell)[pbc].max())) > _ROUNDED:
        return f"its cell differs from that of {OUT} by {off:.3g} angstrom"
    way = atoms.positions - pos
    if pbc.any():
        way, _ = find_mic(way, cell, pbc)
    off = np.linalg.norm(way, axis=1)
    if not float(off.max(initial=0.0)) <= _ROUNDED:
        atom = int(off.argmax())
        return (
            f"atom {atom} ({SYMBOLS[z[atom]]}) is {off[atom]:.3g} angstrom from where it was in {OUT}: a label belongs "
            f"to unchanged positions, so relax nothing"
        )
    return None


def _formula(z: list[int]) -> str:
    from ase.formula import Formula

    return str(Formula.from_list([SYMBOLS[one] for one in z]).format("hill"))
