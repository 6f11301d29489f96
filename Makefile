# The commands people type; .ci/run types the same ones.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run install install-dev test lint format bench soak k6 k6-long clean help
.DEFAULT_GOAL := help

help: ## what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: install ## start the service on 127.0.0.1:8080, with everything it needs under ./data
	@exec $(BIN)/python app.py serve

install: $(VENV)/.installed ## what the service needs, into .venv

# These fill the machine, or judge how long something takes: nothing else runs beside them.
ALONE := tests/k6 tests/soak tests/bench tests/server tests/e2e/test_limit.py tests/test_leaks.py \
	tests/database/test_pool.py tests/database/test_embedded.py

test: install-dev ## all tests, against a real PostgreSQL and a real S3 server (about five minutes)
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile $(addprefix --ignore=,$(ALONE))
	$(BIN)/python -m pytest -q $(ALONE)

lint: install-dev ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install-dev ## let ruff put things in order
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-bench ## the figures and the picture of README, measured on this machine (about 25 minutes)
	$(BIN)/python -m tests.bench --picture docs/memory.svg

soak: install-dev ## half load, cuts, slow and refused clients; nothing may grow (20 minutes)
	$(BIN)/python -m tests.soak

k6: install-dev ## load tests with k6 in their short form, against servers it starts itself (half a minute)
	$(BIN)/python -m tests.k6 --short

k6-long: install-dev ## the same in full: up to 100 users, 15 minutes, 8 GB on the disk at a time
	$(BIN)/python -m tests.k6

install-dev: $(VENV)/.installed-dev

clean: ## forget .venv and caches; never touches ./data
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .bench

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(VENV)/.installed-bench: requirements-bench.txt $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@touch $@
