# Everything runs in an environment of its own, .venv, made on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOWEST ?= .venv-lowest
DIR ?= runs/quickstart
PYTHON_GPU ?= $(BIN)/python

.PHONY: quickstart test test-all test-faults test-lowest attack lint bench-prior bench-laws bench-search bench-throughput check-gpu clean

# On a model this small one thread is twice as fast as two, and the numbers are README's.
quickstart: export OMP_NUM_THREADS = 1
quickstart: $(VENV)/.installed
	$(BIN)/autolora tune examples/quickstart.yaml --dir $(DIR)

# The smallest case of each kind.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not faults and not slow"

# Tables, examples and long ones, too.
test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not faults"

# Every fault on a real local cluster, those of make test included; one after the other, as each kills what it can.
test-faults: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/execution tests/study tests/trainers/command tests/test_kill.py

# The oldest versions that pyproject.toml admits, in an environment of their own.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not faults and not slow"

# Damage, locks, kills, names and bad inputs; resumable, see studies/attack. About half an hour on two cores.
attack: $(VENV)/.installed-dev
	$(BIN)/python -m studies.attack

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The prior against the table in studies/curves; hours, as what was measured is kept, minutes when repeated.
bench-prior: $(VENV)/.installed-dev
	$(BIN)/python -m studies.curvature.predict quickstart stories260k
	$(BIN)/python -m studies.curvature.replay --seeds 40
	$(BIN)/python -m studies.curvature.report > studies/curvature/results.md

# The scaling laws from all tables at hand; the paths of the two public ones come from the environment. A minute.
bench-laws: $(VENV)/.installed-dev
	$(BIN)/python -m studies.laws.fit

# This search against its peers; resumable. Three of them need: pip install "ray[tune]" smac neural-pipeline-search
bench-search: $(VENV)/.installed-dev
	$(BIN)/python -m studies.search.run --jobs 2 --repeats 10
	$(BIN)/python -m studies.search.report

# Real tokens a second beside other loops, and memory beside its plan. GSM8K's folder comes from the environment.
bench-throughput: export OMP_NUM_THREADS = 1
bench-throughput: $(VENV)/.installed-dev
	$(BIN)/python -m studies.throughput.run
	$(BIN)/python -W ignore -m studies.throughput.memory
	$(BIN)/python -W ignore -m studies.throughput.counts

# Is training right, how fast is it, does the memory plan hold: on the first GPU in eight minutes, or tiny on a CPU.
# make check-gpu PYTHON_GPU=python3 OUT=table.md runs under any interpreter that has what it needs; nothing is installed.
check-gpu: $(if $(filter $(BIN)/python,$(PYTHON_GPU)),$(VENV)/.installed)
	$(PYTHON_GPU) -m studies.gpu $(if $(OUT),--out $(OUT))

clean:
	rm -rf $(VENV) $(LOWEST) .mypy_cache .pytest_cache .ruff_cache

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

# constraints.txt pins the versions that the tests have passed with. autolora/__init__.py holds autolora's own.
$(VENV)/.installed: pyproject.toml autolora/__init__.py constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml autolora/__init__.py constraints.txt tests/oracles.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/pip install --quiet --no-deps --requirement tests/oracles.txt
	touch $@ $(VENV)/.installed

$(LOWEST)/bin/pip:
	$(PYTHON) -m venv $(LOWEST)

$(LOWEST)/.installed: pyproject.toml autolora/__init__.py constraints-lowest.txt tests/oracles.txt | $(LOWEST)/bin/pip
	$(LOWEST)/bin/pip install --quiet --constraint constraints-lowest.txt --editable ".[dev]"
	$(LOWEST)/bin/pip install --quiet --no-deps --requirement tests/oracles.txt
	touch $@
