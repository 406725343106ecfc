# `make` lists what there is. Everything runs in .venv, made from the pinned requirements.
SHELL := /bin/bash
PYTHON ?= $(shell for p in /usr/bin/python3 python3; do command -v $$p && break; done)
BIN := .venv/bin

.PHONY: help setup demo test controls lint bench clean
help:
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup:        ## make .venv and the API's schemas (says what the machine is missing)
	@PYTHON=$(PYTHON) tools/setup

lint: setup   ## ruff, format, mypy --strict, import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check -q . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache

test: setup   ## all tests, in two halves at the same time
	@$(BIN)/python tools/clients && $(BIN)/python tools/test

controls: setup  ## the packet tests of Services with the tables under test taken away: each must fail
	@PODWIRE_CONTROLS=1 $(BIN)/pytest -q tests/kernel/services

demo: setup   ## the main job: a cluster, the page's example, packets (DOWN=1 removes everything afterwards)
	@tools/demo

bench: setup  ## all benchmarks, as tables
	@$(BIN)/python -m bench

clean:        ## remove what setup made
	@rm -rf .venv .cache
