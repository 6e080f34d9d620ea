#!/bin/sh
# Fill .venv for `make`: scripts/setup.sh run   what `mlopt` needs
#                        scripts/setup.sh dev   that, the example plugin and the tools of `make test`
# Environment: PYTHON  the interpreter to build .venv from (default: the first suitable one on PATH)
#              CUDA=1  torch's default PyPI build instead of the CPU build
set -eu

cd "$(dirname "$0")/.."
stage=${1:?"usage: scripts/setup.sh run|dev"}
venv=.venv
python=$venv/bin/python
torch=$(sed -n 's/^torch==//p' constraints.txt)

say() { printf '%s\n' "mlopt setup: $*" >&2; }
die() { say "$*"; exit 1; }

# pip needs no upgrade: every Python >= 3.11 bundles one that knows editable wheels. -qq leaves errors only.
pip_install() { "$python" -m pip install -qq --no-input --disable-pip-version-check "$@"; }

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
bundles_pip() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        recent "$PYTHON" || die "PYTHON=$PYTHON is not a Python 3.11 or newer"
        bundles_pip "$PYTHON" || die "PYTHON=$PYTHON lacks venv or ensurepip (Debian, Ubuntu: apt install python3-venv)"
        printf '%s' "$PYTHON"
        return
    fi
    unbundled=
    for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do
        recent "$candidate" || continue
        if bundles_pip "$candidate"; then
            printf '%s' "$candidate"
            return
        fi
        unbundled=$candidate
    done
    [ -z "$unbundled" ] || die "$unbundled lacks venv or ensurepip (Debian, Ubuntu: apt install python3-venv)"
    die "no Python 3.11 or newer found; name one, for example: PYTHON=/path/to/python3.12 make test"
}

make_venv() {
    if recent "$python" && "$python" -m pip --version >/dev/null 2>&1; then
        return
    fi
    base=$(find_python)
    say "creating $venv with $("$base" --version 2>&1)"
    "$base" -m venv --clear "$venv"
}

# Torch goes first and without its dependencies: they come from the usual index with everything else.
install_torch() {
    have=$("$python" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || true)
    if [ "${CUDA:-}" = 1 ]; then
        case $have in "$torch" | "$torch+cu"*) return ;; esac
        say "installing torch $torch (default PyPI build)"
        # === refuses 2.13.0+cpu, which == would take from a local index.
        pip_install --no-deps --force-reinstall "torch===$torch"
        return
    fi
    case $have in "$torch" | "$torch+"*) return ;; esac
    say "installing torch $torch (CPU)"
    pip_install --no-deps "torch==$torch+cpu" 2>/dev/null ||
        pip_install --no-deps "torch==$torch" --index-url https://download.pytorch.org/whl/cpu ||
        die "found no CPU build of torch $torch for $("$python" --version); CUDA=1 takes the PyPI build instead"
}

make_venv
install_torch
# One call, so that the distributions satisfy each other's requirements.
set -- -e ./mlopt_core -e ./mlopt_potentials -e ./mlopt_optimizers -e ./mlopt_cli
case $stage in
    run) say "installing mlopt" ;;
    dev)
        say "installing mlopt and the tools for its tests"
        if [ -f plugins_example/pyproject.toml ]; then
            set -- "$@" -e ./plugins_example
        fi
        set -- "$@" -r requirements-dev.txt
        ;;
    *) die "unknown stage '$stage'; choose run or dev" ;;
esac
pip_install -c constraints.txt "$@"
