# make demo   the whole way on an embedded default: text → 13 models → evaluation → tables, figures, report
# make test   the tests but the slow ones; PYTEST="tests/test_grid.py" one file of them, PYTEST="… --slow" with its slow ones
# make test-all   all tests: with a Slurm, a browser, real data, compilers
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

.PHONY: demo test test-all lint clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,5s/^# //p' Makefile

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11; name another: make PYTHON=python3.11 …"; exit 1; }
	@echo "Setting up $(VENV) from requirements.lock (once; a few minutes) …"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	@$(BIN)/python -m compileall -qq -j $(CORES) $(VENV)/lib || true  # as pip does, but on all cores; templates are no Python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)
	@$(BIN)/snakemake --cores $(CORES) $$([ -e $(REPORT) ] || echo --report $(REPORT) --report-after-run)
	@if [ -n "$$(find results/reports/demo -newer $(REPORT) -type f -not -path $(REPORT))" ]; then \
	  $(BIN)/snakemake --cores 1 --report $(REPORT); fi
	@echo "The report: $(REPORT)"

# Tests are given out one by one in the order of tests/conftest.py, long ones first.
TESTS := $(BIN)/python -m pytest --dist loadgroup --no-loadscope-reorder

test: $(READY)
	$(TESTS) -n $(CORES) $(PYTEST)

# One worker more than there are cores: tests on the cluster wait for Slurm a good part of their time.
test-all: $(READY)
	$(TESTS) -n $$(($(CORES) + 1)) --slow $(PYTEST)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf results/runs/nano-* results/runs/tiny-* results/costs/nano-* results/tables/demo-* results/tables/test-* results/exhibits results/reports/demo results/reports/test .pytest_cache .mypy_cache .ruff_cache .hypothesis
