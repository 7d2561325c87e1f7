# make demo: train a segmentor by three methods, attack the results, write a report.
# make test: lint, types, doctests and tests.
# make benchmark: what attacks and training steps cost over the bare model, beside the stored ratios.
# make gpu: attacks and training on a GPU, in at most eight minutes, with PYTHON as it is; it installs nothing.
# make test-lowest: tests with the lowest supported versions of the dependencies, in .venv-lowest.
# make docs: the documentation site, in site/; open site/index.html.
# All but gpu and test-lowest first install the project into .venv, again only when setup.py or pyproject.toml changed.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.mmadv-installed

.PHONY: demo test test-lowest docs benchmark gpu setup lint types pytest clean

demo: setup
	$(BIN)/python -W ignore -m mmadv demo

test: lint types pytest

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -W ignore -m mkdocs build --strict

# Attacks, models, checkpoints and engine; PYTHON names a Python 3.10 for the lowest one of all.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints-lowest.txt \
		--editable . pytest pytest-xdist hypothesis pycocotools
	.venv-lowest/bin/python -W ignore -m pytest --quiet --override-ini filterwarnings= \
		tests/attacks tests/models tests/checkpoints tests/engine

benchmark: setup
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore benchmarks/attack_cost.py --compare
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore benchmarks/training_cost.py --compare

gpu:
	PYTHONPATH="$(CURDIR):$(CURDIR)/.site:$$PYTHONPATH" $(PYTHON) -W ignore benchmarks/gpu.py

setup: $(STAMP)

# Python compiles a module when it is first imported: of the 16000 installed modules only some ever are.

$(STAMP): setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "error: Python 3.10 or newer is needed, this is %d.%d; name one with make PYTHON=..." % sys.version_info[:2])'
	@echo "[install] mmadv and its dependencies into $(VENV), about 6 GB; takes 1 to 4 minutes"
	@start=$$(date +%s); \
	$(PYTHON) -m venv $(VENV) && \
	$(BIN)/python -m pip install --quiet --quiet --no-compile --disable-pip-version-check --editable '.[dev]' && \
	echo "[install] done after $$(($$(date +%s) - start)) s"
	@touch $@

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: setup
	$(BIN)/mypy

pytest: setup
	$(BIN)/python -m pytest --quiet --numprocesses 2 --dist loadfile --durations=15

clean:
	rm -rf $(VENV) .venv-lowest build dist site *.egg-info demo_output
