"""Units of energy and length: the declaration of a potential's units, and their conversion to eV and angstrom."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from mlopt.core.errors import InputError

#: units of energy, in eV (CODATA 2018); calories are thermochemical, and per mole means per particle of the system
ENERGIES = {
    "eV": 1.0,
    "meV": 1e-3,
    "keV": 1e3,
    "Ry": 13.605693122994,
    "Hartree": 27.211386245988,
    "kcal/mol": 4184.0 / (6.02214076e23 * 1.602176634e-19),
    "kJ/mol": 1000.0 / (6.02214076e23 * 1.602176634e-19),
    "K": 8.617333262e-5,
    "J": 1.0 / 1.602176634e-19,
}
#: units of length, in angstrom; spins move on spheres, where a length is an angle and has none
LENGTHS = {"angstrom": 1.0, "nm": 10.0, "pm": 0.01, "Bohr": 0.529177210903, "m": 1e10, "radian": None}
_ALIASES = {
    "å": "angstrom",
    "ang": "angstrom",
    "a0": "Bohr",
    "ha": "Hartree",
    "eh": "Hartree",
    "rydberg": "Ry",
    "kelvin": "K",
    "rad": "radian",
}
_REDUCED = "reduced"
#: Boltzmann's constant, eV/K; one atomic mass unit, eV fs^2/angstrom^2 (CODATA 2018)
_BOLTZMANN, _DALTON = 8.617333262e-5, 1.66053906660e-27 * 1e10 / 1.602176634e-19


@dataclass(frozen=True)
class Units:
    """Units of energy and length.

    For a dimensionless potential both are ``reduced``, and so are times and temperatures.
    energy: one of `ENERGIES`. length: one of `LENGTHS`.

    >>> Units("meV").say(12.5)
    '12.5 meV'
    """

    energy: str = "eV"
    length: str = "angstrom"

    def __post_init__(self) -> None:
        if (self.energy == _REDUCED) != (self.length == _REDUCED):
            raise InputError(
                f"units {self.energy!r} and {self.length!r}: energies and lengths are reduced together, or not at all"
            )
        for what, name, known in (("energy", self.energy, ENERGIES), ("length", self.length, LENGTHS)):
            if name != _REDUCED and name not in known:
                close = difflib.get_close_matches(str(name), known, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise InputError(f"no unit of {what} is called {name!r}.{hint} Known: {', '.join(known)}.")

    @classmethod
    def of(cls, given: Units | str) -> Units:
        """Return units from their text: ``"eV, angstrom"``, ``"meV"`` (with angstrom), or ``"reduced"``.

        Raises:
            InputError: an unknown unit, with a suggestion; or no units at all.
        """
        if isinstance(given, Units):
            return given
        if not isinstance(given, str):
            raise InputError(
                f"units are Units(energy, length), or a text such as 'eV, angstrom'; got {given!r:.60}"
            )
        words = [_known(word.strip()) for word in given.split(",")]
        if words == [_REDUCED]:
            return REDUCED
        if not 1 <= len(words) <= 2:
            raise InputError(
                f"units {given!r:.60}: say one of energy and one of length, such as 'eV, angstrom'"
            )
        return cls(*words)

    @property
    def reduced(self) -> bool:
        """True if numbers have no dimension."""
        return self.energy == _REDUCED

    @property
    def ev(self) -> float:
        """One unit of energy in eV.

        Raises:
            InputError: energies are reduced.
        """
        if self.reduced:
            raise InputError("reduced energies are no number of eV")
        return ENERGIES[self.energy]

    @property
    def angstrom(self) -> float:
        """One unit of length in angstrom.

        Raises:
            InputError: lengths are reduced, or are angles.
        """
        found = None if self.reduced else LENGTHS[self.length]
        if found is None:
            raise InputError(f"lengths in {self.length} are no number of angstrom")
        return found

    @property
    def boltzmann(self) -> float:
        """One kelvin in units of energy; 1 where units are reduced, so that temperatures are energies."""
        return 1.0 if self.reduced else _BOLTZMANN / self.ev

    @property
    def dalton(self) -> float:
        """One atomic mass unit in energy fs^2 / length^2; 1 where units are reduced.

        Raises:
            InputError: lengths are angles.
        """
        return 1.0 if self.reduced else _DALTON * self.angstrom**2 / self.ev

    @property
    def label(self) -> str:
        """The unit of energy for axes and headings: ``eV``, or ``reduced units``."""
        return "reduced units" if self.reduced else self.energy

    def say(self, energy: float, spec: str = ".6g") -> str:
        """Return an energy with its unit, for people: ``0.374485 eV``; without a unit, the bare number."""
        return f"{energy:{spec}}" if self.reduced else f"{energy:{spec}} {self.energy}"

    def __str__(self) -> str:
        return _REDUCED if self.reduced else f"{self.energy}, {self.length}"


def _known(word: str) -> str:
    """Return the standard name of a unit from any of its spellings."""
    if word in ENERGIES or word in LENGTHS:  # case matters: meV is not MeV
        return word
    plain = {name.lower(): name for name in (*LENGTHS, "eV", "Hartree", "Ry", _REDUCED)}
    return _ALIASES.get(word.lower(), word if word == "MeV" else plain.get(word.lower(), word))


REDUCED = Units(_REDUCED, _REDUCED)
#: of spins, whose lengths are angles
SPINS = Units("meV", "radian")
