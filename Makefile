# Every target creates .venv when it is missing or older than pyproject.toml and constraints.txt.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Overrides for the quickstart, e.g. make quickstart ARGS="dataset.severity=0.95".
ARGS ?=

export RAY_USAGE_STATS_ENABLED ?= 0
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow lint format bench docs clean

help:
	@echo "make quickstart  the whole pipeline on this machine, embedded data and base model"
	@echo "make test        the tests, seconds each      make test-slow  end to end, own clusters"
	@echo "make lint        ruff and mypy                make format     ruff, writing"
	@echo "make bench       quick benchmarks as a regression check of their ratios"
	@echo "make docs        regenerate docs/configuration.md"
	@echo "make clean       caches and builds; runs/ and .venv stay"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "raysynth needs Python >= 3.11, $(PYTHON) is older. Fix: make PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

quickstart: $(STAMP)
	$(BIN)/raysynth run $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -q

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m "slow or cluster"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Quick modes (16 minutes on two cores without bfloat16); the full ones of docs/performance.md are single scripts.
bench: $(STAMP)
	$(BIN)/python benchmarks/regression.py

docs: $(STAMP)
	$(BIN)/raysynth config --help-keys > docs/configuration.md

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
