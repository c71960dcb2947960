# All files are made in .venv/ and .local/. `make` alone lists the targets.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: faults help run test check bench pictures diagrams lock clean
# Two targets at a time would install into the same .venv.
.NOTPARALLEL:

# The interpreter for .venv: the first of these that is new enough. `make PYTHON=… test` takes another.
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
COMPILE := .local/uv/bin/uv pip compile --quiet --no-config --system-certs --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(ARGS)
INSTALL := $(PIP) install --require-hashes --only-binary :all: --progress-bar off
# One line of progress for each package, and nothing else of pip's output.
PROGRESS := sed -un -e 's/^Collecting \([^ ;]*\).*/    \1/p' -e '/^Installing/s/^\(Installing[a-z ]*\).*/  \1/p'
# Arguments for the program behind a target, as in `make run ARGS=--once` or `make test ARGS=tests/broker`.
ARGS ?=

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

run: .venv/.project ## start the sandbox and the broker, send the sample day, keep serving (ARGS=--once: end after it)
	@$(PY) -m scripts.prepare run
	@exec $(PY) -m sandbox.play $(ARGS)

# Unit tests start no servers, so `make test ARGS="-m unit"` needs none to be prepared.
test: .venv/.project .venv/.dev-packages ## run all tests, against servers of their own (ARGS=… goes to pytest)
	@$(if $(filter unit,$(ARGS)),:,$(PY) -m scripts.prepare test)
	@exec $(PY) -m pytest --numprocesses $(if $(filter unit,$(ARGS)),2,4) --dist loadfile --no-loadscope-reorder $(ARGS)

check: .venv/.project .venv/.dev-packages ## formatting, lint, types, import rules
	@echo "  ruff format"; .venv/bin/ruff format --check .
	@echo "  ruff check"; .venv/bin/ruff check .
	@echo "  mypy"; .venv/bin/mypy
	@echo "  lint-imports"; .venv/bin/lint-imports

bench: .venv/.project .local/bench-venv/.packages ## measure the broker beside other libraries, write docs/benchmarks.* (QUICK=1: four minutes, to try it)
	@$(PY) -m scripts.prepare run
	@exec $(PY) -m bench all $(if $(QUICK),--quick) $(ARGS)

faults: .venv/.project .venv/.dev-packages ## run the fault matrix (SEEDS=20: so many; SEED=17: that one again), write docs/reliability.*
	@$(PY) -m scripts.prepare run
	@exec $(PY) -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

pictures: .venv/.project .venv/.dev-packages ## renew the pictures of the documents in docs/pictures/, by the browser tests
	@$(PY) -m scripts.prepare test
	@JOBNET_PICTURES=docs/pictures exec $(PY) -m pytest tests/browser -q $(ARGS)

diagrams: ## render docs/pictures/architecture.svg from its Graphviz source (needs dot)
	@dot -Tsvg docs/pictures/architecture.dot -o docs/pictures/architecture.svg
	@sed -i 's/ *$$//' docs/pictures/architecture.svg

lock: .local/uv/bin/uv ## renew all lock files from pyproject.toml (ARGS=--upgrade: newest versions)
	@$(COMPILE) --group build pyproject.toml --output-file requirements.lock
	@$(COMPILE) --group dev --constraint requirements.lock pyproject.toml --output-file requirements-dev.lock
	@$(COMPILE) --group bench --output-file requirements-bench.lock

clean: ## remove .venv/, .local/ and caches
	rm -rf .venv .local .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info

# Three stamps: the packages that run (requirements.lock), this project on top of them, and for tests and checks the
# packages of requirements-dev.lock, which has the same versions and more. A .venv made by hand is filled, not replaced.
.venv/.packages: requirements.lock
	@$(if $(PYTHON),:,echo "Python 3.11 or newer is needed, and none of python3, python3.11 … python3.14 is on the PATH" >&2; exit 1)
	@$(PY) -m pip --version >/dev/null 2>&1 || { echo "  making .venv with $$($(PYTHON) --version)"; $(PYTHON) -m venv .venv \
		|| { echo "$(PYTHON) cannot make a virtual environment (on Debian: apt-get install python3-venv)" >&2; exit 1; }; }
	@echo "  installing the packages of requirements.lock (about 60 MB, a minute)"
	@$(INSTALL) -r requirements.lock | $(PROGRESS)
	@touch $@

.venv/.dev-packages: requirements-dev.lock .venv/.packages
	@echo "  installing the packages of requirements-dev.lock (about 80 MB more, a minute)"
	@$(INSTALL) -r requirements-dev.lock | $(PROGRESS)
	@touch $@

.venv/.project: pyproject.toml .venv/.packages
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# The libraries that the broker is measured beside, apart from its own packages.
.local/bench-venv/.packages: requirements-bench.lock
	@echo "  installing the packages of requirements-bench.lock into .local/bench-venv"
	@$(PYTHON) -m venv .local/bench-venv
	@.local/bench-venv/bin/python -m pip --disable-pip-version-check --no-input install --quiet --require-hashes \
		--only-binary :all: -r requirements-bench.lock
	@touch $@

.local/uv/bin/uv:
	@$(if $(PYTHON),:,echo "Python 3.11 or newer is needed" >&2; exit 1)
	@echo "  fetching uv, which resolves the lock files"
	@$(PYTHON) -m venv .local/uv
	@.local/uv/bin/python -m pip --disable-pip-version-check install --quiet uv
