"""A checkpoint is either exactly what was saved, or refused by name; every format that there was can be read."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mlopt.core.errors import CheckpointError, InputError
from mlopt.core.runs import checkpoint
from mlopt.core.runs.checkpoint import Checkpoint

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
    torch.bool, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


def raw(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.reshape(-1).contiguous().view(torch.uint8).tolist())


def small() -> Checkpoint:
    return Checkpoint({"x": torch.arange(6, dtype=torch.float64).reshape(2, 3)}, {"step": 7, "energy": -0.1})


def sealed(payload: bytes, version: int = checkpoint.FORMAT_VERSION) -> bytes:
    """Build a file with a right checksum, without help from the code under test."""
    described = b"format %d\nbytes %d\n" % (version, len(payload))
    digest = hashlib.sha256(described + payload).hexdigest().encode()
    return b"mlopt checkpoint\n" + described + b"sha256 " + digest + b"\n" + payload


def run_python(code: str, *args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3, 4)], ids=str)
def test_every_dtype_and_shape_comes_back_bit_for_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    n_bytes = math.prod(shape) * dtype.itemsize
    highest = 2 if dtype == torch.bool else 256  # any bit pattern, NaN payloads included
    data = torch.randint(0, highest, (n_bytes,), dtype=torch.uint8, generator=generator)
    tensor = data.view(dtype).reshape(shape)
    loaded = checkpoint.loads(checkpoint.dumps(Checkpoint({"t": tensor}, {}))).tensors["t"]
    assert loaded.dtype == dtype
    assert loaded.shape == tensor.shape
    assert raw(loaded) == raw(tensor)


def test_views_shared_storage_and_lazy_bits_are_stored_as_they_look() -> None:
    base = torch.arange(12, dtype=torch.float64).reshape(3, 4)
    lazy = torch.randn(3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    tensors = {
        "all": base,
        "transposed": base.t(),
        "slice": base[1:, ::2],
        "expanded": base[:1].expand(3, 4),
        "same": base,
        "conj": lazy.conj(),
        "neg": lazy.conj().imag,
        "leaf": torch.ones(2, requires_grad=True),
    }
    loaded = checkpoint.loads(checkpoint.dumps(Checkpoint(tensors, {}))).tensors
    assert list(loaded) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor.detach()), name
        assert loaded[name].is_contiguous()
    assert not loaded["leaf"].requires_grad
    loaded["all"].zero_()
    assert torch.equal(loaded["same"], base)  # each has its own storage, and saving changed nothing
    assert torch.equal(base.reshape(-1), torch.arange(12, dtype=torch.float64))


def test_meta_comes_back_exactly_and_in_order() -> None:
    meta = {"z": 0.1 + 0.2, "a": [None, True, 2**80, -0.0, math.inf, "Å\ud800\n"], "m": {"y": {}, "b": []}}
    tensors = {name: torch.zeros(1) for name in ("z", "__metadata__", "", "a/b", "ü")}
    loaded = checkpoint.loads(checkpoint.dumps(Checkpoint(tensors, {**meta, "nan": math.nan})))
    assert math.isnan(loaded.meta.pop("nan"))
    assert repr(loaded.meta) == repr(meta)
    assert list(loaded.tensors) == list(tensors)


def test_equal_checkpoints_give_equal_bytes() -> None:
    assert checkpoint.dumps(small()) == checkpoint.dumps(small())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Checkpoint({"x": 1.5}, {}), "'x': expected a Tensor, got float"),  # type: ignore[dict-item]
        (Checkpoint({"x": torch.zeros(2).to_sparse()}, {}), r"'x': only dense tensors.*\.to_dense"),
        (Checkpoint({"x": torch.zeros(2, device="meta")}, {}), "'x': only dense tensors with data"),
        (Checkpoint({}, {"a": {"b": [0, torch.zeros(1)]}}), r"meta\['a'\]\['b'\]\[1\]: Tensor is not JSON"),
        (Checkpoint({}, {"a": {3: 1}}), r"meta\['a'\]: the key 3 is not a string"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name_before_anything_is_written(
    bad: Checkpoint, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        checkpoint.save(tmp_path / "c", 1, bad)
    assert not (tmp_path / "c").exists()


def test_save_refuses_a_negative_step_and_keeping_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 0"):
        checkpoint.save(tmp_path, -1, small())
    with pytest.raises(InputError, match="at least 1"):
        checkpoint.save(tmp_path, 1, small(), keep=0)


def test_every_single_bit_flip_is_noticed() -> None:
    data = checkpoint.dumps(small())
    rng = random.Random(0)
    header = data.index(b"\n", data.index(b"sha256")) + 1  # every bit of it, and 300 anywhere
    flips = [*range(8 * header), *(rng.randrange(8 * len(data)) for _ in range(300))]
    checkpoint.loads(data)
    unnoticed = []
    for flip in flips:
        altered = bytearray(data)
        altered[flip // 8] ^= 1 << flip % 8
        try:
            checkpoint.loads(bytes(altered))
        except CheckpointError:
            continue
        unnoticed.append(flip)
    assert unnoticed == []


def test_every_truncation_and_any_addition_is_noticed() -> None:
    data = checkpoint.dumps(small())
    for length in range(len(data)):
        with pytest.raises(CheckpointError, match="truncated"):
            checkpoint.loads(data[:length])
    with pytest.raises(CheckpointError, match="altered"):
        checkpoint.loads(data + b"\0")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04 some zip" + bytes(300), "not an mlopt checkpoint"),
        (b"x", "not an mlopt checkpoint"),
        (b"mlopt checkpoint\nformat one" + bytes(300), "header is damaged"),
        (sealed(b"", version=checkpoint.FORMAT_VERSION + 1), "newer mlopt .*pip install -U"),
        (sealed(b"", version=0), "no way to read checkpoint format 0"),
    ],
)
def test_the_message_names_the_path_and_the_fault(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "step-000000000001.ckpt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)


def test_a_damaged_newer_format_is_called_damaged() -> None:
    data = bytearray(sealed(b"payload of the future", version=checkpoint.FORMAT_VERSION + 1))
    data[-1] ^= 1
    with pytest.raises(CheckpointError, match="altered"):
        checkpoint.loads(bytes(data))


def test_a_missing_file_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.ckpt: cannot read .*No such file"):
        checkpoint.load(tmp_path / "none.ckpt")


def test_forged_content_under_a_right_checksum_never_escapes_as_another_error() -> None:
    good = checkpoint.dumps(small())
    payload = good[good.index(b"\n", good.index(b"sha256")) + 1 :]
    assert checkpoint.loads(sealed(payload)).meta == small().meta
    rng = random.Random(1)
    forged = [b"", b"\xff" * 8, b"\x02" + bytes(7) + b"{}", b"\x02" + bytes(7) + b"[]"]
    n_envelope = int.from_bytes(payload[:8], "little")
    envelope = json.loads(payload[8 : 8 + n_envelope])
    entries: list[dict[str, object]] = [
        {"dtype": "load"},
        {"dtype": "float32"},
        {"shape": [6]},
        {"dtype": "nothing"},
        {"name": []},
    ]
    for entry in entries:
        text = json.dumps({**envelope, "tensors": [{**envelope["tensors"][0], **entry}]}).encode()
        forged.append(len(text).to_bytes(8, "little") + text + payload[8 + n_envelope :])
    text = json.dumps({**envelope, "tensors": []}).encode()
    forged.append(len(text).to_bytes(8, "little") + text + payload[8 + n_envelope :])
    for _ in range(200):
        bent = bytearray(payload)
        for _ in range(rng.randrange(1, 4)):
            bent[rng.randrange(8 + n_envelope + 60)] = rng.randrange(256)
        forged.append(bytes(bent))
    refused = 0
    for data in forged:
        try:
            checkpoint.loads(sealed(data))
        except CheckpointError:
            refused += 1
    assert refused > 100
    for data in forged[:10]:
        with pytest.raises(CheckpointError, match="the content is not a checkpoint"):
            checkpoint.loads(sealed(data))


def test_a_pickle_is_never_run_whatever_the_environment_says(tmp_path: Path) -> None:
    path, witness = tmp_path / "step-000000000001.ckpt", tmp_path / "executed"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (witness,))

    torch.save(Payload(), path)
    code = (
        "import sys; from mlopt.core.runs import checkpoint\n"
        "try: checkpoint.load(sys.argv[1])\n"
        "except checkpoint.CheckpointError as error: print('refused', error)"
    )
    done = run_python(code, path, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")
    assert done.stdout.startswith("refused"), done.stderr
    assert not witness.exists()


# Written by format 1 and never to be changed: this file must load for ever.
FORMAT_1 = base64.b64decode(
    "bWxvcHQgY2hlY2twb2ludApmb3JtYXQgMQpieXRlcyA0NzMKc2hhMjU2IDUxNWVmZTVjMjAwNjBmMmM3NWYxNDIxZWE2ZDFiYjVl"
    "M2E2Y2FjZTBhMWNhY2ZlYzNiZWY4ZGJjMTE3YzY5OTYK9wAAAAAAAAB7InRlbnNvcnMiOiBbeyJuYW1lIjogInZlbG9jaXR5Iiwg"
    "ImR0eXBlIjogImZsb2F0NjQiLCAic2hhcGUiOiBbMSwgM119LCB7Im5hbWUiOiAibWFzayIsICJkdHlwZSI6ICJib29sIiwgInNo"
    "YXBlIjogWzJdfSwgeyJuYW1lIjogInBoYXNlIiwgImR0eXBlIjogImNvbXBsZXgxMjgiLCAic2hhcGUiOiBbXX1dLCAibWV0YSI6"
    "IHsic3RlcCI6IDEyLCAiZW5lcmdpZXMiOiBbLTE3My45Mjg0MjcsIG51bGxdLCAibmFtZSI6ICJBcjM4In19qAAAAAAAAAB7IjAi"
    "OnsiZHR5cGUiOiJGNjQiLCJzaGFwZSI6WzEsM10sImRhdGFfb2Zmc2V0cyI6WzAsMjRdfSwiMiI6eyJkdHlwZSI6IlU4Iiwic2hh"
    "cGUiOlsxNl0sImRhdGFfb2Zmc2V0cyI6WzI0LDQwXX0sIjEiOnsiZHR5cGUiOiJCT09MIiwic2hhcGUiOlsyXSwiZGF0YV9vZmZz"
    "ZXRzIjpbNDAsNDJdfX0AAAAAAADgPwAAAAAAAPS/AAAAAAAACEAAAAAAAADwPwAAAAAAAADAAQA="
)


def test_a_file_of_format_1_still_loads() -> None:
    loaded = checkpoint.loads(FORMAT_1)
    assert loaded.meta == {"step": 12, "energies": [-173.928427, None], "name": "Ar38"}
    assert list(loaded.tensors) == ["velocity", "mask", "phase"]
    assert torch.equal(loaded.tensors["velocity"], torch.tensor([[0.5, -1.25, 3.0]], dtype=torch.float64))
    assert torch.equal(loaded.tensors["mask"], torch.tensor([True, False]))
    assert torch.equal(loaded.tensors["phase"], torch.tensor(1 - 2j, dtype=torch.complex128))


def test_an_old_format_goes_through_every_upgrade_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    good = checkpoint.dumps(small())
    payload = good[good.index(b"\n", good.index(b"sha256")) + 1 :]
    now = checkpoint.FORMAT_VERSION
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", now + 2)
    monkeypatch.setitem(checkpoint.UPGRADES, now, lambda old: old.removeprefix(b"v1"))
    monkeypatch.setitem(checkpoint.UPGRADES, now + 1, lambda old: old.removeprefix(b"v2"))
    for version, prefix in ((now, b"v1v2"), (now + 1, b"v2"), (now + 2, b"")):
        assert checkpoint.loads(sealed(prefix + payload, version)).meta == small().meta
    monkeypatch.setitem(checkpoint.UPGRADES, now + 1, lambda old: old[10:])
    with pytest.raises(CheckpointError):
        checkpoint.loads(sealed(b"v1v2" + payload, now))


def test_every_format_before_this_one_has_an_upgrade() -> None:
    assert set(checkpoint.UPGRADES) == set(range(1, checkpoint.FORMAT_VERSION))


def test_importing_these_modules_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, mlopt.core.runs.checkpoint, mlopt.core.runs.directory, mlopt.core.runs.preemption\n"
        "print([name for name in ('torch', 'numpy', 'safetensors') if name in sys.modules])"
    )
    assert run_python(code).stdout == "[]\n"
