"""The Gupta potential: the second-moment approximation of tight binding, for metals and their alloys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from pydantic import model_validator

from mlopt.core.atoms.elements import NUMBERS, SYMBOLS
from mlopt.core.atoms.systems import Systems
from mlopt.core.errors import InputError
from mlopt.core.kernels.kernel import PotentialKernel
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin, setting, unknown_key
from mlopt.core.quoting import quoted
from mlopt.potentials.classical.gupta_presets import PRESETS, PresetName
from mlopt.potentials.kernels.gupta import gupta_kernel
from mlopt.potentials.sums.few_atoms import find_pairs
from mlopt.potentials.sums.local import (
    CHUNK,
    LocalPotential,
    force_of_pairs,
    short_range,
    spoil_lost,
    squares_of_distances,
    virial_of_pairs,
)

if TYPE_CHECKING:
    Coefficients = tuple[float | torch.Tensor, ...]


class GuptaPair(Plugin):
    """The parameters of `Gupta` for one pair of elements."""

    a: float = setting(doc="repulsion at r0, of each atom by the other", unit="eV", gt=0)
    xi: float = setting(doc="hopping integral at r0", unit="eV", gt=0)
    p: float = setting(doc="decay of the repulsion, in units of 1/r0", gt=0)
    q: float = setting(doc="decay of the hopping integral, in units of 1/r0", gt=0)
    r0: float = setting(doc="nearest neighbours in the crystal", unit="angstrom", gt=0)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        strange = set(values) - set(cls.model_fields) if isinstance(values, Mapping) else ()
        if strange:
            raise ValueError(unknown_key(min(map(str, strange)), list(cls.model_fields), "a pair"))
        return values


class Gupta(LocalPotential):
    """Gupta potential of metals: pair repulsion, and cohesion by the square root of a sum over neighbours.

    ``E = sum_i [ sum_j A exp(-p (r/r0 - 1)) - sqrt( sum_j xi^2 exp(-2 q (r/r0 - 1)) ) ]``. Both sums run over all j
    except i, so every pair repels twice. A, xi, p, q and r0 belong to the elements of i and j.

    Parameters are those of `preset`; see `gupta_presets` for sources and corrected misprints. The setting `pairs`
    replaces some of them or adds to them, as in ``pairs: {Ag-Pt: {a: 0.175, xi: 1.79, p: 10.73, q: 3.57, r0: 2.833}}``.

    Without a cutoff all pairs count, as in published energies of clusters. A cutoff multiplies both exponentials by ``1
    - 10 t^3 + 15 t^4 - 6 t^5``. Here t goes from 0 to 1 over the last `taper` of the range. Closer pairs are as without
    a cutoff. First and second derivatives stay continuous; for an atom's last neighbour, only the first.

    Source: R. P. Gupta, Phys. Rev. B 23, 6265 (1981); F. Cleri & V. Rosato, Phys. Rev. B 48, 22 (1993), eqs. 1-3.
    """

    preset: PresetName | None = setting("cleri-rosato", "published parameters; null: `pairs` alone")
    pairs: dict[str, GuptaPair] = setting(
        {}, "parameters of pairs such as Au-Au or Ag-Au, which replace those of the preset"
    )
    cutoff: float | None = setting(
        None, "distance from which pairs do not count; needed for periodic systems", unit="angstrom", gt=0
    )
    taper: float = setting(
        1.0,
        "width over which pairs go smoothly to zero before the cutoff; 0: an abrupt cutoff",
        unit="angstrom",
        ge=0,
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        names: dict[tuple[int, int], str] = {}
        for name in self.pairs:
            i, j = _key(name)
            key = min(i, j), max(i, j)
            if key in names:
                raise ValueError(f"pairs: {names[key]} and {name} are the same pair; give it once")
            names[key] = name
        known = self.parameters()
        if not known:
            raise ValueError("give a preset, or the parameters of at least one pair such as Au-Au")
        for i, j in known:
            if (i, i) not in known:
                raise ValueError(
                    f"pairs: {_name(i, j)} is of no use without {_name(i, i)}; give that as well"
                )
        if self.cutoff is not None and self.taper > self.cutoff:
            raise ValueError(f"taper: {self.taper} is wider than the cutoff of {self.cutoff}")
        (i, j), longest = max(known.items(), key=lambda item: item[1].r0)
        if self.cutoff is not None and self.cutoff <= longest.r0:
            bond = f"r0 of {_name(i, j)}"
            raise ValueError(short_range("cutoff", self.cutoff, bond, longest.r0, self.usual_cutoff()))
        return self

    def parameters(self) -> dict[tuple[int, int], GuptaPair]:
        """Return the parameters of each known pair of atomic numbers, under both orders."""
        rows = PRESETS[self.preset] if self.preset is not None else {}
        found = {name: GuptaPair(a=a, xi=xi, p=p, q=q, r0=r0) for name, (a, xi, p, q, r0) in rows.items()}
        both = {}
        for name, pair in [*found.items(), *self.pairs.items()]:
            i, j = _key(name)
            both[i, j] = both[j, i] = pair
        return both

    def table(self, species: Sequence[int]) -> torch.Tensor:
        """Return the parameters for a kernel: (k, k, 5) float64 for the k atomic numbers ``species``.

        The last dimension is A (eV), xi^2 (eV^2), p, q, r0 (angstrom); NaN for a pair that has no parameters.
        """
        known, missing = self.parameters(), (float("nan"),) * 5
        rows = [[known.get((i, j)) for j in species] for i in species]
        numbers = [[missing if x is None else (x.a, x.xi**2, x.p, x.q, x.r0) for x in row] for row in rows]
        return torch.tensor(numbers, dtype=torch.float64).reshape(len(rows), len(rows), 5)

    def species(self) -> set[int]:
        return {i for i, j in self.parameters() if i == j}

    def reach(self) -> float | None:
        return self.cutoff

    def usual_cutoff(self) -> float:
        """Return three times the largest r0, with which a crystal's energy is converged to 0.0001 eV per atom."""
        return 3 * max(pair.r0 for pair in self.parameters().values())

    def diameter(self, z: torch.Tensor) -> torch.Tensor:
        """Return r0 of each atom's own element: (n_atoms,), angstrom."""
        lengths = torch.full((len(SYMBOLS),), float("nan"), dtype=torch.float64)
        for (i, j), pair in self.parameters().items():
            if i == j:
                lengths[i] = pair.r0
        return lengths.to(z.device)[z]

    def check(self, systems: Systems) -> None:
        """Refuse elements and pairs of elements without parameters.

        Raises:
            InputError: parameters are missing, a system is periodic without a cutoff, or there are too many pairs.
        """
        known = self.parameters()
        owner = (
            f"preset {quoted(self.preset)}" if self.preset is not None and not self.pairs else "the potential"
        )
        listed = ", ".join(dict.fromkeys(_name(i, j) for i, j in known if i <= j))
        present = torch.unique(torch.stack([systems.batch, systems.z], -1), dim=0)
        for system in torch.unique(present[:, 0]).tolist():
            kinds = present[present[:, 0] == system, 1].tolist()
            strange = [_name(i, j) for i in kinds for j in kinds if i <= j and (i, j) not in known]
            if strange:
                raise InputError(
                    f"{type(self).__name__}: {owner} has no parameters for {', '.join(strange)} of system {system}; "
                    f"it knows {listed}. Choose another preset, or give the missing ones as `pairs`."
                )
        super().check(systems)

    def kernel(self, species: tuple[int, ...]) -> PotentialKernel:
        """Return this potential for the fused engine."""
        return gupta_kernel(self.table(species).tolist(), species, self.cutoff, self.taper)

    def sums_of_all(
        self, pos: torch.Tensor, z: torch.Tensor, b: int, n: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return row energy (b * n,) and force (b * n, 3), for a few systems (or rows of a large one) at a time."""
        if not len(pos):
            return pos.new_zeros(0), torch.zeros_like(pos)
        x = pos.reshape(b, n, 3).permute(2, 0, 1).contiguous()
        coefficients, kinds = self._coefficients(z, pos)
        at_once = max(1, CHUNK // (n * n))
        parts = []
        for start in range(0, b, at_once):
            part = slice(start, start + at_once)
            few = None if kinds is None else kinds.reshape(b, n)[part]
            parts.append(self._chunk(x[:, part], few, coefficients))
        energy, force = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts], 1)
        return energy.flatten(), force.permute(1, 2, 0).reshape(b * n, 3)

    def _chunk(
        self, x: torch.Tensor, kinds: torch.Tensor | None, coefficients: Coefficients
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return row energy (b, n) and force (3, b, n) of systems at ``x (3, b, n)``.

        The force on an atom depends on the densities at its neighbours, so densities are summed first. A large system
        is treated in blocks of rows, and its pairs are computed a second time for the force.
        """
        n = x.shape[-1]
        rows = [(start, min(n, start + max(1, CHUNK // n))) for start in range(0, n, max(1, CHUNK // n))]
        repulsion, density = [], []
        blocks: list[tuple[torch.Tensor, ...]] = []
        for start, stop in rows:
            block = self._block(x, kinds, coefficients, start, stop)
            repulsion.append(block[2].sum(-1))
            density.append(block[3].sum(-1))
            blocks = [block] if len(rows) == 1 else []
        inverse, cohesion = _root(torch.cat(density, -1))
        quarter = 0.25 * inverse
        forces = []
        for start, stop in rows:
            difference, r, *functions = (
                blocks[0] if blocks else self._block(x, kinds, coefficients, start, stop)
            )
            weight = _weight(r, functions, quarter[:, start:stop, None] + quarter[:, None, :])
            if weight.requires_grad:
                forces.append((difference * weight).sum(-1))
            else:
                forces.append(difference.mul_(weight).sum(-1))
        return torch.cat(repulsion, -1) - cohesion, 2.0 * torch.cat(forces, -1)

    def _block(
        self, x: torch.Tensor, kinds: torch.Tensor | None, coefficients: Coefficients, start: int, stop: int
    ) -> tuple[torch.Tensor, ...]:
        """Return differences, distances and `_functions` of the atoms ``start:stop`` with all atoms of their system."""
        difference = x[:, :, start:stop, None] - x[:, :, None, :]
        r2 = squares_of_distances(difference, start)
        r = r2.sqrt() if r2.requires_grad else r2.sqrt_()
        if kinds is not None:
            coefficients = tuple(_spread(c, kinds[:, start:stop], kinds) for c in coefficients)  # type: ignore[arg-type]
        return difference, r, *self._functions(r, coefficients)

    def sums_of_near(
        self, systems: Systems, stress: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return row energy (n_atoms,), force (n_atoms, 3) and dE/dstrain (n_systems, 3, 3) within the cutoff."""
        reach = self.reach()
        if reach is None:  # unreachable after `_listed`; tells the type checker
            raise InputError(f"{type(self).__name__} needs a cutoff for a neighbour list")
        pairs = find_pairs(systems, float(reach))
        first, second = pairs.first, pairs.second
        difference = pairs.differences(systems)
        square = difference * difference
        r = (square[0] + square[1] + square[2]).sqrt()
        coefficients, kinds = self._coefficients(systems.z, systems.pos)
        if kinds is not None:
            coefficients = tuple(c[kinds[first], kinds[second]] for c in coefficients)  # type: ignore[index]
        functions = self._functions(r, coefficients)
        zero = systems.pos.new_zeros(len(systems.pos))
        repulsion, density = (
            zero.index_add(0, first, part).index_add(0, second, part) for part in functions[:2]
        )
        inverse, cohesion = _root(density)
        pull = difference * (2.0 * _weight(r, functions, 0.25 * (inverse[first] + inverse[second])))
        force = force_of_pairs(zero, first, second, pull)
        virial = virial_of_pairs(systems, first, pull, difference) if stress else None
        return spoil_lost(systems, pairs, repulsion - cohesion, force, virial)

    def _coefficients(self, z: torch.Tensor, like: torch.Tensor) -> tuple[Coefficients, torch.Tensor | None]:
        """Return ``(a, b, c, d)`` with repulsion ``exp(a + b r)`` and squared hopping ``exp(c + d r)``.

        They are floats, with None, if all atoms ``z`` are of one element. Otherwise they are (k, k) tables, with the
        element of each atom. The arithmetic is the same in both cases, so a system's bits do not depend on the elements
        of other systems.
        """
        alone = bool((z == z[0]).all()) if len(z) else True
        species = z[:1].tolist() if alone else torch.unique(z).tolist()
        a, xi2, p, q, r0 = self.table(species).unbind(-1)
        tables = a.log() + p, -p / r0, xi2.log() + 2 * q, -2 * q / r0
        if alone:
            return tuple(float(table) if len(z) else 0.0 for table in tables), None
        kinds = torch.zeros(len(SYMBOLS), dtype=torch.int64, device=z.device)
        kinds[torch.tensor(species, device=z.device)] = torch.arange(len(species), device=z.device)
        return tuple(table.to(like) for table in tables), kinds[z]

    def _functions(self, r: torch.Tensor, coefficients: Coefficients) -> tuple[torch.Tensor, ...]:
        """Return repulsion and squared hopping of pairs at distances ``r``, and their derivatives.

        Multiplication and addition stay apart, because fused ones would round differently at the end of a tensor.
        """
        a, b, c, d = coefficients
        if r.requires_grad:
            repulsion, hopping = torch.exp(r * b + a), torch.exp(r * d + c)
        else:
            repulsion, hopping = (r * b).add_(a).exp_(), (r * d).add_(c).exp_()
        if self.cutoff is None:
            return repulsion, hopping, repulsion * b, hopping * d
        if self.taper == 0:
            beyond = r >= self.cutoff  # not `r < cutoff`: NaN must stay NaN
            repulsion, hopping = repulsion.masked_fill(beyond, 0.0), hopping.masked_fill(beyond, 0.0)
            return repulsion, hopping, repulsion * b, hopping * d
        t = ((r - (self.cutoff - self.taper)) * (1.0 / self.taper)).clamp(0.0, 1.0)
        left = 1.0 - t
        factor = left * left * left * ((6.0 * t + 3.0) * t + 1.0)
        slope = (30.0 / self.taper) * (t * left) * (t * left)
        return (
            repulsion * factor,
            hopping * factor,
            repulsion * (factor * b - slope),
            hopping * (factor * d - slope),
        )


def _weight(r: torch.Tensor, functions: Sequence[torch.Tensor], roots: torch.Tensor) -> torch.Tensor:
    """Return half of ``-(dE/dr) / r`` of pairs; roots: a quarter of the sum of ``1 / sqrt(density)`` at both atoms."""
    _, _, repulsion, hopping = functions
    if r.requires_grad:
        return (roots * hopping - repulsion) / r
    return hopping.mul_(roots).sub_(repulsion).div_(r)


def _root(density: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``1 / sqrt(density)`` and ``sqrt(density)``; both are 0, with derivatives of 0, without neighbours."""
    inverse = density.masked_fill(density == 0, float("inf")).sqrt().reciprocal()
    return inverse, density * inverse


def _spread(table: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return entries of ``table (k, k)`` for all pairs of ``first (b, m)`` and ``second (b, n)``: (b, m, n).

    It selects from rows, which takes a third of the time of looking up every pair.
    """
    found = table[0][second][:, None, :]
    for kind in range(1, len(table)):
        found = torch.where((first == kind)[:, :, None], table[kind][second][:, None, :], found)
    return found


def _key(name: str) -> tuple[int, int]:
    """Return the atomic numbers of a pair such as ``Ag-Au``."""
    symbols = name.split("-")
    if len(symbols) != 2 or not all(symbol in NUMBERS for symbol in symbols):
        raise ValueError(
            f"pairs: {quoted(name)} is not a pair of elements; write two symbols, like Ag-Au or Au-Au"
        )
    return NUMBERS[symbols[0]], NUMBERS[symbols[1]]


def _name(i: int, j: int) -> str:
    return f"{SYMBOLS[i]}-{SYMBOLS[j]}"
