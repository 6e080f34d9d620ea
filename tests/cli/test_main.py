"""The command as a whole: help, unknown words, exit codes, JSON for errors, and what it imports to start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlopt.cli.main import COMMANDS

# What makes a command slow to start.
HEAVY = ("torch", "ase", "matplotlib", "rich", "numpy", "scipy")


def command(*args: str, folder: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "mlopt.cli", *args]
    return subprocess.run(
        line, capture_output=True, text=True, cwd=folder, env={**os.environ, **env}, timeout=120
    )


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_names_every_command(mlopt, args):
    result = mlopt(*args)
    assert result.code == 0 and not result.err
    for name, line in COMMANDS.items():
        assert f"{name} " in result.out and line in result.out
    assert "75" in result.out and "mlopt run lj38" in result.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(mlopt, name):
    result = mlopt(name, "--help")
    assert result.code == 0
    assert result.out.startswith(f"Usage: mlopt {name}")


def test_version(mlopt):
    assert mlopt("--version").out.startswith("mlopt ")


def test_unknown_command(refuse):
    refuse(["rum"], "'rum'", "Did you mean 'run'?", "doctor")


def test_unknown_option(refuse):
    refuse(["run", "lj13", "--strickt"], "--strickt", "--strict", "Usage: mlopt run")


def test_missing_argument(refuse):
    refuse(["resume"], "DIR")


@pytest.mark.parametrize(
    "args", [["run", "nowhere"], ["run"], ["info", "nothing"], ["status", "nowhere"], ["lst"]]
)
def test_errors_as_json(mlopt, args):
    result = mlopt(*args, "--json")
    told = json.loads(result.out)
    assert result.code == told["exit_code"] == 2
    assert told["status"] == "error" and told["message"] in result.err


def test_debug_shows_the_traceback(mlopt, monkeypatch):
    monkeypatch.setenv("MLOPT_DEBUG", "1")
    assert "Traceback" in mlopt("run", "nowhere").err


def test_surprise_is_one_line(mlopt, monkeypatch):
    def surprise(*args: object) -> None:
        raise RuntimeError("no idea")

    monkeypatch.setattr("mlopt.core.plugins.registry.entries", surprise)
    result = mlopt("list")
    assert result.code == 1
    assert "unexpected RuntimeError: no idea" in result.err and "MLOPT_DEBUG=1" in result.err
    assert "Traceback" not in result.err


def test_interrupt(mlopt, monkeypatch):
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlopt.core.plugins.registry.entries", interrupt)
    assert mlopt("list").code == 130


def test_reader_that_leaves(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        line = [sys.executable, "-m", "mlopt.cli", "--help"]
        done = subprocess.run(line, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    "args", [["--help"], ["list"], ["validate", "--quick", "lj38"]], ids=lambda args: args[0]
)
def test_light_commands_are_light(args, search):
    code = (
        "import sys\n"
        "from mlopt.cli.main import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit as end: code = end.code\n"
        f"heavy = [name for name in {HEAVY} if name in sys.modules]\n"
        "sys.exit(f'imported {heavy}' if heavy else code)\n"
    )
    line = [sys.executable, "-c", code, *args]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_imports_click_alone():
    code = "import sys, mlopt.cli.main; print([m for m in ('mlopt.core', 'pydantic', 'yaml') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_module_is_the_command():
    done = command("--version")
    assert done.returncode == 0 and done.stdout.startswith("mlopt ")
