# `make demo` and `make test` set up everything they need by themselves, in .venv.
# What is installed, and in which versions: pyproject.toml and constraints.txt.

PYTHON ?= python3
# Python 3.10 for the oldest pins where there is one, else the interpreter of .venv.
PYTHON_OLDEST ?= $(shell for python in python3.10 $(HOME)/.pyenv/versions/3.10.*/bin/python $(PYTHON); do \
	"$$python" -c '' 2>/dev/null && echo "$$python" && break; done)

BIN := .venv/bin
# Without it setuptools greets every editable install with a warning box that asks for nothing.
QUIETLY := PYTHONWARNINGS=ignore
OLDEST_BUNDLE := .cache/oldest.bundle
# What the parts of `make test` export for each other, anew each time.
TEST_SHARED := $(CURDIR)/.cache/tests

.PHONY: help venv demo reference test test-runtime test-export test-cli test-profiles test-rest test-oldest test-install lint fetch-smollm2 fetch-tensorrt-bindings build-pycuda browser systemd clean

help:
	@echo "make demo            export the reference model, ask it about pictures, show what pruning buys"
	@echo "make test            everything that CI checks"
	@echo "make test-oldest     the runtime alone, with the oldest supported packages and no torch"
	@echo "make test-install    jetson/install.sh in a Debian of its own, with files of a board, in minutes"
	@echo "make lint            ruff, mypy, import-linter"
	@echo "make venv            only the environment, in .venv"
	@echo "make fetch-smollm2   the 98 MB language model of the demo and of the slow tests"
	@echo "make fetch-tensorrt-bindings   NVIDIA's Python bindings of four TensorRTs, 5 MB, for the tests"
	@echo "make build-pycuda    pycuda without CUDA, for the tests of the TensorRT backend; some minutes, once"
	@echo "make reference       train the reference model from nothing into .cache/reference, for hours"
	@echo "make clean           remove what the above made, but no training"

venv: .venv/.stamp

.venv/.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "The environment with export and tests needs Python 3.11 or newer (the runtime alone: 3.10);"; \
		echo "name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv || { \
		echo "python -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(QUIETLY) $(BIN)/pip install --quiet --constraint constraints.txt --group dev --editable ".[export,check,kernels,profile,serve,boards]"
	@touch $@

# Not beside the other environment: both installs write tightrope.egg-info.
.venv-oldest/.stamp: pyproject.toml constraints-oldest.txt | .venv/.stamp
	@$(PYTHON_OLDEST) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet --upgrade "pip>=25.1"
	$(QUIETLY) .venv-oldest/bin/pip install --quiet --constraint constraints-oldest.txt "pytest>=8" "hypothesis>=6" --editable ".[cpu,boards]"
	@touch $@

fetch-smollm2: venv
	@$(BIN)/python models/fetch_smollm2.py

fetch-tensorrt-bindings: venv
	@$(BIN)/python tests/tensorrt/fetch_bindings.py

build-pycuda: venv
	@$(BIN)/python tests/tensorrt/build_pycuda.py

demo: venv fetch-smollm2
	$(BIN)/tightrope demo

reference: venv
	$(BIN)/python -m models.training.train .cache/reference

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test-oldest: venv .venv-oldest/.stamp
	$(BIN)/tightrope export models/reference -o $(OLDEST_BUNDLE) --precision fp32 --force \
	  --resolution 336 --resolution 224 --resolution 168
	TIGHTROPE_TEST_BUNDLE=$(OLDEST_BUNDLE) .venv-oldest/bin/pytest tests/oldest tests/cli tests/jetson

# Debian's and Ubuntu's; without one the tests of pages are skipped and say so.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
		[ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
		echo "no browser: to test pages as well, apt-get install chromium"

# Runs as process 1 of namespaces in the tests of the service; without it they are skipped and say so.
systemd:
	@[ -x /lib/systemd/systemd ] || { \
		[ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends systemd >/dev/null; } || \
		echo "no systemd: to test the service as well, apt-get install systemd"

test-install: venv systemd
	@command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap >/dev/null; }
	$(BIN)/python tests/jetson/debian.py
	TIGHTROPE_INSTALL=1 $(BIN)/pytest tests/jetson/test_install.py

PYTEST = TIGHTROPE_OTHER_PYTHON=$(CURDIR)/.venv-oldest/bin/python $(BIN)/pytest

# Parts of `make test`: the folders that compute the longest, each by itself, and the rest.
PARTS := runtime export cli profiles
$(PARTS:%=test-%): FOLDERS = tests/$(@:test-%=%)
test-rest: FOLDERS = tests $(PARTS:%=--ignore tests/%)

$(PARTS:%=test-%) test-rest: venv .venv-oldest/.stamp
	$(PYTEST) $(FOLDERS)

# Most of it computes on one core: two parts at a time, the longest first, so that both end together.
# The packages of the system come before all else: apt-get runs alone.
test: browser systemd
	@$(MAKE) --no-print-directory --jobs 2 lint fetch-smollm2 fetch-tensorrt-bindings build-pycuda .venv-oldest/.stamp
	@rm -rf $(TEST_SHARED) && mkdir -p $(TEST_SHARED)
	@TIGHTROPE_TEST_SHARED=$(TEST_SHARED) $(MAKE) --no-print-directory --jobs 2 --keep-going \
	  test-runtime test-export test-rest test-cli test-oldest test-profiles

# A training of hours is not cleaned away; remove .cache/reference by hand.
clean:
	rm -rf .venv .venv-oldest $(filter-out .cache/reference,$(wildcard .cache/*)) models/smollm2
	rm -rf build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
