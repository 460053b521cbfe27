# Thin: every target only calls a tool. `make setup` builds .venv; all others build on it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup warm-up demo docs reference test test-crash chaos load fuzz influxd round-trip metrics-check test-slurm24 test-slurm26 kubernetes-servers test-kubernetes test-slurm-hour test-slurm-random test-slurm-kills prove prove-reasons prove-bills prove-verifier gpu-check check bench lock airgap manifests clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16


setup: $(VENV)/.ready ## make .venv with everything for development, from the lock file

$(VENV)/.ready: requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); deploy/bootstrap-venv $(PYTHON) $(VENV); }
	$(BIN)/python -m pip install --quiet --upgrade pip uv
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes requirements-dev.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --no-deps --no-build-isolation --editable .
	touch $@

warm-up: setup ## compile the kernels of optimizer and twin, which the first round and replay would do (a minute or two)
	$(BIN)/powerhall-optimizer warm-up
	$(BIN)/powerhall-twin warm-up

demo: setup ## a simulated site under a power budget, with a grid curtailment; report in out/demo/report.html
	$(BIN)/powerhall-twin demo --out out/demo

WORKERS ?= 2
test: setup ## the test suite in two processes (WORKERS; tests without their server programs are skipped with a reason)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) || { test $$? = 1 && \
	  echo 'What failed runs once more, alone: a busy machine may have starved it.' && \
	  $(BIN)/python -m pytest --last-failed --last-failed-no-failures=none; }

test-crash: setup ## 500 kill -9 of a shipping agent against a real InfluxDB: nothing lost, nothing doubled
	$(BIN)/python tests/crash/run.py --kills 500

fuzz: setup ## 10,000 changed inputs for every entry point of data from outside: no traceback, hang or full memory (hours)
	$(BIN)/python tests/fuzz/run.py --inputs 10000

EPISODES ?= $(if $(SEED),1,500)
chaos: setup ## 500 episodes of random faults against the real processes (root: as users of their own); SEED=N EPISODES=N
	$(BIN)/python tests/chaos/run.py --episodes $(EPISODES) --seed $(or $(SEED),1) $(if $(JOBS),--jobs $(JOBS)) $(if $(MINUTES),--minutes $(MINUTES))

load: setup ## 1,000 agents and carriers on one store, and the doors under 1,000 slow clients
	$(BIN)/python tests/load/load.py

test-slurm24: setup ## the Slurm tests on Slurm 24.11 in a debootstrap of trixie (root, network, minutes)
	tests/optimizer/schedulers/slurm24.sh

test-slurm26: setup ## the same on Slurm 26.05 in a debootstrap of sid, with the power tree (root, network, minutes)
	tests/optimizer/schedulers/slurm26.sh

influxd: ## build InfluxDB 1.8.3, whose v2 write endpoint is its own, into a cache folder, once (go, a minute)
	test -x $(HOME)/.cache/powerhall-tools/influxd || \
	  GOBIN=$(HOME)/.cache/powerhall-tools go install github.com/influxdata/influxdb/cmd/influxd@v1.8.3

round-trip: setup influxd ## 10,000 points with every character in every place come back equal from SQLite and two InfluxDBs
	POWERHALL_ROUND_TRIP=10000 $(BIN)/python -m pytest -q tests/core/store/test_round_trip.py

metrics-check: setup ## /metrics of simulated GPUs through promtool, which is built once into a cache folder (go, minutes)
	test -x $(HOME)/.cache/powerhall-tools/promtool || \
	  GOBIN=$(HOME)/.cache/powerhall-tools go install github.com/prometheus/prometheus/cmd/promtool@v0.316.0
	$(BIN)/python -m pytest -q tests/agent/daemon/test_metric_names.py

kubernetes-servers: ## build the servers of make test-kubernetes into a cache folder, once (go, ten minutes)
	tests/rigs/kubernetes/build.sh $(or $(KUBERNETES),1.33)

test-kubernetes: setup kubernetes-servers ## plans in a real Kubernetes (KUBERNETES=1.33) with Kueue 0.17 (etcd-server, kubectl)
	POWERHALL_KUBERNETES=$(or $(KUBERNETES),1.33) $(BIN)/python -m pytest tests/optimizer/schedulers/kubernetes_real -v --timeout=900

test-slurm-hour: setup ## an hour of users submitting to Slurm with no optimizer: the budget holds (root, slurm; little CPU)
	POWERHALL_DEAD_S=3600 $(BIN)/python -m pytest tests/optimizer/schedulers/test_slurm_budget.py -k no_optimizer -s --timeout=4500

test-slurm-random: setup ## 200 random sbatch requests, with and without an optimizer: the budget holds, no pin is refused (root, slurm)
	POWERHALL_SBATCH_JOBS=$(or $(JOBS),200) POWERHALL_SBATCH_SEED=$(or $(SEED),1) $(BIN)/python -m pytest \
	  tests/optimizer/schedulers/test_slurm_random.py -k random -s --timeout=1800

test-slurm-kills: setup ## 200 kills of the optimizer at random points (KILLS): no pin is refused, none stays (root, slurm)
	POWERHALL_KILLS=$(or $(KILLS),200) $(BIN)/python -m pytest tests/optimizer/schedulers/test_slurm_random.py \
	  -k kills -s --timeout=1800

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

prove: setup ## 300 random sites with true curves: plan <= exact optimum <= bound, looser limits are never worse (an hour)
	PROVE=300 .venv/bin/python -m pytest -q -s tests/optimizer/verify/test_true_bound.py

prove-reasons: setup ## 200 waiting jobs: what explain says would start each is made in the files and planned again (half an hour)
	PROVE=200 $(BIN)/python -m pytest -q -s --timeout=7200 tests/optimizer/planning/test_promises.py

prove-bills: setup ## a month of the twin is billed: the bills and the rest are its meter (minutes)
	PROVE=30 $(BIN)/python -m pytest -q -s --timeout=7200 tests/optimizer/billing/test_twin_month.py

prove-verifier: setup ## 10,000 changed plans: none is accepted that a physics of its own refuses (minutes)
	PROVE=10000 $(BIN)/python -m pytest -q -s --timeout=7200 tests/optimizer/verify/test_mutated_plans.py

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
