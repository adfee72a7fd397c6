# make demo   the whole way on an embedded default: text → 13 models → evaluation → tables, figures, report
# make test   the tests
# make lint   ruff and mypy
# make clean  deletes the demo's runs and report, and caches; other runs, the mirror and the environment stay
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
CORES  ?= 2
REPORT := results/reports/demo/report.html

# One thread a process: two processes of one thread use two cores better than one of two.
export OMP_NUM_THREADS = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test lint clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,4s/^# //p' Makefile

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11; name another: make PYTHON=python3.11 …"; exit 1; }
	@echo "Setting up $(VENV) from requirements.lock (once; a few minutes) …"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)
	$(BIN)/snakemake --cores $(CORES) --quiet rules reason
	@if [ ! -e $(REPORT) ] || [ -n "$$(find results/reports/demo -newer $(REPORT) -type f -not -path $(REPORT))" ]; then \
	  $(BIN)/snakemake --cores 1 --quiet all --report $(REPORT); fi
	@echo "The report: $(REPORT)"

test: $(READY)
	$(BIN)/python -m pytest -n $(CORES) --dist loadgroup $(PYTEST)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf results/runs/nano-* results/runs/tiny-* results/reports/demo results/reports/test .pytest_cache .mypy_cache .ruff_cache .hypothesis
