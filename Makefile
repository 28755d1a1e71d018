# Start with `make demo` or `make test`; both install into .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Two processes; the tests of a file run in one of them and share its fixtures.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Without bytecode files, every worker compiles torch and Lightning again: imports take three times as long.
unexport PYTHONDONTWRITEBYTECODE

# Random kills (docs/reliability.md). All 200: make test-faults ROUNDS=0-199 LOG=faults.jsonl. Rounds that passed in LOG are
# not played again, so the command can be interrupted and repeated.
ROUNDS ?= 0-4
LOG    ?=

# Everything on a GPU (docs/gpu.md); the trainings of FER2013 too: make gpu FER2013=fer2013.csv
FER2013 ?=

.PHONY: demo test test-full test-faults gpu check fmt docs bench lock clean

demo: $(STAMP)
	$(BIN)/ferhpo sweep demo --new

test: $(STAMP)
	$(PYTEST) -m "not full and not gpu"

test-full: $(STAMP)
	$(PYTEST) -m "not gpu"

test-faults: $(STAMP)
	$(BIN)/python -m pytest tests/test_random_kills.py --fault-rounds $(ROUNDS) $(if $(LOG),--fault-log $(LOG))

gpu: $(STAMP)
	status=0; \
	$(BIN)/python -m pytest -m gpu tests/gpu || status=1; \
	$(BIN)/python benchmarks/gpu.py --part all --out benchmarks/results/gpu $(if $(FER2013),--data "$(FER2013)") || status=1; \
	exit $$status

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fmt: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# docs/reference/ from the code; tests/test_docs.py compares the committed pages with it
docs: $(STAMP)
	$(BIN)/python docs/generate_reference.py

# Every benchmark that needs no GPU, for hours; all of them at tiny sizes: make bench QUICK=1
QUICK ?=
bench: $(STAMP)
	$(BIN)/python benchmarks/all.py $(if $(QUICK),--quick) $(if $(FER2013),--data "$(FER2013)")

# requirements.lock: every package by version and hash, for Python 3.11 to 3.13
lock: $(STAMP)
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-header --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $(STAMP)
