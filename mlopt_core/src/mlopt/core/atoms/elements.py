"""Chemical symbols, and formulas such as ``Ar38`` or ``Ag32Au6``; plain Python without imports."""

from __future__ import annotations

import difflib
import re

from mlopt.core.errors import InputError
from mlopt.core.quoting import quoted

SYMBOLS = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr "
    "Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt "
    "Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv "
    "Ts Og"
).split()
#: standard atomic weights by atomic number, atomic mass units (IUPAC 2016; else the longest-lived isotope)
# fmt: off
MASSES = (
    1.0, 1.008, 4.002602, 6.94, 9.0121831, 10.81, 12.011, 14.007, 15.999, 18.998403163, 20.1797, 22.98976928,
    24.305, 26.9815385, 28.085, 30.973761998, 32.06, 35.45, 39.948, 39.0983, 40.078, 44.955908, 47.867, 50.9415,
    51.9961, 54.938044, 55.845, 58.933194, 58.6934, 63.546, 65.38, 69.723, 72.63, 74.921595, 78.971, 79.904,
    83.798, 85.4678, 87.62, 88.90584, 91.224, 92.90637, 95.95, 97.90721, 101.07, 102.9055, 106.42, 107.8682,
    112.414, 114.818, 118.71, 121.76, 127.6, 126.90447, 131.293, 132.90545196, 137.327, 138.90547, 140.116,
    140.90766, 144.242, 144.91276, 150.36, 151.964, 157.25, 158.92535, 162.5, 164.93033, 167.259, 168.93422,
    173.054, 174.9668, 178.49, 180.94788, 183.84, 186.207, 190.23, 192.217, 195.084, 196.966569, 200.592,
    204.38, 207.2, 208.9804, 208.98243, 209.98715, 222.01758, 223.01974, 226.02541, 227.02775, 232.0377,
    231.03588, 238.02891, 237.04817, 244.06421, 243.06138, 247.07035, 247.07031, 251.07959, 252.083, 257.09511,
    258.09843, 259.101, 262.11, 267.122, 268.126, 271.134, 270.133, 269.1338, 278.156, 281.165, 281.166,
    285.177, 286.182, 289.19, 289.194, 293.204, 293.208, 294.214,
)
# fmt: on
NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS)}
#: hydrogen by the mass of its nucleus: symbol -> mass, amu
ISOTOPES = {"D": 2.014, "T": 3.016}

# an element in its own spelling, followed by a number, a charge or a word: Cu1, Fe2+, O_w
_LABEL = re.compile(r"([A-Z][a-z]?)[0-9_+.'*-][A-Za-z0-9_+.'*-]*")


def parse_label(label: str) -> tuple[str, float | None]:
    """Return the element of a structure file's label, and its mass in amu if the label states an isotope.

    A bare symbol may be written in any case. A symbol followed by a number, a charge, or a word after ``_`` must have
    the element's own spelling.

    Raises:
        InputError: no element, or an ambiguous one (``CA1``, ``29``); the message has a suggestion.

    >>> parse_label("Fe2+"), parse_label("D")
    (('Fe', None), ('H', 2.014))
    """
    symbol = label.capitalize()
    if symbol not in NUMBERS and symbol not in ISOTOPES:
        found = _LABEL.fullmatch(label)
        symbol = found[1] if found and found[1] != "X" else label
    if symbol in ISOTOPES:
        return "H", ISOTOPES[symbol]
    if symbol in NUMBERS:
        return symbol, None
    raise InputError(f"no element has the symbol {quoted(label, 30)}.{_meant(label)}")


def _meant(label: str) -> str:
    """Return a suggestion for a label that is no element, with a leading blank."""
    if label.isascii() and label.isdigit():
        number = int(label[:4])
        known = 0 < number < len(SYMBOLS)
        return f" If it is an atomic number, write {SYMBOLS[number]}." if known else ""
    letters = re.match(r"[A-Za-z]*", label[:10])
    word = letters[0].capitalize() if letters else ""
    close = [word] if word in NUMBERS else difflib.get_close_matches(word, SYMBOLS[1:], n=1)
    return f" Did you mean {close[0]}?" if close and word else ""


def parse_formula(formula: str) -> list[int]:
    """Return the atomic numbers of a formula, in the order written: ``"Ag2Au"`` gives ``[47, 47, 79]``.

    Raises:
        InputError: malformed, an unknown element (with a suggestion), or no atoms.

    >>> parse_formula("CuAr2")
    [29, 18, 18]
    """
    if not re.fullmatch(r"(?:[A-Z][a-z]?[0-9]*)+", formula):
        raise InputError(
            f"{quoted(formula)} is not a formula; write elements and counts, like Ar38 or Ag32Au6"
        )
    numbers: list[int] = []
    for symbol, count in re.findall(r"([A-Z][a-z]?)([0-9]*)", formula):
        if symbol not in NUMBERS or symbol == "X":
            close = difflib.get_close_matches(symbol, SYMBOLS[1:], n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            if formula.startswith("LJ"):
                hint = f" Lennard-Jones atoms have no element of their own: write Ar{formula[2:]}"
            raise InputError(f"{quoted(formula)}: no element has the symbol {quoted(symbol)}.{hint}")
        repeat = int(count) if count else 1
        if len(numbers) + repeat > 1_000_000:
            raise InputError(f"{quoted(formula)} asks for more than 1,000,000 atoms")
        numbers += [NUMBERS[symbol]] * repeat
    if not numbers:
        raise InputError(f"{quoted(formula)} has no atoms")
    return numbers
