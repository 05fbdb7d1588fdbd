SHELL := bash
.SHELLFLAGS := -euo pipefail -c
# Empty means off: .pyc files are cached, without which importing torch takes 2-3 s more in every process.
export PYTHONDONTWRITEBYTECODE :=

PYTHON ?= python3.11
VENV   ?= .venv
OUT    ?= out/demo
BIN    := $(VENV)/bin
# The boards' cross compiler and emulator, and what holds the C to account.
APT    := gcc libc6-dev gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm clang-14 libclang-rt-14-dev valgrind cppcheck gcovr
# uv does not read pip's settings: a folder with a local CPU wheel of torch is handed over here, if there is one.
WHEELS  = $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
BACKEND = $(if $(WHEELS),,$(if $(filter Linux,$(shell uname -s)),--torch-backend=cpu,))

.DEFAULT_GOAL := help
.PHONY: help install tools lock demo test lint bench analysis coverage soak clean

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

install: $(VENV)/.stamp ## create .venv with every pinned dependency
$(VENV)/.stamp: pyproject.toml constraints.txt
	@echo "== python packages (about 1.6 GB, 10 s to 2 min)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq uv==0.13.9
	UV_FIND_LINKS="$(WHEELS)" $(BIN)/uv pip install -q --python $(BIN)/python $(BACKEND) -c constraints.txt -e '.[dev]'
	touch $@

tools: ## install compilers and the boards' emulator where they are missing (Debian/Ubuntu; elsewhere it says what to install)
	@missing=; if command -v dpkg-query >/dev/null; then for p in $(APT); do \
	dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || missing+=" $$p"; done; \
	else for c in cc arm-none-eabi-gcc qemu-system-arm clang valgrind; do command -v $$c >/dev/null || missing+=" $$c"; done; fi; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then echo "please install:$$missing (macOS: brew install --cask gcc-arm-embedded; brew install qemu llvm)"; exit 2; fi; \
	echo "== apt:$$missing (20 s)"; S=; [ $$(id -u) = 0 ] || S=sudo; $$S apt-get update -qq; \
	DEBIAN_FRONTEND=noninteractive $$S apt-get install -y -qq --no-install-recommends $$missing >/dev/null

lock: install ## pin every transitive version again (constraints.txt)
	env -u UV_FIND_LINKS -u PIP_FIND_LINKS $(BIN)/uv pip compile -q pyproject.toml --universal --python-version 3.11 --all-extras --no-header --no-annotate -o constraints.txt

demo: install tools ## the main job: train, export, closed-loop session on a virtual board, report
	$(BIN)/sea-dbs demo --out $(OUT) --overwrite

test: install tools ## every test but those marked slow
	$(BIN)/python -m pytest -n 2 --dist loadfile --timeout=300 --durations=10 tests

lint: install ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

analysis: install tools ## fuzzers with sanitizers, damaged frames, cppcheck with MISRA, coverage of the core (docs/firmware/ANALYSIS.md)
	$(BIN)/python -m tests.analysis

coverage: install tools ## lines and branches of the board's core that its tests reach, at least 95 % each
	$(BIN)/python -m tests.analysis coverage

bench: install ## speed, as ratios measured in one process (benchmarks/)
	$(BIN)/python -m benchmarks.plant
	$(BIN)/python -m benchmarks.link

soak: install tools ## every check at its full count (over an hour; goes on where it was stopped); writes docs/SOAK.md
	$(BIN)/python -m tests.soak_all

clean: ## remove the environment, caches and outputs
	rm -rf $(VENV) out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
