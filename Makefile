# Everything a person or CI runs. `make demo` and `make test` need only Python 3.11+ and make.
PYTHON ?= python3
HOME_DIR ?= .ml_assets
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help setup demo ui test test-all test-faults test-browser pictures lint format types docs docs-serve stack drill smoke deployed-smoke config-check audit licenses wheel deploy image image-check image-push system-packages bench lock clean

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

test-all: test  ## Run every test: also real servers, daemons, browsers and killed processes
	@$(BIN)/python -m pytest -n auto -m slow

# The counts of a full round; without them the tests run a short one.
test-faults: $(READY)  ## Kill, cut, fill up and garble: the full round of faults
	@KILLS=200 CASES=10000 KILL_REPORT=$(or $(KILL_REPORT),kills.md) \
	  CASES_REPORT=$(or $(CASES_REPORT),cases.txt) $(BIN)/python -m pytest -n auto -m faults

test-browser: $(READY)  ## Use the UI in a real browser; screenshots go to BROWSER_SHOTS
	@$(BIN)/python -m pytest -m browser

# Look at them before you commit them.
pictures: $(READY)  ## Make the docs' screenshots of the UI anew
	@shots=$$(mktemp -d) && BROWSER_SHOTS=$$shots $(BIN)/python -m pytest -m browser && \
	  $(BIN)/python -m ml_assets_tests.browser.pictures $$shots docs && rm -r $$shots

lint: $(READY)  ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY)  ## Format the code and mend what ruff can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(READY)  ## Build the documentation into site/; fails on a broken link
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(READY)  ## Show the documentation on 127.0.0.1:8000, and follow changes
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:8000

# ARGS=--keep leaves it running, to be looked at; ARGS=--no-restart kills nothing.
stack: $(READY)  ## Run the services of deploy/compose.yaml as processes, kill each, lose nothing
	@$(BIN)/python -m deploy.stack $(ARGS)

drill: $(READY)  ## Let four troubles come over the services, and time alert and recovery
	@$(BIN)/python -m deploy.drill $(ARGS)

smoke: $(READY)  ## Ask a running webserver whether all is well: URL=http://127.0.0.1:3000
	@$(BIN)/ml-assets smoke --url $(or $(URL),http://127.0.0.1:3000) $(ARGS)

# By the image's own command line, in the container: nothing has to be installed on such a machine.
deployed-smoke:  ## Ask the webserver that compose runs here whether all is well (needs Docker)
	@docker compose --file deploy/compose.yaml --env-file "$${ML_ASSETS_ENV_FILE:-deploy/.env}" exec -T webserver \
	  sh -c 'exec ml-assets smoke --url "http://127.0.0.1:3000$$WEBSERVER_PREFIX" "$$@"' smoke $(ARGS)

config-check: $(READY)  ## Validate the configuration of every environment, and of the deployment
	@for env in dev preprod prod; do $(BIN)/ml-assets config --env $$env > /dev/null && echo "$$env is valid" || exit 1; done
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

# Asks the package index: without network it fails, and says so.
audit: $(READY)  ## Look for known vulnerabilities in the locked packages
	@for lock in deploy/requirements.lock requirements.lock; do \
	  $(BIN)/pip-audit --strict --progress-spinner off --disable-pip --require-hashes -r $$lock || exit 1; done

# What is allowed, and what was looked at by hand, is in pyproject.toml.
licenses: $(READY)  ## List the licences of all packages; fails on one that is not allowed
	@$(BIN)/pip-licenses --summary
	@$(BIN)/pip-licenses > /dev/null

wheel: $(READY)  ## Build the wheel into dist/
	@$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

deploy:  ## Take this machine to another image: ML_ASSETS_IMAGE=name@sha256:…
	@deploy/deploy.sh

image:  ## Build the container image (needs Docker): IMAGE=ml-assets:local
	@docker build --file deploy/Dockerfile --tag $(or $(IMAGE),ml-assets:local) .

image-check:  ## Start the command line and load the definitions in the image (needs Docker)
	@docker run --rm $(or $(IMAGE),ml-assets:local) ml-assets --help > /dev/null
	@docker run --rm --env ML_ASSETS_ENV=dev --env ML_ASSETS_HOME=/tmp/home $(or $(IMAGE),ml-assets:local) \
	  python -c 'import ml_assets.definitions, os; assert os.getuid() != 0'

# The login and the digest are for deploy.yml; by hand you may be logged in already.
image-push:  ## Push the image, and tell its digest (needs Docker): IMAGE=
	@if [ -n "$$REGISTRY_PASSWORD" ]; then \
	  echo "$$REGISTRY_PASSWORD" | docker login --username "$$REGISTRY_USER" --password-stdin "$${IMAGE%%/*}"; fi
	@docker push --quiet $(IMAGE)
	@docker inspect --format '{{index .RepoDigests 0}}' $(IMAGE) | sed 's/.*@/digest=/' | tee -a "$${GITHUB_OUTPUT:-/dev/null}"

system-packages:  ## Install PostgreSQL and a browser for `make test-all` (Debian, as root)
	@apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql chromium nginx-light openssl > /dev/null
	@for name in initdb pg_ctl postgres psql pg_isready; do \
	  ln -sf "$$(ls -d /usr/lib/postgresql/*/bin | tail -1)/$$name" /usr/local/bin/$$name; done

bench: $(READY)  ## Compare the platform with a plain pandas + xgboost script
	@$(BIN)/python benchmarks/daily.py

lock: $(READY)  ## Compile requirements.lock anew from pyproject.toml
	@$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade -o requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --constraint requirements.lock --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header -o deploy/requirements.lock

clean:  ## Remove .venv and caches (never .ml_assets: your tables and history)
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
