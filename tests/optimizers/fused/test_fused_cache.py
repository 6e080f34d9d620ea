"""The cache of compiled kernels: nothing damaged is run, nothing that others could have written, and nobody waits."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mlopt.core.atoms.systems import Systems
from mlopt.core.batch.random import problem_keys
from mlopt.core.driver.driver import Driver
from mlopt.core.driver.stop import Stop
from mlopt.core.landscapes.landscape import AtomsLandscape
from mlopt.optimizers import GradientDescent
from mlopt.optimizers.fused import apart
from mlopt.optimizers.fused.cache import Place, cache_folder, fault, is_kept, kernels_in
from mlopt.potentials import LennardJones

pytest.importorskip("numba")

TEXT = "a module"


def kept(root: Path, code: bytes = b"machine code") -> Place:
    """A kernel as Numba leaves it, without Numba."""
    place = Place(root, "rollout_0")
    with place.being_made(TEXT) as made:
        beside = made.module.with_name("__pycache__")
        beside.mkdir()
        (beside / "chunk.nbi").write_bytes(b"an index")
        (beside / "chunk.1.nbc").write_bytes(code)
        place.take(made, TEXT)
    return place


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def put(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Puts something else in the place of a file."""

    def replace(path: Path) -> object:
        path.unlink()
        return make(path)

    return replace


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit": flip,
    "cut off": lambda path: os.truncate(path, 3),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "gone": Path.unlink,
    "a folder": put(Path.mkdir),
    "a FIFO": put(os.mkfifo),
    "a link to nothing": put(lambda path: path.symlink_to("nothing")),
    "a link to the same": lambda path: path.rename(path.with_name("x")) and path.symlink_to("x"),
}


@pytest.mark.parametrize(
    "name", ["rollout_0.py", "digests.json", "__pycache__/chunk.nbi", "__pycache__/chunk.1.nbc"]
)
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_made_again(tmp_path: Path, damage: str, name: str) -> None:
    place = kept(tmp_path)
    assert place.is_sound(TEXT) and not place.is_sound("another module") and kernels_in(tmp_path) == 1
    DAMAGES[damage](place.module.parent / name)
    assert not place.is_sound(TEXT)
    assert kept(tmp_path).is_sound(TEXT)
    assert [one.name for one in tmp_path.iterdir()] == ["rollout_0"], "nothing is left behind"


@pytest.mark.parametrize("content", ["[]", "7", "{", '{"__pycache__/chunk.nbi": 3}', "[" * 100_000])
def test_digests_that_are_none(tmp_path: Path, content: str) -> None:
    place = kept(tmp_path)
    place.module.with_name("digests.json").write_text(content)
    assert not place.is_sound(TEXT)


def test_a_file_that_nobody_took_a_digest_of(tmp_path: Path) -> None:
    place = kept(tmp_path)
    (place.module.parent / "__pycache__" / "chunk.2.nbc").write_bytes(b"")
    assert not place.is_sound(TEXT)


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, lambda path: path.symlink_to("nothing"), Path.mkdir])
def test_something_else_in_place_of_a_kernel(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "rollout_0")
    assert not Place(tmp_path, "rollout_0").is_sound(TEXT)
    assert kept(tmp_path).is_sound(TEXT)


def test_what_another_process_has_put_there_stays(tmp_path: Path) -> None:
    first = kept(tmp_path, b"first").module.parent.stat().st_ino
    assert kept(tmp_path, b"second").module.parent.stat().st_ino == first
    flip(tmp_path / "rollout_0" / "__pycache__" / "chunk.nbi")
    threads = [threading.Thread(target=kept, args=(tmp_path, b"x%d" % i)) for i in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert Place(tmp_path, "rollout_0").is_sound(TEXT)
    assert [one.name for one in tmp_path.iterdir()] == ["rollout_0"]


def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    old, new = tmp_path / ".rollout_1-a.new", tmp_path / ".rollout_1-b.new"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, 0))
    kept(tmp_path)
    assert not old.exists() and new.exists()


