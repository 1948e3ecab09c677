# `make app` and `make test` set up what they need on first use. Everything lands in .venv; delete it to start over.
PYTHON ?= python3
BIN := .venv/bin
PORT ?= 8501
ADDRESS ?= 127.0.0.1

.PHONY: app test test-slow lint bench example

app: .venv/runtime
	$(BIN)/streamlit run app.py --server.port $(PORT) --server.address $(ADDRESS)

# Tests wait for browsers and workers part of the time: three keep two cores busy
WORKERS ?= 3
test: MARK := not slow
test-slow: MARK := slow
test test-slow: .venv/dev
	.ci/chromium
	$(BIN)/python -m pytest -m "$(MARK)" --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

bench: .venv/dev
	$(BIN)/python -m benchmarks

example: .venv/runtime
	$(BIN)/python -m core.cli.example

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "NextLabel needs Python 3.11 or newer: call make with PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/runtime: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

.venv/dev: requirements.txt requirements-dev.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@ .venv/runtime
