# make serve: the service. make test: the tests. Both set up their virtual environment first.
VENV ?= .venv
PYTHON ?= python3
PIP := $(VENV)/bin/pip
# Where recordings for tests on real speech lie; tests that need them skip where there are none.
export SAYSO_SPEECH ?= $(abspath ../shared/speech)

.DEFAULT_GOAL := help
.PHONY: help serve test check format baseline clean

help: ## show this
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet --editable '.[train,dev]'
	@touch $@ $(VENV)/.serve

serve: $(VENV)/.serve ## run the service on http://127.0.0.1:8000 (no torch is installed)
	$(VENV)/bin/sayso serve

test: $(VENV)/.dev ## run the tests
	$(VENV)/bin/pytest

check: $(VENV)/.dev ## lint, format, types, import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.dev ## rewrite the code in the project's style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
