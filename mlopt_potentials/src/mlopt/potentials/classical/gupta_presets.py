"""Published parameters of the Gupta potential.

Sources and corrections:

- ``cleri-rosato``: F. Cleri & V. Rosato, Phys. Rev. B 48, 22 (1993), table II. Pure metals; no mixed pairs.
- ``AgAu``, ``AgPt``, ``PdAu``, ``PdPt``: as collected in table 4 of A. Merchant, L. Metz, S. S. Schoenholz &
  E. D. Cubuk, Learn2Hop, ICML (2021). That table needs corrections, which are made here:

  - the columns A and xi are exchanged (gold has A = 0.2061 eV and xi = 1.790 eV);
  - Au-Au in the set PdAu has p = 10.229, as in the paper's own row for Au55 and in Cleri & Rosato; 10.299 is printed;
  - Ag-Ag has p = 10.85 in the set AgAu and 10.86 in the set AgPt; both are kept, for both are printed;
  - its equation 6 counts each pair once under both sums, and has xi outside the root. Only the form of
    `mlopt.potentials.classical.gupta` gives bulk metals correctly.

  The sets for one metal differ (gold in AgAu and in PdAu), so compare energies within one set.
- ``au55-paper``: gold after I. L. Garzon & A. Posada-Amarillas, Phys. Rev. B 54, 11796 (1996), as ``gupta_gold55`` in
  JAX-MD, which writes ``U/2 (A sum exp - sqrt(sum exp))``. It is this, not the row for Au55 in table 4, that has the
  paper's minimum of -181.89 eV. JAX-MD cuts it at 8 angstrom: ``cutoff: 8, taper: 0``.
"""

from __future__ import annotations

from typing import Literal

PresetName = Literal["cleri-rosato", "AgAu", "AgPt", "PdAu", "PdPt", "au55-paper"]

#: A (eV), xi (eV), p, q, r0 (angstrom)
Row = tuple[float, float, float, float, float]

_AU = (0.2061, 1.790, 10.229, 4.036, 2.884)
_PD = (0.1746, 1.718, 10.867, 3.742, 2.7485)
_PT = (0.2975, 2.695, 10.612, 4.004, 2.7747)
_GARZON_U, _GARZON_A = 3.454, 0.118428

PRESETS: dict[PresetName, dict[str, Row]] = {
    "cleri-rosato": {
        "Ag-Ag": (0.1028, 1.178, 10.928, 3.139, 2.8885),
        "Au-Au": _AU,
        "Pd-Pd": _PD,
        "Pt-Pt": _PT,
    },
    "AgAu": {
        "Ag-Ag": (0.1031, 1.1895, 10.85, 3.18, 2.8921),
        "Ag-Au": (0.1488, 1.4874, 10.494, 3.607, 2.8885),
        "Au-Au": (0.2096, 1.8153, 10.139, 4.033, 2.885),
    },
    "AgPt": {
        "Ag-Ag": (0.1031, 1.1895, 10.86, 3.18, 2.8921),
        "Ag-Pt": (0.175, 1.79, 10.73, 3.57, 2.833),
        "Pt-Pt": _PT,
    },
    "PdAu": {"Pd-Pd": _PD, "Pd-Au": (0.19, 1.75, 10.54, 3.89, 2.816), "Au-Au": _AU},
    "PdPt": {"Pd-Pd": _PD, "Pd-Pt": (0.23, 2.2, 10.74, 3.87, 2.76), "Pt-Pt": _PT},
    "au55-paper": {"Au-Au": (0.5 * _GARZON_U * _GARZON_A, 0.5 * _GARZON_U, 10.15, 4.13, 2.96)},
}
