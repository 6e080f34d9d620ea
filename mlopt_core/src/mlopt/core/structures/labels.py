"""Labelled structures from files, and the keys under which a file holds energies, forces and stresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.lazy import torch
from mlopt.core.plugins.input_file import InputFile
from mlopt.core.plugins.plugin import Plugin, setting
from mlopt.core.quoting import one_line, quoted
from mlopt.core.structures.cfg import read_cfg
from mlopt.core.structures.checks import COINCIDENT, check_structures
from mlopt.core.structures.read import read_atoms

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from numpy.typing import NDArray

#: names that ASE and programs around it give to labels, in the order in which they are looked for
_USUAL = {
    "energy": ("energy", "free_energy"),
    "forces": ("forces",),
    "stress": ("stress",),
    "virial": ("virial", "virials"),
}
#: other keys that are probably labels, for messages
_PROBABLE = {"energy": "energy", "forces": "force", "stress": "stress", "virial": "virial"}
#: info that names the kind of a structure
_GROUPS = ("config_type", "group", "tag")


class LabelledFile(Plugin):
    """A file of labelled structures, with the keys of its labels.

    A bare name is read as the file. Keys that are not given are found by their usual names.
    """

    file: InputFile = setting(
        ..., "structures with labels: extxyz, traj, ASE json, MLIP cfg, and other formats"
    )
    energy: str | None = setting(None, "key of the total energy, such as dft_energy; none: energy", unit="eV")
    forces: str | None = setting(
        None, "column of the forces, such as force; none: forces", unit="eV/angstrom"
    )
    stress: str | None = setting(
        None, "key of the stress, positive under tension as in ASE; none: stress", unit="eV/angstrom^3"
    )
    virial: str | None = setting(None, "key of the virial, minus the stress times the volume", unit="eV")
    group: str | None = setting(None, "key of the kind of structure; none: config_type, group or tag")
    weight: str | None = setting(None, "key of the weight in a fit; none: all are equal")
    elements: list[str] | None = setting(
        None, "symbols of the species of a cfg file, in the order of their numbers from 0"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        """Read a bare name as the file."""
        if isinstance(value, str):
            return {"file": value}
        if isinstance(value, Mapping) and isinstance(value.get("name"), str):
            rest = {key: one for key, one in value.items() if key != "name"}
            return {"file": value["name"]} | rest
        return value

    def read(self) -> Dataset:
        """Read and check the file.

        Raises:
            InputError: the file cannot be read, a structure is unsound, or there is no label at all. A given key occurs
                nowhere, or forces stand under an unusual name. A label is not finite or has the wrong shape.
        """
        return read_dataset(
            self.file,
            energy=self.energy,
            forces=self.forces,
            stress=self.stress,
            virial=self.virial,
            group=self.group,
            weight=self.weight,
            elements=self.elements,
        )


def read_dataset(
    path: str | Path,
    *,
    energy: str | None = None,
    forces: str | None = None,
    stress: str | None = None,
    virial: str | None = None,
    group: str | None = None,
    weight: str | None = None,
    elements: Sequence[str] | None = None,
    least_distance: float = COINCIDENT,
) -> Dataset:
    """Read a file of labelled structures; see `LabelledFile` for the keys.

    Raises:
        InputError: as in `LabelledFile.read`.
    """
    name = Path(path).name
    images = read_cfg(path, elements or ()) if name.lower().endswith(".cfg") else read_atoms(path)
    return labelled(
        images,
        energy=energy,
        forces=forces,
        stress=stress,
        virial=virial,
        group=group,
        weight=weight,
        least_distance=least_distance,
        name=name,
    )


def labelled(
    images: Sequence[Atoms],
    *,
    energy: str | None = None,
    forces: str | None = None,
    stress: str | None = None,
    virial: str | None = None,
    group: str | None = None,
    weight: str | None = None,
    least_distance: float = COINCIDENT,
    name: str = "atoms",
) -> Dataset:
    """Return the labels that ASE ``Atoms`` carry, in results, ``info`` or arrays; see `LabelledFile` for the keys.

    name: the name of the data in messages.

    Raises:
        InputError: as `LabelledFile.read`, but for files.
    """
    images = list(images)
    given = {"energy": energy, "forces": forces, "stress": stress, "virial": virial}
    keys = {kind: _key(images, kind, key, name) for kind, key in given.items()}
    if all(key is None for key in keys.values()):
        raise InputError(f"{name}: has no energy, no forces and no stress. {_offered(images, 'energy')}")
    try:
        systems = Systems.from_atoms(images)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    systems = check_structures(systems, source=name, least_distance=least_distance)
    where = [f"{name}: frame {index} (counted from 0)" for index in range(len(images))]
    shapes: dict[str, list[tuple[int, ...]]] = {
        "energy": [()] * len(images),
        "forces": [(len(one), 3) for one in images],
    }
    labels = {
        kind: [
            _number(_value(one, keys[kind]), shapes[kind][i], f"{where[i]}: `{keys[kind]}`")
            for i, one in enumerate(images)
        ]
        for kind in ("energy", "forces")
    }
    import numpy as np

    return Dataset(
        systems,
        torch.from_numpy(np.array(labels["energy"], dtype=np.float64)),
        torch.from_numpy(np.concatenate(labels["forces"])),
        torch.from_numpy(np.stack([_stress(one, keys, where[i]) for i, one in enumerate(images)])),
        torch.tensor([_weight(one, weight, where[i]) for i, one in enumerate(images)], dtype=torch.float64),
        tuple(_group(one, group) for one in images),
        tuple(where),
    )


def _results(atoms: Atoms) -> Mapping[str, Any]:
    return getattr(atoms.calc, "results", {}) if atoms.calc is not None else {}


def _value(atoms: Atoms, key: str | None) -> Any:
    """Return the entry ``key`` of results, columns or info, or None."""
    if key is None:
        return None
    for place in (_results(atoms), atoms.arrays, atoms.info):
        if key in place:
            return place[key]
    return None


def _key(images: list[Atoms], kind: str, given: str | None, name: str) -> str | None:
    """Return the key of the labels of a kind, or None if the file has none of that kind."""
    for key in (given,) if given is not None else _USUAL[kind]:
        if any(_value(one, key) is not None for one in images):
            return key
    if given is not None:
        raise InputError(
            f"{name}: no structure has {quoted(given)}, which `{kind}` names. {_offered(images, kind)}"
        )
    hidden = [key for key in _keys(images) if _PROBABLE[kind] in key.lower()]
    if kind == "forces" and hidden:
        raise InputError(
            f"{name}: has no column `forces`, but {', '.join(one_line(key, 40) for key in hidden[:5])}. Say "
            f"`forces: {one_line(hidden[0], 40)}` if that is meant"
        )
    if kind == "energy" and hidden:
        raise InputError(
            f"{name}: has no `energy`, but {', '.join(one_line(key, 40) for key in hidden[:5])}. Say `energy: "
            f"{one_line(hidden[0], 40)}` if that is the total energy that belongs to the forces"
        )
    return None


def _keys(images: list[Atoms]) -> list[str]:
    """Return all keys of results, columns and info without repeats, in the order of their appearance."""
    found = dict.fromkeys(
        str(key) for one in images for place in (_results(one), one.arrays, one.info) for key in place
    )
    return [key for key in found if key not in ("numbers", "positions")]


def _offered(images: list[Atoms], kind: str) -> str:
    keys = _keys(images)
    listed = ", ".join(one_line(key, 40) for key in keys[:12]) or "nothing"
    example = one_line(next((key for key in keys if _PROBABLE[kind] in key.lower()), "KEY"), 40)
    return f"Besides the positions the file has: {listed}. Name the key, such as `{kind}: {example}`"


def _number(value: Any, shape: tuple[int, ...], where: str) -> NDArray[np.float64]:
    """Return a label as an array of the given shape, NaN where it is missing."""
    import numpy as np

    if value is None:
        return np.full(shape, np.nan)
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{where} is no number: {quoted(value)}") from None
    if array.shape != shape:
        raise InputError(f"{where} has the shape {array.shape} instead of {shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{where} is not finite; leave the label out, or remove the structure")
    return array


def _stress(atoms: Atoms, keys: Mapping[str, str | None], where: str) -> NDArray[np.float64]:
    """Return the stress (3, 3) from a stress or a virial, of nine numbers or of Voigt's xx, yy, zz, yz, xz, xy."""
    import numpy as np

    for kind in ("stress", "virial"):
        value = _value(atoms, keys[kind])
        if value is None:
            continue
        told = f"{where}: `{keys[kind]}`"
        array = np.asarray(value, dtype=object)
        if array.size == 6:
            xx, yy, zz, yz, xz, xy = _number(array.ravel().tolist(), (6,), told)
            tensor = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        elif array.size == 9:
            tensor = _number(array.ravel().tolist(), (9,), told).reshape(3, 3)
            tensor = 0.5 * (tensor + tensor.T)
        else:
            raise InputError(f"{told} has {array.size} numbers; a stress has 6 (xx, yy, zz, yz, xz, xy) or 9")
        if kind == "stress":
            return tensor
        volume = float(atoms.cell.volume)
        if atoms.cell.rank < 3 or volume <= 0.0:
            raise InputError(f"{told}: a structure without a cell has no stress; leave the virial out")
        return -tensor / volume
    return np.full((3, 3), np.nan)


def _weight(atoms: Atoms, key: str | None, where: str) -> float:
    if key is None:
        return 1.0
    value = _value(atoms, key)
    weight = 1.0 if value is None else float(_number(value, (), f"{where}: `{key}`"))
    if weight < 0.0:
        raise InputError(f"{where}: the weight {weight:g} is negative")
    return weight


def _group(atoms: Atoms, key: str | None) -> str:
    for name in (key,) if key is not None else _GROUPS:
        if name in atoms.info:
            return one_line(str(atoms.info[name]), 80)
    return ""
