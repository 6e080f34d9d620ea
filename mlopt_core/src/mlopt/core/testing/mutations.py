"""Random damage to files: flipped bytes, lost lines, numbers that overflow, other encodings.

Everything is a function of a NumPy generator, so a seed and an index always give the same input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from numpy.random import Generator

#: replacements for a number
NUMBERS = [
    *"1e300 -1e300 1e-300 1e999 nan -inf - + 0 -0.0 -1 1.5 0x10 1/0 1_000 1.0D+00 1.0d2 1.0-100 ١٢ １２ ² True".split(),
    *"99999999999999999999 -9223372036854775809 2147483648 4294967296 999999999".split(),
    *("9" * 5000, "", '"'),
]
#: replacements for a word
WORDS = [
    *"Cu1 D T X Xx CA1 O_w Fe2+ 29 move_mask:L:3 move_mask:L:2 occupancy:R:1 species:S:1:pos:R:999999999".split(
        " "
    ),
    *"masses:R:1 forces:R:3 Lattice= pbc= null [] {} # ## ! ; ' _JSON __ndarray__ __ase_objtype__ data_".split(
        " "
    ),
    *"loop_ End: Begin: Direct Selective \x1b[2J \u2028 \x0c \x85 \x0b \x00 \u202e \ufeff \n \t".split(" "),
    "a" * 5000,
]

_NUMBER = re.compile(rb"[-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?")
_WORD = re.compile(rb"[A-Za-z_][A-Za-z0-9_:]*")


def mutated(data: bytes, others: Sequence[bytes], random: Generator) -> bytes:
    """Return ``data`` after one to four accidents; ``others`` are files that it may be spliced with."""
    for _ in range(_several(random)):
        accident = _ACCIDENTS[int(random.integers(len(_ACCIDENTS)))]
        data = accident(data, others, random)
    return data


def mutated_settings(settings: Any, random: Generator) -> Any:
    """Return a configuration after one to four accidents to its keys and values."""
    for _ in range(_several(random)):
        settings = _changed(settings, random)
    return settings


def _several(random: Generator) -> int:
    """Return a number of accidents from one to four, most often one."""
    return int(random.choice((1, 1, 1, 1, 2, 2, 3, 4)))


def _changed(value: Any, random: Generator) -> Any:
    """Return a copy with one change, at a random depth."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = list(value)[int(random.integers(len(value)))]
        kind = random.random()
        if kind < 0.1:
            return {name: item for name, item in value.items() if name != key}
        if kind < 0.2:
            new = _odd(random)
            new = str(new)[:6000] if isinstance(new, list | dict) else new
            return {(new if name == key else name): item for name, item in value.items()}
        if kind < 0.3:
            return value | {str(_odd(random))[:6000]: _odd(random)}
        return value | {key: _changed(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.8:
        place = int(random.integers(len(value)))
        kind = random.random()
        if kind < 0.2:
            return value[:place] + value[place + 1 :]
        if kind < 0.4:
            return value[: place + 1] * 2 + value[place:]
        return [*value[:place], _changed(value[place], random), *value[place + 1 :]]
    return _odd(random)


def _odd(random: Generator) -> Any:
    """Return an unexpected value."""
    kind = int(random.integers(8))
    if kind == 0:
        return NUMBERS[int(random.integers(len(NUMBERS)))]
    if kind == 1:
        return WORDS[int(random.integers(len(WORDS)))]
    if kind == 2:
        return [None, True, False, 0, -1, 10**30, 1e308, float("nan"), float("-inf"), -0.0][
            int(random.integers(10))
        ]
    if kind == 3:
        return int(random.integers(-(2**62), 2**62))
    if kind == 4:
        return float(random.normal()) * 10.0 ** float(random.integers(-300, 300))
    if kind == 5:
        nested: Any = "end"
        for _ in range(int(random.integers(1, 70))):
            nested = [nested] if random.random() < 0.5 else {"name": nested}
        return nested
    if kind == 6:
        return {"name": WORDS[int(random.integers(len(WORDS)))], "file": "/nowhere", "k": "é" * 3000}
    return ["x" * 200] * int(random.integers(0, 100))


def _place(data: bytes, random: Generator) -> int:
    return int(random.integers(len(data) + 1))


def _flip(data: bytes, others: Sequence[bytes], random: Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 9)) if changed else 0):
        changed[int(random.integers(len(changed)))] = int(random.integers(256))
    return bytes(changed)


def _cut(data: bytes, others: Sequence[bytes], random: Generator) -> bytes:
    first, last = sorted((_place(data, random), _place(data, random)))
    return data[:first] if random.random() < 0.5 else data[:first] + data[last:]


def _lines(data: bytes, others: Sequence[bytes], random: Generator) -> bytes:
    lines = data.split(b"\n")
    a, b = int(random.integers(len(lines))), int(random.integers(len(lines)))
    kind = int(random.integers(4))
    if kind == 0:
        del lines[a]
    elif kind == 1:
        lines.insert(b, lines[a])
    elif kind == 2:
        lines[a], lines[b] = lines[b], lines[a]
    else:
        lines.insert(a, b"")
    return b"\n".join(lines)


def _number(data: bytes, others: Sequence[bytes], random: Generator) -> bytes:
    return _swapped(_NUMBER, NUMBERS, data, random)


def _word(data: bytes, others: Sequence[bytes], random: Generator) -> bytes:
    return _swapped(_WORD, WORDS, data, random)


def _swapped(pattern: re.Pattern[bytes], by: Sequence[str], data: bytes, random: Generator) -> bytes:
    found = list(pattern.finditer(data))
    if not found:
        return data
    one = found[int(random.integers(len(found)))]
    new = by[int(random.integers(len(by)))].encode()
    return data[: one.start()] + new + data[one.end() :]


def _insert(data: bytes, others: Sequence[bytes], random: Generator) -> bytes:
    place = _place(data, random)
    return data[:place] + WORDS[int(random.integers(len(WORDS)))].encode() + data[place:]


def _column(data: bytes, others: Sequence[bytes], random: Generator) -> bytes:
    word = b" " + (NUMBERS + WORDS)[int(random.integers(len(NUMBERS + WORDS)))].encode()
    return b"\n".join(line + word if random.random() < 0.7 else line for line in data.split(b"\n"))


def _encoding(data: bytes, others: Sequence[bytes], random: Generator) -> bytes:
    text = data.decode("utf-8", "replace")
    choices: list[Callable[[], bytes]] = [
        lambda: text.encode("utf-8-sig"),
        lambda: text.encode("utf-16"),
        lambda: text.encode("utf-16-be"),
        lambda: text.encode("utf-32"),
        lambda: text.encode("latin-1", "replace"),
        lambda: data.replace(b"\n", b"\r\n"),
        lambda: data.replace(b"\n", b"\r"),
        lambda: data.replace(b" ", "\u00a0".encode()),
        lambda: data + b"\x00" * int(random.integers(1, 64)),
    ]
    return choices[int(random.integers(len(choices)))]()


def _splice(data: bytes, others: Sequence[bytes], random: Generator) -> bytes:
    other = others[int(random.integers(len(others)))] if others else data
    return data[: _place(data, random)] + other[_place(other, random) :]


def _repeat(data: bytes, others: Sequence[bytes], random: Generator) -> bytes:
    return data * int(random.integers(2, 4))


_ACCIDENTS = (
    _flip,
    _cut,
    _lines,
    _lines,
    _number,
    _number,
    _number,
    _word,
    _word,
    _insert,
    _column,
    _encoding,
    _splice,
    _repeat,
)
