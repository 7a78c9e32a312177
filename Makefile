# One command each, from a fresh clone: make demo, make test, make lint.
# Needs Python 3.11 or later, make and pip; a target sets up what it needs, once.
PYTHON ?= python3
BIN := .venv/bin
# Processes that share the tests; each computes with one thread.
WORKERS ?= 2
# Tests start many processes: each would compile every module anew where none is kept.
unexport PYTHONDONTWRITEBYTECODE
# Shapes and types are checked in a run of their own: mistakes are planted by importing modules anew,
# and the checks take the new classes for the old ones of the same names.
TYPED := jaxcnn,torchcnn,parity,tests.typechecker.checked

.PHONY: demo test slow typed lint miniatures dictionary course pictures results clean

# Fits into 80 columns.
demo: .venv/.installed
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && \
	echo "proving that the tutorial's network and its port are the same ..." && \
	$(BIN)/parity prove parity.pairs.examples.simple_cnn && echo && \
	echo "training with PyTorch and with JAX, on digits that need no download ..." && \
	$(BIN)/torchcnn train --dataset digits > "$$out/torchcnn" && \
	$(BIN)/jaxcnn train --dataset digits > "$$out/jaxcnn" && \
	awk -F '[ ,:]+' 'BEGIN { print "epoch   torchcnn loss    test     jaxcnn loss    test" } \
	  !/^Epoch/ { next } FNR == NR { loss[$$2] = $$4; test[$$2] = $$6; next } \
	  { printf "%5d %15s %7s %15s %7s\n", $$2, loss[$$2], test[$$2], $$4, $$6 }' \
	  "$$out/torchcnn" "$$out/jaxcnn" && echo && \
	echo "comparing a step of both, stage by stage, with float64 by hand ..." && \
	{ $(BIN)/parity check --dataset digits > "$$out/check"; status=$$?; \
	  fold -s -w 80 "$$out/check"; test $$status -eq 0; } && echo && \
	printf '%-44s %s\n' "next: docs/course" "the tutorial, taught twice" \
	  "  $(BIN)/jaxcnn train --report train.html" "MNIST, ten epochs, as a page" \
	  "  $(BIN)/parity prove YOURS.py" "a pair of yours: docs/prove.md"

test: .venv/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

# Takes 25 minutes: what `make test` leaves out; with PART=2/5 every fifth of it, from the second on.
PART ?= 1/1
slow: .venv/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow --part $(PART)

# Some tests once more, with every array's shape and type checked.
typed: .venv/.dev
	$(BIN)/python -m pytest -n $(WORKERS) -m "not compiles and not slow" --jaxtyping-packages=$(TYPED) \
	  tests/truth $(addprefix tests/backends/test_,state.py steps.py fused.py harness.py)

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright
	$(BIN)/lint-imports

# Takes most of an hour: each of the miniature pairs, from five seeds; `make test` proves a sample.
miniatures: .venv/.dev
	$(BIN)/python -W ignore -m tests.pairs.every_miniature 5

# Takes minutes: every pair of docs/entries is proved anew.
dictionary: .venv/.dev
	JAX_PLATFORMS=cpu $(BIN)/python -W ignore -m docs.dictionary

# Takes minutes: the notebooks are run, and keep what they show; part 5 wants MNIST in $CNN_DATA_DIR.
course: .venv/.dev
	JAX_PLATFORMS=cpu $(BIN)/jupyter execute --inplace docs/course/*.ipynb

# Those of README; wants MNIST in $CNN_DATA_DIR or ./data.
pictures: .venv/.dev
	JAX_PLATFORMS=cpu $(BIN)/python -m docs.pictures

# Takes an hour, on a machine with nothing else to do; wants MNIST in $CNN_DATA_DIR or ./data.
# MACHINE names the table in benchmarks/.
MACHINE ?= $(shell uname -m)-$(shell getconf _NPROCESSORS_ONLN)-cores
BENCH = $(BIN)/parity bench --json "$$out/$(1).json"

results: .venv/.dev
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && \
	$(call BENCH,cpu-1-thread) --threads 1 --phases step epoch \
	  --arms tutorial torch:eager:fused torch:jit:fused jax:jit:fused && \
	$(call BENCH,cpu-2-threads) --threads 2 --phases step epoch \
	  --arms tutorial torch:eager:fused torch:jit:fused jax:jit jax:jit:fused && \
	$(call BENCH,jit-and-eager) --threads 2 --phases forward step \
	  --arms jax:eager jax:jit jax:jit:fused torch:eager torch:jit torch:jit:fused && \
	$(call BENCH,planted-slowdown) --arms jax:jit:fused --phases step epoch \
	  --rounds 21 --slowdown 0.1 && \
	$(BIN)/python benchmarks/render.py $(MACHINE) "$$out"/*.json

clean:
	rm -rf .venv build *.egg-info

LOG := .venv/install.log
INSTALL = $(BIN)/python -m pip install --editable $(1) >> $(LOG) 2>&1 || { tail -n 3 $(LOG) >&2; \
	  echo "the installation failed; $(LOG) has all of its output" >&2; exit 1; }

.venv/.installed: pyproject.toml
	@echo "setting up .venv, once; it takes minutes ($(LOG) says what it does) ..."
	@$(PYTHON) -m venv .venv && : > $(LOG)
	@$(call INSTALL,.)
	@touch $@

.venv/.dev: .venv/.installed
	@echo "installing what the tests need ..."
	@$(call INSTALL,'.[dev]')
	@touch $@
