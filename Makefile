# Every everyday task of the project; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
CLUSTER ?= dev
KUBE_CONTEXT ?=
REGISTRY ?=
NAME ?=
PYTEST_ARGS ?=

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}'

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv $(VENV) || { hack/install-tools --apt-only python3-venv && python3 -m venv $(VENV); }
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

.PHONY: venv
venv: $(VENV)/.ready ## Make the Python environment from the pinned packages

.PHONY: tools
tools: ## Install what the cluster and its tests need (Debian packages, cosign, oras)
	hack/install-tools

.PHONY: demo
demo: venv ## Show the main job on a real cluster (KUBE_CONTEXT=… uses yours, KEEP=1 leaves it running)
	$(if $(KUBE_CONTEXT),,hack/install-tools)
	PYTHONPATH=hack $(PY) -m demo $(if $(KUBE_CONTEXT),--kube-context $(KUBE_CONTEXT)) $(if $(REGISTRY),--registry $(REGISTRY)) $(if $(KEEP),--keep)

.PHONY: test
test: venv binaries images ## Run every test, end-to-end included
	$(PY) -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

.PHONY: unit
unit: venv ## Run the tests that need neither cluster nor network
	$(PY) -m pytest -m 'not e2e and not control_plane' $(PYTEST_ARGS)

.PHONY: check
check: venv ## Lint, types, import layers, generated files
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache
	$(MAKE) --no-print-directory verify

.PHONY: generate
generate: venv ## Write the generated files anew: CRDs, chart copies, reference pages, dashboard
	hack/generate

.PHONY: verify
verify: venv ## Fail if a generated file is not what its source makes
	hack/generate --check

.PHONY: constraints
constraints: ## Pin the newest compatible Python packages
	hack/pin-constraints

.PHONY: cluster-up
cluster-up: tools ## Start a real Kubernetes on this machine (CLUSTER=name)
	hack/cluster/cluster up --name $(CLUSTER)

.PHONY: cluster-down
cluster-down: ## Stop it and leave nothing behind
	hack/cluster/cluster down --name $(CLUSTER)

.PHONY: binaries
binaries: tools ## Compile Kubernetes' programs, once: no test's time limit has to hold for it
	hack/cluster/cluster build

.PHONY: images
images: tools ## Build the four container images
	hack/images/build

.PHONY: bench
bench: venv ## Run one benchmark (NAME=pull|ready|footprint|idle|delta|update|rounding|fleet|node|path|gate|machine|rollout|gateway|node_loss|shadow)
	$(PY) -m benchmarks $(NAME)
