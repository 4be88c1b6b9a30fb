# Everything on a fresh machine: `make demo` runs the pipeline, `make test` checks the project.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed

.PHONY: help setup demo test lint test-slow bench bench-gpu clean

help:            ## what there is
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(SETUP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,eval,sweep,adapters,four-bit]'
	@touch $(SETUP)

setup: $(SETUP)  ## a virtual environment with everything in it

demo: $(SETUP)   ## the whole pipeline on the embedded world: no network, no weights, two CPU cores
	$(BIN)/python -m flows.rlhf

lint: $(SETUP)   ## style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: lint       ## checks, then unit, golden and fast integration tests
	$(BIN)/pytest -n 2 --dist loadfile

test-slow: $(SETUP) ## minutes: kill and resume, every task runner, real servers
	$(BIN)/pytest -m slow

bench: $(SETUP)  ## PPO beside TRL's on the same work, in an environment made for TRL; BENCH="--headline", "--quick" or "--large"
	$(BIN)/python -m tests.benchmarks.bench $(BENCH)

bench-gpu: $(SETUP) ## decoding and PPO on one GPU, against transformers and the roofline
	$(BIN)/python -m tests.benchmarks.bench_gpu $(BENCH)

clean:           ## remove the virtual environment; results in .plumbline stay
	rm -rf $(VENV)
