"""Pairs within a cutoff, for one system: free or periodic, in a cell of any shape and size.

A list of candidates, within the cutoff and a skin, is valid until an atom has moved by half the skin. At each
evaluation, the candidates within the cutoff are copied into a buffer, in the order of atoms i, then j, then image. The
buffer, and so every bit of a sum over it, depends on the positions and not on the age of the list.

A potential takes the rows block by block (see `block_count`). It fills the block's part of the buffer as often as
needed, nearly always once::

    refresh(n, x, cell, table, reals, integers)
    for block in range(lane(), block_count(n), lanes()):
        first, last, low, room = block_of(block, n)
        restart(first, n, integers)
        while row_of(first, n, integers) < last:
            entries = fill(first, last, low, room, n, x, cell, table, reals, integers)
            ...

On one lane all rows are one block. Its pairs are contiguous, so loops over them fill vector registers even if an atom
has few neighbours. With more lanes each row is a block, and no two lanes share a part of the buffer.

A row with more candidates than the list can hold is searched at each evaluation, which is slower but gives the same
bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from mlopt.core.geometry.lattice_kernel import complete
from mlopt.core.kernels.lanes import lane, lanes, sync, total

#: candidates of a row; entries of a row in the buffer, a multiple of 32; arrays of the buffer; entries of a filling
LIST, ROOM, FIELDS, MOST = 128, 96, 5, 1 << 30
#: columns of the potential's table
CUTOFF, SKIN = 0, 1
#: squared distance of entries that fill up a vector register: infinity is not safe with estimates of reciprocals
FAR = 1e12
#: the buffer is filled up to a multiple of this
ALIGN = 32
#: so many cells (or lengths) away, positions have no digits left for the place within the cell
FARTHEST = 2.0**30

# reals: the completed cell (9) and its dual (9), both by `complete`. Then 3 n each of positions at the last rebuild, in
# lengths and in units of the cell. Then shifts of the candidates (3 n LIST), and the buffer.
CELL, DUAL, HEAD = 0, 9, 18
# integers: seen, lost, images along each vector (3), all images. Then five of n each: the number of candidates, the
# end of the search for them, whether they are all, and the row's begin and end in the buffer. Then 4 n cursors of the
# blocks, candidates (n LIST), and the atoms j of the buffer.
SEEN, LOST, IMAGES, TRIES = 0, 1, 2, 5
BASE = 8
COUNT, UPTO, WHOLE, BEGIN, END, CURSOR, NAMES = 0, 1, 2, 3, 4, 5, 9


def reals_of(width: int, room: int, fields: int) -> Callable[[int], int]:
    """Return the number of reals for a system of n atoms as a function of n, for constants LIST, ROOM and FIELDS."""
    return lambda n: HEAD + 6 * n + 3 * n * width + fields * (n * room + ALIGN)


def integers_of(width: int, room: int, fields: int = 1) -> Callable[[int], int]:
    """Return the number of integers likewise; fields: integer arrays in the buffer, the first for the atoms j."""
    return lambda n: BASE + NAMES * n + n * width + fields * (n * room + ALIGN)


def widths(cutoff: float, skin: float, length: float) -> tuple[int, int]:
    """Return LIST and ROOM for atoms packed as densely as spheres of diameter 0.9 ``length``."""
    density = math.sqrt(2.0) / (0.9 * length) ** 3
    sphere = 4.0 / 3.0 * math.pi
    listed = min(2000.0, sphere * (cutoff + skin) ** 3 * density) + 32
    kept = min(2000.0, sphere * cutoff**3 * density) + 32
    return ALIGN * math.ceil(listed / ALIGN), ALIGN * math.ceil(kept / ALIGN)


def field(index: int, n: int, reals: Any) -> Any:
    """Return array ``index`` of the buffer; the first four are the difference (3) and the squared distance."""
    size = n * ROOM + ALIGN
    start = HEAD + 6 * n + 3 * n * LIST + index * size
    return reals[start : start + size]


def neighbours(index: int, n: int, integers: Any) -> Any:
    """Return integer array ``index`` of the buffer; 0 has the atoms j."""
    size = n * ROOM + ALIGN
    start = BASE + NAMES * n + n * LIST + index * size
    return integers[start : start + size]


def block_count(n: int) -> int:
    """Return the number of blocks of rows; each belongs to one lane."""
    return 1 if lanes() == 1 else n


def block_of(block: int, n: int) -> tuple[int, int, int, int]:
    """Return a block's rows ``first:last``, the start of its part of the buffer, and the room there in pairs."""
    if lanes() == 1:
        return 0, n, 0, min(n * ROOM, MOST)
    return block, block + 1, block * ROOM, ROOM


