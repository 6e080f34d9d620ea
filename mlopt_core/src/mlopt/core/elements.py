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
