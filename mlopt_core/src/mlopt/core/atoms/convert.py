"""Conversion of a batch of atoms from and to ASE, PyG and mlopt's own file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopt.core.atoms.batch import AtomBatch
from mlopt.core.atoms.template import Template, make_atoms
from mlopt.core.errors import InputError
from mlopt.core.files import atomic
from mlopt.core.files.reading import existing_file
from mlopt.core.lazy import torch
from mlopt.core.quoting import cause

if TYPE_CHECKING:
    from ase import Atoms

_FORMAT, _VERSIONS = "mlopt-systems", ("1", "2")
_FIELDS = ("pos", "z", "ptr", "cell", "pbc", "fixed")
#: since version 2, where there are any
_OPTIONAL = ("given_masses", "template")


def from_atoms(
    atoms: Atoms | Sequence[Atoms], dtype: torch.dtype | None = None, device: str | None = None
) -> dict[str, Any]:
    """Return the fields of a batch; see `Systems.from_atoms`."""
    import numpy as np
    from ase import Atoms as AseAtoms

    images = [atoms] if isinstance(atoms, AseAtoms) else list(atoms)
    if not images:
        raise InputError("Systems.from_atoms needs at least one Atoms object")
    counts = torch.tensor([0, *(len(one) for one in images)])
    kind = dtype or torch.float64

    def joined(arrays: list[Any]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(arrays)).to(device)

    carried = [Template.of(one) for one in images]
    templates = tuple(one for one in carried if one is not None)
    numbers = iter(range(len(templates)))
    template = [-1 if one is None else next(numbers) for one in carried]
    masses = [_masses(one, index) for index, one in enumerate(images)]
    return {
        "pos": joined([one.positions for one in images]).to(kind),
        "z": joined([one.numbers.astype(np.int64) for one in images]),
        "ptr": counts.cumsum(0).to(device),
        "cell": torch.from_numpy(np.stack([one.cell.array for one in images])).to(device, kind),
        "pbc": torch.from_numpy(np.stack([one.pbc for one in images])).to(device),
        "fixed": joined([_fixed(one, index) for index, one in enumerate(images)]),
        "given_masses": joined(masses) if any(one.has("masses") for one in images) else None,
        "template": torch.tensor(template, device=device) if templates else None,
        "templates": templates,
    }


def _masses(atoms: Atoms, index: int) -> Any:
    """Return the masses (n_atoms,) float64 that the atoms were given, NaN where they were given none."""
    import numpy as np

    if not atoms.has("masses"):
        return np.full(len(atoms), np.nan)
    masses = atoms.get_array("masses").astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(masses) & (masses > 0)))
    if len(wrong):
        raise InputError(
            f"structure {index}: atom {wrong[0]} has the mass {masses[wrong[0]]}; give positive masses in atomic mass "
            f"units, or none for the standard ones"
        )
    return masses


def _fixed(atoms: Atoms, index: int) -> Any:
    """Return a bool array (n_atoms,) of the atoms that must not move."""
    import numpy as np
    from ase.constraints import FixAtoms, FixCartesian, FixScaled

    mask = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        whole = isinstance(constraint, FixCartesian | FixScaled) and np.all(constraint.mask)
        if not (whole or isinstance(constraint, FixAtoms)):
            raise InputError(
                f"structure {index} has the constraint {type(constraint).__name__}, but mlopt can only fix whole atoms "
                f"(FixAtoms). Remove it, for example with `atoms.set_constraint()`."
            )
        mask[constraint.index] = True
    return mask


def to_atoms(systems: AtomBatch) -> list[Atoms]:
    """Return a list of ASE ``Atoms``; see `Systems.to_atoms`."""
    pos = systems.pos.detach().to("cpu", torch.float64).numpy()
    z, fixed = systems.z.cpu().numpy(), systems.fixed.cpu().numpy()
    cells = systems.cell.detach().to("cpu", torch.float64).numpy()
    pbc = systems.pbc.cpu().numpy()
    masses = None if systems.given_masses is None else systems.given_masses.cpu().numpy()
    template = [-1] * len(systems) if systems.template is None else systems.template.tolist()
    images = []
    for index, (start, stop) in enumerate(pairwise(systems.ptr.tolist())):
        own = slice(start, stop)
        worn = None if template[index] < 0 else systems.templates[template[index]]
        mass = None if masses is None else masses[own]
        images.append(make_atoms(z[own], pos[own], cells[index], pbc[index], fixed[own], mass, worn))
    return images


def from_pyg(data: Any) -> dict[str, Any]:
    """Return the fields of a batch; see `Systems.from_pyg`."""
    missing = [name for name in ("pos", "z") if getattr(data, name, None) is None]
    if missing:
        raise InputError(f"from_pyg: the data has no {' and no '.join(f'`{name}`' for name in missing)}")
    ptr, batch = getattr(data, "ptr", None), getattr(data, "batch", None)
    if ptr is None:
        if batch is None:
            batch = torch.zeros_like(data.z, dtype=torch.int64)
        if bool((batch.diff() < 0).any()):
            raise InputError("from_pyg: `batch` is not sorted; sort the atoms by system")
        counts = torch.bincount(batch)
        ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    extra = {
        name: getattr(data, name)
        for name in ("cell", "pbc", "fixed")
        if getattr(data, name, None) is not None
    }
    if "cell" in extra:
        extra["cell"] = extra["cell"].reshape(-1, 3, 3).to(data.pos)
    if "pbc" in extra:
        extra["pbc"] = extra["pbc"].reshape(-1, 3).to(torch.bool)
    masses = getattr(data, "masses", None)
    if masses is not None:
        extra["given_masses"] = masses.to(torch.float64)
    return {"pos": data.pos, "z": data.z.to(torch.int64), "ptr": ptr, **extra}


def to_pyg(systems: AtomBatch) -> Any:
    """Return a PyG ``Batch``; see `Systems.to_pyg`."""
    try:
        from torch_geometric.data import Batch, Data
    except ImportError as error:
        raise InputError(
            f"to_pyg needs torch-geometric ({error}). Install it: pip install torch-geometric"
        ) from error
    ptr = systems.ptr.tolist()
    return Batch.from_data_list(
        [
            Data(
                pos=systems.pos[start:stop],
                z=systems.z[start:stop],
                cell=systems.cell[index : index + 1],
                pbc=systems.pbc[index : index + 1],
                fixed=systems.fixed[start:stop],
                masses=systems.masses[start:stop],
                num_nodes=stop - start,
            )
            for index, (start, stop) in enumerate(pairwise(ptr))
        ]
    )


def save(systems: AtomBatch, path: str | Path) -> None:
    """Write every field; see `Systems.save`."""
    from safetensors.torch import save as serialize

    names = [*_FIELDS, *(name for name in _OPTIONAL if getattr(systems, name) is not None)]
    tensors = {name: getattr(systems, name).detach().cpu().contiguous() for name in names}
    templates = json.dumps([one.to_json() for one in systems.templates])
    about = {"format": _FORMAT, "version": _VERSIONS[-1], "templates": templates}
    atomic.write_bytes(path, serialize(tensors, metadata=about))


def load(path: str | Path) -> dict[str, Any]:
    """Return the fields that `save` wrote; see `Systems.load`."""
    from safetensors import SafetensorError, safe_open

    file = existing_file(path)
    try:
        with safe_open(str(file), framework="pt") as opened:
            about = opened.metadata() or {}
            names = set(opened.keys())
            known = about.get("format") == _FORMAT and about.get("version") in _VERSIONS
            known &= set(_FIELDS) <= names <= {*_FIELDS, *_OPTIONAL}
            tensors = {name: opened.get_tensor(name) for name in names} if known else {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: not a safetensors file, or damaged: {cause(error)}") from error
    if about.get("format") != _FORMAT:
        raise InputError(f"{file}: a safetensors file, but not one that Systems.save wrote")
    if about.get("version") not in _VERSIONS:
        raise InputError(
            f"{file}: version {about.get('version')} of the format; this mlopt reads up to {_VERSIONS[-1]}. "
            f"Update mlopt."
        )
    if not tensors:
        raise InputError(f"{file}: has the fields {sorted(names)} instead of {sorted(_FIELDS)}")
    try:
        templates = tuple(Template.from_json(one) for one in json.loads(about.get("templates", "[]")))
    except (InputError, ValueError, TypeError) as error:
        raise InputError(f"{file}: damaged: {cause(error)}") from error
    return {**tensors, "templates": templates}