def row_integers(which: int, n: int, integers: Any) -> Any:
    """Return an integer array (n,) over rows, such as `BEGIN`."""
    return integers[BASE + which * n : BASE + (which + 1) * n]


def restart(first: int, n: int, integers: Any) -> None:
    """Make the next filling of this block begin with the block's first row."""
    cursor = BASE + CURSOR * n + 4 * first
    integers[cursor] = first
    integers[cursor + 1] = 0
    integers[cursor + 3] = 0


def fillings(first: int, n: int, integers: Any) -> int:
    """Return the number of fillings since `restart`; after a single one the buffer has all pairs of the block."""
    count: int = integers[BASE + CURSOR * n + 4 * first + 3]
    return count


def row_of(first: int, n: int, integers: Any) -> int:
    """Return the row at which the next filling continues, in which the last filling ended."""
    row: int = integers[BASE + CURSOR * n + 4 * first]
    return row


def begun_at(first: int, n: int, integers: Any) -> int:
    """Return the row with which the last filling began."""
    row: int = integers[BASE + CURSOR * n + 4 * first + 2]
    return row


def refresh(n: int, x: Any, cell: Any, table: Any, reals: Any, integers: Any) -> bool:
    """Renew the list where it may lack a pair; return False for a non-finite position, where all is NaN."""
    skin = table[0, SKIN]
    limit = 0.2499 * skin * skin
    old = reals[HEAD : HEAD + 3 * n]
    moved = 0
    for i in range(lane(), n, lanes()):
        dx, dy, dz = x[i] - old[i], x[n + i] - old[n + i], x[2 * n + i] - old[2 * n + i]
        moved += 0 if dx * dx + dy * dy + dz * dz <= limit else 1
    if total(float(moved)) > 0.0 or integers[SEEN] == 0:
        sync()
        rebuild(n, x, cell, table[0, CUTOFF] + skin, reals, integers)
    sound: bool = integers[LOST] == 0
    return sound


def rebuild(n: int, x: Any, cell: Any, reach: float, reals: Any, integers: Any) -> None:
    """Discard the candidates of all rows; `fill` finds new ones, for the present positions."""
    if lane() == 0:
        complete(cell, CELL, reals)
        tries = 1
        for a in range(3):
            integers[IMAGES + a] = 0
            if cell[9 + a] != 0.0:
                u, v, w = reals[DUAL + 3 * a], reals[DUAL + 3 * a + 1], reals[DUAL + 3 * a + 2]
                span = reach * math.sqrt(u * u + v * v + w * w) + 0.500001
                if span <= 1000.0:
                    integers[IMAGES + a] = math.floor(span)
                else:  # NaN or infinity: a cell without volume
                    tries = 0
            tries *= 2 * integers[IMAGES + a] + 1
        integers[TRIES] = tries
    sync()
    strange = 0 if integers[TRIES] > 0 else 1
    for i in range(lane(), n, lanes()):
        for a in range(3):
            reals[HEAD + a * n + i] = x[a * n + i]
            at = 0.0
            for b in range(3):
                at += x[b * n + i] * reals[DUAL + 3 * a + b]
            reals[HEAD + (3 + a) * n + i] = at
            strange += 0 if abs(at) <= FARTHEST else 1
    lost = 1 if total(float(strange)) > 0.0 else 0
    if lane() == 0:
        integers[LOST] = lost
        integers[SEEN] = 1
    sync()
    if lost == 0:
        for i in range(lane(), n, lanes()):  # the next filling searches
            integers[BASE + COUNT * n + i] = 0
            integers[BASE + UPTO * n + i] = 0
            integers[BASE + WHOLE * n + i] = 0
    sync()


