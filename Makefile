# Every target makes the environment it needs. PYTHON chooses the interpreter (3.11 or newer),
# VENV where the environment goes, ARGS what is added to a command.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
READY := $(VENV)/.ready

.PHONY: install train test test-slow kills lines mutants lint format seeds tradeoff comparison depths wheel lock bench

install: $(READY)

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

train: $(READY) ## train on MNIST (or the embedded digits) with the published example's setting
	$(VENV)/bin/bpc-train $(ARGS)

test: $(READY) ## the fast tests
	$(VENV)/bin/python -m pytest -n 2 -m "not slow" $(ARGS)

test-slow: $(READY) ## the tests that take longer than a few seconds each
	$(VENV)/bin/python -m pytest -n 2 -m slow $(ARGS)

kills: $(READY) ## kill a run at 50 random moments, and go on with it each time (minutes)
	$(VENV)/bin/python -m pytest -n 2 tests/test_resume.py -k killed --kills 50 $(ARGS)

lines: $(READY) ## 500 wrong command lines, each refused in one line, and 500 right ones (minutes)
	$(VENV)/bin/python -m pytest -n 2 tests/test_command_lines.py -k many --lines 500 $(ARGS)

mutants: $(READY) ## make ten mistakes in the energy; each must be caught by a test (minutes)
	$(VENV)/bin/python benchmarks/mutants.py

lint: $(READY) ## format, lint and types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

format: $(READY)
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

seeds: $(READY) ## the README's table: five seeds at forward_energy_weight 1 and 1e-3 on MNIST
	$(VENV)/bin/bpc-train -m data=mnist forward_energy_weight=1,1e-3 seed=0,1,2,3,4 \
		hydra.sweep.dir=outputs/seeds $(ARGS)

tradeoff: $(READY) ## the README's sweep on MNIST: nine weights by five seeds, and its report
	$(VENV)/bin/bpc-train -m data=mnist hydra/launcher=vmap n_seeds=5 save_samples=true \
		forward_energy_weight=1,3.16e-1,1e-1,3.16e-2,1e-2,3.16e-3,1e-3,3.16e-4,1e-4 \
		hydra.sweep.dir=outputs/tradeoff $(ARGS)
	$(VENV)/bin/bpc-report outputs/tradeoff

comparison: $(READY) ## the README's table: every algorithm at best_mnist's size and budget (an hour)
	$(VENV)/bin/bpc-train -m data=mnist n_seeds=5 hydra.sweep.dir=outputs/comparison \
		experiment=best_mnist,best_mnist_hpc,best_mnist_discpc,best_mnist_genpc,best_mnist_bp \
		$(ARGS)
	$(VENV)/bin/python benchmarks/comparison.py outputs/comparison

depths: $(READY) ## the README's table: every algorithm at depths 2 to 8 (minutes)
	$(VENV)/bin/bpc-train -m data=mnist n_seeds=3 hydra.sweep.dir=outputs/depths \
		experiment=best_mnist,best_mnist_hpc,best_mnist_discpc,best_mnist_genpc,best_mnist_bp \
		model.depth=2,3,4,6,8 model.width=128 n_epochs=2 inference.n_steps=null \
		optim.activity_lr=0.3 $(ARGS)
	$(VENV)/bin/python benchmarks/depths.py outputs/depths

wheel: $(READY) ## without what an earlier build left, or configs since removed would be packed
	rm -rf build
	$(VENV)/bin/python -m build --wheel

lock: ## needs uv; writes no index address
	uv pip compile --universal --generate-hashes --no-header --extra dev --extra sweep \
		--extra tensorboard --extra wandb pyproject.toml --output-file requirements.lock

bench: $(READY) ## step times beside their floor, scaling, whole runs (minutes); JSON and a figure
	$(VENV)/bin/python benchmarks/bench.py $(ARGS)
