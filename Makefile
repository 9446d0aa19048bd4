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
.PHONY: help quickstart test test-slow lint format bench docs tables site results lock audit clean

help:
	@echo "make quickstart  the whole pipeline on this machine, embedded data and base model"
	@echo "make test        the tests, seconds each      make test-slow  end to end, own clusters"
	@echo "make lint        ruff and mypy                make format     ruff, writing"
	@echo "make bench       quick benchmarks as a regression check of their ratios"
	@echo "make docs        pages that are made of the code, then the site: build/site/index.html"
	@echo "make site        the site alone, its links checked (build/site)"
	@echo "make results     write docs/results/*.md and their plots again, from committed records"
	@echo "make lock        requirements.lock, the hashes of constraints.txt's versions"
	@echo "make audit       known vulnerabilities of these versions, from pypi.org"
	@echo "make clean       caches and builds; runs/ and .venv stay"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "raysynth needs Python >= 3.11, $(PYTHON) is older. Fix: make PYTHON=python3.11"; \
	    exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

quickstart: $(STAMP)
	$(BIN)/raysynth run $(ARGS)

# Two processes; the tests of a file in one of them, for they share what is slow to make.
test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m "slow or cluster" -n 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Quick modes (16 minutes on two cores without bfloat16); full modes are single scripts, listed in
# benchmarks/README.md.
bench: $(STAMP)
	$(BIN)/python benchmarks/regression.py

docs: tables site

tables: $(STAMP)
	$(BIN)/raysynth config --help-keys > docs/configuration.md
	$(BIN)/raysynth parts --write docs/method.md
	$(BIN)/raysynth parts --write docs/parts.md
	$(BIN)/python docs/site/commands.py > docs/commands.md
	$(BIN)/python docs/site/pipeline.py > docs/images/pipeline.svg
	$(BIN)/python docs/site/chart.py

# A warning is an error: a link without a target, a page that no navigation leads to.
site: $(STAMP)
	rm -rf build/site
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -j auto -c docs/site . build/site
	$(BIN)/python docs/site/check.py build/site

# Every page names the command that writes it; a new one is written by its command.
results: $(STAMP)
	grep -hE '^(raysynth benchmark|python benchmarks/neighbours_page)' docs/results/*.md | PATH="$(BIN):$$PATH" sh -e

# torch's build is its index's choice, and CUDA's packages come with that choice: neither is locked.
OF_TORCH := torch triton setuptools cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,\
  cublas cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse \
  cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)

# Needs uv and pypi.org.
lock:
	uv pip compile --quiet --no-config --default-index https://pypi.org/simple \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes \
	  --no-annotate --no-header --extra dev --constraints constraints.txt \
	  $(foreach name,$(OF_TORCH),--no-emit-package $(name)) pyproject.toml \
	  --output-file requirements.lock

# Needs pip-audit and the JSON API of pypi.org, which mirrors lack (then it fails: --strict). No part
# of CI: its answer changes without a commit.
audit:
	pip-audit --strict --requirement requirements.lock --require-hashes --disable-pip

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
