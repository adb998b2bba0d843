# The commands of people, hooks and CI. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export BENTOML_DO_NOT_TRACK := True
export DO_NOT_TRACK := true
export UV_NO_PROGRESS := 1
# uv uses the system's certificates like pip; behind a proxy, only these are valid.
export UV_SYSTEM_CERTS := 1

.PHONY: help setup train test test-slow test-faults lint format lock pages docs docs-serve viz viz-site lab notebooks mlflow serve container container-test container-sbom pin-images clean \
  wheel dist lint-lock lint-workflows benchmark-quality benchmark-rows benchmark-time benchmark-start benchmark-equivalence benchmark-million benchmark-search benchmark-serving \
  benchmark-evaluation benchmark-soak benchmark-failures abuse-serving fuzz-serving readme up-local down-local

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-22s %s\n", $$1, $$2}'

setup: $(READY) ## create the virtual environment from the hashed lock (once)

$(READY): requirements/requirements.lock requirements/uv.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python is missing: install Python 3.11, 3.12 or 3.13 (Debian: apt install python3 python3-venv)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "$$($(PYTHON) --version) is not supported: install Python 3.11, 3.12 or 3.13, or choose one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "This Python lacks venv: install it (Debian: apt install python3-venv)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Setting up $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/requirements.lock
	@$(BIN)/python -m ensurepip --default-pip >/dev/null 2>&1 || true
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c 'import lightgbm' 2>/dev/null || \
	  { echo "LightGBM cannot be imported. It needs OpenMP: install it (Debian: apt install libgomp1; macOS: brew install libomp)"; exit 1; }
	@touch $(READY)

train: $(READY) ## train on the simulated table (kedro run --pipelines training)
	@$(BIN)/kedro run --pipelines training

# Only CI measures coverage, over both targets: it makes the tests half as slow again. With worksteal, one worker runs most
# tests of a file, so that the file's fixtures are set up once.
PYTEST = $(BIN)/pytest -n 2 --dist worksteal

test: $(READY) ## the tests, except for the slow ones; with coverage where CI is set
	@$(PYTEST) -m "not slow and not faults" $(if $(CI),--cov --cov-report=)

test-slow: $(READY) ## the slow tests: the first hour, notebooks, public tables, a tracking server; where CI is set, coverage over both
	@$(PYTEST) -m slow $(if $(CI),--cov --cov-append --cov-report=term --cov-fail-under=90)

# In one process: each test breaks its servers, and the table is written once.
test-faults: $(READY) ## break servers, disk and processes, check that nothing is lost, and write docs/explanation/faults.md
	@FAULTS_PAGE=docs/explanation/faults.md $(BIN)/pytest -n 0 -m faults tests/faults

lint: $(READY) ## check format, rules, types, imports and declared dependencies, as CI does
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry src
	@$(BIN)/deptry src tests benchmarks deploy docs .github/scripts --ignore DEP004
	@$(BIN)/nbstripout --verify notebooks/*.ipynb || { echo "Notebooks are committed without outputs: run make format"; exit 1; }

# actionlint and shellcheck come with no Python package and run only if they are installed.
SCHEMA := $(BIN)/check-jsonschema --quiet --builtin-schema
lint-workflows: $(READY) ## check workflows, actions and issue forms for security and against GitHub's schemas
	@$(BIN)/zizmor --offline --quiet --strict-collection .
	@$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	@$(SCHEMA) vendor.github-actions .github/actions/*/action.yml
	@$(SCHEMA) vendor.dependabot .github/dependabot.yml
	@$(SCHEMA) vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	@$(SCHEMA) vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	@if command -v actionlint >/dev/null; then actionlint; fi
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run; fi

