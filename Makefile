PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
JOBS   ?= 4

# Set in some containers: each of the hundreds of processes that the tests start would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install dev serve test suite check quick bench soak hostile lint types format deviations pins clean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed  ## make .venv with what palaver runs on
dev: $(VENV)/.dev            ## … and what its tests and checks need

serve: install  ## start palaver on port 8080 (PORT=… HOST=… DATA=… DATABASE=… change it)
	@exec $(BIN)/palaver serve $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT)) $(if $(DATA),--data $(DATA)) $(if $(DATABASE),--database $(DATABASE))

test: dev  ## lint, types, and every test (suite)
	@$(MAKE) --no-print-directory -j2 lint types suite

# What failed on a machine full of other tests is tried once more, alone; what fails then has failed.
suite: dev
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS) \
	|| $(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(ARGS)

check: dev  ## lint, types, and the tests of house, core and wire that need no database (quick); 40 seconds
	@$(MAKE) --no-print-directory -j3 types quick lint

# In one process, because the types take the other processor.
quick: dev
	$(BIN)/python -m pytest -q -m "not database" tests/house tests/core tests/wire

bench: install  ## what palaver costs beside a bare relay; minutes (ARGS='--only turns', see docs/performance.md)
	$(BIN)/python -m bench $(ARGS)

soak: install  ## 100,000 turns with callers who vanish, stop and read slowly; ten minutes
	$(BIN)/python -m bench.soak $(ARGS)

hostile: install  ## attacks on a server with 512 MiB of memory, a healthy caller beside them; four minutes
	$(BIN)/python -m bench.hostile $(ARGS)

lint: dev  ## style, format, who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --config pyproject.toml

types: dev  ## strict types, tests included
	$(BIN)/basedpyright --warnings

format: dev  ## put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

deviations: install  ## renew what the dialects' READMEs say of their deviations
	@for readme in src/palaver/dialects/*/README.md; do \
	  $(BIN)/palaver conformance --markdown --dialect "$$(basename "$$(dirname "$$readme")")" > "$$readme.part" \
	  && awk -v part="$$readme.part" '/^<!-- end of deviations -->/ { inside = 0 } ! inside { print } \
	    /^<!-- deviations -->/ { inside = 1; print ""; while ((getline line < part) > 0) print line; print "" }' \
	    "$$readme" > "$$readme.new" && mv "$$readme.new" "$$readme" && rm "$$readme.part" || exit 1; \
	done

pins: dev  ## renew requirements/*.txt (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header pyproject.toml --group build -o requirements/run.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header pyproject.toml --group build --group dev -c requirements/run.txt -o requirements/dev.txt

clean:  ## remove what make made
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache

$(VENV)/.installed: requirements/run.txt pyproject.toml
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "palaver needs Python 3.11 or newer; name one: make PYTHON=python3.12 …")'
	@echo "Installing what palaver needs into $(VENV) …"
	@$(PIP) install --require-hashes -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed requirements/dev.txt
	@echo "Installing what its tests need …"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@
