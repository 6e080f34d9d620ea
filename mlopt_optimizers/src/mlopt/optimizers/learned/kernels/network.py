"""A small network over the components of one system, and the logarithmic coding of its inputs.

Rows are worked on in tiles of `TILE`. For each input or unit, a stretch of `STRIDE` numbers holds all components of a
tile. Component ``axis`` of row i is at ``axis * padded + i``. So inner loops run over contiguous numbers, their length
is a multiple of eight, and their arrays stay in the nearest cache.
"""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.lanes import lane, lanes, sync

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
#: added to root mean squares that numbers are divided by
TINY = 1e-30


def padded_of(rows: int) -> int:
    """Return the rows of a tile together with those that fill up a vector register."""
    return 8 * ((rows + 7) // 8)


def coded(value: float) -> tuple[float, float]:
    """Return magnitude and sign of a number: (log|x| / p, sign x) from exp(-p) on, else (-1, x exp(p))."""
    magnitude = math.log(max(abs(value), 1.0 / MAGNIFIED)) * (1.0 / DECADES)
    return magnitude, max(-1.0, min(1.0, value * MAGNIFIED))


def activate(count: int, stretch: int, hidden: Any) -> None:
    """Apply the activation to ``count`` units of ``stretch`` numbers each."""
    for u in range(count):
        for c in range(lane(), 8 * stretch, lanes()):
            value = hidden[u * STRIDE + c]
            if TANH == 1:
                hidden[u * STRIDE + c] = 1.0 - 2.0 / (math.exp(2.0 * value) + 1.0)
            else:
                hidden[u * STRIDE + c] = max(value, 0.0)


def four_units(inputs: int, given: Any, weights: Any, first: int, out: Any, eights: int) -> None:
    """Add to four units ``out`` the ``inputs`` (a multiple of four) in ``given`` times their weights.

    weights[first:]: the weights of the first unit for all inputs, then those of the second, and so on. By fours, each
    number that is loaded serves four multiplications. ``given`` and ``out`` are separate arguments, so that one
    comparison tells the compiler that they do not overlap.
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
        at = k * STRIDE
        for c in range(lane(), 8 * eights, lanes()):
            f0, f1 = given[at + c], given[at + STRIDE + c]
            f2, f3 = given[at + 2 * STRIDE + c], given[at + 3 * STRIDE + c]
            out[c] += a0 * f0 + a1 * f1 + a2 * f2 + a3 * f3
            out[STRIDE + c] += b0 * f0 + b1 * f1 + b2 * f2 + b3 * f3
            out[2 * STRIDE + c] += d0 * f0 + d1 * f1 + d2 * f2 + d3 * f3
            out[3 * STRIDE + c] += e0 * f0 + e1 * f1 + e2 * f2 + e3 * f3


def first_layer(
    components: int,
    rows: int,
    base: Any,
    of_components: Any,
    of_rows: Any,
    hidden: Any,
    weights: Any,
    at: int,
    padded: int,
) -> None:
    """Compute the first hidden layer, before its activation.

    The weights of rows, unit by unit, and then those of components begin at ``weights[at:]``.

    components, rows: numbers of inputs that components and rows have, multiples of four.
    of_components, of_rows: these inputs.
    base (UNITS,): the part of each unit that all components of the system share.
    """
    eights = padded // 8
    behind = at + UNITS * rows
    for u in range(0, UNITS, 4):
        # what rows give is the same along all axes: summed up along the first, then copied
        here = hidden[u * STRIDE :]
        for v in range(4):
            shared = base[u + v]
            for c in range(lane(), 8 * eights, lanes()):
                here[v * STRIDE + c] = shared
        four_units(rows, of_rows, weights, at + u * rows, here, eights)
        for v in range(4):
            for c in range(lane(), 8 * eights, lanes()):
                shared = here[v * STRIDE + c]
                here[v * STRIDE + padded + c] = shared
                here[v * STRIDE + 2 * padded + c] = shared
    sync()
    for u in range(0, UNITS, 4):
        first = behind + u * components
        four_units(components, of_components, weights, first, hidden[u * STRIDE :], 3 * eights)


def other_layers(hidden: Any, space: Any, out: Any, weights: Any, at: int, padded: int) -> None:
    """Compute both outputs, ``out``, from the first hidden layer.

    space: room for four units. weights[at:]: the weights of the second layer unit by unit, its biases, the weights of
    each output, and their biases.
    """
    eights = 3 * (padded // 8)
    biases = at + UNITS * UNITS
    of_outputs = biases + UNITS
    activate(UNITS, eights, hidden)
    for o in range(2):
        bias = weights[of_outputs + 2 * UNITS + o]
        for c in range(lane(), 8 * eights, lanes()):
            out[o * STRIDE + c] = bias
    for u in range(0, UNITS, 4):
        for v in range(4):
            bias = weights[biases + u + v]
            for c in range(lane(), 8 * eights, lanes()):
                space[v * STRIDE + c] = bias
        four_units(UNITS, hidden, weights, at + u * UNITS, space, eights)
        activate(4, eights, space)
        w = of_outputs + u
        v0, v1, v2, v3 = weights[w], weights[w + 1], weights[w + 2], weights[w + 3]
        w = w + UNITS
        w0, w1, w2, w3 = weights[w], weights[w + 1], weights[w + 2], weights[w + 3]
        for c in range(lane(), 8 * eights, lanes()):
            h0, h1 = space[c], space[STRIDE + c]
            h2, h3 = space[2 * STRIDE + c], space[3 * STRIDE + c]
            out[c] += v0 * h0 + v1 * h1 + v2 * h2 + v3 * h3
            out[STRIDE + c] += w0 * h0 + w1 * h1 + w2 * h2 + w3 * h3
    sync()
