.DEFAULT_GOAL := help
.PHONY: help setup lab lab-down test check bench bench-failover bench-failover-kernel soak test-kernel reference lock clean

# Without compiled bytecode every command starts two to four times slower.
unexport PYTHONDONTWRITEBYTECODE

LAB ?= examples/burrow.toml
NAME ?= burrow
PYTEST := .venv/bin/python -m pytest

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what the lab and the tests need: Debian packages (as root), .venv
	@scripts/setup

lab: setup ## bring up the example mesh in namespaces (root); LAB=FILE for another one
	@.venv/bin/warren lab up $(LAB) --name $(NAME)

lab-down: ## take it down again
	@.venv/bin/warren lab down --name $(NAME)

test: setup ## every test; those that need root and namespaces are skipped for others
	@[ "$$(id -u)" -eq 0 ] || echo "*** NOT ROOT: the tests on real namespaces and WireGuard are SKIPPED ***" >&2
	@$(PYTEST) $(ARGS)

check: setup ## format, lint, types, architecture, quick tests: before every commit
	@.venv/bin/ruff format --check --quiet . || { echo "mend: .venv/bin/ruff format ." >&2; exit 1; }
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy
	@$(PYTEST) -q tests/test_architecture.py
	@$(PYTEST) -q -n 2 -m "not root and not lab and not kernel and not slow" --ignore tests/test_architecture.py

bench: setup ## measure; BENCH="startup device" for some of it
	@.venv/bin/python -m bench $(BENCH)

bench-failover: setup ## silences when controllers fail, are drained, come back; WARREN_TRIALS=30, WARREN_FAULTS="killed,cut"
	@.venv/bin/python -m bench failover

bench-failover-kernel: setup ## the same on the kernel's WireGuard, in a user-mode kernel (built the first time, six minutes)
	@scripts/kernel/run-um 5400 env WARREN_TRIALS=$${WARREN_TRIALS:-5} WARREN_FAULTS="$$WARREN_FAULTS" WARREN_INTERVAL_MS=20 \
	  .venv/bin/python -m bench failover

soak: setup ## a mesh under random trouble with open streams, ten minutes long; WARREN_SOAK_S, WARREN_SEED
	@WARREN_SOAK_S=$${WARREN_SOAK_S:-600} $(PYTEST) -q -s -p no:xdist tests/lab/test_soak.py tests/lab/test_repair.py

test-kernel: setup ## the tests marked kernel, on the kernel's own WireGuard (in QEMU where this kernel has none)
	@scripts/test-kernel $(ARGS)

reference: setup ## write docs/reference.md anew from the program
	@.venv/bin/python -c 'from warren.cli.reference import reference; print(reference(), end="")' > docs/reference.md

lock: setup ## write requirements.lock anew from pyproject.toml
	@scripts/lock

clean: ## remove what was made here: .venv, caches, the kernel for test-kernel
	rm -rf .venv .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests bench -name __pycache__ -prune -exec rm -rf {} +
