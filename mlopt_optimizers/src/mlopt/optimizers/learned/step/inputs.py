"""The inputs of a learned optimizer: the groups of Learn2Hop's Table 1, each of which can be left out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from mlopt.core.atoms.elements import SYMBOLS
from mlopt.core.features.messages import MessageFeatures
from mlopt.core.features.neighbourhood import Neighbourhood
from mlopt.core.features.radial import ETAS, RadialFeatures
from mlopt.core.landscapes.landscape import AtomsLandscape, Landscape
from mlopt.core.landscapes.manifold import Flat
from mlopt.core.lazy import torch
from mlopt.core.plugins.plugin import Plugin, setting
from mlopt.core.quoting import quoted
from mlopt.optimizers.learned.kernels.network import DECADES, MAGNIFIED, TINY
from mlopt.optimizers.learned.messages import features as message_features
from mlopt.optimizers.learned.messages import layer_of

#: steps after which the sines begin anew, over 2 pi: Learn2Hop, section 4.4
TIMESCALES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
Level = Literal["component", "row", "problem"]


@dataclass(frozen=True)
class Group:
    """A group of inputs that are switched together. level: what has numbers of its own."""

    name: str
    width: int
    level: Level


@dataclass(frozen=True)
class Seen:
    """The quantities from which inputs of a step are computed. Lengths are in diameters, and forces times diameters.

    force (n_rows, d): the force.
    x (n_rows, d): positions, in units of length.
    unit (n_rows, 1): diameters, or 1.
    mean, square (k, n_rows, d): moments, which include this step's force.
    power (n_problems, k): decays to the power of the number of forces in the moments.
    age (n_problems,): number of steps before.
    """

    force: torch.Tensor
    x: torch.Tensor
    unit: torch.Tensor | float
    mean: torch.Tensor
    square: torch.Tensor
    power: torch.Tensor
    age: torch.Tensor


def coded(value: torch.Tensor) -> list[torch.Tensor]:
    """Return magnitude and sign: (log|x| / p, sign x) where |x| >= exp(-p), else (-1, x exp(p)), with p = 10.

    Source: Andrychowicz et al., NeurIPS 2016, appendix A. Learn2Hop prints x where |x| is meant.
    """
    magnitude = torch.log(value.abs().clamp(min=1.0 / MAGNIFIED)) * (1.0 / DECADES)
    return [magnitude, (value * MAGNIFIED).clamp(-1.0, 1.0)]


def atoms_of(landscape: Landscape) -> AtomsLandscape | None:
    """Return the landscape itself, or that of a band's images, if its rows are atoms; else None."""
    found = getattr(landscape, "inner", landscape)
    return found if isinstance(found, AtomsLandscape) else None


def periodic_rows(landscape: Landscape) -> torch.Tensor | None:
    """Return the rows (n_rows,) bool of problems with a periodic direction; None if there are none."""
    pbc = getattr(landscape.manifold, "pbc", None)
    return None if pbc is None else pbc.any(-1)