def test_a_folder_that_others_can_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPT_CACHE", str(tmp_path / "cache"))
    folder = cache_folder()
    assert folder == tmp_path / "cache" / "kernels" and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert fault(folder) is None and is_kept(folder)
    for mode in (0o720, 0o702):
        folder.chmod(mode)
        assert "others may write to" in str(fault(folder)) and "chmod go-w" in str(fault(folder))
        assert not is_kept(cache_folder())
    folder.chmod(0o755)
    assert cache_folder() == folder
    for mode, safe in ((0o777, False), (0o1777, True)):
        (tmp_path / "cache").chmod(mode)
        assert (cache_folder() == folder) is safe
    (tmp_path / "cache").chmod(0o777)
    assert f"anyone may write to {tmp_path / 'cache'}, and so replace" in str(fault(folder))
    (tmp_path / "cache").chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert "belongs to another user" in str(fault(folder)) and not is_kept(cache_folder())


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo])
def test_no_folder_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]
) -> None:
    monkeypatch.setenv("MLOPT_CACHE", str(tmp_path))
    make(tmp_path / "kernels")
    assert not is_kept(cache_folder()) and "is no folder" in str(fault(tmp_path / "kernels"))


def test_compiling_can_be_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPT_CACHE", str(tmp_path))
    landscape = AtomsLandscape(Systems.cluster([18] * 3), LennardJones())
    x = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1.1, 0]], dtype=torch.float64)
    said: list[str] = []
    driver = Driver(landscape, GradientDescent(), Stop(5), engine="fused", announce=said.append)
    progress = driver.begin(x, problem_keys(0, torch.arange(1)))
    monkeypatch.setattr("mlopt.optimizers.fused.compiled._LOADED", {})
    assert driver.prepare(progress, lambda: True) > 0
    assert kernels_in(tmp_path / "kernels") == 0 and list((tmp_path / "kernels").iterdir()) == []
    assert len(said) == 1 and said[0].startswith("compiling the fused kernel")
    assert driver.prepare(progress) > 0
    assert kernels_in(tmp_path / "kernels") == 1 and said[2].startswith("compiled in ")
    assert driver.prepare(progress) == 0.0
    assert driver.advance(progress).done and len(said) == 3, "loaded"
    assert Driver(landscape, GradientDescent(), Stop(5)).prepare(progress) == 0.0, "eager"


def test_a_process_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    assert apart.compile_module(tmp_path / "kernel.py", [], lambda: False) is False


SCRIPT = """
import torch
from mlopt.core import AtomsLandscape, Stop, Driver, Systems
from mlopt.core.batch.random import problem_keys
from mlopt.optimizers import GradientDescent
from mlopt.potentials import LennardJones
land = AtomsLandscape(Systems.cluster([18] * 3), LennardJones())
driver = Driver(land, GradientDescent(), Stop(5), engine="fused", announce=print)
x = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1.1, 0]], dtype=torch.float64)
print("energy", float(driver.advance(driver.begin(x, problem_keys(0, torch.arange(1)))).outcome.tally.energy))
"""


def in_a_process(cache: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"MLOPT_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kernels_are_kept(tmp_path: Path) -> None:
    first = in_a_process(tmp_path)
    assert first.startswith("compiling the fused kernel") and "compiled in" in first
    second = in_a_process(tmp_path)
    assert second == first.splitlines(keepends=True)[-1], "nothing is announced"
    (code,) = (tmp_path / "kernels").glob("rollout_*/__pycache__/*.nbc")
    flip(code)
    assert in_a_process(tmp_path).startswith("compiling")
    assert in_a_process(tmp_path) == second


@pytest.mark.parametrize("kind", ["file", "read-only"])
def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, kind: str) -> None:
    cache = tmp_path / "cache"
    if kind == "file":
        cache.write_text("")
    else:
        cache.mkdir(mode=0o500)
        if os.access(cache, os.W_OK):
            pytest.skip("nothing is read-only for this user")
    assert "energy" in in_a_process(cache)
    assert kind == "read-only" or cache.read_text() == ""
