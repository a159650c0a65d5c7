# Short commands. `make setup` makes .venv; the others make it first where it is missing.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
DEMO := runs/demo
QUIETLY := --quiet --disable-pip-version-check
COMMANDS := tests/faults $(wildcard $(addprefix tests/test_,bench*.py classes.py cli*.py cpsc2018.py locks.py resume.py))
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup demo classes test sync types notebooks pytest browser commands unit house lab docs pretrained cpsc2018 cpsc2018-grid baselines study lock audit sbom release clean

setup: .venv/ready

.venv/ready: settings.ini setup.py pyproject.toml constraints.txt requirements-lock.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(QUIETLY) -c constraints.txt -c requirements-lock.txt -e '.[dev]'
	touch $@

# A simulated cohort, half a minute of training on two cores, an evaluation on recordings the model has not seen.
demo: setup
	rm -rf $(DEMO)
	ecg-synth $(DEMO)/train --n 600 --seed 0
	ecg-synth $(DEMO)/test --n 300 --seed 1
	ecg-train --data-path $(DEMO)/train --out $(DEMO)/model --epochs 20
	ecg-evaluate --test-path $(DEMO)/test --model $(DEMO)/model --out $(DEMO)/evaluation
	@echo; echo "model:   $(DEMO)/model"; echo "figures: $(DEMO)/evaluation/report.html"

# All that CI runs; notebooks, tests in a browser, of commands, and all others side by side.
test: setup sync types
	$(MAKE) -j4 --output-sync=target notebooks browser commands unit

# The exported modules and the cleaned notebooks are what the notebooks say. The export touches pyproject.toml: nothing is to be
# installed again for that.
sync: setup
	@before=$$(mktemp -d) && cp -r nbs ecg_nbdev $$before && nbdev-export && nbdev-clean \
	  && diff -rq -x __pycache__ -x .ipynb_checkpoints $$before/nbs nbs && diff -rq -x __pycache__ $$before/ecg_nbdev ecg_nbdev \
	  && rm -r $$before && touch .venv/ready && echo "notebooks and modules are in sync" \
	  || { echo "notebooks and modules differ: they are exported and cleaned now, look at 'git diff' and commit"; exit 1; }

# Calls fit the annotations of the package's functions.
types: setup
	mypy

notebooks: setup
	OMP_NUM_THREADS=1 nbdev-test --n-workers 2

pytest: browser commands unit

browser: setup
	OMP_NUM_THREADS=1 python -m pytest -m 'browser and not nightly'

commands: setup
	OMP_NUM_THREADS=1 python -m pytest -m 'not browser and not nightly' $(COMMANDS)

unit: setup
	OMP_NUM_THREADS=1 python -m pytest -m 'not browser and not nightly' $(addprefix --ignore=,$(COMMANDS))

# How the house reads: lengths of cells and lines, public names; --verbose names each.
house: setup
	python bench/house.py

# Twenty simulated findings in place of the nine: macro AUROC on recordings that nothing has seen; a few minutes on one core.
classes: setup
	rm -rf runs/classes
	ecg-synth runs/classes/data --n 2000 --findings .9 --seed 0
	OMP_NUM_THREADS=1 ecg-train --data-path runs/classes/data --classes simulated --epochs 6 --out runs/classes/model

lab: setup
	cd nbs && jupyter lab

docs: setup
	python site/build.py

# The model that ships: simulated recordings, then the real ones in $(ECG_DATA).
pretrained: setup
	OMP_NUM_THREADS=1 python bench/pretrained.py --data $(ECG_DATA)

# The published protocol on the 6,877 recordings of CPSC2018 in $(DATA): ten committed folds, every score beside the published rows; tables in runs/cpsc2018. A finished fold is not trained again.
cpsc2018: setup
	python bench/cpsc2018.py --data "$(DATA)" $(OPTIONS)

# What pretraining brings on the same folds, for 100, 300, 1,000 and all training recordings; says what it costs first.
cpsc2018-grid: setup
	OMP_NUM_THREADS=1 python bench/cpsc2018_grid.py --data "$(DATA)" $(OPTIONS)

# What is reached without the package's training, and which network is best: both go on from what runs/ holds.
baselines: setup
	OMP_NUM_THREADS=1 python bench/baselines.py --data "$(ECG_DATA)" $(OPTIONS)

study: setup
	OMP_NUM_THREADS=1 python bench/study.py --data "$(ECG_DATA)" $(OPTIONS)

# Versions of all that developers install, as pip settles it today in an empty environment. Versions of one's own machine
# (+cpu) are left out; hashes too: files differ between platforms, and pip takes none for the clone itself.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install $(QUIETLY) -c constraints.txt -e '.[dev,audit]'
	build/lock/bin/pip freeze --all --exclude pip --exclude-editable | sed -E 's/ @ .*-([0-9][^-+%]*).*\.whl.*/==\1/; s/\+[a-z0-9.]+$$//' > requirements-lock.txt

# Known faults of what is installed (asks an index on the network), and patterns that are seldom right.
audit: setup
	$(BIN)/pip install $(QUIETLY) -c constraints.txt -c requirements-lock.txt -e '.[audit]'
	bandit -q -r ecg_nbdev -ll
	pip-audit --skip-editable

# What a user's environment holds, all requirements of requirements: build/sbom.cdx.json.
sbom: setup
	$(BIN)/pip install $(QUIETLY) -c constraints.txt -c requirements-lock.txt -e '.[audit]'
	rm -rf build/sbom && $(PYTHON) -m venv --without-pip build/sbom
	$(BIN)/pip --python build/sbom install $(QUIETLY) -c constraints.txt -c requirements-lock.txt .
	cyclonedx-py environment build/sbom --output-reproducible --output-file build/sbom.cdx.json

release: setup
	python site/release.py

clean:
	rm -rf .venv build dist _proc runs *.egg-info .pytest_cache .hypothesis
