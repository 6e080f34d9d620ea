"""Checkpoints: one file each, verified before it is used, readable by all later versions, never a pickle.

A file is four header lines and a payload::

    mlopt checkpoint
    format 1
    bytes 4711                     length of the payload
    sha256 0f3a...                 of the two lines above and the payload
    <8 bytes, little-endian: length of the envelope><envelope, JSON><safetensors>

Invariant: these header lines never change, so that any mlopt can tell a newer file from a damaged one. If the payload
changes, ``FORMAT_VERSION`` grows by one and ``UPGRADES`` gets the function that rewrites an old payload.

The checksum is mlopt's own, because neither ``torch.load`` nor safetensors notices a flipped bit (300 of 300 loaded
silently, torch 2.13; pytorch issue 126952). ``torch.load`` is not used, because it unpickles, and ``weights_only=True``
had holes (CVE-2025-32434, CVE-2026-24747). safetensors: https://github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlopt.core.errors import CheckpointError, InputError
from mlopt.core.files import atomic
from mlopt.core.files.atomic import JSON
from mlopt.core.quoting import quoted

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 1

# Version -> function that turns a payload of that version into one of the next. An entry is never removed.
UPGRADES: dict[int, Callable[[bytes], bytes]] = {}

_MAGIC = b"mlopt checkpoint\n"
_HEADER = re.compile(
    rb"mlopt checkpoint\n(format ([0-9]{1,9})\nbytes ([0-9]{1,18})\n)sha256 ([0-9a-f]{64})\n"
)
_LONGEST_HEADER = 256
_INSTEAD = " Use an older checkpoint (`mlopt resume` takes the newest sound one by itself)."
_NAME = re.compile(r"step-([0-9]{12,})\.ckpt")

# Stored as they are. All others travel as bytes plus the name of their dtype, since what safetensors knows
# beyond these depends on its version.
_PLAIN_DTYPES = frozenset(
    ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
)


@dataclass(frozen=True)
class Checkpoint:
    """The data from which a run resumes.

    tensors: by name, any shape and dtype. `load` gives them on the CPU, contiguous, each with its own storage.
    meta: JSON data (None, bool, int, float, str, list, dict with string keys). Floats return to the last bit, NaN and
        infinity too; a tuple returns as a list.

    Both dictionaries keep their order.
    """

    tensors: dict[str, torch.Tensor]
    meta: dict[str, JSON]


def save(folder: str | os.PathLike[str], step: int, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write ``folder/step-<step>.ckpt`` durably and return its path; keep the newest ``keep`` sound ones.

    An older file is removed only if ``keep`` newer checkpoints are sound, so a damaged file never counts as a spare.
    The file just written is never removed, whatever the step numbers of the others. Only one process at a time may
    write to a folder: hold `RunDirectory.lock`.

    Raises:
        InputError: a tensor or a value cannot be stored.
        MloptError: the disk refuses; every former checkpoint is then intact.
    """
    if step < 0:
        raise InputError(f"checkpoint.save(step={quoted(step)}): the step must be at least 0")
    if keep < 1:
        raise InputError(f"checkpoint.save(keep={quoted(keep)}): at least 1 checkpoint must be kept")
    data = dumps(checkpoint)
    folder = Path(folder)
    path = folder / f"step-{step:012d}.ckpt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot make the folder for checkpoints: {error.strerror}") from error
    atomic.write_bytes(path, data)
    atomic.remove_leftovers(folder)
    _prune(folder, path, keep)
    return path


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: a byte is not as written; gives path, fault and remedy.
    """
    try:
        data = atomic.read_bytes(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read this checkpoint: {error.strerror or error}") from error
    return loads(data, str(path))


def newest_sound(folder: str | os.PathLike[str]) -> tuple[Path, Checkpoint, list[str]] | None:
    """Return the newest sound checkpoint, its path, and one line for each newer one that is damaged.

    None stands for a folder without checkpoints.

    Raises:
        CheckpointError: there are checkpoints and none is sound. Starting over without a word would hide the loss.
    """
    skipped: list[str] = []
    for path in paths(folder):
        try:
            return path, load(path), skipped
        except CheckpointError as error:
            skipped.append(str(error))
    if skipped:
        faults = "\n  ".join(fault.removesuffix(_INSTEAD) for fault in skipped)
        raise CheckpointError(
            f"{folder}: none of the {len(skipped)} checkpoints can be used:\n  {faults}\nRestore one from a backup. "
            f"Without one, move them all out of the folder: `mlopt resume` then begins the run anew."
        )
    return None


def paths(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the checkpoints in ``folder``, sound or not, newest (highest step) first."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot list the checkpoints: {error.strerror}") from error
    found = [(int(match[1]), name) for name in names if (match := _NAME.fullmatch(name))]
    return [Path(folder, name) for _, name in sorted(found, reverse=True)]


def dumps(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of a checkpoint file; equal checkpoints give equal bytes.

    Raises:
        InputError: a tensor or a value cannot be stored.
    """
    import torch
    from safetensors.torch import save as to_safetensors

    _check_json(checkpoint.meta, "meta")
    stored: dict[str, torch.Tensor] = {}
    entries: list[dict[str, JSON]] = []
    given: dict[str, object] = {**checkpoint.tensors}
    for name, tensor in given.items():
        if not isinstance(tensor, torch.Tensor):
            raise InputError(
                f"checkpoint tensor {quoted(name)}: expected a Tensor, got {type(tensor).__name__}."
                " Put numbers into `meta`."
            )
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise InputError(
                f"checkpoint tensor {quoted(name)}: only dense tensors with data can be stored, not {tensor.layout}"
                f" {tensor.dtype} on {tensor.device}. Convert it with .to_dense() or .dequantize()."
            )
        # The clone gives shared storage a copy per name, and turns lazy conjugates and negatives into data.
        dense = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        dtype = str(dense.dtype).removeprefix("torch.")
        # Keys are numbers because safetensors reserves a name and sorts the rest; the envelope keeps name and
        # order.
        stored[str(len(entries))] = dense if dtype in _PLAIN_DTYPES else dense.reshape(-1).view(torch.uint8)
        entries.append({"name": name, "dtype": dtype, "shape": list(dense.shape)})
    envelope = json.dumps({"tensors": entries, "meta": checkpoint.meta}).encode("ascii")
    payload = len(envelope).to_bytes(8, "little") + envelope + to_safetensors(stored)
    return _header(FORMAT_VERSION, payload) + payload