format: $(READY) ## format the code and apply ruff's fixes
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .
	@$(BIN)/nbstripout notebooks/*.ipynb

# Locked versions stay; `make lock UPGRADE=1` upgrades them.
COMPILE = $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)
COMPILE_EXTRA = $(COMPILE) --universal --python-version 3.11 --constraint requirements/requirements.lock
# An extra's file lists only what the extra adds to base.txt.
NOT_IN_BASE = $$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements/extras/base.txt)

lock: $(READY) ## write the lock files; UPGRADE=1 upgrades every package
	@for name in scikit-learn boosters flaml autogluon; do \
	  $(COMPILE) --universal --python-version 3.11 --output-file benchmarks/contenders/$$name.txt benchmarks/contenders/$$name.in; done
	@echo 'uv' | $(COMPILE) --universal --python-version 3.11 --output-file requirements/uv.txt -
	@$(COMPILE) --universal --python-version 3.11 --group dev --extra boosters --extra production --output-file requirements/requirements.lock pyproject.toml
	@$(COMPILE) --python-platform linux --python-version 3.11 --constraint requirements/requirements.lock \
	  --output-file requirements/serving.txt requirements/serving.in
	@$(COMPILE_EXTRA) --output-file requirements/extras/base.txt pyproject.toml
	@for name in boosters production spark torch; do \
	  $(COMPILE_EXTRA) --extra $$name $(NOT_IN_BASE) --output-file requirements/extras/$$name.txt pyproject.toml || exit 1; done

# The resolver reads wheels' metadata from the package index and installs nothing. PySpark has no wheels, for any platform.
LOCKS = requirements/requirements.lock $(filter-out %/spark.txt,$(wildcard requirements/extras/*.txt))
PLATFORMS = x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu aarch64-apple-darwin
# The oldest macOS for which onnxruntime has wheels; uv would check for 13.
lint-lock: export MACOSX_DEPLOYMENT_TARGET = 14.0
lint-lock: $(READY) ## check that every locked package has a wheel for Linux (x86-64, ARM) and macOS (Apple silicon)
	@for platform in $(PLATFORMS); do for lock in $(LOCKS); do \
	  $(BIN)/uv pip install --quiet --dry-run --no-deps --require-hashes --only-binary :all: --reinstall --python $(BIN)/python \
	    --python-platform $$platform --requirement $$lock \
	    || { echo "$$lock cannot be installed on $$platform: see the package above"; exit 1; }; done; done

pages: $(READY) ## write docs/tables from the tables' contracts
	@for file in conf/base/tables/*.yml; do name=$$(basename $$file .yml); $(BIN)/kedro table page $$name > docs/tables/$$name.md; done

docs: $(READY) ## build the documentation in build/site; a broken link is an error
	@$(BIN)/zensical build --clean --strict

docs-serve: $(READY) ## serve the documentation on 127.0.0.1:8000 and rebuild it at each change
	@$(BIN)/zensical serve --dev-addr 127.0.0.1:8000

# Ports of `make viz`, `make mlflow` and `make serve`; for example `make serve PORT=3001`.
VIZ_PORT ?= 4141
MLFLOW_PORT ?= 5000
PORT ?= 3000
PORT_IS_FREE = $(BIN)/python -c 'import socket, sys; sys.exit(socket.socket().connect_ex(("127.0.0.1", $(1))) == 0)' || \
  { echo "Port $(1) is in use: stop that program, or choose another port: make $@ $(2)=…"; exit 1; }

viz: $(READY) ## show the graph in a browser
	@$(call PORT_IS_FREE,$(VIZ_PORT),VIZ_PORT)
	@$(BIN)/kedro viz run --port $(VIZ_PORT)

# The catalog switches off previews of customers' rows. kedro-viz ends with 0 even if it fails.
viz-site: $(READY) ## build the graph with the last run's tables, plots and status as a static site in build/graph
	@rm -rf build/api build/graph
	@$(BIN)/kedro viz build --include-previews
	@test -s build/api/main || { echo "kedro-viz built nothing: see its message above"; exit 1; }
	@mkdir -p build/graph; mv build/api build/assets build/*.html build/favicon.ico build/graph
	@$(BIN)/python -m churn_pipeline.viz_site build/graph
	@echo "Open it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory build/graph"

# A kernel starts in notebooks/, where Kedro does not find the project's logging.
lab notebooks: export KEDRO_LOGGING_CONFIG := $(CURDIR)/conf/logging.yml

lab: $(READY) ## open JupyterLab with the Kedro kernel in notebooks/
	@$(BIN)/kedro jupyter lab --LabApp.default_url=/lab/tree/notebooks

# The pages have no formulas or widgets, so they need no scripts from other hosts.
notebooks: $(READY) ## run the notebooks on TABLE and write them as HTML to build/notebooks/TABLE; train first if needed
	@test -f data/08_reporting/$(TABLE)/model_card.md || $(BIN)/kedro run --pipelines training --params table=$(TABLE)
	@test -d $(BENTO) || $(BIN)/kedro run --pipelines packaging --params table=$(TABLE)
	@mkdir -p build/notebooks/$(TABLE); for notebook in notebooks/*.ipynb; do echo "$$notebook"; \
	  $(BIN)/papermill --kernel python3 --cwd notebooks --parameters_raw table $(TABLE) --log-level WARNING --no-progress-bar \
	    $$notebook build/notebooks/$(TABLE)/$$(basename $$notebook) || exit 1; done
	@$(BIN)/jupyter nbconvert --to html --log-level ERROR --HTMLExporter.mathjax_url= --HTMLExporter.require_js_url= \
	  build/notebooks/$(TABLE)/*.ipynb
	@echo "Open them: build/notebooks/$(TABLE)/*.html"

# Like `kedro mlflow ui`, but with one worker and no job runner: it starts three times as fast.
mlflow: $(READY) ## show runs, metrics and models in a browser
	@$(call PORT_IS_FREE,$(MLFLOW_PORT),MLFLOW_PORT)
	@mkdir -p mlruns; MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --workers 1 --port $(MLFLOW_PORT) \
	  --backend-store-uri sqlite:///$(CURDIR)/mlruns/mlflow.db

# The last Bento of a table, built by `kedro run --pipelines packaging --params table=…`.
TABLE ?= simulated
BENTOS := $(CURDIR)/bentos/store
BENTO_NAME ?= churn_$(TABLE)
BENTO = $(BENTOS)/bentos/$(BENTO_NAME)/$(shell cat $(BENTOS)/bentos/$(BENTO_NAME)/latest 2>/dev/null || echo none)
IMAGE ?= localhost/$(BENTO_NAME):latest
HAS_BENTO = test -d $(BENTO) || \
  { echo "There is no Bento of table '$(TABLE)': build it with $(BIN)/kedro run --pipelines packaging --params table=$(TABLE)"; exit 1; }
# A client whose engine does not answer is skipped.
ENGINE = $(firstword $(foreach engine,docker podman buildah,$(shell $(engine) info >/dev/null 2>&1 && echo $(engine))))
HAS_ENGINE = test -n "$$engine" || { echo "There is no working docker, podman or buildah: install one"; exit 1; }

serve: $(READY) ## serve the last Bento of TABLE (simulated) on 127.0.0.1:PORT (3000); RELOAD=1 serves the source code and reloads it
	@$(HAS_BENTO); $(call PORT_IS_FREE,$(PORT),PORT); \
	if [ -z "$$CHURN_SERVING_KEYS$$CHURN_SERVING_KEYS_FILE$$CHURN_SERVING_AUTHENTICATION" ]; then \
	  made=$$($(BIN)/python -m churn_pipeline.serving.keys development); \
	  export CHURN_SERVING_KEYS=$$(tail -n 1 <<<"$$made"); \
	  echo "API key, valid until the service stops: $$(sed -n 2p <<<"$$made")"; \
	fi; \
	export BENTOML_HOME=$(BENTOS); \
	if [ -n "$(RELOAD)" ]; then \
	  export CHURN_SERVING_BUNDLE=$(BENTO)/src/bundle; \
	  exec $(BIN)/bentoml serve churn_pipeline.serving.service:ChurnService --working-dir src --reload --host 127.0.0.1 --port $(PORT); \
	fi; \
	exec $(BIN)/bentoml serve $(BENTO) --host 127.0.0.1 --port $(PORT)

# In another folder than /, BentoML 1.4.39 rejects a Bento's recipe (https://github.com/bentoml/BentoML/issues/5566).
# Docker's image format, because OCI's has no health check.
container: $(READY) ## build an image of the last Bento of TABLE with docker, podman or buildah
	@$(HAS_BENTO); engine=$(ENGINE); $(HAS_ENGINE); \
	cd /; BENTOML_HOME=$(BENTOS) BUILDAH_FORMAT=docker \
	  $(CURDIR)/$(BIN)/bentoml containerize $(BENTO_NAME):latest --backend $$engine --image-tag $(IMAGE)

container-test: $(READY) ## start that image read-only and unprivileged, and test its answers
	@$(HAS_BENTO); engine=$(ENGINE); $(HAS_ENGINE); $(BIN)/python -m tests.container $$engine $(IMAGE) $(BENTO)/src/bundle

container-sbom: $(READY) ## print the packages of that image, those of its base included, as a CycloneDX bill of materials
	@engine=$(ENGINE); $(HAS_ENGINE); $(BIN)/python .github/scripts/image_sbom.py $$engine $(IMAGE)

pin-images: $(READY) ## write the digest of the base image, as its registry reports it, to the packaging parameters
	@$(BIN)/python .github/scripts/pin_images.py conf/base/parameters_packaging.yml

# The same commit gives the same bytes. Files from an earlier build in build/lib would enter the wheel.
wheel: $(READY) ## write what an installation needs to dist/: the wheel, its bill of materials, conf and locks
	@rm -rf dist build/lib build/bdist.*; \
	set -e; export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct); \
	$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir dist .; \
	$(BIN)/python .github/scripts/wheel_sbom.py dist/*.whl > dist/wheel.cdx.json; \
	git archive --format=tar.gz --output dist/conf-churn_pipeline.tar.gz HEAD conf; \
	for lock in requirements/extras/*.txt; do cp $$lock dist/requirements-$$(basename $$lock); done; \
	rm -rf build/lib build/bdist.*; ls dist

dist: $(READY) ## the same, with the last Bento of TABLE and its bill of materials: the files of a release
	@$(HAS_BENTO); $(MAKE) --no-print-directory wheel >/dev/null; \
	cp bentos/$(BENTO_NAME).bento dist; cp $(BENTO)/src/bundle/sbom.cdx.json dist/bento.cdx.json; ls dist

benchmark-quality: $(READY) ## compare with other tools by nested cross-validation (half a day); SETS, TABLES, CONTENDERS and FOLDS limit it
	@$(BIN)/python -m benchmarks.quality $(if $(SETS),--sets $(SETS)) $(if $(TABLES),--tables $(TABLES)) \
	  $(if $(CONTENDERS),--contenders $(CONTENDERS)) $(if $(FOLDS),--folds $(FOLDS)) $(if $(AGAIN),--again $(AGAIN))

benchmark-rows: $(READY) ## measure training time and memory from 1,000 to 1,000,000 rows (hours); ROWS and CONTENDERS limit it
	@$(BIN)/python -m benchmarks.rows $(if $(ROWS),--rows $(ROWS)) $(if $(CONTENDERS),--contenders $(CONTENDERS)) $(if $(AGAIN),--again $(AGAIN))

benchmark-time: $(READY) ## measure the time of each training step
	@$(BIN)/python -m benchmarks.training_time

benchmark-start: $(READY) ## measure the time that our code adds to the start of a command
	@$(BIN)/python -m benchmarks.start_up

benchmark-equivalence: $(READY) ## compare every candidate's ONNX model with the trained one, and measure its size and speed
	@$(BIN)/python -m benchmarks.equivalence

benchmark-million: $(READY) ## measure time and memory for a million customers
	@PATH="$(CURDIR)/$(BIN):$$PATH" python -m benchmarks.million

benchmark-search: $(READY) ## compare the search's trials per second with plain Optuna
	@$(BIN)/python -m benchmarks.search_throughput

benchmark-evaluation: $(READY) ## measure splits, gate, leak detection, decision, intervals and drafts; PART=gate measures one
	@$(BIN)/python -m benchmarks.evaluation $(PART)

benchmark-serving: $(READY) ## compare the service with six others, with wrk (25 minutes)
	@$(BIN)/python -m benchmarks.serving

benchmark-soak: $(READY) ## run the service for ten minutes at 70 % of its peak load
	@$(BIN)/python -m benchmarks.serving --soak 10

benchmark-failures: $(READY) ## kill a worker, and stop the service, under load
	@$(BIN)/python -m benchmarks.serving --failures

abuse-serving: $(READY) ## attack the service and measure what a well-behaved caller notices (20 minutes); ATTACKS, SECONDS and BUNDLE limit it
	@$(BIN)/python -m benchmarks.abuse $(if $(ATTACKS),--attacks $(ATTACKS)) $(if $(SECONDS),--seconds $(SECONDS)) \
	  $(if $(BUNDLE),--bundle $(BUNDLE))

fuzz-serving: $(READY) ## send 10,000 mutated requests and schemathesis' to the last Bento of TABLE
	@$(HAS_BENTO); $(BIN)/python -m tests.serving.fuzz $(BENTO)

readme: $(READY) ## update the README's summary and measured figures
	@$(BIN)/python -m benchmarks.readme

clean: ## delete everything that runs wrote; the environment stays
	@git clean -fdX --exclude='!$(VENV)' --exclude='!conf/local' data mlruns bentos .viz build src

POSTGRES_PORT ?= 5433
S3_PORT ?= 8333
TRACKING_PORT ?= 5001
up-local down-local: export POSTGRES_PORT := $(POSTGRES_PORT)
up-local down-local: export S3_PORT := $(S3_PORT)
up-local down-local: export TRACKING_PORT := $(TRACKING_PORT)

up-local: $(READY) ## start PostgreSQL, S3 and an MLflow server on loopback, without containers
	@$(BIN)/python -m deploy.local_servers up

down-local: $(READY) ## stop them; their data stay in .servers/
	@$(BIN)/python -m deploy.local_servers down
