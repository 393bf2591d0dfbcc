# Everything a person or CI runs. `make demo` and `make test` need only Python 3.11+ and make.
PYTHON ?= python3
HOME_DIR ?= .ml_assets
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help setup demo ui test test-all test-faults lint format types bench lock clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(READY)  ## Create .venv from requirements.lock

# --no-deps: the lock is complete; --require-hashes: and nothing else gets in.
$(READY): requirements.lock pyproject.toml setup.cfg
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"ml_assets needs Python 3.11 to 3.13, and $(PYTHON) is {v.major}.{v.minor}: try make PYTHON=python3.12 …")'
	@echo "Installing the locked packages into $(VENV) (a few minutes the first time) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(READY)

demo: $(READY)  ## Run the main job on 60 days of simulated applications
	@$(BIN)/ml-assets demo --home $(HOME_DIR)

ui: $(READY)  ## Open the Dagster UI, with schedules and sensors running
	@$(BIN)/ml-assets ui --home $(HOME_DIR)

test: $(READY)  ## Run the fast tests on all cores
	@$(BIN)/python -m pytest -n auto

test-all: $(READY)  ## Run every test: also real servers, daemons and killed processes
	@$(BIN)/python -m pytest -n auto -m ""

# The counts of a full round; without them the tests run a short one.
test-faults: $(READY)  ## Kill, cut, fill up and garble: the full round of faults
	@KILLS=200 CASES=10000 KILL_REPORT=$(or $(KILL_REPORT),kills.md) $(BIN)/python -m pytest -n auto -m faults

lint: $(READY)  ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY)  ## Format the code and mend what ruff can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY)  ## Compare the platform with a plain pandas + xgboost script
	@$(BIN)/python benchmarks/daily.py

lock: $(READY)  ## Compile requirements.lock anew from pyproject.toml
	@$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade -o requirements.lock

clean:  ## Remove .venv and caches (never .ml_assets: your tables and history)
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
