"""Chemical symbols, and formulas such as ``Ar38`` or ``Ag32Au6``: plain Python, nothing to import."""

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
NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS)}
#: hydrogen by the mass of its nucleus: symbol -> mass, amu
ISOTOPES = {"D": 2.014, "T": 3.016}

# an element as it is spelled, and a number, a charge or a word that programs put behind it: Cu1, Fe2+, O_w
_LABEL = re.compile(r"([A-Z][a-z]?)[0-9_+.'*-][A-Za-z0-9_+.'*-]*")


def parse_label(label: str) -> tuple[str, float | None]:
    """The element that a label of a structure file means, and the mass in amu if the label tells it.

    Symbols may be written in any case; with something behind them (a number, a charge, a word after ``_``), as
    elements are spelled.

    Raises:
        InputError: no element, or not certainly one (``CA1``, ``29``), with a suggestion.

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
    """A suggestion for a label that is no element, with a blank before it."""
    if label.isascii() and label.isdigit():
        number = int(label[:4])
        known = 0 < number < len(SYMBOLS)
        return f" If it is an atomic number, write {SYMBOLS[number]}." if known else ""
    letters = re.match(r"[A-Za-z]*", label[:10])
    word = letters[0].capitalize() if letters else ""
    close = [word] if word in NUMBERS else difflib.get_close_matches(word, SYMBOLS[1:], n=1)
    return f" Did you mean {close[0]}?" if close and word else ""


def parse_formula(formula: str) -> list[int]:
    """Atomic numbers of a formula, in the order written: ``"Ag2Au"`` gives ``[47, 47, 79]``.

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
            raise InputError(f"{quoted(formula)}: no element has the symbol {quoted(symbol)}.{hint}")
        repeat = int(count) if count else 1
        if len(numbers) + repeat > 1_000_000:
            raise InputError(f"{quoted(formula)} asks for more than 1,000,000 atoms")
        numbers += [NUMBERS[symbol]] * repeat
    if not numbers:
        raise InputError(f"{quoted(formula)} has no atoms")
    return numbers
