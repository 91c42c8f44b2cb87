# Every target sets itself up: `.venv` from requirements.lock, with uv or with python3 -m venv (see .ci/setup).
# PYTHON=/path/to/python3.12 chooses the interpreter, PYTEST_ARGS adds arguments, WORKERS sets the parallel test processes.
SHELL := /bin/sh
PY := .venv/bin/python
WORKERS ?= 2
PYTEST := .ci/pytest $(PY) $(PYTEST_ARGS)
SIDE_BY_SIDE := tests/unit tests/sim tests/chaos/test_crash_everywhere.py # heavy tests that start no process
# Process tests run two files at a time (each has its own Eyrie and port), those with the longest waits first; those
# that load the machine, run on a faster clock or look at seconds have it for themselves.
ALONE_E2E := alarms assess async_heavy availability busy credits endpoint_experiment gateway_process guardrails http_limits \
	logs metrics recommender rollout_matrix scaling shadow variants wind_tunnel
PAIRS := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
WAITING := tests/sdk tests/frameworks tests/clients tests/contract tests/e2e tests/chaos
ALONE := tests/chaos/test_kill_rollouts.py $(ALONE_E2E:%=tests/e2e/test_%.py)

.DEFAULT_GOAL := help
.PHONY: help setup setup-sdk setup-frameworks setup-clients setup-console setup-all screenshots demo test test-unit test-process test-all test-heavy soak check fmt up bench bench-peers bench-table survival wheel lock clean

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make or refresh .venv (every other target does it by itself)
	@.ci/setup .venv requirements.lock --editable
	@.ci/bubblewrap

demo: setup ## Deploy real models to two zones with boto3, break things under load, watch it heal
	@$(PY) examples/demo.py

test: setup ## The core tests (under 15 minutes, set-up included)
	@$(MAKE) --no-print-directory test-unit test-process

test-unit: setup
	$(PYTEST) -m "not heavy" -n $(WORKERS) tests/unit tests/wire tests/contract tests/sim tests/test_house.py

test-process: setup
	$(PYTEST) -m "not heavy" $(PAIRS) tests/e2e tests/chaos $(ALONE:%=--ignore %)
	$(PYTEST) -m "not heavy" $(ALONE)

test-heavy: setup # the environments are made while the tests run that need none of them
	@.ci/engine
	.ci/beside "make --no-print-directory setup-all" $(PYTEST) -m "heavy and not soak" -n $(WORKERS) $(SIDE_BY_SIDE)
	$(PYTEST) -m "heavy and not soak" $(PAIRS) $(WAITING) $(ALONE:%=--ignore %) $(SIDE_BY_SIDE:%=--ignore %)
	$(PYTEST) -m "heavy and not soak" $(ALONE)
	.ci/pytest .venv-console/bin/python $(PYTEST_ARGS) -m "heavy and not soak" tests/e2e/test_console.py

soak: test-heavy ## All tests, those too that no change can wait for (control killed in every phase of every rollout ...)
	$(PYTEST) -m soak tests
	.ci/pytest .venv-console/bin/python $(PYTEST_ARGS) -m soak tests/e2e/test_console.py
	EYRIE_EVERY_KILL=1 $(PYTEST) -m heavy tests/chaos/test_kill_rollouts.py

test-all: test test-heavy ## The core tests, then those that need environments of their own

setup-all: setup-sdk setup-frameworks setup-clients setup-console

setup-clients: # tritonclient and KServe's client of the Open Inference Protocol
	@.ci/setup .venv-clients tests/clients/clients.lock

setup-sdk: # The SageMaker SDK's versions 2 and 3 are one package name: an environment each
	@.ci/setup .venv-sdk2 tests/sdk/sdk2.lock
	@.ci/setup .venv-sdk3 tests/sdk/sdk3.lock

FRAMEWORKS := torch tensorflow spark ray
setup-frameworks: # What is too large for .venv: Eyrie with PyTorch and transformers, with TensorFlow, with Spark, with Ray
	@.ci/java
	@for name in $(FRAMEWORKS); do .ci/setup .venv-$$name tests/frameworks/$$name.lock --editable || exit 1; done

check: setup ## ruff, mypy strict, the floors (import-linter), the house test
	.venv/bin/ruff check src tests bench examples
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PYTEST) tests/test_house.py

fmt: setup ## Sort imports and mend what ruff can mend
	.venv/bin/ruff check --fix src tests bench examples

setup-console: # Eyrie, and what the browser tests of its console need (Chromium comes from the system)
	@.ci/setup .venv-console tests/console/console.lock --editable
	@.ci/chromium

screenshots: setup-console ## Make the pictures of docs/guides/console.md anew
	@PYTHONPATH=examples .venv-console/bin/python tests/console/screenshots.py

up: setup ## Keep Eyrie running, the console too (Ctrl-C stops it); UP_ARGS="--port 8080" adds flags
	@.venv/bin/eyrie up $(UP_ARGS)

bench: setup bench-peers ## Print every ratio to a peer or a limit (50 minutes); BENCH="rows capture" measures these
	@$(PY) bench/table.py --print $(if $(BENCH),--only $(BENCH))

bench-peers: # An environment for each peer of the benchmarks, from its own packages
	@for lock in bench/peers/*.lock; do .ci/setup .venv-bench-$$(basename $$lock .lock) $$lock; done

bench-table: setup bench-peers ## The same, and write the README's table
	@$(PY) bench/table.py

survival: setup ## Break things under load, five runs each: requests failed and seconds to heal, median and worst
	$(PY) bench/survival.py

wheel: setup ## Build dist/eyrie-VERSION-py3-none-any.whl
	$(PY) -m build --wheel --no-isolation --outdir dist .

lock: setup # Write requirements.lock anew, with the newest versions
	$(PY) -m uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --no-header --no-annotate --upgrade -q -o requirements.lock

clean: ## Remove what the other targets made
	rm -rf .venv .venv-sdk2 .venv-sdk3 .venv-clients .venv-console .venv-bench-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} +
