# make kfold   set up .venv if need be and run the K-fold job on the embedded default
# make test    the same set-up, then lint and the tests
# make slow    the tests that take minutes each
# make simulate  histories of simulated runs with faults; SEEDS="0 1000" says which, SEEDS=17 shows one
# make unit    the unit tests alone; TESTS=tests/unit/ensemble runs a part of them
# make format  sorts imports, fixes what ruff can fix, formats
# make types   checks the types
# make docs    writes the generated pages of docs/
# All use uv, which is installed into .venv where there is none. PYTHON=python3.12 chooses another interpreter (3.11 or newer).

PYTHON ?= python3
ARGS ?=
SEEDS ?= 0 1000
TESTS ?= tests/unit tests/contract tests/tracking
VENV := .venv
RUN := $(VENV)/bin/python
UV := PATH="$$PATH:$(VENV)/bin" uv
COMPILE := $(UV) pip compile --quiet --universal --upgrade --generate-hashes --python-version 3.11

.PHONY: kfold test slow simulate unit lint types format requirements docs metrics clean

kfold: $(VENV)/installed
	$(RUN) ray_jobs/kfold.py $(ARGS)

test: lint unit $(VENV)/s3/installed
	$(RUN) -m pytest tests/cluster tests/end_to_end $(ARGS)

slow: $(VENV)/s3/installed
	$(RUN) -m pytest -m slow $(ARGS)

simulate: $(VENV)/installed
	PYTHONHASHSEED=0 PYTHONPATH=.:tests $(RUN) -m simulation.simulate $(SEEDS)

# One test more at once than there are cores: those of W&B mostly wait.
unit: $(VENV)/s3/installed
	$(RUN) -m pytest -n $$($(RUN) -c 'import os; print(os.cpu_count() + 1)') $(TESTS) $(ARGS)

format: $(VENV)/installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

types: $(VENV)/installed
	$(VENV)/bin/mypy

$(VENV)/installed: installer.txt requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11; try make PYTHON=python3.12"; exit 1; }
	@echo "installing the pinned requirements into $(VENV) (about 3.5 GB to download on Linux, once)"
	@if command -v uv >/dev/null; then \
		uv venv --quiet --clear --python "$$(command -v $(PYTHON))" $(VENV); \
	else \
		$(PYTHON) -m venv --clear $(VENV) && \
		$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r installer.txt; \
	fi
	@$(UV) pip install --quiet --compile-bytecode --python $(RUN) --require-hashes -r requirements.txt
	@touch $@

# The S3 server of the tests: see pyproject.toml.
$(VENV)/s3/installed: tests/object_server.txt $(VENV)/installed
	@$(UV) venv --quiet --clear --python $(RUN) $(VENV)/s3
	@$(UV) pip install --quiet --python $(VENV)/s3/bin/python --require-hashes -r tests/object_server.txt
	@touch $@

# Resolves pyproject.toml anew for every platform and Python version.
requirements: $(VENV)/installed
	$(COMPILE) --extra tune --extra gcp --extra text --extra llm --extra features --group dev pyproject.toml --output-file requirements.txt
	$(COMPILE) --group pyproject.toml:s3-server --output-file tests/object_server.txt
	$(COMPILE) --group pyproject.toml:installer --output-file installer.txt

# Writes docs/metrics.md and docs/run-folder.md from tables in the code.
docs metrics: $(VENV)/installed
	$(RUN) docs/generate.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
