#!/bin/sh
# Creates .venv with everything that training and testing need. Called by make.
set -eu
PYTHON=${PYTHON:-python3}

version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || { echo "setup: no $PYTHON found" >&2; exit 1; }
case $version in
  3.1[0-9]) ;;
  *) echo "setup: escnn-attn needs Python 3.10 or newer, and $PYTHON is $version; name another: make PYTHON=python3.11" >&2; exit 1 ;;
esac

[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
pip() { .venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt "$@"; }
# torch first and pinned: another package's looser wish would bring another build of several gigabytes
pip torch
pip -e '.[train,dev]'
# without what it declares, which is for rotations of space: a Fortran compiler, numpy < 2, Python < 3.13
pip --no-deps escnn
