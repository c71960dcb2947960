# Everything lands in .venv/ and .local/. `make` alone lists the targets.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: faults help run test check bench pictures lock clean

# The interpreter for .venv: the first of these that is new enough. Choose another with `make PYTHON=… test`.
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
COMPILE := .local/uv/bin/uv pip compile --quiet --no-config --system-certs --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
# Arguments for the program behind a target, as in `make run ARGS=--once` or `make test ARGS=tests/broker`.
ARGS ?=

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

run: .venv/.project ## start the sandbox and the broker, send the sample day, keep serving (ARGS=--once: end after it)
	@$(if $(AMQP_URL),:,$(PY) -m scripts.rabbitmq_dist)
	@exec $(PY) -m sandbox.play $(ARGS)

test: .venv/.project ## run all tests, against servers of their own (ARGS=… goes to pytest)
	@$(if $(AMQP_URL),:,$(PY) -m scripts.rabbitmq_dist)
	@$(PY) -m scripts.chromium_dist
	@exec $(PY) -m pytest --numprocesses 4 --dist loadfile $(ARGS)

check: .venv/.project ## formatting, lint, types, import rules
	@echo "  ruff format"; .venv/bin/ruff format --check .
	@echo "  ruff check"; .venv/bin/ruff check .
	@echo "  mypy"; .venv/bin/mypy
	@echo "  lint-imports"; .venv/bin/lint-imports

bench: .venv/.project .local/bench-venv/.packages ## measure the broker beside others, write docs/benchmarks.* (QUICK=1: four minutes, to try it)
	@$(PY) -m scripts.rabbitmq_dist
	@exec $(PY) -m bench all $(if $(QUICK),--quick) $(ARGS)

faults: .venv/.project ## the fault matrix over all kinds (SEEDS=20: so many; SEED=17: that one again); writes docs/reliability.*
	@$(PY) -m scripts.rabbitmq_dist
	@exec $(PY) -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

pictures: .venv/.project ## take the documents' pictures anew, from the browser tests, into docs/pictures/
	@$(PY) -m scripts.rabbitmq_dist
	@$(PY) -m scripts.chromium_dist
	@JOBNET_PICTURES=docs/pictures exec $(PY) -m pytest tests/browser -q $(ARGS)

lock: .local/uv/bin/uv ## renew both lock files from pyproject.toml (ARGS=--upgrade: newest versions)
	@$(COMPILE) --extra dev $(ARGS) pyproject.toml --output-file requirements.lock
	@$(COMPILE) --group bench $(ARGS) --output-file requirements-bench.lock

clean: ## remove .venv/, .local/ and caches
	rm -rf .venv .local .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info

# Two stamps: the packages of the lock file, and this project on top of them. A .venv made by hand is filled, not replaced.
.venv/.packages: requirements.lock
	@$(if $(PYTHON),:,echo "Python 3.11 or newer is needed, and none of python3, python3.11 … python3.14 is on the PATH" >&2; exit 1)
	@$(PY) -m pip --version >/dev/null 2>&1 || { echo "  making .venv with $$($(PYTHON) --version)"; $(PYTHON) -m venv .venv \
		|| { echo "$(PYTHON) cannot make a virtual environment (on Debian: apt-get install python3-venv)" >&2; exit 1; }; }
	@echo "  installing the packages of requirements.lock (about 200 MB, a minute or two)"
	@$(PIP) install --require-hashes --only-binary :all: --progress-bar off -r requirements.lock \
		| sed -un -e 's/^Collecting \([^ ;]*\).*/    \1/p' -e '/^Installing/s/^\(Installing[a-z ]*\).*/  \1/p'
	@touch $@

.venv/.project: pyproject.toml .venv/.packages
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Those whom the broker is measured beside, apart from what it needs itself.
.local/bench-venv/.packages: requirements-bench.lock
	@echo "  installing the packages of requirements-bench.lock into .local/bench-venv"
	@$(PYTHON) -m venv .local/bench-venv
	@.local/bench-venv/bin/python -m pip --disable-pip-version-check --no-input install --quiet --require-hashes \
		--only-binary :all: -r requirements-bench.lock
	@touch $@

.local/uv/bin/uv:
	@$(if $(PYTHON),:,echo "Python 3.11 or newer is needed" >&2; exit 1)
	@echo "  fetching uv, which resolves the lock file"
	@$(PYTHON) -m venv .local/uv
	@.local/uv/bin/python -m pip --disable-pip-version-check install --quiet uv
