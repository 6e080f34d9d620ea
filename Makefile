# `make run` and `make test` set themselves up; a stamp in .make/ remembers that it was done.
PYTHON ?=
CUDA ?=
RECIPE ?= lj38
ARGS ?=
WORKERS ?= 2
TORCH ?=
export PYTHON CUDA TORCH

bin := .venv/bin
parts := core potentials optimizers cli
torch := $(if $(filter 1,$(CUDA)),cuda,cpu)
ready_to_run := .make/run-$(torch)
ready_to_test := .make/dev-$(torch)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install run test test-all test-deps test-lowest test-newest
.PHONY: pytest lint types format coverage docs lock clean distclean

help: ## list the targets
	@echo 'usage: make TARGET [RECIPE=lj38] [ARGS="..."] [WORKERS=2] [CUDA=1] [PYTHON=/path/to/python3.12]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo 'CUDA=1 takes the CUDA build of torch; PYTHON counts when .venv is made (make distclean to make it anew)'
	@echo 'test-deps makes environments of its own each time, and knows TORCH=2.11.0 besides'

run: $(ready_to_run) ## run a recipe: make run RECIPE=lj38 ARGS="--out runs/first"
	$(bin)/mlopt run $(RECIPE) $(ARGS)

test: lint types pytest ## lint, types and tests; ARGS goes to pytest

test-all: ARGS += -m ""
test-all: lint types pytest ## the same with the slow tests

# One thread per worker: torch, numpy and the workers would otherwise fight for the same cores.
pytest: export OMP_NUM_THREADS = 1
pytest: $(ready_to_test) ## the tests alone: make pytest ARGS="tests/core -k registry"
	$(bin)/python -m pytest -n $(WORKERS) $(ARGS)

test-deps: test-lowest test-newest ## the tests with the lowest and with the newest versions of what mlopt needs

test-lowest test-newest: export OMP_NUM_THREADS = 1
test-lowest test-newest: test-%:
	@scripts/setup.sh $*
	.venv-$*/bin/python -m pytest -n $(WORKERS) $(ARGS)

lint: $(ready_to_test) ## ruff: rules and formatting
	$(bin)/ruff check
	$(bin)/ruff format --check

types: $(ready_to_test) ## mypy on the four distributions
	$(bin)/mypy

format: $(ready_to_test) ## rewrite the code as `make lint` wants it
	$(bin)/ruff check --fix
	$(bin)/ruff format

coverage: export OMP_NUM_THREADS = 1
coverage: $(ready_to_test) ## tests with a table of the lines they miss
	$(bin)/python -m pytest -n $(WORKERS) $(parts:%=--cov=mlopt.%) --cov-report=term-missing:skip-covered $(ARGS)

docs: $(ready_to_test) ## build the documentation into site/
	$(bin)/mkdocs build --strict

install: ## set up again, for example after adding an entry point
	@rm -rf .make
	@$(MAKE) --no-print-directory $(ready_to_test)

lock: $(ready_to_test) ## renew constraints.txt: the newest version of everything that is installed
	@scripts/lock.sh

clean: ## remove caches and build products
	rm -rf site .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf $(parts:%=mlopt_%/dist) $(parts:%=mlopt_%/build)
	find . -path './.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## that, and the environments
	rm -rf .venv .venv-lowest .venv-newest .make

# The interpreter is a target of its own, so that a deleted .venv is filled again whatever the stamps say.
.venv/bin/python:
	@rm -rf .make

$(ready_to_run): .venv/bin/python $(parts:%=mlopt_%/pyproject.toml) constraints.txt scripts/setup.sh
	@scripts/setup.sh run
	@mkdir -p .make && touch $@

$(ready_to_test): $(ready_to_run) $(wildcard plugins_example/pyproject.toml) requirements-dev.txt requirements-test.txt
	@scripts/setup.sh dev
	@mkdir -p .make && touch $@
