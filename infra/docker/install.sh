#!/bin/sh
# Installs Python packages into /opt/venv, with the pins of constraints.txt; runs in the Dockerfile's build stages.
# usage: install.sh tools | torch cpu|cuda | extras NAME,... | packages NAME... | code
#
# The secret `mirror` is a file of lines NAME=VALUE: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, PIP_CERT, or
# uv's own variables. Wheels that lie in infra/docker/wheels/ are taken before those of an index.
set -eu
if [ -s /run/secrets/mirror ]; then
  set -a
  . /run/secrets/mirror
  set +a
fi
if [ "$1" = tools ]; then
  python3 -m venv /opt/venv
  python3 -m venv /opt/tools
  exec /opt/tools/bin/pip install --quiet --disable-pip-version-check --no-cache-dir uv
fi

# uv reads its own variables; the ones of pip are handed on.
[ -z "${PIP_FIND_LINKS:-}" ] || export UV_FIND_LINKS="${UV_FIND_LINKS:-$PIP_FIND_LINKS}"
[ -z "${PIP_INDEX_URL:-}" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"
[ -z "${PIP_EXTRA_INDEX_URL:-}" ] || export UV_INDEX="${UV_INDEX:-$PIP_EXTRA_INDEX_URL}"
[ -z "${PIP_CERT:-}" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$PIP_CERT}"
[ ! -d /wheels ] || export UV_FIND_LINKS="/wheels${UV_FIND_LINKS:+,$UV_FIND_LINKS}"
# Bytecode at once: the user that runs can write none, and each process would compile what it imports.
export UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy VIRTUAL_ENV=/opt/venv
uv() { /opt/tools/bin/uv "$@"; }

kind=$1
shift
case "$kind" in
  torch)
    version=$(sed -n 's/^torch==\([^ #]*\).*/\1/p' constraints.txt)
    case "$1" in
      cuda)
        uv pip install --quiet "torch==$version"
        /opt/venv/bin/python -c 'import sys, torch; sys.exit(torch.version.cuda is None)' || {
          echo "install: this torch has no CUDA: is a CPU build of it in infra/docker/wheels/?" >&2
          exit 1
        } ;;
      cpu)  uv pip install --quiet "torch==$version+cpu" 2>/dev/null \
            || uv pip install --quiet --torch-backend cpu "torch==$version" ;;
      *)    echo "install: TORCH=$1 is not known: use cpu or cuda" >&2; exit 1 ;;
    esac ;;
  extras)
    names=$(printf '%s' "$1" | sed 's/^/--extra /; s/,/ --extra /g')
    # shellcheck disable=SC2086 - one word for each option
    uv pip install --quiet --constraint constraints.txt --requirement pyproject.toml $names ;;
  packages)
    uv pip install --quiet --constraint constraints.txt "$@" ;;
  code)
    uv pip install --quiet --no-deps --target /opt/qwen-core . ;;
  *)
    echo "install: '$kind' is not known" >&2; exit 1 ;;
esac
