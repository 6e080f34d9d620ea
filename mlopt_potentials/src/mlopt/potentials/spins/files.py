"""Files of spin configurations, read and written: OVF 2.0 and npy, one image or a chain of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlopt.core.errors import InputError
from mlopt.core.files import atomic
from mlopt.core.files.reading import existing_file
from mlopt.core.lazy import torch
from mlopt.core.quoting import cause
from mlopt.potentials.spins.lattice import SpinLattice
from mlopt.potentials.spins.ovf import Kind, read_ovf, write_ovf
from mlopt.potentials.spins.unit import unit_spins

#: ends of names of OVF files; OOMMF tells magnetisation, fields and others apart by them
OVF_SUFFIXES = (".ovf", ".omf", ".ohf", ".oef")


def read_spins(
    path: str | Path,
    lattice: SpinLattice,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Return the configurations of a file as unit vectors (n_images, n_spins, 3); float64 unless ``dtype`` is given.

    A file has a vector for each site or for each spin; vectors at vacant sites are ignored. Only directions are used,
    so vectors may have any length, such as a magnetisation in A/m. Arrays in npy files have the shape (n, 3) or
    (n_images, n, 3).

    Raises:
        InputError: an error of `read_ovf`, or an unknown format. Images do not fit the lattice or each other. A vector
            has no length or is not finite. The message names the file, the image and the site.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix == ".npy":
        images = _read_npy(file)
    elif suffix in OVF_SUFFIXES:
        images = _read_ovf(file, lattice)
    else:
        raise InputError(
            f"{file}: {suffix or 'a name without an ending'} is not a format of spins that mlopt reads. Known: .npy, "
            f"{', '.join(OVF_SUFFIXES)}"
        )
    found = []
    for number, values in enumerate(images):
        where = str(file) if len(images) == 1 else f"{file}: image {number} (counted from 0)"
        if len(values) not in (lattice.n_sites, lattice.n_spins):
            vacant = lattice.n_sites - lattice.n_spins
            spins = f" with {lattice.n_spins} spins" if vacant else ""
            raise InputError(
                f"{where}: has {len(values)} vectors, but the lattice has {lattice.n_sites} sites{spins}; choose the "
                f"file or the lattice (repeat, basis) that fits"
            )
        own = values[lattice.sites] if len(values) == lattice.n_sites else values
        found.append(unit_spins(own, lattice.n_spins, where=where, label=lattice.label))
    return torch.from_numpy(np.stack(found)).to(device, dtype or torch.float64)


def write_spins(
    path: str | Path,
    x: torch.Tensor | Sequence[torch.Tensor],
    lattice: SpinLattice,
    *,
    kind: Kind = "binary 8",
    titles: Sequence[str] = (),
) -> None:
    """Write configurations (n_spins, 3), (n_images, n_spins, 3) or a list of them, in the format of the name's ending.

    Vacant sites get zero vectors, as in other programs. In OVF the atoms of a cell follow each other along x, as in
    Spirit.

    kind, titles: kind and titles of the segments, for OVF alone.

    Raises:
        InputError: a shape that does not fit the lattice, no image, or an unknown format.
        MloptError: the file cannot be written; an earlier file of that name stays intact.
    """
    file = Path(path)
    single = isinstance(x, torch.Tensor) and x.ndim == 2
    chain: Sequence[torch.Tensor] = [x] if single else list(x)  # type: ignore[list-item]
    images = [one.detach().to("cpu", torch.float64).numpy() for one in chain]
    full = []
    for number, values in enumerate(images):
        if values.shape != (lattice.n_spins, 3):
            raise InputError(
                f"write_spins: image {number} (counted from 0) has the shape {values.shape}; the lattice needs "
                f"({lattice.n_spins}, 3)"
            )
        everywhere = np.zeros((lattice.n_sites, 3))
        everywhere[lattice.sites] = values
        full.append(everywhere)
    if not full:
        raise InputError(f"write_spins: there is no image to write to {file}")
    if file.suffix.lower() == ".npy":
        _write_npy(file, full[0] if single else np.stack(full))
    elif file.suffix.lower() in OVF_SUFFIXES:
        basis, (a, b, c) = len(lattice.basis), lattice.shape
        lengths = 1e-10 * np.linalg.norm(lattice.vectors, axis=1)  # m
        step = (float(lengths[0]) / basis, float(lengths[1]), float(lengths[2]))
        write_ovf(file, full, (a * basis, b, c), kind=kind, step=step, titles=titles)
    else:
        raise InputError(f"{file}: name it .npy or {' or '.join(OVF_SUFFIXES)}, so that the format is known")


def _read_ovf(file: Path, lattice: SpinLattice) -> list[NDArray[np.float64]]:
    segments = read_ovf(file)
    a, b, c = lattice.shape
    expected = (a * len(lattice.basis), b, c)
    for number, segment in enumerate(segments):
        where = f"{file}: segment {number} (counted from 0)"
        if segment.values.shape[1] != 3:
            raise InputError(
                f"{where}: has values of {segment.values.shape[1]} components; spins have 3. Is it another quantity?"
            )
        first = segments[0]
        if len(segment.values) != len(first.values) or segment.nodes != first.nodes:
            raise InputError(
                f"{where}: has {_mesh(segment.nodes, segment.values)}, but segment 0 has "
                f"{_mesh(first.nodes, first.values)}; the images of a chain must be of one system"
            )
        # as many sites in another order would be read without a complaint
        if segment.nodes not in (None, expected) and len(segment.values) == lattice.n_sites:
            raise InputError(
                f"{where}: has {_mesh(segment.nodes, segment.values)}, but the lattice is {_mesh(expected, None)}; set "
                f"`repeat` to fit"
            )
    return [segment.values for segment in segments]


def _mesh(nodes: tuple[int, int, int] | None, values: Any) -> str:
    return f"{len(values)} points" if nodes is None else " x ".join(map(str, nodes)) + " nodes"


def _read_npy(file: Path) -> list[NDArray[np.float64]]:
    try:
        # mapped, so that a header which claims more than the file holds allocates nothing; objects are refused
        values = np.lib.format.open_memmap(existing_file(file), mode="r")
    except InputError:
        raise
    except (
        Exception
    ) as error:  # the header is Python, and NumPy's reader of it raises what Python's tokenizer does
        raise InputError(f"{file}: not an npy file of numbers, or damaged: {cause(error)}") from error
    if (
        values.dtype.kind not in "fiu"
        or values.ndim not in (2, 3)
        or values.shape[-1] != 3
        or not len(values)
    ):
        raise InputError(
            f"{file}: holds {values.dtype} of shape {values.shape}; spins are numbers of shape (n, 3) or "
            f"(n_images, n, 3)"
        )
    return list(values.astype(np.float64).reshape(-1, *values.shape[-2:]))


def _write_npy(file: Path, values: NDArray[np.float64]) -> None:
    from io import BytesIO

    buffer = BytesIO()
    np.save(buffer, values, allow_pickle=False)
    atomic.write_bytes(file, buffer.getvalue())
