#!/bin/sh
# Write constraints.txt anew: the newest versions that the pyproject.toml files allow, everything that they bring included.
# Environment: PYTHON  the interpreter to resolve for (default: that of .venv)
#              TORCH   the version of torch to pin (default: the one that is pinned now)
set -eu

cd "$(dirname "$0")/.."
torch=${TORCH:-$(sed -n 's/^torch==//p' constraints.txt)}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-.venv/bin/python}" -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip --disable-pip-version-check "$@"; }
pip install -qq --no-input "torch==$torch+cpu" 2>/dev/null ||
    pip install -qq --no-input "torch==$torch" --index-url https://download.pytorch.org/whl/cpu
pip install -qq --no-input -e ./mlopt_core -e ./mlopt_potentials -e ./mlopt_optimizers -e ./mlopt_cli \
    -e ./plugins_example -r requirements-dev.txt
{
    echo "# The versions that the checks run with, written by \`make lock\`; the pyproject.toml files say what mlopt accepts."
    echo "# scripts/setup.sh reads the torch line. A local version such as 2.13.0+cpu satisfies it."
    # A local build has no version of its own on an index; setuptools and pip belong to the interpreter.
    pip freeze --exclude-editable | sed -e '/^torch==/s/+.*//' -e '/ @ /d' -e '/^setuptools==/d'
} >"$folder/constraints.txt"
mv "$folder/constraints.txt" constraints.txt
