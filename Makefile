# `make help` lists the targets; each makes the environment that it needs. PYTHON chooses the
# interpreter (3.11 or newer), VENV where the environment goes, ARGS what is added to a command.
# LOCKED=0 takes the newest versions that pyproject.toml allows, for tests alone.
PYTHON ?= python3
VENV ?= .venv
LOCKED ?= 1
ARGS ?=
READY := $(VENV)/.ready

.PHONY: install docs notebooks help train test test-slow test-kill test-hostile test-fuzz mutation-test lint format
.PHONY: table-seeds tradeoff table-algorithms table-cifar table-depth paper bench bench-peers wheel release vendor lock

install: $(READY) ## make the environment

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-18s%s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
ifeq ($(LOCKED),1)
	$(VENV)/bin/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --editable .
else
	$(VENV)/bin/python -m pip install --quiet --editable '.[test,sweep,tensorboard]'
endif
	@touch $@

train: $(READY) ## train on MNIST (or the embedded digits) with the published example's setting
	$(VENV)/bin/bpc-train $(ARGS)

test: $(READY) ## the fast tests
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not slow and not proof" $(ARGS)

test-slow: $(READY) ## the tests that take longer than a few seconds each
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m slow $(ARGS)

test-kill: $(READY) ## kill runs at each rename and at 60 random moments, and resume (many minutes)
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal tests/test_data.py tests/test_kills.py \
		tests/test_kills_of_one_run.py tests/test_resume.py tests/test_sweeps.py \
		-k "killed or timed_out" --kills 60 $(ARGS)

test-hostile: $(READY) ## try every hostile file and odd surrounding (many minutes)
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal tests/test_hostile_checkpoints.py \
		tests/test_hostile_runs.py tests/test_environments.py $(ARGS)

test-fuzz: $(READY) ## try 500 wrong command lines, each rejected in one line, and 500 right ones
	$(VENV)/bin/python -m pytest -n 2 tests/test_command_lines.py -k many --lines 500 $(ARGS)

mutation-test: $(READY) ## make a mistake in each equation; a test must catch each (ARGS=--all: all)
	$(VENV)/bin/python benchmarks/mutation.py $(ARGS)

lint: $(READY) ## check format, lint, types and which room imports which
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python
	$(VENV)/bin/lint-imports

format: $(READY) ## format, and mend what lint can mend
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

table-seeds: $(READY) ## docs/results.md's table: five seeds at forward_energy_weight 1 and 1e-3 on MNIST
	$(VENV)/bin/bpc-train -m data=mnist forward_energy_weight=1,1e-3 seed=0,1,2,3,4 \
		hydra.sweep.dir=outputs/seeds $(ARGS)

tradeoff: $(READY) ## docs/results.md's sweep on MNIST: nine weights by five seeds, and its report
	$(VENV)/bin/bpc-train -m data=mnist hydra/launcher=vmap n_seeds=5 save_samples=true \
		forward_energy_weight=1,3.16e-1,1e-1,3.16e-2,1e-2,3.16e-3,1e-3,3.16e-4,1e-4 \
		hydra.sweep.dir=outputs/tradeoff $(ARGS)
	$(VENV)/bin/bpc-report outputs/tradeoff

# At test time, chosen on validation images.
AT_TEST := inference.n_steps=100 optim.activity=adam optim.activity_lr=0.05

# Completion first, at equal energy weights: of what two evaluations measure, reports take the later.
table-algorithms: $(READY) ## docs/results.md's table: every algorithm at best_mnist's size (an hour)
	$(VENV)/bin/bpc-train -m data=mnist n_seeds=5 hydra.sweep.dir=outputs/comparison \
		experiment=best_mnist,best_mnist_hpc,best_mnist_discpc,best_mnist_genpc,best_mnist_bp \
		$(ARGS)
	$(VENV)/bin/bpc-eval outputs/comparison $(AT_TEST) diagnostics=[completion] \
		forward_energy_weight=1 backward_energy_weight=1 data.n_test=2000 \
		diagnosis.n_images=2000 hydra.sweep.dir=outputs/comparison/completion/evaluations
	$(VENV)/bin/bpc-eval outputs/comparison $(AT_TEST)
	$(VENV)/bin/bpc-report outputs/comparison