class Inputs(Plugin):
    """The settings of a learned optimizer: its inputs, and the size of its network.

    Inputs are the groups of Learn2Hop's Table 1 (Merchant et al., ICML 2021), 48 by default:

    | group | inputs | |
    |---|---|---|
    | gradient | 2 | of each component, coded |
    | position | 2 | from the centre, coded; of problems without periodic directions in flat space |
    | moments | 4 a decay | running means of gradient and squared gradient (its root), coded |
    | adam | 2 a decay | corrected mean over corrected root mean square, coded |
    | number | 1 | of rows: log N / 10 |
    | identity | 1 a species | 1 for the species of the row, else 0; where ``species`` are named |
    | sines | 9 | sin(t / T) of the step t, T = 1, 3, 10, ..., 10000 |
    | radial | 16 a species | radial symmetry functions of neighbours of each species, coded; of atoms |
    | messages | as many as wanted | features of a message-passing network that is trained with the rest; of atoms |

    Coded means that a number becomes its magnitude and its sign, see `coded`. Forces stand for gradients, and the way
    down is learned. If a landscape lacks a group, its columns of the first layer are left out.

    There are three differences from the text of the paper:

    - Lengths are in units of each row's diameter where the landscape knows one, and forces are multiplied by it. This
      changes nothing for Lennard-Jones. Without it, the radial functions would vanish for metals.
    - Positions are taken from the centre.
    - Inverse norms enter through ``adam`` alone. Coded by themselves, they would repeat the magnitude of the moment.
    """

    gradient: bool = setting(True, "use the gradient")
    position: bool = setting(True, "use the position from the centre")
    moments: bool = setting(True, "use running means of the gradient and its square")
    adam: bool = setting(True, "use the mean over the root mean square, as in Adam")
    decays: list[float] = setting([0.9, 0.99, 0.999], "shares of the old means that are kept", min_length=1)
    number: bool = setting(True, "use the number of rows")
    species: list[str] | None = setting(
        None, "elements that are distinguished, such as [Ag, Au]; none: all are treated alike", min_length=1
    )
    identity: bool = setting(True, "use the species of the row, if species are distinguished")
    sines: bool = setting(True, "use nine sines of the number of the step")
    radial: bool = setting(True, "use radial symmetry functions of the neighbours")
    messages: int = setting(0, "number of features of a trained message-passing network; 0: none", ge=0)
    rounds: int = setting(1, "number of message-passing rounds", ge=1)
    cutoff: float = setting(2.5, "cutoff of the neighbourhoods", unit="diameter", gt=0)
    hidden: int = setting(32, "units in each of the two hidden layers", ge=4, multiple_of=4)
    activation: Literal["relu", "tanh"] = setting("relu", "activation of the hidden layers")
    equivariant: bool = setting(False, "use lengths and angles of vectors: moves rotate with the system")

    @field_validator("decays")
    @classmethod
    def _shares(cls, decays: list[float]) -> list[float]:
        if not all(0.0 <= one < 1.0 for one in decays):
            raise ValueError(f"decays must lie in [0, 1), got {decays}")
        return decays

    @field_validator("species")
    @classmethod
    def _elements(cls, species: list[str] | None) -> list[str] | None:
        unknown = [one for one in species or [] if one not in SYMBOLS[1:]]
        if unknown:
            raise ValueError(f"{quoted(unknown[0])} is not the symbol of an element")
        if species is not None and len(set(species)) < len(species):
            raise ValueError(f"an element is named twice: {species}")
        return species

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not any(group.level == "component" for group in self.groups) and not self.equivariant:
            raise ValueError(
                "without gradient, position, moments and adam all components of a row would move alike"
            )
        return self

    @property
    def numbers(self) -> tuple[int, ...] | None:
        """The atomic numbers of the species that are told apart."""
        return None if self.species is None else tuple(SYMBOLS.index(one) for one in self.species)

    @property
    def groups(self) -> list[Group]:
        """All groups in their order: of components, of rows, of problems."""
        k, kinds = len(self.decays), len(self.species or ())
        every = [
            (self.gradient, Group("gradient", 2, "component")),
            (self.position, Group("position", 2, "component")),
            (self.moments, Group("moments", 4 * k, "component")),
            (self.adam, Group("adam", 2 * k, "component")),
            (self.radial, Group("radial", 2 * len(ETAS) * max(1, kinds), "row")),
            (self.identity and kinds > 0, Group("identity", kinds, "row")),
            (self.messages > 0, Group("messages", self.messages, "row")),
            (self.number, Group("number", 1, "problem")),
            (self.sines, Group("sines", len(TIMESCALES), "problem")),
        ]
        return [group for on, group in every if on]

    @property
    def width(self) -> int:
        """The number of inputs."""
        return sum(group.width for group in self.groups)

    def settings(self) -> dict[str, Any]:
        """Return the settings of `Inputs` alone, as plain data."""
        return {name: value for name, value in self.config().items() if name in Inputs.model_fields}

    def present(self, landscape: Landscape) -> list[Group]:
        """Return the groups that a landscape has."""
        absent = set() if isinstance(landscape.manifold, Flat) else {"position"}
        if atoms_of(landscape) is None:
            absent |= {"radial", "messages", "identity"}
        return [group for group in self.groups if group.name not in absent]

    @cached_property
    def _layer(self) -> MessageFeatures:
        return layer_of(self.messages, rounds=self.rounds, cutoff=self.cutoff, species=self.numbers)

    def message_layer(self, like: torch.Tensor) -> MessageFeatures:
        """Return the layer of messages. Parameters from theta are put in the place of its own."""
        return self._layer.to(like.device)

    @cached_property
    def _neighbourhood(self) -> Neighbourhood:
        """The source of graphs of neighbours. It keeps lists, which saves time and changes no result."""
        return Neighbourhood(cutoff=self.cutoff)

    @cached_property
    def _radial_features(self) -> RadialFeatures:
        return RadialFeatures(cutoff=self.cutoff, species=self.numbers)

    def inputs(
        self, groups: list[Group], landscape: Landscape, seen: Seen, weights: dict[str, torch.Tensor]
    ) -> list[torch.Tensor]:
        """Return the inputs of each of ``groups``, which must be `present`.

        They are (n_rows, d, w) for components, (n_rows, w) for rows, and (n_problems, w) for problems.

        weights: parameters of messages, see `mlopt.optimizers.learned.step.network.Parts`.
        """
        made = {
            "gradient": lambda: _columns(coded(seen.force)),
            "position": lambda: self._position(landscape, seen),
            "moments": lambda: _columns(
                [c for m, s in zip(seen.mean, seen.square, strict=True) for c in (*coded(m), *coded(root(s)))]
            ),
            "adam": lambda: self._adam(landscape, seen),
            "radial": lambda: self._radial(landscape, seen),
            "identity": lambda: self._identity(landscape, seen),
            "messages": lambda: self._messages(landscape, seen, weights),
            "number": lambda: (torch.log(landscape.segments.counts.to(seen.x)) * 0.1)[:, None],
            "sines": lambda: torch.sin(seen.age.to(seen.x)[:, None] / seen.x.new_tensor(TIMESCALES)),
        }
        return [made[group.name]() for group in groups]

    def _position(self, landscape: Landscape, seen: Seen) -> torch.Tensor:
        segments = landscape.segments
        away = (seen.x - segments.rows_of(segments.mean_rows(seen.x))) / seen.unit
        found = _columns(coded(away))
        periodic = periodic_rows(landscape)
        return found if periodic is None else found.masked_fill(periodic[:, None, None], 0.0)

    def _adam(self, landscape: Landscape, seen: Seen) -> torch.Tensor:
        columns = []
        for mean, square, power in zip(seen.mean, seen.square, seen.power.unbind(1), strict=True):
            left = landscape.segments.rows_of(1.0 - power)[:, None]
            columns += coded(mean / left / (root(square) / left.sqrt() + TINY))
        return _columns(columns)

    def _graph(self, landscape: Landscape, x: torch.Tensor) -> tuple[Any, AtomsLandscape]:
        atoms = atoms_of(landscape)
        assert atoms is not None
        return self._neighbourhood.graph(atoms.systems.with_pos(x), atoms.diameter), atoms

    def _radial(self, landscape: Landscape, seen: Seen) -> torch.Tensor:
        graph, atoms = self._graph(landscape, seen.x)
        found = self._radial_features(seen.x, graph, atoms.species, atoms.diameter.to(seen.x))
        return torch.cat(coded(found), 1)

    def _identity(self, landscape: Landscape, seen: Seen) -> torch.Tensor:
        atoms = atoms_of(landscape)
        assert atoms is not None and self.numbers is not None
        known = torch.tensor(self.numbers, device=seen.x.device)
        return (atoms.systems.z[:, None] == known).to(seen.x)

    def _messages(self, landscape: Landscape, seen: Seen, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        layer = self.message_layer(seen.x)
        graph, atoms = self._graph(landscape, seen.x)
        given = (seen.x, graph, atoms.species, atoms.diameter.to(seen.x))
        return message_features(layer, weights, landscape.segments, *given)


def _columns(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(parts, -1)


def root(square: torch.Tensor) -> torch.Tensor:
    """Return the root of ``square``, with a finite derivative where nothing has pulled yet."""
    return square.clamp(min=torch.finfo(square.dtype).tiny).sqrt()