def loads(data: bytes, source: str = "checkpoint") -> Checkpoint:
    """Read the bytes of a checkpoint file.

    source: its name in error messages.

    Raises:
        CheckpointError: as in `load`.
    """
    version, payload = _verify(data, source)
    while version < FORMAT_VERSION:
        if version not in UPGRADES:
            raise CheckpointError(f"{source}: this mlopt has no way to read checkpoint format {version}")
        payload = UPGRADES[version](payload)
        version += 1
    try:
        return _parse(payload)
    except Exception as error:  # the checksum is right, so it was written like this, not damaged: refuse it
        raise CheckpointError(
            f"{source}: the checksum is right but the content is not a checkpoint:"
            f" {type(error).__name__}: {error}"
        ) from error


def _header(version: int, payload: bytes) -> bytes:
    described = b"format %d\nbytes %d\n" % (version, len(payload))
    digest = hashlib.sha256(described)
    digest.update(payload)
    return _MAGIC + described + b"sha256 " + digest.hexdigest().encode("ascii") + b"\n"


def _verify(data: bytes, source: str) -> tuple[int, bytes]:
    """Return format version and payload of an undamaged file that this mlopt can read."""
    header = _HEADER.match(data[:_LONGEST_HEADER])
    if header is None:
        if len(data) < _LONGEST_HEADER and _MAGIC.startswith(data[: len(_MAGIC)]):
            raise CheckpointError(f"{source}: truncated: only {len(data)} bytes are left.{_INSTEAD}")
        if data.startswith(_MAGIC):
            raise CheckpointError(f"{source}: altered: its header is damaged.{_INSTEAD}")
        raise CheckpointError(
            f"{source}: not an mlopt checkpoint (it does not begin with {_MAGIC.decode().strip()!r})"
        )
    described, version, declared, expected = header.groups()
    payload = data[header.end() :]
    if len(payload) < int(declared):
        raise CheckpointError(
            f"{source}: truncated: {len(payload)} of {int(declared)} bytes of the payload are left.{_INSTEAD}"
        )
    digest = hashlib.sha256(described)
    digest.update(payload)
    if digest.hexdigest().encode("ascii") != expected or len(payload) != int(declared):
        raise CheckpointError(f"{source}: altered: its SHA-256 is not the one it was written with.{_INSTEAD}")
    if int(version) > FORMAT_VERSION:
        raise CheckpointError(
            f"{source}: written by a newer mlopt (checkpoint format {int(version)}, this one reads up to"
            f" {FORMAT_VERSION}). Upgrade with `pip install -U mlopt-core`."
        )
    return int(version), payload


def _parse(payload: bytes) -> Checkpoint:
    import torch
    from safetensors.torch import load as from_safetensors

    length = int.from_bytes(payload[:8], "little")
    envelope = json.loads(payload[8 : 8 + length])
    stored = from_safetensors(payload[8 + length :])
    tensors = {}
    for index, entry in enumerate(envelope["tensors"]):
        tensor = stored.pop(str(index))
        dtype = getattr(torch, entry["dtype"])
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"{quoted(entry['dtype'])} is not a dtype")
        if tensor.dtype != dtype:
            tensor = tensor.view(dtype).reshape(entry["shape"])
        if list(tensor.shape) != entry["shape"]:
            raise ValueError(
                f"tensor {quoted(entry['name'])} has shape {list(tensor.shape)}, not {entry['shape']}"
            )
        tensors[entry["name"]] = tensor
    if stored or len(tensors) != len(envelope["tensors"]):
        raise ValueError("the list of tensors does not match the tensors")
    if not isinstance(envelope["meta"], dict):
        raise ValueError("meta is not a dict")
    return Checkpoint(tensors, envelope["meta"])


def _prune(folder: Path, written: Path, keep: int) -> None:
    sound = 0
    for path in paths(folder):
        if sound >= keep and path != written:
            try:
                path.unlink()
            except OSError:
                continue  # the new checkpoint is safe; a spare one too many is no reason to stop the run
        elif path == written or _is_sound(path):
            sound += 1


def _is_sound(path: Path) -> bool:
    try:
        _verify(atomic.read_bytes(path), str(path))
    except (OSError, CheckpointError):
        return False
    return True


def _check_json(value: JSON, where: str) -> None:
    """Refuse values that ``json`` would change (a number as key) or cannot write."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InputError(
                    f"checkpoint {where}: the key {quoted(key)} is not a string. Use str({quoted(key)})."
                )
            _check_json(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_json(item, f"{where}[{index}]")
    elif not (value is None or isinstance(value, bool | int | float | str)):
        raise InputError(
            f"checkpoint {where}: {type(value).__name__} is not JSON data. Put arrays into `tensors`, and"
            " turn numbers into int or float."
        )
