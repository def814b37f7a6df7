#!/bin/sh
# Builds .venv with everything that the project needs, or says what is missing.
# usage: infra/setup.sh [EXTRAS]        EXTRAS: all (default) or all,dev
# environment: PYTHON (python3), TORCH (auto|cpu|cuda), PIP_FIND_LINKS, PIP_INDEX_URL, PIP_EXTRA_INDEX_URL
set -eu
cd "$(dirname "$0")/.."
EXTRAS=${1:-all}
PYTHON=${PYTHON:-python3}
TORCH=${TORCH:-auto}

fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# --- what the machine must bring ------------------------------------------------------------------
command -v "$PYTHON" >/dev/null 2>&1 || fail "python3 is missing.
  Debian/Ubuntu: sudo apt-get install python3 python3-venv python3-dev
  macOS:         brew install python@3.12"
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || fail \
  "$("$PYTHON" --version) is not supported: Python 3.11, 3.12 or 3.13 is needed. Name another one: make demo PYTHON=python3.12"
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || fail "python3 has no venv module.
  Debian/Ubuntu: sudo apt-get install python3-venv"
command -v "${CXX:-c++}" >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 || fail \
  "a C++ compiler is missing (fasttext is built from source, DeepSpeed compiles a helper at its first start).
  Debian/Ubuntu: sudo apt-get install build-essential
  macOS:         xcode-select --install"
"$PYTHON" -c 'import sysconfig, pathlib, sys; sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists())' \
  || fail "the Python headers (Python.h) are missing; fasttext is built from source.
  Debian/Ubuntu: sudo apt-get install python3-dev"

# --- skip what is already done --------------------------------------------------------------------
# The stamp holds what decided the installation, so that an edited pin or another TORCH installs again.
stamp=.venv/.installed-$(printf '%s' "$EXTRAS" | tr ',' '-')
want=$({ cat pyproject.toml constraints.txt infra/setup.sh; echo "$TORCH $PYTHON"; } | cksum)
if [ -x .venv/bin/qwen-core ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then exit 0; fi

[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
[ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check uv

# uv reads its own variables; the ones of pip are handed on.
[ -z "${PIP_FIND_LINKS:-}" ] || export UV_FIND_LINKS="${UV_FIND_LINKS:-$PIP_FIND_LINKS}"
[ -z "${PIP_INDEX_URL:-}" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"
[ -z "${PIP_EXTRA_INDEX_URL:-}" ] || export UV_INDEX="${UV_INDEX:-$PIP_EXTRA_INDEX_URL}"
# Bytecode at once and in parallel: the platform starts dozens of processes, and each would compile what it imports.
export UV_COMPILE_BYTECODE=1
uv() { VIRTUAL_ENV="$PWD/.venv" .venv/bin/uv "$@"; }

# --- torch: the CUDA build only where there is a GPU ----------------------------------------------
# On Linux the registry's plain wheel brings gigabytes of CUDA libraries. A CPU build comes from a folder
# in PIP_FIND_LINKS when it holds one, else from PyTorch's own index.
version=$(sed -n 's/^torch==\([^ #]*\).*/\1/p' constraints.txt)
if [ "$TORCH" = auto ]; then
  if [ "$(uname -s)" = Linux ] && ! nvidia-smi -L >/dev/null 2>&1; then TORCH=cpu; else TORCH=cuda; fi
fi
echo "setup: installing into .venv (extras: $EXTRAS; torch $version, $TORCH build); a few minutes the first time"
case "$TORCH" in
  cuda) uv pip install --quiet "torch==$version" ;;  # macOS: this is the Metal/CPU build
  cpu)  uv pip install --quiet "torch==$version+cpu" 2>/dev/null \
        || uv pip install --quiet --torch-backend cpu "torch==$version" \
        || fail "no CPU build of torch $version was found. Put its wheel into a folder and set PIP_FIND_LINKS to it,
  or accept the CUDA build (several GB): TORCH=cuda make demo" ;;
  *)    fail "TORCH=$TORCH is not known: use auto, cpu or cuda" ;;
esac
uv pip install --quiet --constraint constraints.txt --editable ".[$EXTRAS]"
printf '%s\n' "$want" > "$stamp"
echo "setup: done"
