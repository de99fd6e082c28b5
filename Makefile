# What a user and a contributor type; the README says how to install without make.
#
#   make demo       install into .venv, train for some minutes, generate a story
#   make setup      install only
#   make test       the quick tests
#   make check      style, types, size and the quick tests
#   make format     rewrite the code in the style that `make check` checks
#   make test-full  the slower tests
#   make proof      the proofs of docs/guarantees.md, recorded in docs/proof.json (PROOFS=tests/store
#                   for a part)
#   make proof-lowest  the quick tests with the oldest packages that pyproject.toml allows
#   make proof-interop  exports in llama.cpp, transformers 4 and TransformerLens, recorded likewise
#   make mutants    take one protection of the store away at a time, and see whether a test notices
#   make docs       renew what documents repeat of the program
#   make bench      measure training and sampling beside peers
#   make clean      remove .venv and caches; the store, artifacts/, is the user's and stays
#
# PYTHON names the interpreter that .venv is made from (make demo PYTHON=python3.12).
# constraints.txt says how to get the CPU build of torch on Linux without a GPU.

PYTHON ?= python3
VENV ?= .venv
LOWEST ?= .venv-lowest
INTEROP ?= .venv-interop
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet \
  --constraint constraints.txt
WANTED := pyproject.toml constraints.txt
# Processes that take a file of tests at a time; tests/proofs/figures.py puts the longest ones first
BY_FILE := --dist loadfile --no-loadscope-reorder
TESTS := $(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 $(BY_FILE)
PROOF := $(BIN)/python -m pytest -v --numprocesses 3 $(BY_FILE) \
  -m "(proof or proved) and not interop" --tier proof --record=docs/proof.json

.PHONY: setup demo test check format test-full proof proof-lowest proof-interop \
  mutants docs bench clean

demo: $(VENV)/.installed
	$(BIN)/tinygpt run --preset demo

setup: $(VENV)/.installed
	@echo "Installed. Next: $(BIN)/tinygpt run --preset demo"

test: $(VENV)/.installed-test
	$(TESTS) -m "not full and not proof and not interop"

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/count_statements.py
	$(MAKE) --no-print-directory test

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-full: $(VENV)/.installed-dev
	$(TESTS) -m "(full or sized) and not proof and not interop" --tier full

proof: $(VENV)/.installed-dev
	$(PROOF) $(PROOFS)

proof-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -q -m "not full and not proof and not interop"

proof-interop: $(VENV)/.installed-dev
	@tests/interop/install.sh $(INTEROP) $(BIN)/python constraints.txt
	INTEROP=$(INTEROP) $(BIN)/python -m pytest -v -m interop --record=docs/proof.json \
	  --section interop tests/interop

mutants: $(VENV)/.installed-dev
	$(BIN)/python tools/mutants.py

docs: $(VENV)/.installed
	$(BIN)/python tools/docs.py

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.train
	$(BIN)/python -m benchmarks.sample

clean:
	rm -rf $(VENV) $(LOWEST) $(INTEROP) build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each set of packages: it is newer than the files that name them, or pip runs again.
$(VENV)/.installed: $(WANTED) | $(BIN)/python
	@echo "Installing tinygpt and torch into $(VENV); the first time takes some minutes"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "Installing what the tests need"
	@$(PIP) --editable ".[test]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	@echo "Installing what the full tests and the benches need"
	@$(PIP) --editable ".[dev]"
	@touch $@

# Made anew whenever a version changes; $(BIN)/python comes first because it checks the interpreter.
$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt | $(BIN)/python
	@echo "Installing the oldest packages that are allowed into $(LOWEST)"
	@rm -rf $(LOWEST)
	@$(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip --disable-pip-version-check install --quiet \
	  --constraint constraints-lowest.txt --editable ".[test]"
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found=$$($(PYTHON) --version 2>/dev/null || echo not there); \
	  printf '%s\n\n%s\n' \
	    "error: tinygpt needs Python 3.11 or newer, and \`$(PYTHON)\` is $$found" \
	    "hint: install it and name it, e.g., \`make demo PYTHON=python3.12\`" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { printf '%s\n\n%s\n' \
	  "error: \`$(PYTHON)\` has no module venv, which makes $(VENV)" \
	  "hint: install it, e.g., \`sudo apt install python3-venv\`, and type the same again" >&2; \
	  exit 1; }
	@$(PYTHON) -m venv $(VENV)
