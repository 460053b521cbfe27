# Thin: every target only calls a tool. `make setup` builds .venv; all others build on it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo docs reference test test-crash test-slurm24 test-slurm-hour gpu-check check bench lock airgap manifests clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16


setup: $(VENV)/.ready ## make .venv with everything for development, from the lock file

$(VENV)/.ready: requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); deploy/bootstrap-venv $(PYTHON) $(VENV); }
	$(BIN)/python -m pip install --quiet --upgrade pip uv
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes requirements-dev.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --no-deps --no-build-isolation --editable .
	touch $@

demo: setup ## a simulated site under a power budget, with a grid curtailment; report in out/demo/report.html
	$(BIN)/powerhall-twin demo --out out/demo

test: setup ## the test suite (tests without their server programs are skipped with a reason)
	$(BIN)/python -m pytest

test-crash: setup ## 500 kill -9 of a shipping agent against a real InfluxDB: nothing lost, nothing doubled
	$(BIN)/python tests/crash/run.py --kills 500

test-slurm24: setup ## the Slurm tests on Slurm 24.11 in a debootstrap of trixie (root, network, minutes)
	tests/optimizer/schedulers/slurm24.sh

test-slurm-hour: setup ## an hour of users submitting to Slurm with no optimizer: the budget holds (root, slurm; little CPU)
	POWERHALL_DEAD_S=3600 $(BIN)/python -m pytest tests/optimizer/schedulers/test_slurm_budget.py -k no_optimizer -s --timeout=4500

gpu-check: setup ## the agent on this host's real GPUs: doctor, one sample, 60 s at 10 Hz, a recording
	$(BIN)/powerhall-agent doctor
	$(BIN)/powerhall-agent once
	mkdir -p out/gpu-check
	$(BIN)/python -m powerhall_agent.simulate.record out/gpu-check/recording.jsonl.gz 60 0.1
	$(BIN)/python -m powerhall_agent.capper.check

check: setup ## style, types, import rules, generated files, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.reference --check
	$(BIN)/zensical build --strict

docs: setup ## the documentation as a site, in out/docs/index.html; needs no network
	$(BIN)/zensical build --clean --strict
	@echo 'out/docs/index.html; search needs a server: python3 -m http.server -d out/docs'

reference: setup ## write all files that are generated from code: reference pages, dashboards, alert rules
	$(BIN)/python -m tools.reference

bench: setup ## the short form of every benchmark
	for b in benchmarks/*.py; do $(BIN)/python $$b --quick || exit 1; done

COMPILE = $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --universal pyproject.toml
lock: ## recompute the lock files from pyproject.toml
	$(COMPILE) --extra dev -o requirements-dev.lock
	$(COMPILE) --no-annotate --extra agent -o deploy/locks/agent.lock
	$(COMPILE) --no-annotate --extra optimizer --extra kubernetes -o deploy/locks/optimizer.lock
	$(COMPILE) --no-annotate --extra dashboards -o deploy/locks/dashboards.lock
	echo hatchling | $(subst pyproject.toml,-,$(COMPILE)) --no-annotate -c requirements-dev.lock -o deploy/locks/build.lock
	sed -i '/^powerhall/d' requirements-dev.lock deploy/locks/*.lock # the project itself comes from the checkout

airgap: setup ## one archive that installs without a network
	deploy/airgap/build

clean:
	rm -rf $(VENV) out build dist

manifests: ## the plain Kubernetes manifests, from the chart
	{ printf '# Rendered from deploy/helm/powerhall by `make manifests`; change the chart, not this file.\n'; \
	  printf '# Needs: namespace powerhall, Secret powerhall-store (key token), ConfigMap powerhall-site (site.toml).\n\n'; \
	  helm template powerhall deploy/helm/powerhall --namespace powerhall --kube-version 1.33.0; } > deploy/kubernetes/powerhall.yaml
