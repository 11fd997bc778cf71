# Each command is enough on a bare machine with git, make and Python 3.10 or newer: it sets up .venv first if needed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test

train: .venv/installed  ## train the steerable and the plain transformer on upright digits, test both rotated
	$(BIN)/python scripts/train.py -m model=steerable,plain threads=1

test: .venv/installed  ## format, lint, types, doctests, tests and documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --warnings
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.venv/installed: pyproject.toml constraints.txt scripts/setup.sh
	PYTHON=$(PYTHON) scripts/setup.sh
	touch $@
