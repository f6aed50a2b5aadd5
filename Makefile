# Every target works on a fresh clone: the environment is made on first use.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Half of a test run is waiting, for hosts to fall silent and for servers to start: three side by side keep two cores busy.
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo demo-clean test check bench generate clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' $(MAKEFILE_LIST) | expand -t 20

$(VENV)/ready: pyproject.toml constraints.txt
	@echo "preparing the Python environment in $(VENV)"
	@test -x $(BIN)/pip || tests/machine/make_venv.sh $(PYTHON) $(VENV)
	@$(BIN)/pip install --quiet --no-cache-dir --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/ready ## set up a swarm on this machine, run a Stack on it, take it down (KEEP=1 leaves it running)
	@$(BIN)/python -m tests.demo

demo-clean: $(VENV)/ready ## undo whatever the demo left
	@$(BIN)/python -m tests.demo --clean

test: $(VENV)/ready check ## everything that passes on this machine
	@$(BIN)/python -m tests.prepare
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not alone"
	@$(BIN)/python -m pytest -m alone

check: $(VENV)/ready ## style, types, import contracts, generated files
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy operator agent cli tests
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m moorage_operator.api.crd --check crds charts/moorage/files/crds

bench: $(VENV)/ready ## measure, beside the peers (ONLY=figure for one)
	@$(BIN)/python -m tests.bench $(ONLY)

generate: $(VENV)/ready ## write crds/ from the models
	@$(BIN)/python -m moorage_operator.api.crd crds charts/moorage/files/crds

clean:
	@rm -rf $(VENV)
