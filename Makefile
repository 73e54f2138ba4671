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

# The shipped model, from recordings to its card; resumes where an earlier run stopped.
baseline: $(VENV)/.dev ## train, export and calibrate the shipped baseline (2 cores: 1.5 hours)
	$(VENV)/bin/sayso train train/recipes/baseline.yaml --manifest $(SAYSO_SPEECH)/manifest.csv \
		--trials $(SAYSO_SPEECH)/dev.trials --teacher $(SAYSO_SPEECH)/teacher.npy \
		--work work/baseline --out models/weights/baseline.safetensors --compile
	$(VENV)/bin/sayso export models/weights/baseline.safetensors -o runtime/weights/baseline.onnx \
		--recordings $(SAYSO_SPEECH)/dev
	$(VENV)/bin/sayso calibrate baseline --trials $(SAYSO_SPEECH)/dev.trials --root $(SAYSO_SPEECH)
	$(VENV)/bin/sayso evaluate baseline --trials $(SAYSO_SPEECH)/dev-short.trials --root $(SAYSO_SPEECH) --card

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
