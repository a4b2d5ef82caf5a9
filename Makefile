# Everything runs in .venv, which `make` creates. Options:  make lab PYTHON=python3.12  PORT=9000
# A smaller, CPU-only torch on Linux:  make lab PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
PORT ?= 8888
PIP_FLAGS ?=
NOTEBOOKS ?= *
BIN := .venv/bin
SYNC := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
# a warning that a notebook's own code causes is an error
NBVAL := PYTHONWARNINGS=error:::__main__ COMPRESSLAB_STATIC=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=120 -p no:cacheprovider

.PHONY: help lab test test-solved test-untouched test-changed lint wheel notebooks picture bench site
.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "compresslab needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@

lab: .venv/.ready  ## set up, then open JupyterLab on the first chapter
	$(BIN)/jupyter lab --port=$(PORT) $(LAB_FLAGS) notebooks/00_start_here.ipynb

test: .venv/.ready  ## set up, then test the library and every chapter, solved and untouched
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
	@$(MAKE) --no-print-directory -j2 $(SYNC) test-solved test-untouched

.PHONY: browser
browser: .venv/.ready  ## run every chapter and move its controls in Chromium; writes tests/BROWSER.md
	COMPRESSLAB_BROWSER_RECORD=tests/BROWSER.md OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s tests/test_browser.py $(ONLY)

test-solved: .venv/.ready
	COMPRESSLAB_STRICT=1 COMPRESSLAB_HOME=$$(mktemp -d) $(NBVAL) $(NOTEBOOKS:%=solutions/%.ipynb)

test-untouched: .venv/.ready
	COMPRESSLAB_QUICK=1 COMPRESSLAB_HOME=$$(mktemp -d) $(NBVAL) $(NOTEBOOKS:%=notebooks/%.ipynb)

test-changed: .venv/.ready  ## test what the changes since the main branch concern: make test-changed BASE=origin/main
	@$(BIN)/python tests/changed.py $(BASE)

lint: .venv/.ready  ## look for mistakes that need no run
	$(BIN)/python -m ruff check

wheel: .venv/.ready  ## build dist/*.whl and try it in an environment of its own
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -w dist .
	$(BIN)/python -m pytest -q tests/test_wheel.py

notebooks: .venv/.ready  ## rebuild notebooks/ and the executed solutions from solutions/*.py
	$(BIN)/python -m compresslab build

picture: .venv/.ready  ## draw the README's picture from what chapters 08 and 11 measured
	$(BIN)/python -m compresslab.course.overview assets/overview.svg

.venv/.bench: .venv/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[bench]'
	@touch $@

bench: .venv/.bench  ## measure against peers, side by side; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

.venv/.site: .venv/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[site]'
	@touch $@

site: .venv/.site  ## the whole course as static pages in site/, which need no network
	$(BIN)/python -m docs
