# make run    serve the example tasks          make test   the whole suite
# make lint   ruff and mypy                    make bench  measurements, beside other queues
# make chaos  random faults, and a verdict on what became of the jobs
#
# Needs Python 3.11 or newer, and nothing else; everything is installed into $(VENV).
#   PYTHON=python3.13   the interpreter to use      VENV=.venv-3.13   where to install
#   BIND=127.0.0.1:9000 where `make run` listens    ARGS=…            for pytest or the benchmarks
#   SECONDS=60 SEED=…   of `make chaos`: how long, and which faults (without a seed: others each time)
#   ON=postgres         of `make chaos`: three hosts; ON=celery: and Celery's workers (default: one machine, SQLite)

VENV ?= .venv
BIND ?= 127.0.0.1:8000
ARGS ?=
SECONDS ?= 60
# Tests wait much of their time: three at once fill two cores.
WORKERS ?= 3
SEED ?=
ON ?= sqlite

# Each is started, not only looked up: a shim of pyenv may exist for a version that is not there.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo "$$python" && break; done)

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input

.PHONY: run test lint bench chaos clean

run: $(VENV)/.service
	@mkdir -p var
	@printf '%s\n' 'Once it runs, try in another terminal:' '' \
	  "  curl -i http://$(BIND)/tasks/text.stats/jobs -H 'Content-Type: application/json' \\" \
	  "    -d '{\"text\": \"The sea is never still. The sea is never the same.\"}'" '' \
	  'then, with the Location of the answer:  curl http://$(BIND)/jobs/<id>/result' ''
	@exec $(BIN)/quart-jobs serve --tasks examples.tasks --bind $(BIND) --database var/jobs.db

# Where Python is not to write bytecode, each of the suite's many processes would compile it all again.
test: $(VENV)/.dev
	@$(BIN)/python -m compileall -q jobs service tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(ARGS)

chaos: $(VENV)/.dev
	$(BIN)/python -m tests.chaos --on $(ON) --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.service: pyproject.toml $(VENV)/.python
	@echo 'installing quart-jobs into $(VENV)'
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.python
	@echo 'installing quart-jobs and its tests into $(VENV)'
	@$(PIP) --editable '.[dev]'
	@touch $(VENV)/.service $@

$(VENV)/.bench: pyproject.toml $(VENV)/.dev
	@echo 'installing what is measured beside quart-jobs into $(VENV)'
	@$(PIP) --editable '.[dev,bench]'
	@touch $@

# A venv holds the paths it was made with: after a move it is made anew.
ifneq ($(shell cat $(VENV)/.python 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/.python
endif

$(VENV)/.python:
	@test -n '$(PYTHON)' || { echo 'quart-jobs needs Python 3.11 or newer, and none was found: install one, or say where it is with `make PYTHON=/path/to/python3`' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo '$(PYTHON) is not Python 3.11 or newer' >&2; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || { echo '$(PYTHON) lacks venv: on Debian and Ubuntu, apt-get install python3-venv' >&2; exit 1; }
	@'$(PYTHON)' -m venv --clear $(VENV)
	@printf '%s\n' '$(CURDIR)' >$@
