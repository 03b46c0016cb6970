# Everything one does with a checkout. `make` alone prints what there is.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# Most tests wait rather than compute, so a machine of two cores runs seven at a time.
TEST_PROCESSES ?= 7

# The checks must not depend on the network: pyright neither looks for a newer self nor for another node.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PIP_INSTALL := $(BIN)/python -m pip install --quiet --require-hashes --no-deps

# What the sample plan may run: one script, on Markdown files of this checkout.
SAMPLE_REPORT := $(CURDIR)/service/sample/report
export SAMPLE_COMMANDS := { \
	"sample-count": {"argv": ["$(SAMPLE_REPORT)", "count", "{file}"], \
		"parameters": {"file": "(?!.*/[.][.]/)$(CURDIR)/.*[.]md"}}, \
	"sample-report": {"argv": ["$(SAMPLE_REPORT)", "{what}"], "parameters": {"what": "total|sorted|check"}}}

.DEFAULT_GOAL := help
.PHONY: help run test check bench bench-peers docs test-all test-faults lock clean
.DELETE_ON_ERROR:

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/runtime.stamp $(VENV)/worker_kit.stamp $(BIN)/holdfast ## start Holdfast with its embedded nats-server; Ctrl-C ends it
	@exec env HOLDFAST_EXECUTOR__COMMAND="$${HOLDFAST_EXECUTOR__COMMAND-$$SAMPLE_COMMANDS}" \
		$(BIN)/python -m service serve

# Tests start hundreds of processes. Each would compile the sources again where an image switches
# Python's cache of compiled files off: a third of a start.
test test-all test-faults: export PYTHONDONTWRITEBYTECODE :=

test: $(VENV)/dev.stamp ## run the tests (fault tests in their short form)
	@$(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder \
		-o timeout_method=signal

check: $(VENV)/dev.stamp ## lint, formatting, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports --no-logo

bench: $(VENV)/dev.stamp ## measure: JSON lines and a table
	@$(BIN)/python -m tests.bench

bench-peers: $(VENV)/dev.stamp ## measure other task queues beside Holdfast; skips those whose server is not installed
	@$(BIN)/python -m tests.bench.peers

test-all: $(VENV)/dev.stamp ## run every test in its long form, an hour and more; writes docs/reference/faults.md
	@HOLDFAST_FAULTS=long $(BIN)/python -m pytest -q

test-faults: $(VENV)/dev.stamp ## run the fault tests alone in their long form; prints what they measured, kept in fault-results/
	@HOLDFAST_FAULTS=long $(BIN)/python -m pytest -q tests/faults tests/cluster

docs: $(VENV)/dev.stamp ## draw the reference pages, the table of metrics and the dashboards from the code
	@$(BIN)/python -m docs.generate

lock: ## pin and hash the newest versions that pyproject.toml allows (needs `uv`)
	@uv pip compile --quiet --universal --upgrade --generate-hashes --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links --python-version 3.11 \
		pyproject.toml --output-file requirements.txt
	@uv pip compile --quiet --universal --upgrade --generate-hashes --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links --python-version 3.11 --constraint requirements.txt \
		--extra dev --extra nkeys --extra otlp pyproject.toml --output-file requirements-dev.txt
	@for peer in tests/bench/peers/requirements/*.in; do \
		uv pip compile --quiet --universal --upgrade --generate-hashes --no-annotate --no-header \
			--no-emit-index-url --no-emit-find-links --python-version 3.11 \
			$$peer --output-file $${peer%.in}.txt || exit 1; done

clean: ## remove the environment, the caches and build artefacts; ./data stays
	@rm -rf $(VENV) .venv-peers .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
	@find service streams projections tests -type d -name __pycache__ -prune -exec rm -rf {} +

# The stamps are newer than the requirements they were installed from, so an unchanged checkout
# installs nothing and works offline.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Holdfast needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Name another one: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV); \
		echo "'$(PYTHON) -m venv' failed: install your system's venv package (Debian: python3-venv)." >&2; \
		exit 1; }

$(VENV)/runtime.stamp: requirements.txt | $(VENV)/bin/python
	@test -e $@ || echo "Installing Holdfast's packages into $(VENV) (once) ..." >&2
	@$(PIP_INSTALL) -r requirements.txt
	@touch $@

# The worker kit is imported from this checkout: a line in site-packages names its folder, relative,
# so that the checkout may be moved. Its wheel is for programs outside.
$(VENV)/worker_kit.stamp: service/worker_kit/pyproject.toml | $(VENV)/bin/python
	@$(BIN)/python -c 'import sysconfig; print("../../../../service/worker_kit/src", \
		file=open(sysconfig.get_path("purelib") + "/holdfast-worker.pth", "w"))'
	@touch $@

# The command by its name, of this checkout; it too may be moved.
$(BIN)/holdfast: Makefile | $(VENV)/bin/python
	@printf '%s\n' '#!/bin/sh' '# Written by make: the command line of this checkout.' \
		'here=$$(dirname "$$(readlink -f "$$0")")' \
		'export PYTHONPATH="$$here/../..$${PYTHONPATH:+:$$PYTHONPATH}"' \
		'exec "$$here/python" -m service "$$@"' > $@
	@chmod +x $@

$(VENV)/dev.stamp: requirements-dev.txt $(VENV)/runtime.stamp $(VENV)/worker_kit.stamp | $(BIN)/holdfast
	@test -e $@ || echo "Installing the development packages into $(VENV) (once) ..." >&2
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@
