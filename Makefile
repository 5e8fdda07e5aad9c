PYTHON ?= python3
VENV ?= .venv
STAMP = $(VENV)/.installed

.PHONY: quickstart test lint mutants models layouts chaos

quickstart: $(STAMP)
	$(VENV)/bin/pretrain quickstart

test: $(STAMP)
	$(VENV)/bin/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal

mutants: $(STAMP)
	$(VENV)/bin/python tests/mutants.py

layouts: $(STAMP)
	$(VENV)/bin/python tests/parallel/page.py

chaos: $(STAMP)
	$(VENV)/bin/python tests/faults/page.py

models: $(STAMP)
	$(VENV)/bin/python tests/oracles/page.py

lint: $(STAMP)
	$(VENV)/bin/ruff format --check src tests benchmarks examples
	$(VENV)/bin/ruff check src tests benchmarks examples
	$(VENV)/bin/mypy

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -qq -e ".[dev]" -c constraints.txt
	touch $(STAMP)