# For CIFAR-10 as a folder of images: ARGS="data=image_folder data.dir=FOLDER".
table-cifar: $(READY) ## docs/results.md's table: every algorithm with convolutions on CIFAR-10 (40 minutes)
	$(VENV)/bin/bpc-train -m seed=0,1,2 hydra.sweep.dir=outputs/small_cifar10 \
		experiment=small_cifar10_bpc,small_cifar10_hpc,small_cifar10_discpc,small_cifar10_genpc,small_cifar10_bp \
		$(ARGS)
	$(VENV)/bin/bpc-eval outputs/small_cifar10 $(AT_TEST) lowest_energy=false data.n_test=1000
	$(VENV)/bin/bpc-report outputs/small_cifar10

table-depth: $(READY) ## docs/results.md's table: every algorithm at depths 2 to 8 (minutes)
	$(VENV)/bin/bpc-train -m data=mnist n_seeds=3 hydra.sweep.dir=outputs/depths \
		experiment=best_mnist,best_mnist_hpc,best_mnist_discpc,best_mnist_genpc,best_mnist_bp \
		model.depth=2,3,4,6,8 model.width=128 n_epochs=2 inference.n_steps=null \
		optim.activity_lr=0.3 $(ARGS)
	$(VENV)/bin/bpc-eval outputs/depths $(AT_TEST) data.n_test=1000
	$(VENV)/bin/bpc-report outputs/depths

paper: $(READY) ## the experiments of docs/paper.md, in order of cost; given again, it resumes (hours)
	PATH="$(abspath $(VENV))/bin:$$PATH" bash benchmarks/paper.sh $(ARGS)

docs: $(READY) ## build the documentation in site/, strictly and without a network
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet $(ARGS)

notebooks: $(READY) ## run the documentation's notebooks anew, in place (a minute)
	PATH="$(abspath $(VENV))/bin:$$PATH" $(VENV)/bin/python docs/run_notebooks.py

# Without what an earlier build left, or configs since removed would be packed.
wheel: $(READY) ## build the wheel
	rm -rf build
	$(VENV)/bin/python -m build --wheel

release: $(READY) ## build sdist and wheel, check them, and run both commands from each (minutes)
	rm -rf build dist
	$(VENV)/bin/python -m build
	$(VENV)/bin/twine check --strict dist/*
	for package in dist/*; do PYTHON=$(PYTHON) .ci/try-package "$$package" || exit 1; done

# ECharts' parts that reports use, as one file; both versions are fixed in vendor/package.json.
vendor: ## bundle the charts' library anew for bpc-report (needs npm)
	cd bpc_cli/reporting/vendor && npm install --silent --no-package-lock && npm run --silent bundle
	rm -rf bpc_cli/reporting/vendor/node_modules

lock: ## renew requirements.lock, without an index's address in it (needs uv)
	uv pip compile --universal --generate-hashes --no-header --extra dev \
		pyproject.toml --output-file requirements.lock

bench: $(READY) ## step times beside their floor, scaling, whole runs (minutes); JSON and a figure
	$(VENV)/bin/python benchmarks/bench.py $(ARGS)

bench-peers: $(READY) ## training beside FabricPC, PCX and plain loops on MNIST (minutes); JSON and a table
	$(VENV)/bin/python benchmarks/peers.py $(ARGS)

# Former names, for one release.
define renamed
.PHONY: $(1)
$(1):
	@echo "WARNING: 'make $(1)' is now 'make $(2)'; the next release drops the old name" >&2
	@$$(MAKE) --no-print-directory $(2)
endef
$(eval $(call renamed,kills,test-kill))
$(eval $(call renamed,lines,test-fuzz))
$(eval $(call renamed,mutants,mutation-test))
$(eval $(call renamed,depths,table-depth))
$(eval $(call renamed,seeds,table-seeds))
$(eval $(call renamed,comparison,table-algorithms))