def nearest(value: float) -> float:
    """Return the nearest whole number."""
    return float(math.floor(value + 0.5))


def scan(i: int, upto: int, n: int, cell: Any, reach: float, reals: Any, integers: Any) -> tuple[int, int]:
    """Write candidates of row i into its list, from ``upto`` on; return their number and the end of the search.

    ``upto`` counts atoms j times images. The search reaches the last of them unless the list is full.
    """
    start = BASE + NAMES * n + i * LIST
    names = integers[start : start + LIST]
    start = HEAD + 6 * n + 3 * i * LIST
    sx, sy, sz = (
        reals[start : start + LIST],
        reals[start + LIST : start + 2 * LIST],
        reals[start + 2 * LIST : start + 3 * LIST],
    )
    fx, fy, fz = (
        reals[HEAD + 3 * n : HEAD + 4 * n],
        reals[HEAD + 4 * n : HEAD + 5 * n],
        reals[HEAD + 5 * n : HEAD + 6 * n],
    )
    c0, c1, c2 = reals[CELL], reals[CELL + 1], reals[CELL + 2]
    c3, c4, c5 = reals[CELL + 3], reals[CELL + 4], reals[CELL + 5]
    c6, c7, c8 = reals[CELL + 6], reals[CELL + 7], reals[CELL + 8]
    # 0 along vectors that are not periodic, so that nothing is subtracted
    pa, pb, pc = cell[9], cell[10], cell[11]
    a, b, c = fx[i], fy[i], fz[i]
    count = 0
    if integers[TRIES] == 1:
        while upto < n and count < LIST:
            stop = min(n, upto + min(LIST - count, ALIGN))
            # the place of the shifts not yet there serves for distances
            for k in range(stop - upto):
                j = upto + k
                u, v, w = a - fx[j], b - fy[j], c - fz[j]
                u -= pa * nearest(u)
                v -= pb * nearest(v)
                w -= pc * nearest(w)
                dx = u * c0 + v * c3 + w * c6
                dy = u * c1 + v * c4 + w * c7
                dz = u * c2 + v * c5 + w * c8
                sx[k] = dx * dx + dy * dy + dz * dz
            for k in range(stop - upto):
                names[count] = upto + k
                count += 1 if (sx[k] < reach * reach and upto + k != i) else 0
            upto = stop
        for k in range(count):
            j = names[k]
            u = pa * nearest(a - fx[j])
            v = pb * nearest(b - fy[j])
            w = pc * nearest(c - fz[j])
            sx[k] = u * c0 + v * c3 + w * c6
            sy[k] = u * c1 + v * c4 + w * c7
            sz[k] = u * c2 + v * c5 + w * c8
        return count, upto
    # every image that can be within reach, in the order of their numbers
    kb, kc = 2 * integers[IMAGES + 1] + 1, 2 * integers[IMAGES + 2] + 1
    tries = integers[TRIES]
    while upto < n * tries and count < LIST:
        j = upto // tries
        image = upto - j * tries
        p = image // (kb * kc)
        q = image // kc - p * kb
        r = image % kc
        u, v, w = a - fx[j], b - fy[j], c - fz[j]
        s = pa * (nearest(u) + float(p - integers[IMAGES]))
        t = pb * (nearest(v) + float(q - integers[IMAGES + 1]))
        o = pc * (nearest(w) + float(r - integers[IMAGES + 2]))
        u, v, w = u - s, v - t, w - o
        dx = u * c0 + v * c3 + w * c6
        dy = u * c1 + v * c4 + w * c7
        dz = u * c2 + v * c5 + w * c8
        itself = j == i and s == 0.0 and t == 0.0 and o == 0.0
        if dx * dx + dy * dy + dz * dz < reach * reach and not itself:
            names[count] = j
            sx[count] = s * c0 + t * c3 + o * c6
            sy[count] = s * c1 + t * c4 + o * c7
            sz[count] = s * c2 + t * c5 + o * c8
            count += 1
        upto += 1
    return count, upto


