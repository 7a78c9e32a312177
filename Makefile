# One command each, from a fresh clone: make demo, make test, make lint.
# Needs Python 3.11 or later, make and pip; a target sets up what it needs, once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/.installed
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && \
	echo "training with PyTorch and with JAX ..." && \
	$(BIN)/torchcnn train --dataset digits > "$$out/torchcnn" && \
	$(BIN)/jaxcnn train --dataset digits > "$$out/jaxcnn" && \
	pr -m -t -w 140 "$$out/torchcnn" "$$out/jaxcnn" && echo && \
	$(BIN)/parity check --dataset digits

test: .venv/.dev
	$(BIN)/python -m pytest

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright
	$(BIN)/lint-imports

clean:
	rm -rf .venv build *.egg-info

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/.dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
