# Everything happens in .venv, which the first target that needs it makes (Python 3.11 or newer with venv and pip).
#   make quickstart   run the main job on the embedded default, in minutes and without a network
#   make test         run the tests
#   make check        format, lint, types, import directions, tests, docs: what a change must pass
#   make docs         write the generated parts of the docs anew

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The range keeps to a torch that has CPU wheels everywhere; see the README for a build for your accelerator.
TORCH ?= torch>=2.11,<2.14
TESTS ?=

# One thread for each of two test processes: more threads than cores make each other wait.
export OMP_NUM_THREADS ?= 1
ifneq ($(wildcard ../shared/data),)
export LMDISTILL_DATA ?= $(abspath ../shared/data)
endif

.PHONY: install quickstart test check format lint types docs clean
.DEFAULT_GOAL := test

install: $(STAMP)

$(STAMP): pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing into $(VENV): about 2 GB, a few minutes"
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[all,test]"
	touch $(STAMP)

quickstart: $(STAMP)
	$(BIN)/lmdistill quickstart

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal $(TESTS)

check: lint types test

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)
	$(BIN)/python tests/test_docs.py

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
