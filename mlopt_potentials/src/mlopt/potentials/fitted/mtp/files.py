"""Files of MLIP: ``.mtp`` of MLIP-2 and the potential in an ``.almtp`` of MLIP-3, read and written as text.

What is allocated is bounded by the size of the file, and nothing of it is executed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlopt.core.errors import InputError
from mlopt.core.files.atomic import write_text
from mlopt.core.files.reading import existing_file
from mlopt.core.quoting import quoted
from mlopt.potentials.fitted.mtp.basis import Basis
from mlopt.potentials.fitted.mtp.radial import RadialSet
from mlopt.potentials.fitted.mtp.table import Table

#: bytes beyond which a file is refused, and where the text of an .almtp ends
_MOST_BYTES, _END = 64 * 2**20, b"#MVS"
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
#: keys of the radial functions, and what motep 0.2 calls them
_NAMES = {"min_dist": "min", "max_dist": "max", "radial_basis_size": "size"}
_PAIR = re.compile(r"(\d+)-(\d+)")


@dataclass(frozen=True, eq=False)
class MtpFile:
    """The content of a file: a table with radial functions, and coefficients if it was fitted.

    n_species: number of species, which the file counts from 0.
    radial: radial functions of all pairs of species.
    constants (n_species,), coefficients (n_scalars,): None in a file that was never fitted.
    """

    n_species: int
    radial: RadialSet
    table: Table
    constants: NDArray[np.float64] | None
    coefficients: NDArray[np.float64] | None

    def basis(self, species: tuple[int, ...]) -> Basis:
        """Return the basis for these atomic numbers, in the order in which the file numbers its species."""
        n = self.table.n_radial
        return Basis(
            self.table, species, (self.radial,), np.zeros(n, dtype=np.int64), np.arange(n, dtype=np.int64)
        )

    def parameters(self) -> NDArray[np.float64]:
        """Return constants and, for each species, the coefficients, which all species of a file share."""
        if self.constants is None or self.coefficients is None:
            return np.zeros(self.n_species * (1 + len(self.table.scalars)))
        return np.concatenate([self.constants, np.tile(self.coefficients, self.n_species)])


def read_mtp(path: str | Path) -> MtpFile:
    """Read a potential of MLIP-2 (``.mtp``) or MLIP-3 (``.almtp``, without its active set).

    Raises:
        InputError: no such file, not of this kind, cut short, of an unknown radial type, or inconsistent.
    """
    file = existing_file(path)
    if file.stat().st_size > _MOST_BYTES:
        raise InputError(
            f"{file}: too large for a moment tensor potential ({file.stat().st_size / 2**20:.0f} MiB)"
        )
    data = file.read_bytes().split(_END)[0]
    text = data.decode("utf-8", errors="replace")
    if not text.lstrip().startswith("MTP"):
        raise InputError(f"{file}: does not begin with MTP, as files of MLIP's potentials do")
    fields = dict(re.findall(r"^[ \t]*(\w+)[ \t]*=[ \t]*(.*?)[ \t\r]*$", text, re.MULTILINE))
    kind = fields.get("radial_basis_type", "")
    if kind != "RBChebyshev":
        raise InputError(
            f"{file}: radial functions of the type {quoted(kind)} are not known; mlopt reads RBChebyshev. Convert the "
            f"potential with MLIP, or fit it anew"
        )
    if "magnetic_basis_type" in fields:
        raise InputError(
            f"{file}: depends on magnetic moments (magnetic_basis_type), which mlopt's moment tensor potentials do not"
        )
    for ours, theirs in _NAMES.items():  # as motep writes them
        if ours not in fields and theirs in fields:
            fields[ours] = fields[theirs]
    n_species = _integer(file, fields, "species_count", 1, 100)
    size = _integer(file, fields, "radial_basis_size", 1, 200)
    n_functions = _integer(file, fields, "radial_funcs_count", 1, 10_000)
    scaling = _floats(file, fields, "scaling", 1)[0] if "scaling" in fields else 1.0
    shortest, cutoff = (_floats(file, fields, name, 1)[0] for name in ("min_dist", "max_dist"))
    coefficients = np.zeros((n_species, n_species, n_functions, size))
    if "radial_coeffs" in text:
        coefficients[:] = scaling * _radial(file, text, n_species, n_functions, size)
    basic = _rows(file, fields, "alpha_index_basic")
    times = _rows(file, fields, "alpha_index_times")
    n_values = _integer(file, fields, "alpha_moments_count", 1, len(text))
    scalars = _integers(file, fields.get("alpha_moment_mapping", ""), "alpha_moment_mapping")
    _check_table(file, basic, times, scalars, n_values, n_functions)
    table = Table(basic, times, scalars, n_values)
    constants = _floats(file, fields, "species_coeffs", n_species) if "species_coeffs" in fields else None
    moments = _floats(file, fields, "moment_coeffs", len(scalars)) if "moment_coeffs" in fields else None
    radial = RadialSet(float(shortest), float(cutoff), coefficients)
    return MtpFile(n_species, radial, table, constants, moments)


def _check_table(
    file: Path,
    basic: NDArray[np.int64],
    times: NDArray[np.int64],
    scalars: NDArray[np.int64],
    n_values: int,
    n_functions: int,
) -> None:
    """Refuse a table whose numbers point nowhere, or use a value before it is complete."""
    if not len(basic) or basic.min() < 0 or basic[:, 0].max() >= n_functions or basic[:, 1:].max() > 100:
        raise InputError(f"{file}: alpha_index_basic names radial functions or powers that are not there")
    if not len(scalars) or scalars.min() < 0 or scalars.max() >= n_values or n_values < len(basic):
        raise InputError(f"{file}: alpha_moment_mapping names values that are not there")
    if not len(times):
        return
    places = times[:, [0, 1, 3]]
    if places.min() < 0 or places.max() >= n_values or (times[:, 3] < len(basic)).any():
        raise InputError(f"{file}: alpha_index_times names values that are not there")
    last = np.full(n_values, -1)
    last[times[:, 3]] = np.arange(len(times))
    if (last[times[:, :2]] >= np.arange(len(times))[:, None]).any():
        raise InputError(f"{file}: alpha_index_times uses a value before all of it has been added")


def _integer(file: Path, fields: Mapping[str, str], name: str, least: int, most: int) -> int:
    found = fields.get(name, "")
    if not re.fullmatch(r"\d{1,9}", found) or not least <= int(found) <= most:
        raise InputError(f"{file}: {name} must be a number from {least} to {most}, got {quoted(found)}")
    return int(found)


def _floats(file: Path, fields: Mapping[str, str], name: str, count: int) -> NDArray[np.float64]:
    words = _NUMBER.findall(fields.get(name, ""))
    if len(words) != count:
        raise InputError(
            f"{file}: {name} must have {count} numbers, got {len(words)}; the file may be cut short"
        )
    return np.array(words, dtype=np.float64)


def _integers(file: Path, text: str, name: str) -> NDArray[np.int64]:
    words = re.findall(r"-?\d+", text)
    if any(len(word) > 9 for word in words) or not text.rstrip().endswith("}"):
        raise InputError(f"{file}: {name} is cut short, or holds a number that is too large")
    return np.array(words, dtype=np.int64)


def _rows(file: Path, fields: Mapping[str, str], name: str) -> NDArray[np.int64]:
    """Return (n, 4) integers of ``alpha_index_basic`` or ``alpha_index_times``, as many as the file says."""
    count = _integer(file, fields, f"{name}_count", 0, 10**8)
    found = _integers(file, fields.get(name, "}"), name)
    if len(found) != 4 * count:
        raise InputError(
            f"{file}: {name} has {len(found)} numbers instead of {4 * count}; the file may be cut short"
        )
    return found.reshape(-1, 4)


def _radial(file: Path, text: str, n_species: int, n_functions: int, size: int) -> NDArray[np.float64]:
    """Return (n_species, n_species, n_functions, size) coefficients of the radial functions."""
    block = itertools.takewhile(lambda line: "=" not in line, text.split("radial_coeffs", 1)[1].split("\n"))
    lines = [line.strip() for line in block if line.strip()]
    if len(lines) != n_species * n_species * (1 + n_functions):
        raise InputError(
            f"{file}: radial_coeffs has {len(lines)} lines, where {n_species} species and {n_functions} functions make "
            f"{n_species * n_species * (1 + n_functions)}"
        )
    found = np.zeros((n_species, n_species, n_functions, size))
    for start in range(0, len(lines), 1 + n_functions):
        pair = _PAIR.fullmatch(lines[start])
        if pair is None or max(int(one) for one in pair.groups()) >= n_species:
            raise InputError(
                f"{file}: radial_coeffs: {quoted(lines[start])} is no pair of species such as 0-1"
            )
        for function, line in enumerate(lines[start + 1 : start + 1 + n_functions]):
            words = _NUMBER.findall(line)
            if len(words) != size:
                raise InputError(
                    f"{file}: radial_coeffs of the species {lines[start]}: function {function} has {len(words)} "
                    f"coefficients instead of {size}"
                )
            found[int(pair[1]), int(pair[2]), function] = [float(word) for word in words]
    return found


def write_mtp(path: str | Path, basis: Basis, theta: NDArray[np.float64], name: str = "mlopt") -> None:
    """Write a fitted potential as an ``.mtp`` of MLIP-2.

    The format has one set of coefficients for all species. If each of k species has coefficients of its own, the table
    is written k times. The radial functions of each copy are zero around the other species.

    Raises:
        InputError: radial functions end at two cutoffs, which the format cannot hold; or ``path`` is an ``.almtp``.
    """
    if Path(path).suffix == ".almtp":
        raise InputError(
            f"{path}: an .almtp holds the active set of MLIP-3 beside the potential, with rows for the radial "
            f"coefficients, which mlopt does not have; write an .mtp, and let MLIP-3 select"
        )
    cutoffs = {(one.shortest, one.cutoff) for one in basis.sets}
    if len(cutoffs) > 1:
        told = ", ".join(f"{one.cutoff:g}" for one in basis.sets)
        raise InputError(
            f"{path}: an .mtp file has one cutoff, and this potential has {told}; fit with `pair_cutoff` equal to "
            f"`cutoff`"
        )
    k, n_mu = len(basis.species), len(basis.set_of)
    size = max(one.n_chebyshev for one in basis.sets)
    own = np.zeros((k, k, n_mu, size))
    for mu, (index, place) in enumerate(zip(basis.set_of.tolist(), basis.place_of.tolist(), strict=True)):
        one = basis.sets[index]
        own[:, :, mu, : one.n_chebyshev] = one.array[:, :, place]
    coefficients = theta[k:].reshape(k, -1)
    shared = k == 1 or bool((coefficients == coefficients[0]).all())
    copies = 1 if shared else k
    radial = np.zeros((k, k, n_mu * copies, size))
    for centre in range(k):
        start = 0 if shared else centre * n_mu
        radial[centre, :, start : start + n_mu] = own[centre]
    table = _copied(basis.table, copies, n_mu)
    moments = coefficients[0] if shared else coefficients.ravel()
    lines = [
        "MTP", "version = 1.1.0", f"potential_name = {name}", "scaling = 1.0", f"species_count = {k}",
        "potential_tag = ",
        "radial_basis_type = RBChebyshev", f"\tmin_dist = {basis.sets[0].shortest!r}",
        f"\tmax_dist = {basis.sets[0].cutoff!r}", f"\tradial_basis_size = {size}",
        f"\tradial_funcs_count = {n_mu * copies}", "\tradial_coeffs",
    ]  # fmt: skip
    for centre in range(k):
        for other in range(k):
            lines.append(f"\t\t{centre}-{other}")
            lines += [f"\t\t\t{_listed(row)}" for row in radial[centre, other]]
    lines += [
        f"alpha_moments_count = {table.n_values}", f"alpha_index_basic_count = {table.n_basic}",
        f"alpha_index_basic = {_listed(table.basic)}", f"alpha_index_times_count = {len(table.times)}",
        f"alpha_index_times = {_listed(table.times)}", f"alpha_scalar_moments = {len(table.scalars)}",
        f"alpha_moment_mapping = {_listed(table.scalars)}", f"species_coeffs = {_listed(theta[:k])}",
        f"moment_coeffs = {_listed(moments)}",
    ]  # fmt: skip
    write_text(path, "\n".join(lines) + "\n")


def _copied(table: Table, copies: int, n_mu: int) -> Table:
    """Return the table repeated, each copy with radial functions of its own; sums over neighbours come first."""
    if copies == 1:
        return table
    n, products = table.n_basic, table.n_values - table.n_basic
    basic = np.concatenate([table.basic + np.array([copy * n_mu, 0, 0, 0]) for copy in range(copies)])

    def place(value: NDArray[np.int64], copy: int) -> NDArray[np.int64]:
        return np.where(value < n, value + copy * n, value - n + copies * n + copy * products)

    times = [
        np.stack([place(i, copy), place(j, copy), c, place(k, copy)], -1)
        for copy in range(copies)
        for i, j, c, k in [table.times.T]
    ]
    scalars = [place(table.scalars, copy) for copy in range(copies)]
    return Table(basic, np.concatenate(times), np.concatenate(scalars), copies * table.n_values)


def _listed(values: NDArray[np.float64] | NDArray[np.int64]) -> str:
    """Numbers in braces, as MLIP writes them, with all their digits."""
    if values.ndim > 1:
        return "{" + ", ".join(_listed(row) for row in values) + "}"
    return "{" + ", ".join(repr(one) for one in values.tolist()) + "}"
