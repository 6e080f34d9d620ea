"""OVF 2.0, the format of vector fields in OOMMF, mumax3, Spirit and other programs.

A file has one or more segments, such as a chain of images. Each has a header and data, as text or as little-endian
binary of 4 or 8 bytes. Rectangular meshes run fastest along x. Irregular meshes have three coordinates before the
values of each point, which are skipped. Spirit's comma-separated text (``Data CSV``) is read as well.

Source: OOMMF User's Guide, "The OVF 2.0 format" (NIST, https://math.nist.gov/oommf/doc/userguide20a3/userguide).
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlopt.core.errors import InputError
from mlopt.core.files import atomic
from mlopt.core.files.reading import existing_file
from mlopt.core.quoting import one_line, quoted

Kind: TypeAlias = Literal["text", "binary 4", "binary 8"]

#: the first number of binary data, by which a reader sees that it reads the right bytes
CHECKS = {4: struct.pack("<f", 1234567.0), 8: struct.pack("<d", 123456789012345.0)}
_FIRST = re.compile(r"#\s*OOMMF(?:\s*:\s*rectangular\s+mesh\s+v|\s+OVF\s+)([0-9.]+)\s*$", re.IGNORECASE)
_END = re.compile(rb"^[ \t]*#[ \t]*End[ \t]*:[ \t]*Data\b[^\n]*", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class OvfSegment:
    """One vector field.

    values: (n, valuedim) float64. nodes: along x, y and z; None for an irregular mesh.
    header: the entries of the header, names in lower case without blanks.
    """

    values: NDArray[np.float64]
    nodes: tuple[int, int, int] | None = None
    header: dict[str, str] = field(default_factory=dict)


def read_ovf(path: str | Path) -> list[OvfSegment]:
    """Return all segments of an OVF 2.0 file, in their order.

    Raises:
        InputError: there is no such file, or it has another format or version. A header is incomplete or contradicts
            itself. Data are cut short, too long or no numbers. The message names the file and the segment.
    """
    file = existing_file(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{file}: is text in UTF-16, but OVF is plain text or binary. Save it as UTF-8")
    return _Reader(str(file), data.removeprefix(codecs.BOM_UTF8)).segments()


class _Reader:
    """A file with a position in it."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name, self.data = name, data
        self.at = 0
        self.found: list[OvfSegment] = []

    def segments(self) -> list[OvfSegment]:
        first = _FIRST.match((self._line() or "").partition("##")[0].strip())
        if first is None:
            raise InputError(
                f"{self.name}: not an OVF file: its first line should be '# OOMMF OVF 2.0'. Convert it, or "
                f"correct the line"
            )
        if first[1] != "2.0":
            raise InputError(
                f"{self.name}: is OVF {first[1]}, but mlopt reads OVF 2.0. Convert it, for example with OOMMF: "
                f"`avf2ovf -format b8 -grid rect`"
            )
        declared: str | None = None
        header: dict[str, str] | None = None
        while (entry := self._entry()) is not None:
            key, value = entry
            block = " ".join(value.lower().split())
            if key == "segmentcount":
                declared = value
            elif key == "begin" and block == "segment":
                header = {}
            elif key == "begin" and block.startswith("data"):
                if header is None:
                    raise self._error("data without a header; begin with '# Begin: Segment'")
                self.found.append(self._data(block.removeprefix("data").strip(), header))
                header = None
            elif key not in ("begin", "end") and header is not None:
                header[key] = f"{header[key]}\n{value}" if key in header else value
        if header is not None:
            raise self._error("there are no data after the header: the file is cut short")
        if not self.found:
            raise InputError(f"{self.name}: there is no segment in it: the file is cut short")
        if declared is not None and declared.strip().lstrip("0") != str(len(self.found)):
            raise InputError(
                f"{self.name}: declares {one_line(declared, 40)} segments, but has {len(self.found)}: it is cut short, "
                f"or correct '# Segment count'"
            )
        return self.found

    def _error(self, message: str) -> InputError:
        return InputError(f"{self.name}: segment {len(self.found)} (counted from 0): {message}")

    def _line(self) -> str | None:
        if self.at >= len(self.data):
            return None
        end = self.data.find(b"\n", self.at)
        end = len(self.data) if end < 0 else end
        line = self.data[self.at : min(end, self.at + 2000)]
        self.at = end + 1
        return line.decode("utf-8", "replace")

    def _entry(self) -> tuple[str, str] | None:
        """Return the next ``# key: value``, without the comment (``##``) that may follow; None at the end."""
        while (line := self._line()) is not None:
            text = line.strip()
            if not text or text.startswith("##"):
                continue
            if not text.startswith("#"):
                raise self._error(
                    f"a line that begins with '#' should stand where there is {quoted(text, 40)}"
                )
            key, colon, value = text[1:].partition("##")[0].partition(":")
            if colon:
                return "".join(key.lower().split()), value.strip()
        return None

    def _whole(self, header: dict[str, str], key: str) -> int:
        if key not in header:
            raise self._error(f"the header has no '# {key}:'; add it")
        text = header[key].strip()
        if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) == 0:
            raise self._error(f"'# {key}: {one_line(text, 40)}' should be a whole number above zero")
        return int(text)

    def _data(self, kind: str, header: dict[str, str]) -> OvfSegment:
        mesh = header.get("meshtype", "rectangular").lower()
        nodes: tuple[int, int, int] | None = None
        width = self._whole(header, "valuedim")
        if mesh == "irregular":
            n, skip = self._whole(header, "pointcount"), 3
            shape = f"{n} points"
        elif mesh == "rectangular":
            x, y, z = (self._whole(header, f"{axis}nodes") for axis in "xyz")
            nodes, n, skip, shape = (x, y, z), x * y * z, 0, f"{x} x {y} x {z} nodes"
        else:
            raise self._error(f"'# meshtype: {one_line(mesh, 40)}' should be rectangular or irregular")
        count = n * (width + skip)
        says = f"the header's {shape} of {width + skip} numbers are {count} numbers"
        if kind in ("text", "csv"):
            numbers = self._text(count, width + skip, says)
        elif kind in ("binary 4", "binary 8"):
            numbers = self._binary(int(kind[-1]), count, says)
        else:
            raise self._error(
                f"'# Begin: Data {one_line(kind, 40)}' is unknown; mlopt reads Text, Binary 4 and Binary 8"
            )
        return OvfSegment(numbers.reshape(n, -1)[:, skip:], nodes, header)

    def _text(self, count: int, per: int, says: str) -> NDArray[np.float64]:
        end = _END.search(self.data, self.at)
        if end is None:
            raise self._error("there is no '# End: Data Text' after the data: the file is cut short")
        body = self.data[self.at : end.start()].replace(b",", b" ")
        words = [word for line in body.split(b"\n") for word in line.partition(b"#")[0].split()]
        self.at = end.end() + 1
        if len(words) != count:
            raise self._error(f"{says}, but {len(words)} stand there; correct the header or the data")
        numbers = np.empty(count)
        for place, word in enumerate(words):
            try:
                numbers[place] = float(word)
            except ValueError:
                where = f"number {place % per} of node {place // per} (counted from 0)"
                raise self._error(
                    f"{where} is {quoted(word.decode('utf-8', 'replace'))}; correct it"
                ) from None
        return numbers

    def _binary(self, size: int, count: int, says: str) -> NDArray[np.float64]:
        start = self.at + size
        check, stop = self.data[self.at : start], start + size * count
        if check == CHECKS[size][::-1]:
            raise self._error(
                "the data are big-endian, as in OVF 1.0; OVF 2.0 is little-endian. Convert the file"
            )
        if check != CHECKS[size]:
            raise self._error(
                f"binary data should begin with the check value {CHECKS[size].hex(' ')}, but begin with "
                f"{check.hex(' ') or 'nothing'}: the file is damaged, or is not Binary {size}"
            )
        if stop > len(self.data):
            raise self._error(
                f"{says}, so {size * count} bytes, but only {len(self.data) - start} are left: the file is cut short"
            )
        end = re.compile(rb"\s*#\s*End\s*:\s*Data\b[^\n]*", re.IGNORECASE).match(self.data, stop)
        if end is None:
            raise self._error(
                f"{says}, but no '# End: Data Binary {size}' follows them; correct xnodes, ynodes, znodes and valuedim"
            )
        self.at = end.end() + 1
        return np.frombuffer(self.data, f"<f{size}", count, start).astype(np.float64)


