# `make demo` and `make test` need Python >= 3.10 with venv, make, and a package index. Nothing else.
PYTHON ?= python3
BIN := .venv/bin

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: .venv/core ## train on Shakespeare for about a minute, then read what it writes
	@$(BIN)/glassformer demo $(ARGS)

test: .venv/dev ## the whole test suite, about eight minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: .venv/dev ## the tests that take minutes each
	$(BIN)/python -m pytest -m slow

check: .venv/dev ## format, lint and type-check
	$(BIN)/ruff format .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/dev ## the speed claims, both sides of each in one run (about twenty minutes)
	$(BIN)/python benchmarks/time_to_loss.py
	$(BIN)/python benchmarks/generate.py
	$(BIN)/python benchmarks/tokenize_text.py
	$(BIN)/python benchmarks/prepare_data.py

clean: ## remove the virtual environment and caches, not your runs
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache

# torch first and by its exact version: a range would fetch gigabytes of another build
.venv/core: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.10 or newer"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "on Debian: apt-get install python3-venv"; exit 1; }
	@echo "installing torch and a few small packages into .venv (once, about a minute)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/dev: .venv/core
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test,dev]'
	@touch $@

.PHONY: help demo test test-slow check bench clean
.DEFAULT_GOAL := help
