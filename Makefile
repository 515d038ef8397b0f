# `check` reads, `fix` writes, `test` proves. One virtual environment in .venv; PYTHON chooses what makes it.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
JOBS ?= 3

.PHONY: help setup demo test bench chaos consistency cache observe tenancy leaks dashboards check fix up down clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Create .venv with the project and all its tools

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot create virtual environments. On Debian: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]" --constraint constraints.txt
	@touch $@

demo: setup ## Run the main job on SQLite; nothing else is needed
	$(BIN)/router demo

test: setup ## Install the servers that are missing, then run all tests; ARGS="-k name" for some, JOBS=1 in one process
	$(BIN)/python -m tests.servers.install
	$(BIN)/pytest -q --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup ## Read: lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: setup ## Write: mend what lint and format can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## Measure beside peers: tables; ARGS="--json --quick" for one object a line within a minute
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[bench]" --constraint constraints.txt
	$(BIN)/python -m tests.bench $(ARGS)

dashboards: setup ## Write the boards and alert rules of config/ from their code; ARGS="--runbook URL"
	@$(BIN)/python -m config.generate $(ARGS)

chaos: setup ## Break servers under load, each figure beside its limit; ARGS="--quick" within a minute, "--json"
	@$(BIN)/python -m tests.servers.install >&2
	@$(BIN)/python -m tests.chaos $(ARGS)

consistency: setup ## Check what many users see through lag and failovers; ARGS="--quick" within a minute, "--cache", "--seed 7"
	@$(BIN)/python -m tests.servers.install >&2
	@$(BIN)/python -m tests.consistency $(ARGS)

cache: setup ## Measure the cache, each figure beside its limit; ARGS="--quick" within a minute, "--json", "--seed 7"
	@$(BIN)/python -m tests.servers.install >&2
	@$(BIN)/python -c 'import cashews' 2>/dev/null || \
		$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[bench]" --constraint constraints.txt
	@$(BIN)/python -m tests.cache $(ARGS)

observe: setup ## Measure what observing costs, each figure beside its limit; ARGS="--quick" within a minute, "--json"
	@$(BIN)/python -m tests.servers.install >&2
	@$(BIN)/python -m tests.observe $(ARGS)

tenancy: setup ## Measure many tenants, each figure beside its limit; ARGS="--quick" within a minute, "--json", "--family weights"
	@$(BIN)/python -m tests.servers.install >&2
	@$(BIN)/python -m tests.tenancy $(ARGS)

leaks: setup ## Look for a row of another tenant in every isolation model; ARGS="--quick" within a minute, "--json"
	@$(BIN)/python -m tests.servers.install >&2
	@$(BIN)/python -m tests.leaks $(ARGS)

up: ## Start the servers in docker, on loopback ports, and wait until they are healthy
	docker compose up --detach --wait

down: ## Stop the servers in docker; their data stays
	docker compose down

clean: ## Delete .venv, caches and builds
	rm -rf .venv build dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf .import_linter_cache .grimp_cache
	find router tests -name __pycache__ -type d -prune -exec rm -rf {} +
