# make demo          train a network online and watch it learn
# make test          everything that must hold before a change goes in: style, types, import directions, tests
# make matrix        every algorithm, in every setting, on every cell of the zoo (make test: a quarter of the further settings)
# make fuzz          N random cells (1000) against their oracles; one again: make fuzz SEED=17
# make sanitize      the C kernel under AddressSanitizer and UBSan, also with operands that do not fit; needs gcc, half a minute
# make bench         speed and memory beside BPTT and the PyPI package braintrace; 15 to 20 minutes, writes benchmarks/README.md
# make bench-short   the same for two cells at two sizes, under 3 minutes on two quiet cores (the first time it installs the peer)
# make docs          the pages as a site in build/site; fails on a broken link and on a public name without a page
# All make .venv first. PYTHON=/path/to/python3.x picks the interpreter (3.11 or newer).

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST_ARGS ?= -n 2
N ?= 1000
CANDIDATES := python3 python python3.14 python3.13 python3.12 python3.11
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)

.PHONY: help demo test matrix fuzz sanitize bench bench-short docs lint format setup clean
.DEFAULT_GOAL := help

help:
	@sed -n '/^#/!q; s/^# //p' Makefile

demo: $(READY)
	$(BIN)/python -m braintrace demo

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

matrix: $(READY)
	MATRIX=all $(BIN)/python -m pytest -n 2 tests/zoo/test_matrix.py

fuzz: $(READY)
	PYTHONPATH=tests $(BIN)/python -m fuzz $(if $(SEED),--seed $(SEED),-n $(N))

sanitize: $(READY)
	PYTHONPATH=tests $(BIN)/python -m sanitize

bench: $(READY)
	$(BIN)/python -m benchmarks

bench-short: $(READY)
	$(BIN)/python -m benchmarks --short

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(READY)

# A dependency may have changed whenever pyproject.toml did; pip leaves alone what is already right.
$(READY): pyproject.toml
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found; say PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -c '$(NEW_ENOUGH)' || { echo "$(PYTHON) is older than 3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) .bench build dist .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
