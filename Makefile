# Two commands on a fresh Linux machine with Python 3.11, git and make:  make run   and   make test
PYTHON ?= python3.11
BIN := .venv/bin
ARGS ?=

.PHONY: run test test-all test-gpu lint install constraints benchmarks clean

run: install  ## data to a promoted ONNX model; make run ARGS="dataset=csv dataset.path=F dataset.target=COL"
	$(BIN)/athanor run $(ARGS)

test: install lint  ## the default tests, two at once
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-all: install lint  ## the slow ones too
	$(BIN)/python -m pytest -m "not gpu" --timeout 1800

test-gpu: install  ## what needs a GPU
	$(BIN)/python -m pytest -m gpu

lint: install  ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m flows.server template
	$(BIN)/python -m components.registry.connection
	touch $@

constraints:  ## resolves pyproject.toml's pins in an empty environment and writes constraints.txt
	rm -rf .venv-constraints && $(PYTHON) -m venv .venv-constraints
	.venv-constraints/bin/python -m pip install --quiet --disable-pip-version-check ".[dev]"
	.venv-constraints/bin/python -m pip freeze --exclude athanor | sed 's/+cpu//' > constraints.txt
	rm -rf .venv-constraints

benchmarks:  ## every figure of the README, one after another (about an hour)
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

clean:  ## forgets all state; the data stays
	rm -rf .athanor build *.egg-info
