"""A learned optimizer that acts on components, for one system; see `mlopt.optimizers.learned.step.optimizer`."""

from __future__ import annotations

import math
from typing import Any

from mlopt.core.kernels.lanes import lane, lanes, sync, theta_of
from mlopt.core.kernels.records import Start, Step, diameter_of, is_free, is_periodic, species_of
from mlopt.optimizers.learned.kernels.network import (
    STRIDE,
    TILE,
    TINY,
    UNITS,
    coded,
    first_layer,
    other_layers,
    padded_of,
)
from mlopt.optimizers.learned.kernels.radial import ETAS, KINDS, kind_of, radial, stand
from mlopt.optimizers.moves.kernels.geometry import centre_of

#: groups of inputs
GRADIENT, POSITION, MOMENTS, ADAM, NUMBER, SPECIES, SINES, RADIAL = 1, 1, 1, 1, 1, 0, 1, 1
#: moments with decays of their own
DECAYS = 3
#: inputs of components and of rows, each filled up to a multiple of four
COMPONENTS, ROWS = 24, 16
#: where in `weights` the network begins, behind decays and species: inputs of the system and biases of the first
#: layer, input by input; then as in `first_layer` and `other_layers`; alpha, beta and gamma
NETWORK = 3
#: where in `scratch` things are, see `mlopt.optimizers.learned.step.optimizer`
BASE, OF_COMPONENTS, OF_ROWS, HIDDEN, SPACE, OUT, PLACE, PHI, CELL, STANDING = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0

#: sines of the number of the step
TIMESCALES = 9


def init(s: Start, settings: Any) -> None:
    """Write zero moments."""
    for k in range(lane(), 6 * DECAYS * s.n, lanes()):
        s.rows[k] = 0.0
    if lane() == 0:
        for j in range(DECAYS):
            s.numbers[j] = 1.0
        s.counts[0] = 0


def of_system(n: int, age: float, weights: Any, scratch: Any) -> int:
    """Write the part of each unit that comes from its bias, the number of rows, and sines.

    Return the place in ``weights`` of the rest of the layer.
    """
    at = NETWORK
    for u in range(lane(), UNITS, lanes()):
        scratch[BASE + u] = weights[at + u]
    at += UNITS
    if NUMBER == 1:
        size = math.log(float(n)) * 0.1
        for u in range(lane(), UNITS, lanes()):
            scratch[BASE + u] += size * weights[at + u]
        at += UNITS
    if SINES == 1:
        scale = 1.0
        for k in range(TIMESCALES):
            sine = math.sin(age / scale)
            for u in range(lane(), UNITS, lanes()):
                scratch[BASE + u] += sine * weights[at + u]
            at += UNITS
            scale = 3.0 * scale if k % 2 == 0 else 10.0 * (scale / 3.0)
    return at


def code(at: int, eights: int, given: Any) -> None:
    """Replace numbers by their magnitudes, and write their signs as the input behind them."""
    for c in range(lane(), 8 * eights, lanes()):
        magnitude, sign = coded(given[at + c])
        given[at + c] = magnitude
        given[at + STRIDE + c] = sign


