"""Faults done to real runs of `mlopt`: to their files, kernels, plugins, streams, disks and processes.

A fault is handled if the run ends with the same bytes as an undisturbed one, or is refused in one message.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlopt.cli.testing.damaged import SEARCH, SUBJECTS, Bench, Ended, state, wrong
from mlopt.cli.testing.runs import KINDS, results, small_run
from mlopt.core.testing.kills import check_kills

_ODD = "{name: odd, how: HOW}"
#: configurations with a potential of a plugin in place of ODD
_ODD_RUNS = (
    "experiment: search\nsystem: {cluster: Ar7}\npotential: ODD\noptimizer: fire\nstarts: 2\n"
    "budget: {force_calls: 20}\n",
    "experiment: contest\nsystems: [{system: {cluster: Ar7}, potential: ODD}]\n"
    "contestants: [{label: fire, optimizer: fire}]\nstarts: 2\nforce_calls: 20\n",
    SUBJECTS["path"][0].replace("{name: lennard-jones, epsilon: 1.0, r0: 1.0}", "ODD"),
)
_HOWS = {
    "nan": "returns NaN",
    "exit": "leaves the program",
    "ends": "ends the process",
    "moves": "changes positions in place",
    "shape": "returns energies of a wrong shape",
    "dtype": "returns energies of a wrong dtype",
    "force": "returns forces of a wrong shape",
    "nothing": "returns nothing",
    "raises": "raises",
}
#: what of the search's configuration is another in the run that wrote the checkpoints
_FOREIGN = {
    "seed": ("starts: 2", "starts: 2\nseed: 1"),
    "temperature": ("temperature: 0.8", "temperature: 0.9"),
    "potential": ("epsilon: 1.0", "epsilon: 1.1"),
    "structure": ("FOLDER/start.extxyz", "FOLDER/other.extxyz"),
}


@dataclass(frozen=True)
class Fault:
    """A kind of damage.

    attempts: a function that makes some trials with a seed. It returns the fault of each trial, empty for none.
    quick: True if the tests include it.
    """

    name: str
    attempts: Callable[[Bench, int, int], list[str]]
    quick: bool = False


Attempt = Callable[[Bench, random.Random, int], str]


def _each(attempt: Attempt) -> Callable[[Bench, int, int], list[str]]:
    def attempts(bench: Bench, tries: int, seed: int) -> list[str]:
        return [attempt(bench, random.Random(f"{seed}/{number}"), number) for number in range(tries)]

    return attempts


def _flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes()) or bytearray(1)
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def _truncate(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))] if data else b"")


def _folder(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").touch()


def _fifo(path: Path, chance: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _remove(path: Path, chance: random.Random) -> None:
    path.unlink()


_DAMAGES = {
    "a flipped byte": _flip,
    "truncated": _truncate,
    "a folder in its place": _folder,
    "a FIFO in its place": _fifo,
    "gone": _remove,
}
_STOPPED = ("search", "path", "contest", "training")
Damage = Callable[[Path, random.Random], None]


def _checkpoints(bench: Bench, chance: random.Random, number: int, *, damage: Damage, all_: bool) -> str:
    subject = _STOPPED[number % len(_STOPPED)]
    run = bench.stopped(subject)
    found = sorted((run / "checkpoints").glob("*.ckpt"))
    for path in found if all_ else found[-1:]:
        damage(path, chance)
    return bench.resumed(subject, run)


def _foreign(bench: Bench, chance: random.Random, number: int, *, change: tuple[str, str]) -> str:
    run, other = bench.stopped("search"), bench.stopped("search", SEARCH.replace(*change))
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(other / "checkpoints", run / "checkpoints")
    return bench.resumed("search", run)


def _any_file(bench: Bench, chance: random.Random, number: int, *, damage: Damage) -> str:
    subject = _STOPPED[number % len(_STOPPED)]
    run = bench.stopped(subject)
    path = chance.choice(sorted(one for one in run.rglob("*") if one.is_file()))
    name = path.relative_to(run)
    damage(path, chance)
    what = bench.resumed(subject, run, metrics=path.name != "metrics.jsonl")  # which has no checksum
    return what and f"{name}: {what}"


def _inputs(
    bench: Bench, chance: random.Random, number: int, *, damage: Damage, copies: bool, originals: bool
) -> str:
    subject = ("search", "path")[number % 2]
    run = bench.stopped(subject)
    kept = sorted(path for path in (run / "inputs").rglob("*.extxyz"))
    for path in kept if copies else []:
        damage(path, chance)
    with _put_back(bench.folder, [path.name for path in kept]) as paths:
        for path in paths if originals else []:
            damage(path, chance)
        return bench.resumed(subject, run)


@contextlib.contextmanager
def _put_back(folder: Path, names: list[str]) -> Iterator[list[Path]]:
    contents = {folder / name: (folder / name).read_bytes() for name in names}
    try:
        yield list(contents)
    finally:
        for path, data in contents.items():
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            path.write_bytes(data)


def _leftovers(bench: Bench, chance: random.Random, number: int) -> str:
    subject = _STOPPED[number % len(_STOPPED)]
    run = bench.stopped(subject)
    for place in (run, run / "checkpoints", run / "results"):
        (place / ".file.9999999-01234567.mlopt-tmp").write_bytes(chance.randbytes(100))
    what = bench.resumed(subject, run)
    left = [str(one.relative_to(run)) for one in run.rglob(".*.mlopt-tmp")]
    return what or (f"left behind: {', '.join(left)}" if left else "")


def _kernels(bench: Bench, chance: random.Random, number: int, *, damage: Damage) -> str:
    config, run, cache_ = bench.whole("compiled")[0], bench.new("compiled"), bench.new("cache")
    shutil.copytree(bench.folder / "cache", cache_)
    damage(chance.choice(sorted(one for one in cache_.rglob("*") if one.is_file())), chance)
    prepare = partial(os.environ.__setitem__, "MLOPT_CACHE", str(cache_))
    return bench.judged("compiled", run, bench.mlopt("run", config, "--out", run, "--quiet", prepare=prepare))


def _odd(bench: Bench, chance: random.Random, number: int, *, how: str) -> str:
    text, run = _ODD_RUNS[number % len(_ODD_RUNS)].replace("ODD", _ODD.replace("HOW", how)), bench.new("odd")
    ended = bench.mlopt("run", bench.config(text), "--out", run, "--quiet", prepare=bench.register)
    what = wrong(ended, run, b"nothing", b"")  # none of them has a result
    return what and f"{text.split()[1]}: {what}"


def _check(bench: Bench, chance: random.Random, number: int) -> str:
    ended = bench.mlopt("plugins", "--check", prepare=bench.register)
    told = [line for line in ended.out.splitlines() if "gone" in line]
    sound = (
        ended.code == 1 and told and not told[0].endswith("ok") and "Traceback" not in ended.out + ended.err
    )
    return "" if sound else f"exit code {ended.code}: {told}"


def _threads(bench: Bench, chance: random.Random, number: int) -> str:
    run = bench.new("threads")
    how = ("--out", run, "--quiet", "--threads", "100000")
    return bench.judged("search", run, bench.mlopt("run", bench.whole("search")[0], *how))


_STREAMS = (">&-", "2>&-", ">/dev/full", "2>/dev/full", ">&- 2>&-", ">/dev/full 2>/dev/full", "<&- >&- 2>&-")


def _streams(bench: Bench, chance: random.Random, number: int) -> str:
    config, expected = bench.whole("search")
    run, how = bench.new("streams"), _STREAMS[number % len(_STREAMS)]
    line = f'exec "$0" -m mlopt.cli run "$1" --out "$2" --json {how}'
    done = subprocess.run(["sh", "-c", line, sys.executable, config, run], capture_output=True, text=True)
    ended = Ended(done.returncode, done.stdout, done.stderr)
    what = wrong(ended, run, bench.found("search", run), expected, codes=(0, 1))
    return what and f"{how}: {what}"


def _no_room(bench: Bench, chance: random.Random, number: int) -> str:
    """Simulate a full disk by a limit on the size of files, which takes the same way through the code."""
    config, run = bench.whole("search")[0], bench.new("full")
    size = chance.randrange(8_192, 65_536)
    prepare = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
    where = ("run", config, "--out", run, "--quiet", "--checkpoint-every", "0")
    what = bench.judged("search", run, bench.mlopt(*where, prepare=prepare))
    if what:
        return f"{size} bytes: {what}"
    again = ("resume", run, "--quiet") if (run / ".mlopt-run").exists() else where
    ended = bench.mlopt(*again)
    return bench.judged("search", run, ended) or (f"then: {ended.err}" if ended.code != 0 else "")


def _two_at_once(bench: Bench, chance: random.Random, number: int) -> str:
    if number % 2:
        run = bench.stopped("search")
        both = [bench.begin("resume", run, "--quiet") for _ in range(2)]
    else:
        config, run = bench.whole("search")[0], bench.new("two")
        both = [bench.begin("run", config, "--out", run, "--quiet") for _ in range(2)]
    ended = [one.wait() for one in both]
    for one in ended:
        if one.code != 0 and (
            one.code is None or one.code < 0 or one.messages != 1 or "Traceback" in one.err
        ):
            return f"exit code {one.code}: {one.err}"
    return bench.resumed("search", run) or ("" if state(run) == "finished" else "neither is finished")


def _kills(bench: Bench, tries: int, seed: int, *, kind: str, cold: bool) -> list[str]:
    folder = bench.new(f"kills-{kind}")
    folder.mkdir()
    told = check_kills(small_run(kind, folder, cold), results(kind), folder, kills=tries, seed=seed)
    return ["other results"] * told["different"] + [""] * (told["runs"] - told["different"])


def faults() -> list[Fault]:
    """Return all faults."""
    found = [
        Fault(
            f"newest checkpoint: {name}",
            _each(partial(_checkpoints, damage=damage, all_=False)),
            name == "a flipped byte",
        )
        for name, damage in _DAMAGES.items()
    ]
    found += [
        Fault(
            f"all checkpoints: {name}",
            _each(partial(_checkpoints, damage=damage, all_=True)),
            name == "truncated",
        )
        for name, damage in _DAMAGES.items()
        if name != "gone"
    ]
    for name, change in _FOREIGN.items():
        found.append(
            Fault(
                f"checkpoints of a run with another {name}",
                _each(partial(_foreign, change=change)),
                name == "seed",
            )
        )
    for name, damage in _DAMAGES.items():
        found.append(Fault(f"any file of a run: {name}", _each(partial(_any_file, damage=damage))))
    for name, damage in _DAMAGES.items():
        for what, copies, originals in (
            ("copies", True, False),
            ("originals", False, True),
            ("copies and originals", True, True),
        ):
            attempt = partial(_inputs, damage=damage, copies=copies, originals=originals)
            found.append(
                Fault(f"{what} of inputs: {name}", _each(attempt), (name, what) == ("gone", "originals"))
            )
    found.append(Fault("leftovers of writing", _each(_leftovers)))
    for name, damage in _DAMAGES.items():
        found.append(Fault(f"a file of a kernel: {name}", _each(partial(_kernels, damage=damage))))
    for how, name in _HOWS.items():
        found.append(
            Fault(f"a potential that {name}", _each(partial(_odd, how=how)), how in ("exit", "ends"))
        )
    found += [
        Fault("a plugin that ends the process when imported", _each(_check)),
        Fault("100,000 threads", _each(_threads)),
        Fault("closed and full standard streams", _each(_streams)),
        Fault("files that cannot grow", _each(_no_room)),
        Fault("two commands on one run", _each(_two_at_once)),
    ]
    found += [Fault(f"SIGKILL: {kind}", partial(_kills, kind=kind, cold=False)) for kind in KINDS]
    found.append(Fault("SIGKILL: compiled, cold cache", partial(_kills, kind="compiled", cold=True)))
    return found
