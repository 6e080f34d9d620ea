"""The moment tensor potential, linear in its coefficients."""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import field_validator, model_validator

from mlopt.core.atoms.dataset import Dataset
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.kernels.kernel import PotentialKernel
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.lazy import torch
from mlopt.core.plugins.input_file import InputFile
from mlopt.core.plugins.plugin import setting
from mlopt.core.protocols.fittable import Design
from mlopt.potentials.fitted.mtp.basis import Basis
from mlopt.potentials.fitted.mtp.checks import check_elements, check_number, lengths
from mlopt.potentials.fitted.mtp.files import MtpFile, read_mtp, write_mtp
from mlopt.potentials.fitted.mtp.gradients import radial_gradients
from mlopt.potentials.fitted.mtp.graphs import (
    Graph,
    about_by_degree,
    all_by_degree,
    by_level,
    degree_with_species,
    with_species,
)
from mlopt.potentials.fitted.mtp.radial import beyond, check_shares, combined, plain_shares
from mlopt.potentials.fitted.mtp.repulsion import Repulsion
from mlopt.potentials.fitted.mtp.table import Table, table_of
from mlopt.potentials.fitted.species import elements_of
from mlopt.potentials.fitted.stored import StoredPotential

#: the shortest distance of the data, times this, is where radial functions begin
_BELOW = 0.95
#: without `repulsion`, nuclei repel each other fully below this part of the shortest distance
_FULL = 0.8
#: a cutoff is doubted if no two atoms are farther apart than this part of it
_SUPPORTED = 0.9
_RADIAL = "`radial` lists numbers, not all zero: [centre][neighbour][mu][degree], for each pair of species"
#: of MLIP's tables
_LEVELS = tuple(range(2, 30, 2))