def of_components(
    s: Step,
    start: int,
    here: int,
    padded: int,
    centre: tuple[float, float, float],
    weights: Any,
    given: Any,
    space: Any,
) -> None:
    """Write the inputs of components of a tile, and the new moments.

    Loops over existing rows only move and add numbers. Costly loops go over whole registers.
    """
    n, x, force, rows = s.n, s.x, s.force, s.rows
    at, eights = 0, 3 * (padded // 8)
    if GRADIENT == 1:
        for axis in range(3):
            for i in range(lane(), here, lanes()):
                given[at + axis * padded + i] = force[axis * n + start + i] * diameter_of(s, start + i)
        sync()
        code(at, eights, given)
        at += 2 * STRIDE
    if POSITION == 1:
        periodic = is_periodic(s, 0) or is_periodic(s, 1) or is_periodic(s, 2)
        for axis in range(3):
            middle = centre[0] if axis == 0 else centre[1] if axis == 1 else centre[2]
            for i in range(lane(), here, lanes()):
                given[at + axis * padded + i] = (x[axis * n + start + i] - middle) / diameter_of(s, start + i)
        sync()
        code(at, eights, given)
        if periodic:
            for c in range(lane(), 8 * eights, lanes()):
                given[at + c] = 0.0
                given[at + STRIDE + c] = 0.0
        at += 2 * STRIDE
    of_adam = at + 4 * DECAYS * MOMENTS * STRIDE
    for j in range(DECAYS):
        decay, left = weights[j], 1.0 - s.numbers[j]
        mean_at, square_at = 3 * j * n + start, 3 * (DECAYS + j) * n + start
        sync()  # the space below is still read for the last decay
        for axis in range(3):
            c, k = axis * padded, axis * n
            for i in range(lane(), here, lanes()):
                pull = force[start + k + i] * diameter_of(s, start + i)
                mean = pull + decay * (rows[mean_at + k + i] - pull)
                square = pull * pull + decay * (rows[square_at + k + i] - pull * pull)
                rows[mean_at + k + i] = mean
                rows[square_at + k + i] = square
                space[c + i] = mean
                space[STRIDE + c + i] = square
            for i in range(here + lane(), padded, lanes()):
                space[c + i] = 0.0
                space[STRIDE + c + i] = 0.0
        sync()
        correction, growth = 1.0 / math.sqrt(left), 1.0 / left
        for c in range(lane(), 8 * eights, lanes()):
            mean, root = space[c], math.sqrt(space[STRIDE + c])
            if MOMENTS == 1:
                magnitude, sign = coded(mean)
                given[at + c] = magnitude
                given[at + STRIDE + c] = sign
                magnitude, sign = coded(root)
                given[at + 2 * STRIDE + c] = magnitude
                given[at + 3 * STRIDE + c] = sign
            if ADAM == 1:
                magnitude, sign = coded(mean * growth / (root * correction + TINY))
                given[of_adam + c] = magnitude
                given[of_adam + STRIDE + c] = sign
        at += 4 * MOMENTS * STRIDE
        of_adam += 2 * STRIDE
    at = (2 * GRADIENT + 2 * POSITION + (4 * MOMENTS + 2 * ADAM) * DECAYS) * STRIDE
    while at < COMPONENTS * STRIDE:
        for c in range(lane(), 8 * eights, lanes()):
            given[at + c] = 0.0
        at += STRIDE


def of_rows(
    s: Step, start: int, here: int, padded: int, cutoff: float, weights: Any, given: Any, phi: Any
) -> None:
    """Write the inputs of rows of a tile."""
    at, width, eights = 0, ETAS * (KINDS if KINDS > 0 else 1), padded // 8
    if RADIAL == 1:
        radial(s, start, here, padded, cutoff, weights, DECAYS, CELL, STANDING, s.scratch[PLACE:], phi)
        for k in range(width):
            for i in range(lane(), 8 * eights, lanes()):
                magnitude, sign = coded(phi[k * STRIDE + i])
                given[at + k * STRIDE + i] = magnitude
                given[at + (width + k) * STRIDE + i] = sign
        at += 2 * width * STRIDE
    if SPECIES == 1:
        for known in range(KINDS):
            for i in range(lane(), 8 * eights, lanes()):
                kind = kind_of(species_of(s, start + (i if i < here else 0)), weights, DECAYS)
                given[at + known * STRIDE + i] = 1.0 if kind == known else 0.0
        at += KINDS * STRIDE
    while at < ROWS * STRIDE:
        for i in range(lane(), 8 * eights, lanes()):
            given[at + i] = 0.0
        at += STRIDE


def step(s: Step, settings: Any) -> None:
    """Compute inputs and network, and move. rows: means, then squares. settings: cutoff."""
    n, x, scratch = s.n, s.x, s.scratch
    weights = theta_of(settings)
    age = s.counts[0]
    centre = centre_of(n, x)
    sync()
    if lane() == 0:
        s.counts[0] = age + 1
        for j in range(DECAYS):
            s.numbers[j] *= weights[j]
    layer = of_system(n, float(age), weights, scratch)
    behind = layer + UNITS * (ROWS + COMPONENTS)
    last = behind + UNITS * UNITS + 3 * UNITS + 2
    alpha, beta, gamma = weights[last], weights[last + 1], weights[last + 2]
    moved = STANDING + 3 * n
    if RADIAL == 1:
        stand(s, CELL, STANDING)
    given, by_row, phi = scratch[OF_COMPONENTS:], scratch[OF_ROWS:], scratch[PHI:]
    hidden, space, out = scratch[HIDDEN:], scratch[SPACE:], scratch[OUT:]
    sync()
    for start in range(0, n, TILE):
        here = n - start if n - start < TILE else TILE
        padded = padded_of(here)
        of_components(s, start, here, padded, centre, weights, given, space)
        of_rows(s, start, here, padded, settings[0], weights, by_row, phi)
        sync()
        first_layer(COMPONENTS, ROWS, scratch[BASE:], given, by_row, hidden, weights, layer, padded)
        other_layers(hidden, space, out, weights, behind, padded)
        for axis in range(3):
            at, k = axis * padded, axis * n + start
            for i in range(lane(), here, lanes()):
                gate = 1.0 + math.exp(-(beta * out[STRIDE + at + i] + gamma))
                size = alpha * diameter_of(s, start + i) if is_free(s, start + i) else 0.0
                scratch[moved + k + i] = size * out[at + i] / gate
        sync()
    for k in range(lane(), 3 * n, lanes()):
        x[k] += scratch[moved + k]