def fill(
    first: int,
    last: int,
    low: int,
    room: int,
    n: int,
    x: Any,
    cell: Any,
    table: Any,
    reals: Any,
    integers: Any,
) -> int:
    """Copy pairs of the rows ``first:last`` into the buffer from ``low`` on, as many as it has room for.

    It continues where the last filling of the block ended. Return the number of entries, padded to a multiple of
    `ALIGN` with entries that are `FAR` apart. A row i has its pairs in ``BEGIN`` to ``integers[END + 4 n + i]``.
    """
    cursor = BASE + CURSOR * n + 4 * first
    i, c, at, limit = integers[cursor], integers[cursor + 1], low, low + room
    every = n * integers[TRIES]
    dx, dy, dz, r2 = field(0, n, reals), field(1, n, reals), field(2, n, reals), field(3, n, reals)
    atoms = neighbours(0, n, integers)
    cutoff = table[0, CUTOFF]
    cut2 = cutoff * cutoff
    integers[cursor + 2] = i
    integers[cursor + 3] += 1
    integers[BASE + BEGIN * n + i] = low
    while i < last and at < limit:
        if c == integers[BASE + COUNT * n + i]:
            c = 0
            upto = integers[BASE + UPTO * n + i]
            if upto < every:
                # after a rebuild; or the list cannot hold this row, and the next part of it takes its place
                count, after = scan(i, upto, n, cell, cutoff + table[0, SKIN], reals, integers)
                integers[BASE + COUNT * n + i] = count
                integers[BASE + UPTO * n + i] = after
                integers[BASE + WHOLE * n + i] = 1 if upto == 0 and after == every else 0
                continue
            if integers[BASE + WHOLE * n + i] == 0:
                integers[BASE + COUNT * n + i] = 0
                integers[BASE + UPTO * n + i] = 0
            integers[BASE + END * n + i] = at
            i += 1
            if i < last:
                integers[BASE + BEGIN * n + i] = at
            continue
        start, shift = BASE + NAMES * n + i * LIST, HEAD + 6 * n + 3 * i * LIST
        a, b, d = x[i], x[n + i], x[2 * n + i]
        stop = min(integers[BASE + COUNT * n + i], c + (limit - at))
        for k in range(c, stop):
            j = integers[start + k]
            u = (a - x[j]) - reals[shift + k]
            v = (b - x[n + j]) - reals[shift + LIST + k]
            w = (d - x[2 * n + j]) - reals[shift + 2 * LIST + k]
            square = u * u + v * v + w * w
            dx[at] = u
            dy[at] = v
            dz[at] = w
            r2[at] = square
            atoms[at] = j
            at += 1 if square < cut2 else 0
        c = stop
    if i < last:
        integers[BASE + END * n + i] = at
    integers[cursor] = i
    integers[cursor + 1] = c
    high = low + (at - low + ALIGN - 1) // ALIGN * ALIGN
    for k in range(at, high):
        dx[k] = 0.0
        dy[k] = 0.0
        dz[k] = 0.0
        r2[k] = FAR
        atoms[k] = first
    return high - low


def spoil(n: int, force: Any, row_energy: Any) -> float:
    """Set force and row energies to NaN, and return NaN."""
    nan = math.inf - math.inf
    for i in range(lane(), n, lanes()):
        row_energy[i] = nan
        for a in range(3):
            force[a * n + i] = nan
    return nan
