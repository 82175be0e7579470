PYTHON ?= python3
BIN := .venv/bin

help:  ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: .venv/ready  ## Install everything that the project needs into .venv

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: setup  ## Run five rounds on digits with ALFA-Mix, then with random, and compare them
	$(BIN)/python -m pipelines.demo

test: setup  ## Run all tests, one file per core at a time
	monitoring/programs.sh
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

gpu:  ## Test and measure acquisition on a CUDA GPU, in at most nine minutes; python3 needs torch and pytest
	$(PYTHON) -m benchmarks.gpu

faults: setup  ## Kill rounds, break the network and damage files, for a quarter of an hour
	monitoring/programs.sh
	$(BIN)/python -m pytest -m faults

check: setup  ## Check style, types, shell scripts, Dockerfile and Prometheus rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfiles/Dockerfile
	$(BIN)/shellcheck Dockerfiles/*.sh Dockerfiles/alfamix monitoring/*.sh .ci/run
	monitoring/programs.sh
	promtool check rules monitoring/rules/*.yml
	promtool test rules monitoring/rules/tests/*.yml

compile: setup  ## Compile the pipeline for a Kubeflow cluster to pipelines/round.yaml
	$(BIN)/python -m pipelines.compile

package: setup  ## Compile it to dist/ with the images of DIGESTS=file; SETTINGS=file and KUSTOMIZE=folder are optional
	$(BIN)/python -m pipelines.compile --digests $(or $(DIGESTS),$(error make package needs DIGESTS=file, the images by digest)) \
		$(if $(SETTINGS),--settings $(SETTINGS)) $(if $(KUSTOMIZE),--kustomize $(KUSTOMIZE))

deploy-check: setup  ## Render deploy/ and check it against the Kubernetes schemas
	$(BIN)/python -m pytest tests/deploy

images: setup  ## Build one image per component, and the trigger's
	Dockerfiles/build.sh

push: setup  ## Push the images to REGISTRY=…, and write dist/digests.txt for `make package`
	Dockerfiles/push.sh $(or $(REGISTRY),$(error make push needs REGISTRY=…, the registry of the images)) dist/digests.txt

e2e-docker: setup  ## Build the images, and compare rounds in containers with rounds in processes
	ALFAMIX_E2E_ROUNDS=$(or $(ROUNDS),2) $(BIN)/python -m pytest -m docker

e2e-cluster: setup  ## Run rounds on the Kubeflow cluster that the environment names (docs/development.md)
	$(BIN)/python -m pytest -m cluster tests/cluster

e2e-monitoring: setup  ## Watch rounds with a real Prometheus and Pushgateway, and compare values and alerts
	monitoring/programs.sh
	ALFAMIX_E2E_ROUNDS=$(or $(ROUNDS),3) $(BIN)/python -m pytest -m monitoring

prometheus:  ## Install Debian's Prometheus and Pushgateway if possible
	monitoring/programs.sh

sbom: setup  ## Write the packages of each runtime to dist/sbom/, as CycloneDX
	Dockerfiles/sbom.sh dist/sbom

audit: setup  ## Report known vulnerabilities of all locked packages
	$(BIN)/uv tool run pip-audit@2.10.1 --strict --disable-pip --require-hashes --requirement requirements.lock

docs: setup  ## Generate the pages of docs/, monitoring/ and components/, and the README's pictures
	$(BIN)/python -m pipelines.cli.page > docs/cli.md
	$(BIN)/alfamix settings --markdown > docs/settings.md
	$(BIN)/alfamix metrics --markdown > docs/metrics.md
	$(BIN)/alfamix settings --platform --markdown > docs/platform-settings.md
	$(BIN)/python -m alfamix_core.records.strategies_page > docs/strategies.md
	$(BIN)/python -m pipelines.catalogue
	$(BIN)/python -m monitoring.latest
	$(BIN)/python -m monitoring.dashboards
	$(BIN)/python -m benchmarks.gpu.table
	$(BIN)/python -m docs.pictures.draw

lock: setup  ## Resolve the dependencies again, into requirements.lock and the images' locks
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --quiet --upgrade --output-file requirements.lock
	Dockerfiles/lock.sh

clean:  ## Remove .venv, build outputs, caches and the demo
	rm -rf .venv .work build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.DEFAULT_GOAL := help
.PHONY: help setup demo test gpu faults check compile package deploy-check images push e2e-cluster e2e-docker e2e-monitoring prometheus sbom audit docs lock clean