class Mtp(StoredPotential):
    """A moment tensor potential: a sum over atoms of invariant polynomials of their neighbourhoods.

    ``E = sum_i [c(z_i) + sum_a theta_a(z_i) B_a(i)]``, where B_a are contractions of moments
    ``M[mu, nu] = sum_j f_mu(r_ij) u_ij (x) ... (x) u_ij`` (Shapeev, Multiscale Model. Simul. 14, 1153 (2016)). Radial
    functions are orthonormal, one for each mu, or those that ``radial`` gives. The potential is linear in its
    coefficients, and a fit is one least-squares problem. Where there are several species, each has functions and
    coefficients of its own.
    Which scalars B_a are taken follows from ``level``, as in MLIP, or from ``degrees``. A file given as `weights`
    brings its settings with it.
    """

    registered: ClassVar[str] = "mtp"

    level: int | None = setting(None, "MLIP's level: 2, 4, ..., 28; the degree of a moment is 2 + 4 mu + nu")
    degrees: list[float] | None = setting(
        None,
        "largest degree of products of two, three and four moments, not a level; a moment has mu + 1 + w nu",
    )
    angular_weight: float = setting(1.0, "w: what a rank adds to the degree, with `degrees`", gt=0)
    cutoff: float = setting(5.0, "where radial functions end", unit="angstrom", gt=0)
    pair_functions: int = setting(12, "functions of the distance alone, beside those of the level", ge=0)
    pair_cutoff: float | None = setting(None, "where these end; none: at the cutoff", unit="angstrom", gt=0)
    chebyshev: int | None = setting(
        None, "degrees of which radial functions are made; none: as many as there are functions", ge=1, le=60
    )
    radial: Any = setting(
        None,
        "shares of each degree in the radial functions, by centre, neighbour, mu and degree; none: degree mu alone",
    )
    shortest: float | None = setting(
        None, "where radial functions begin; none: a little below the shortest distance of the data", gt=0
    )
    repulsion: Literal["zbl"] | None = setting(
        None,
        "of nuclei, at all distances up to `cutoff`: Ziegler, Biersack and Littmark; none: below `shortest` alone",
    )
    file: InputFile | None = setting(
        None, "a potential of MLIP, .mtp or .almtp; `elements` names its species, in order"
    )

    @field_validator("level")
    @classmethod
    def _known_level(cls, level: int | None) -> int | None:
        if level is not None and level not in _LEVELS:
            raise ValueError(
                f"there are the levels {_LEVELS[0]}, {_LEVELS[1]}, ..., {_LEVELS[-1]}, and no {level}"
            )
        return level

    @field_validator("radial")
    @classmethod
    def _shares(cls, radial: Any) -> Any:
        if radial is None:
            return None
        try:
            shares = torch.as_tensor(radial, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise ValueError(_RADIAL) from None
        norm = torch.linalg.vector_norm(shares, dim=-1) if shares.ndim == 4 else shares.new_zeros(1)
        if not bool((torch.isfinite(norm) & (norm > 0)).all()):
            raise ValueError(_RADIAL)
        return radial if shares.requires_grad else shares.tolist()

    @field_validator("degrees")
    @classmethod
    def _few_degrees(cls, degrees: list[float] | None) -> list[float] | None:
        if degrees is not None and not (1 <= len(degrees) <= 3 and all(2 <= one <= 40 for one in degrees)):
            raise ValueError(
                "give one to three degrees between 2 and 40: for products of two, three and four moments"
            )
        return degrees

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.level is not None and self.degrees is not None:
            raise ValueError("give `level` or `degrees`, not both")
        if self.file is not None and (
            self.weights is not None
            or self.level is not None
            or self.degrees is not None
            or self.repulsion is not None
            or self.radial is not None
            or self.chebyshev is not None
        ):
            raise ValueError(
                "a `file` brings its own functions: leave out `weights`, `level`, `degrees`, `chebyshev`, `radial` and "
                "`repulsion`"
            )
        return self

    @functools.cached_property
    def _read(self) -> MtpFile:
        """What ``file`` holds.

        Raises:
            InputError: as `read_mtp`, or `elements` does not name its species.
        """
        found = read_mtp(str(self.file))
        if len(self.elements or []) != found.n_species:
            raise InputError(
                f"{self.file}: has {found.n_species} species, numbered from 0; name them by `elements`, such as "
                f"`elements: [Cu]`, in that order"
            )
        return found

    @functools.cached_property
    def graphs(self) -> list[Graph | None]:
        """The scalars of one species of the centre; None stands for a function of the distance alone."""
        level = 16 if self.level is None and self.degrees is None else self.level
        known = len(self.numbers)
        if level is not None:
            of_one = by_level(level)
            about = sum(known ** len(one.radial) / math.factorial(len(one.radial)) for one in of_one)
            check_number(about, f"the level {level}", known)
            found = with_species(of_one, known)
        else:
            degrees = tuple(self.degrees or ())
            about = about_by_degree(degrees, self.angular_weight, known)
            check_number(about, f"the degrees {list(degrees)}", known)
            found = all_by_degree(degrees, self.angular_weight, known)
        return [*(None for _ in range(self.pair_functions * known)), *found]

    @property
    def reach(self) -> float:
        """The largest cutoff; see `FittablePotential.reach`."""
        if self.file is not None:
            return self.basis.cutoff
        return max(self.cutoff, self.pair_cutoff or 0.0)

    @functools.cached_property
    def basis(self) -> Basis:
        """Table and radial functions.

        Raises:
            InputError: neither settings nor data say which species, or where radial functions begin.
        """
        if self.file is not None:
            return self._read.basis(self.numbers)
        if self.shortest is None:
            raise InputError(
                "mtp: nothing says where the radial functions begin; fit the potential to data, name `weights`, or "
                "give `shortest`, a little below the shortest distance between atoms"
            )
        species = self.numbers
        known = len(species)
        products = [one for one in self.graphs if one is not None]
        n_mu = max((max(one.radial) for one in products), default=-1) + 1
        table = _table(tuple(products), n_mu, self.pair_functions * known)
        sets = []
        if n_mu:
            sets.append(combined(self.shortest, self.cutoff, self._radial_shares))
        if self.pair_functions:
            shares = plain_shares(self.pair_functions, known)
            sets.append(combined(self.shortest, self.pair_cutoff or self.cutoff, shares))
        n_pair = self.pair_functions * known
        set_of = np.concatenate(
            [np.zeros(n_mu, dtype=np.int64), np.full(n_pair, len(sets) - 1, dtype=np.int64)]
        )
        place_of = np.concatenate([np.arange(n_mu), np.arange(n_pair)]).astype(np.int64)
        wide = (self.shortest, self.cutoff) if self.repulsion else (_FULL * self.shortest, self.shortest)
        return Basis(table, species, tuple(sets), set_of, place_of, Repulsion(*wide, species))

    @functools.cached_property
    def _radial_shares(self) -> torch.Tensor:
        """What each degree has in each radial function: (n_species, n_species, n_functions, n_chebyshev).

        Raises:
            InputError: ``radial`` or ``chebyshev`` does not fit the functions that ``level`` or ``degrees`` ask for.
        """
        known = len(self.numbers)
        n_mu = max((max(one.radial) for one in self.graphs if one is not None), default=-1) + 1
        functions = -(-n_mu // known)
        if self.radial is None:
            return plain_shares(functions, known, self.chebyshev)
        shares = torch.as_tensor(self.radial, dtype=torch.float64)
        return check_shares(shares, functions, known, self.chebyshev)

    @property
    def nonlinear(self) -> torch.Tensor | None:
        """See `FittablePotential.nonlinear`: shares of the degrees beyond mu in radial function mu, as in `radial`."""
        if self.file is not None:
            return None
        shares = self._radial_shares.detach()
        return shares[..., beyond(*shares.shape[2:])].flatten()

    def with_nonlinear(self, values: torch.Tensor) -> Self:
        """See `FittablePotential.with_nonlinear`."""
        shares = self._radial_shares.detach().to(values).clone()
        shares[..., beyond(*shares.shape[2:])] = values.reshape(*shares.shape[:2], -1)
        # a file of weights would bring its own functions; its theta stays
        kept = {} if self.weights is None else {"weights": None, "theta": self.parameters}
        return self.replace(radial=shares if values.requires_grad else shares.tolist(), **kept)

    @property
    def n_parameters(self) -> int:
        """See `StoredPotential.n_parameters`: constants of the species, then the coefficients of each."""
        return self.basis.n_parameters

    def _unfitted(self) -> torch.Tensor:
        if self.file is not None:
            return torch.from_numpy(self._read.parameters())
        return torch.zeros(self.n_parameters, dtype=torch.float64)

    def row_energy(self, systems: Systems) -> torch.Tensor:
        """See `Potential.row_energy`."""
        basis, theta = self.basis, self.parameters.to(systems.pos)
        k, kind = len(basis.species), basis.kinds(systems)
        rows, fixed = basis.values(systems)
        if theta.ndim == 1:
            coefficients = theta[k:].reshape(k, -1)[kind]
            constants = theta[:k][kind]
        else:
            batch = systems.batch
            coefficients = theta[:, k:].reshape(len(theta), k, -1)[batch, kind]
            constants = theta[:, :k][batch, kind]
        return (rows * coefficients).sum(-1) + constants + fixed

    def evaluate(self, systems: Systems, *, stress: bool = False) -> Evaluation:
        """See `Potential.evaluate`; compiled where nothing asks for gradients."""
        theta = self.parameters
        of_radial = isinstance(self.radial, torch.Tensor) and self.radial.requires_grad
        if torch.is_grad_enabled() and (systems.pos.requires_grad or theta.requires_grad or of_radial):
            return super().evaluate(systems, stress=stress)
        return self.basis.evaluate(systems, theta, stress)

    def design(
        self, systems: Systems, *, force: bool = True, stress: bool = False, row_energy: bool = False
    ) -> Design:
        """See `FittablePotential.design`."""
        return self.basis.design(systems, force, stress, row_energy)

    def energy_gradients(self, systems: Systems) -> torch.Tensor:
        """See `FittablePotential.energy_gradients`."""
        rows = self.basis.rows(systems)
        return rows.new_zeros(len(systems), rows.shape[1]).index_add(0, systems.batch.cpu(), rows)

    def row_gradients(self, systems: Systems, *, nonlinear: bool = False) -> torch.Tensor:
        """See `FittablePotential.row_gradients`.

        With ``nonlinear`` those of a `file` are all parameters of MLIP: constants of the species, coefficients that all
        species share, and coefficients of radial functions.
        """
        rows = self.basis.rows(systems)
        if not nonlinear:
            return rows
        of_radial = radial_gradients(self.basis, systems, self.parameters)[0]
        if self.file is not None:
            k = len(self.basis.species)
            shared = rows[:, k:].reshape(len(rows), k, -1).sum(1)
            return torch.cat([rows[:, :k], shared, of_radial.flatten(1)], 1)
        values = self.nonlinear
        if values is None or not values.numel():
            return rows

        with torch.enable_grad():
            values = values.clone().requires_grad_(True)
            functions = torch.as_tensor(self.with_nonlinear(values).basis.sets[0].coefficients).flatten()
            slopes = [torch.autograd.grad(one, values, retain_graph=True)[0] for one in functions]
        return torch.cat([rows, of_radial.flatten(1) @ torch.stack(slopes)], 1)

    def evaluate_rows(self, systems: Systems, *, stress: bool = False) -> tuple[Evaluation, torch.Tensor]:
        """See `FittablePotential.evaluate_rows`; without a graph."""
        return self.basis.evaluate_rows(systems, self.parameters, stress)

    def prepared(self, data: Dataset) -> Self:
        """See `FittablePotential.prepared`: species, and where radial functions begin."""
        there = elements_of(data)
        found = self.replace(elements=self.elements or there)
        check_elements(found.elements or [], there)
        if self.file is not None:
            return found
        reach = max(self.cutoff, self.pair_cutoff or 0.0)
        seen = lengths(data, self.shortest or reach)
        if self.shortest is not None:
            if seen.numel():
                raise InputError(
                    f"mtp: two atoms of the data are {float(seen.min()):.4g} apart, nearer than `shortest`, "
                    f"{self.shortest:g}, below which nothing is fitted; lower it, or leave it out"
                )
            return found
        if not seen.numel():
            raise InputError(f"mtp: no two atoms of the data are nearer than {reach:g}; raise `cutoff`")
        return found.replace(shortest=round(_BELOW * float(seen.min()), 6))

    def doubts(self, data: Dataset) -> list[str]:
        """See `FittablePotential.doubts`: distances below the cutoff that no two atoms of the data have."""
        if self.file is not None:
            return []
        reach = max(self.cutoff, self.pair_cutoff or 0.0)
        seen = lengths(data, reach)
        farthest = float(seen.max()) if seen.numel() else 0.0
        if farthest > _SUPPORTED * reach:
            return []
        return [
            f"no two atoms of the data are between {farthest:.3g} and {reach:g} angstrom apart, where radial functions "
            f"end: nothing is learned there, and energies are extrapolated. Lower `cutoff` to about {farthest:.2g}"
        ]

    def roughness(self) -> torch.Tensor | None:
        """See `FittablePotential.roughness`: degrees, 0 for the constants, which are free; none for a file."""
        if self.file is not None:
            return None
        known = len(self.basis.species)
        weight = 1.0 if self.degrees is None else self.angular_weight
        own = [
            float(index // known + 1) if graph is None else degree_with_species(graph, weight, known)
            for index, graph in enumerate(self.graphs)
        ]
        return torch.tensor([0.0] * known + own * known, dtype=torch.float64)

    def kernel(self, species: tuple[int, ...]) -> PotentialKernel:
        """See `Potential.kernel`."""
        return self.basis.kernel(self.parameters)

    def write_mtp(self, path: str) -> None:
        """Write the potential as an ``.mtp`` of MLIP-2, which MLIP, LAMMPS and motep read.

        Raises:
            InputError: the format cannot hold it; says why.
        """
        if self.repulsion is not None:
            raise InputError(
                f"{path}: an .mtp file holds no repulsion of nuclei; fit without `repulsion`, or use the weights"
            )
        write_mtp(path, self.basis, self.parameters.detach().cpu().numpy())

    def save(self, path: str, training: dict[str, Any]) -> None:
        """See `FittablePotential.save`; what came of a file of MLIP is kept by `write_mtp`."""
        if self.file is not None:
            raise InputError(
                f"{path}: the functions of this potential are those of {self.file}, which a card cannot name; keep "
                f"it as an .mtp, by `write_mtp`"
            )
        super().save(path, training)


@functools.lru_cache(maxsize=32)
def _table(products: tuple[Graph, ...], n_mu: int, n_pair: int) -> Table:
    """Return the table of some products, with functions of the distance alone before them."""
    pairs = [Graph((n_mu + index,), ()) for index in range(n_pair)]
    return table_of([*pairs, *products])
