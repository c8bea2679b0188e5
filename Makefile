# make setup: an environment in .venv with nejax in it. make demo, test, quick and explore build on it.
PYTHON ?= python3
BIN = .venv/bin
# Processes that the tests are spread over; each takes up to 4 GB.
WORKERS ?= 2

.PHONY: setup demo test quick explore clean

setup: .venv/installed

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: $(PYTHON) is Python %d.%d; nejax needs 3.11 or newer: make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

demo: .venv/installed
	$(BIN)/python experiments/build_atlas.py

# Some tests are compiled in a quicker way, which a process can have only for all of its tests (tests/conftest.py).
QUICKLY = tests/experiments tests/pipeline tests/neuron/identities tests/atlas
AS_USERS_DO = tests/neuron --ignore=tests/neuron/identities tests/models tests/test_*.py
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test: .venv/installed-test
	$(PYTEST) $(QUICKLY)
	$(PYTEST) $(AS_USERS_DO)

# What a developer runs after a change: all of it is compiled quickly.
quick: .venv/installed-test
	$(PYTEST) -m "not slow"

explore: demo
	$(BIN)/python experiments/explore.py

clean:
	rm -rf .venv runs
