PYTHON ?= python3
BIN := .venv/bin

help:  ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: .venv/ready  ## Make .venv with everything that the project needs

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: setup  ## Run five rounds on digits with ALFA-Mix, then with random, and compare
	$(BIN)/python -m pipelines.demo

test: setup  ## Run all tests
	$(BIN)/python -m pytest

faults: setup  ## Kill rounds, break the network and damage files, for a quarter of an hour
	$(BIN)/python -m pytest -m faults

check: setup  ## Lint, check formats and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

compile: setup  ## Write the pipeline for a Kubeflow cluster to pipelines/round.yaml
	$(BIN)/python -m pipelines.compile

docs: setup  ## Write the generated pages of docs/ anew
	$(BIN)/alfamix settings --markdown > docs/settings.md

lock: setup  ## Resolve the dependencies anew into requirements.lock
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --quiet --upgrade --output-file requirements.lock

clean:  ## Remove the environment, caches and the demo
	rm -rf .venv .work build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.DEFAULT_GOAL := help
.PHONY: help setup demo test faults check compile docs lock clean
