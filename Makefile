# Everything a developer types. `make` alone lists it.
#
#   PYTHON  the interpreter: make test PYTHON=python3.12 (gets an environment of its own)
#   CONFIG  what `make serve` serves: make serve CONFIG=examples/echo/agentflow.json
#   TESTS   a part of the tests: make test TESTS=tests/web (then without the coverage gate)
#   COVER   the files that such a part must cover: COVER='agentflow_server/web/*'

PYTHON ?= python3
CONFIG ?= agentflow.json.example
TESTS ?=
COVER ?=
# Tests wait for processes and databases more than they compute.
PYTEST_OPTIONS ?= --numprocesses 3 --dist loadfile --no-loadscope-reorder

# A version that pyenv has installed but not activated answers only when it is named.
pyenv_version := $(patsubst python%,%,$(filter python3.%,$(PYTHON)))
find_python := import sys; print(sys._base_executable, "%d.%d" % sys.version_info[:2])
found := $(shell $(if $(pyenv_version),PYENV_VERSION=$(pyenv_version)) $(PYTHON) -c '$(find_python)' 2>/dev/null)
base_python := $(word 1,$(found))
python_version := $(word 2,$(found))

VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(python_version))
python := $(VENV)/bin/python
uv := $(shell command -v uv 2>/dev/null)
serve_stamp := $(VENV)/.serve-$(python_version)
test_stamp := $(VENV)/.test-$(python_version)
# 10xgraph needs Python 3.12: below, its adapter cannot run.
not_covered := $(if $(filter 3.11,$(python_version)),--omit=agentflow_server/adapters/tenxgraph.py)

.PHONY: help serve test check format bench bench-replicas bench-peers lock clean

help:
	@echo "make serve   serve $(CONFIG) on http://127.0.0.1:8000"
	@echo "make test    run all tests, with the coverage gate"
	@echo "make check   format, lint, types, imports, project rules"
	@echo "make format  rewrite the code as 'make check' wants it"
	@echo "make bench   measure, and write benchmarks/RESULTS.md"
	@echo "make bench-replicas  several processes on PostgreSQL: benchmarks/RESULTS-replicas.md"
	@echo "make bench-peers     beside other servers: benchmarks/peers/RESULTS.md"
	@echo "make lock    write constraints.txt anew (UPGRADE=--upgrade for newer versions)"
	@echo "make clean   delete the environments and what tools left behind"

serve: $(serve_stamp)
	@$(python) -m agentflow_server serve --config $(CONFIG)

test: $(test_stamp)
ifneq ($(if $(COVER),,$(TESTS)),)
	$(python) -m pytest $(PYTEST_OPTIONS) $(TESTS)
else
	@$(python) -m coverage erase
	$(python) -m coverage run -m pytest $(PYTEST_OPTIONS) $(TESTS)
	@$(python) -m coverage combine --quiet
	$(python) -m coverage report $(if $(COVER),--include='$(COVER)') $(not_covered)
endif

check: $(test_stamp)
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	$(python) -m mypy
	$(VENV)/bin/lint-imports
	$(python) -m pytest -q -m "not slow" tests/project

format: $(test_stamp)
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

bench: $(test_stamp)
	$(python) -m benchmarks

bench-replicas: $(test_stamp)
	$(python) -m benchmarks.replicas

bench-peers: $(test_stamp)
	$(python) -m benchmarks.peers

lock: $(test_stamp)
	$(VENV)/bin/uv pip compile pyproject.toml --all-extras --group dev --universal \
		--python-version 3.11 --no-emit-index-url --no-header --quiet $(UPGRADE) \
		--output-file constraints.txt

clean:
	rm -rf .venv .venv-* .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist

# The stamps make a second run start at once; a change of the dependencies makes them old.
$(serve_stamp): pyproject.toml constraints.txt
	@$(call make_environment)
	@$(call install,--constraint constraints.txt --editable .)
	@touch $@

$(test_stamp): pyproject.toml constraints.txt
	@$(call make_environment)
	@$(call install,--constraint constraints.txt --editable ".[all]" --group dev)
	@touch $(serve_stamp) $@

# An environment of the same version is kept. Where a system keeps pip out of new environments, the
# pip it does have fills them from outside. `pip install --group` came with pip 25.1.
define make_environment
if ! $(or $(base_python),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	echo "$(PYTHON) is $(or $(python_version),not to be found); Python 3.11 or newer is needed." >&2; \
	echo "Name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; \
fi; \
if ! $(python) -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(python_version)")' 2>/dev/null; then \
	echo "Creating $(VENV) with Python $(python_version)"; \
	$(base_python) -m venv --clear $(VENV) >/dev/null 2>&1 \
		|| { $(base_python) -m venv --clear --without-pip $(VENV) \
			&& $(base_python) -m pip --python $(python) install -qq pip; }; \
fi
endef

# uv is faster but does not read pip's settings, so pip has the last word.
define install
echo "Installing into $(VENV)"; \
if [ -z "$(uv)" ] || ! "$(uv)" pip install --quiet --python $(python) $(1) 2>/dev/null; then \
	$(python) -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1' \
		&& $(python) -m pip install -qq --disable-pip-version-check $(1); \
fi
endef
