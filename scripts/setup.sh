#!/bin/sh
# Creates .venv with everything that training and testing need. Called by make.
set -eu
PYTHON=${PYTHON:-python3}

version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || { echo "setup: no $PYTHON found" >&2; exit 1; }
case $version in
  3.10 | 3.11 | 3.12) ;;
  *) echo "setup: escnn-attn needs Python 3.10, 3.11 or 3.12, and $PYTHON is $version; name another: make PYTHON=python3.11" >&2; exit 1 ;;
esac

# escnn depends on py3nj, which is compiled from Fortran
if ! command -v gfortran >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends gfortran >/dev/null
  else
    echo "setup: escnn needs a Fortran compiler to install; run: sudo apt-get install gfortran" >&2
    exit 1
  fi
fi

[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
# torch first and pinned: another package's looser wish would bring another build of several gigabytes
.venv/bin/pip install --quiet --disable-pip-version-check torch -c constraints.txt
.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
