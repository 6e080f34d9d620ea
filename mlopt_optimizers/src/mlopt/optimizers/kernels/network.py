"""A small network over the components of one system, and the logarithmic coding of what it is given.

Rows are worked on in tiles of `TILE`: what belongs to one number of each component of a tile lies in a stretch of
`STRIDE` numbers, component ``axis * padded + i``, so that inner loops run over contiguous numbers, have a length that
is a multiple of eight, and their arrays stay in the nearest cache.
"""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.lanes import lane, lanes, sync

#: rows that are treated at once, and numbers between two inputs or units of a tile
TILE = 32
STRIDE = 96
#: units in each hidden layer, a multiple of four
UNITS = 32
#: 1 for tanh, else rectified linear units
TANH = 0

#: p of the coding, and exp(p)
DECADES = 10.0
MAGNIFIED = 22026.465794806718


def padded_of(rows: int) -> int:
    """Rows of a tile with those that fill up a vector register."""
    return 8 * ((rows + 7) // 8)


def coded(value: float) -> tuple[float, float]:
    """Magnitude and sign of a number: (log|x| / p, sign x) from exp(-p) on, else (-1, x exp(p))."""
    magnitude = math.log(max(abs(value), 1.0 / MAGNIFIED)) * (1.0 / DECADES)
    return magnitude, max(-1.0, min(1.0, value * MAGNIFIED))


def activate(count: int, at: int, stretch: int, scratch: Any) -> None:
    """Apply the activation to ``count`` units of ``stretch`` numbers each."""
    for u in range(count):
        for c in range(lane(), stretch, lanes()):
            value = scratch[at + u * STRIDE + c]
            if TANH == 1:
                scratch[at + u * STRIDE + c] = 1.0 - 2.0 / (math.exp(2.0 * value) + 1.0)
            else:
                scratch[at + u * STRIDE + c] = max(value, 0.0)


def four_units(
    inputs: int, given: int, weights: Any, first: int, out: int, eights: int, scratch: Any
) -> None:
    """Add to four units at ``out`` the ``inputs`` (a multiple of four) at ``given`` times their weights.

    weights[first:]: those of the first unit for all inputs, then those of the second, ... Four by four, each number
    that is loaded serves four multiplications.
    """
    for k in range(0, inputs, 4):
        a = first + k
        b = a + inputs
        d = b + inputs
        e = d + inputs
        a0, a1, a2, a3 = weights[a], weights[a + 1], weights[a + 2], weights[a + 3]
        b0, b1, b2, b3 = weights[b], weights[b + 1], weights[b + 2], weights[b + 3]
        d0, d1, d2, d3 = weights[d], weights[d + 1], weights[d + 2], weights[d + 3]
        e0, e1, e2, e3 = weights[e], weights[e + 1], weights[e + 2], weights[e + 3]
        at = given + k * STRIDE
        for c in range(lane(), 8 * eights, lanes()):
            f0, f1 = scratch[at + c], scratch[at + STRIDE + c]
            f2, f3 = scratch[at + 2 * STRIDE + c], scratch[at + 3 * STRIDE + c]
            scratch[out + c] += a0 * f0 + a1 * f1 + a2 * f2 + a3 * f3
            scratch[out + STRIDE + c] += b0 * f0 + b1 * f1 + b2 * f2 + b3 * f3
            scratch[out + 2 * STRIDE + c] += d0 * f0 + d1 * f1 + d2 * f2 + d3 * f3
            scratch[out + 3 * STRIDE + c] += e0 * f0 + e1 * f1 + e2 * f2 + e3 * f3


def first_layer(
    components: int,
    rows: int,
    base: int,
    of_components: int,
    of_rows: int,
    hidden: int,
    weights: Any,
    at: int,
    padded: int,
    scratch: Any,
) -> None:
    """The first hidden layer, before its activation.

    components, rows: how many inputs components and rows have, multiples of four; ``of_components`` and ``of_rows``
    say where they are, ``base`` where the part of each unit that all components of the system share is.
    weights[at:]: those of rows, unit by unit, then those of components.
    """
    eights = padded // 8
    behind = at + UNITS * rows
    for u in range(0, UNITS, 4):
        # what rows give is the same along all axes: summed up along the first, then copied
        for v in range(u, u + 4):
            shared = scratch[base + v]
            for c in range(lane(), 8 * eights, lanes()):
                scratch[hidden + v * STRIDE + c] = shared
        four_units(rows, of_rows, weights, at + u * rows, hidden + u * STRIDE, eights, scratch)
        for v in range(u, u + 4):
            here = hidden + v * STRIDE
            for c in range(lane(), 8 * eights, lanes()):
                scratch[here + padded + c] = scratch[here + c]
                scratch[here + 2 * padded + c] = scratch[here + c]
    sync()
    for u in range(0, UNITS, 4):
        four_units(
            components,
            of_components,
            weights,
            behind + u * components,
            hidden + u * STRIDE,
            3 * eights,
            scratch,
        )


def other_layers(hidden: int, space: int, out: int, weights: Any, at: int, padded: int, scratch: Any) -> None:
    """From the first hidden layer to both outputs, at ``out``.

    space: room for four units. weights[at:]: those of the second layer unit by unit, its biases, those of each output,
    and their biases.
    """
    eights = 3 * (padded // 8)
    biases = at + UNITS * UNITS
    of_outputs = biases + UNITS
    activate(UNITS, hidden, 8 * eights, scratch)
    for o in range(2):
        bias = weights[of_outputs + 2 * UNITS + o]
        for c in range(lane(), 8 * eights, lanes()):
            scratch[out + o * STRIDE + c] = bias
    sync()
    for u in range(0, UNITS, 4):
        for v in range(4):
            bias = weights[biases + u + v]
            for c in range(lane(), 8 * eights, lanes()):
                scratch[space + v * STRIDE + c] = bias
        four_units(UNITS, hidden, weights, at + u * UNITS, space, eights, scratch)
        activate(4, space, 8 * eights, scratch)
        for o in range(2):
            w = of_outputs + o * UNITS + u
            w0, w1, w2, w3 = weights[w], weights[w + 1], weights[w + 2], weights[w + 3]
            for c in range(lane(), 8 * eights, lanes()):
                scratch[out + o * STRIDE + c] += (
                    w0 * scratch[space + c]
                    + w1 * scratch[space + STRIDE + c]
                    + w2 * scratch[space + 2 * STRIDE + c]
                    + w3 * scratch[space + 3 * STRIDE + c]
                )
    sync()