def write_ovf(
    path: str | Path,
    fields: Sequence[ArrayLike],
    nodes: tuple[int, int, int],
    *,
    kind: Kind = "binary 8",
    step: Sequence[float] = (1e-9, 1e-9, 1e-9),
    titles: Sequence[str] = (),
    labels: Sequence[str] = ("m_x", "m_y", "m_z"),
) -> None:
    """Write vector fields on a rectangular mesh as the segments of one OVF 2.0 file.

    fields: (nodes, valuedim) each, x fastest. step: distances of the nodes, m.
    titles: of the segments. labels: of the components.

    Numbers are kept bit for bit in ``text`` and ``binary 8``.

    Raises:
        InputError: an unknown ``kind``, no field, or one whose shape does not fit ``nodes`` and ``labels``.
        MloptError: the file cannot be written; an earlier file of that name stays intact.
    """
    if kind not in ("text", "binary 4", "binary 8"):
        raise InputError(f"write_ovf: `kind` is {quoted(kind)}; it can be 'text', 'binary 4' or 'binary 8'")
    if not len(fields):
        raise InputError("write_ovf: there is no field to write")
    expected = (int(np.prod(nodes)), len(labels))
    parts = [f"# OOMMF OVF 2.0\n# Segment count: {len(fields)}\n".encode()]
    for number, given in enumerate(fields):
        values = np.asarray(given, dtype=np.float64)
        if values.shape != expected:
            raise InputError(
                f"write_ovf: field {number} (counted from 0) has the shape {values.shape}; {nodes[0]} x {nodes[1]} x "
                f"{nodes[2]} nodes of {len(labels)} components need {expected}"
            )
        title = titles[number] if number < len(titles) else f"segment {number}"
        name = "Data " + kind.capitalize()
        parts.append(_header(title, nodes, step, labels) + f"# Begin: {name}\n".encode())
        if kind == "text":
            parts.append("".join(" ".join(map(repr, row)) + "\n" for row in values.tolist()).encode())
        else:
            size = int(kind[-1])
            parts.append(CHECKS[size] + values.astype(f"<f{size}").tobytes() + b"\n")
        parts.append(f"# End: {name}\n# End: Segment\n".encode())
    atomic.write_bytes(path, b"".join(parts))


def _header(title: str, nodes: Sequence[int], step: Sequence[float], labels: Sequence[str]) -> bytes:
    lines = ["Begin: Segment", "Begin: Header", f"Title: {' '.join(title.split())}", "meshtype: rectangular"]
    lines += ["meshunit: m", f"valuedim: {len(labels)}", f"valuelabels: {' '.join(labels)}"]
    lines += [f"valueunits: {' '.join('1' for _ in labels)}"]
    for axis, number, width in zip("xyz", nodes, step, strict=True):
        lines += [f"{axis}min: 0", f"{axis}max: {number * width!r}", f"{axis}base: {0.5 * width!r}"]
        lines += [f"{axis}nodes: {number}", f"{axis}stepsize: {width!r}"]
    lines += ["End: Header"]
    return "".join(f"# {line}\n" for line in lines).encode()
