#!/bin/sh
# Fill an environment for `make`:
#   scripts/setup.sh run     .venv: what `mlopt` needs
#   scripts/setup.sh dev     .venv: that, the example plugin and the tools of `make test`
#   scripts/setup.sh lowest  .venv-lowest, anew: the lowest versions that the pyproject.toml files allow, and the tests
#   scripts/setup.sh newest  .venv-newest, anew: the newest versions that the index has, and the tests
# Environment: PYTHON  the interpreter to build it from (default: the first suitable one on PATH)
#              CUDA=1  torch's default PyPI build instead of the CPU build
#              TORCH   for lowest and newest: this version of torch
set -eu

cd "$(dirname "$0")/.."
stage=${1:?"usage: scripts/setup.sh run|dev|lowest|newest"}
case $stage in
    run | dev) venv=.venv ;;
    lowest | newest) venv=.venv-$stage ;;
    *) printf '%s\n' "mlopt setup: unknown stage '$stage'; choose run, dev, lowest or newest" >&2; exit 1 ;;
esac
python=$venv/bin/python
torch=$(sed -n 's/^torch==//p' constraints.txt)
cpu_index=https://download.pytorch.org/whl/cpu

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
pip_install_cpu_torch() {
    pip_install --no-deps "torch==$1+cpu" 2>/dev/null ||
        pip_install --no-deps "torch==$1" --index-url "$cpu_index"
}

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
    pip_install_cpu_torch "$torch" || no_cpu_build "$torch"
}

no_cpu_build() {
    die "found no CPU build of torch $1 for $("$python" --version); CUDA=1 takes the PyPI build instead"
}

# The CPU build of the version that the leg is about, or else of the one that the checks run with.
install_leg_torch() {
    if [ -n "${TORCH:-}" ]; then
        pip_install_cpu_torch "$TORCH" || no_cpu_build "$TORCH"
        return
    fi
    case $stage in
        lowest)
            lowest=$(sed -n 's/.*"torch>=\([0-9.]*\)".*/\1/p' mlopt_core/pyproject.toml)
            ! pip_install_cpu_torch "$lowest" 2>/dev/null || return 0
            ;;
        # uv, for pip would also look in the user's other indices, which may hold newer builds for CUDA.
        newest) ! "$venv/bin/uv" -q pip install --python "$python" --no-deps torch --index-url "$cpu_index" 2>/dev/null || return 0 ;;
    esac
    say "no CPU build of the $stage torch can be had: taking $torch of constraints.txt (CUDA=1 takes the PyPI build)"
    pip_install_cpu_torch "$torch" || no_cpu_build "$torch"
}

# Nothing is kept from an earlier time: what the index has may have changed since.
fill_leg() {
    base=$(find_python)
    say "filling $venv ($("$base" --version 2>&1)) with the $stage versions"
    "$base" -m venv --clear "$venv"
    # It resolves for the lowest versions, which pip cannot.
    pip_install uv
    case $stage in lowest) resolution=lowest-direct ;; newest) resolution=highest ;; esac
    set -- -r requirements-test.txt
    if [ "${CUDA:-}" != 1 ]; then
        install_leg_torch
    elif [ -n "${TORCH:-}" ]; then
        set -- "$@" "torch==$TORCH"
    fi
    # A wheel there must be, so that an old version is not built for hours; omegaconf 2.3 needs the one exception.
    # Compiled, as pip does it.
    "$venv/bin/uv" -q pip install --python "$python" --compile-bytecode --resolution "$resolution" \
        --only-binary :all: --no-binary antlr4-python3-runtime \
        -e ./mlopt_core -e ./mlopt_potentials -e ./mlopt_optimizers -e ./mlopt_cli -e ./plugins_example "$@"
    "$venv/bin/uv" -q pip freeze --python "$python" --exclude-editable >"$venv/versions.txt"
    say "$venv holds $(tr '\n' ' ' <"$venv/versions.txt")"
}

if [ "$venv" != .venv ]; then
    fill_leg
    exit
fi
make_venv
install_torch
# One call, so that the distributions satisfy each other's requirements.
set -- -e ./mlopt_core -e ./mlopt_potentials -e ./mlopt_optimizers -e ./mlopt_cli
if [ "$stage" = run ]; then
    say "installing mlopt"
else
    say "installing mlopt and the tools for its tests"
    if [ -f plugins_example/pyproject.toml ]; then
        set -- "$@" -e ./plugins_example
    fi
    set -- "$@" -r requirements-dev.txt
fi
pip_install -c constraints.txt "$@"
