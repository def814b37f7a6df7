# `make` lists the targets. Everything that they make lies in .venv/ and .qwen/; `make clean` removes both.
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-bench demo test test-fast test-endurance lint check bench clean env compose-up compose-demo compose-down
BIN := .venv/bin
# What starts Ray or a platform goes to one process, in the order of tests/conftest.py; the rest to the others.
PYTEST_SPREAD := -n logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## Build .venv (TORCH=auto|cpu|cuda, PYTHON=python3)
	@infra/setup.sh all

setup-dev:
	@infra/setup.sh all,dev

demo: setup ## Start the platform, run every stage on the embedded data, end with a model
	@$(BIN)/qwen-core run --recipe demo

test: setup-dev ## All tests: the whole path on a local Ray, and through a real Airflow (minutes)
	@$(BIN)/python -m pytest $(PYTEST_SPREAD)

test-endurance: setup-dev ## Kills of every service, a month of retrainings, many jobs at once (an hour on two cores)
	@$(BIN)/python -m pytest -m endurance

test-fast: setup-dev ## The tests that need no service (two minutes on two cores)
	@$(BIN)/python -m pytest $(PYTEST_SPREAD) -m "not slow"

lint: setup-dev ## Format, lint, types, import contracts
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

check: lint test-fast ## The same, and the fast tests

setup-bench:
	@infra/setup.sh all,dev,bench

bench: setup-bench ## Speed and memory beside peers, in one run (BENCH="minhash rules": these alone)
	@$(BIN)/python -m tests.benchmarks $(BENCH)

env: ## Secrets for docker-compose.yml, into .env (once; nothing there is changed)
	@infra/env.sh

compose-up: env ## Airflow, Ray and MLflow as containers, until all are well
	@docker compose up -d --build --wait

compose-demo: compose-up ## A recipe through the containers, from text to a released model (RECIPE=demo, SET="KEY=VALUE...")
	@docker compose run --rm --no-deps demo python /opt/qwen-core/bin/demo.py $(or $(RECIPE),demo) $(SET)
	@infra/pages.sh

compose-down: ## End the containers; volumes and .env stay
	@docker compose --profile '*' down --remove-orphans

clean: ## Stop the platform and remove all that was made
	@[ ! -x $(BIN)/qwen-core ] || $(BIN)/qwen-core down
	rm -rf .venv .qwen .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
