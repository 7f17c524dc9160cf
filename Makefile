# A few commands that wrap dvc; whoever uses dvc directly misses nothing.
#
#   make demo     the whole pipeline in minutes, on a synthetic stand-in; the committed results stay as they are
#   make repro    the real thing: CIFAR-10, both models, the comparison with the paper
#   make grid     Table 2: the runs of experiments.yaml that are not there yet, collected in metrics/runs.csv; hours
#                 RUNS='table2-* screen-*' chooses them by name, JOBS=2 runs two at once
#   make collect  experiments made here, or pulled, into metrics/runs.csv and the comparison
#   make paper-ref    the git tag `paper`, and one for each cell of Table 2: dvc metrics diff paper
#   make verify   the committed tables follow from the committed predictions; seconds
#   make bench    how fast training is, beside the notebook's way, and what the pipeline costs; ten minutes
#   make kills    both models killed at random moments on real data, and compared with uninterrupted runs; ten minutes
#   make test     the tests            make lint   ruff and mypy            make lock   requirements.txt anew
#
# PYTHON=python3.12        another Python (3.11 to 3.13) for .venv
# CIFAR10_ARCHIVE=/path    a local copy of CIFAR-10, the archive or its extracted folder, instead of a download
# TORCH_INDEX=https://download.pytorch.org/whl/cpu    PyTorch without CUDA: several GB less to download and keep

SHELL := /bin/bash
PYTHON ?= python3
READY := .venv/ready
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# As an argument of make, too. A relative path starts at this folder.
export CIFAR10_ARCHIVE

ifdef TORCH_INDEX
INSTALL = grep -vE '^(nvidia|cuda|triton)' requirements.txt > .venv/requirements.txt && \
          .venv/bin/pip install --extra-index-url $(TORCH_INDEX) -r .venv/requirements.txt
else
INSTALL = .venv/bin/pip install -r requirements.txt
endif

DEMO = data.source=synthetic data.synthetic.train_images=4000 batch_size=32 keras_cnn.epochs=5 resnet18.epochs=2 \
       evaluate.augmented_draws=3

.DEFAULT_GOAL := help
.PHONY: help demo repro grid collect paper-ref verify bench kills test lint lock

help:
	@sed -n 's/^#   \(make .*\)/\1/p' Makefile

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "This needs Python 3.11, 3.12 or 3.13, not $$($(PYTHON) --version 2>&1): make PYTHON=python3.12 ..."; exit 1; }
	@echo "Setting up .venv, once: 8 GB on Linux, most of it PyTorch's CUDA libraries, which TORCH_INDEX leaves out ..."
	$(PYTHON) -m venv .venv
	$(INSTALL) --quiet --no-input --disable-pip-version-check
	@touch $@

demo: $(READY)
	@echo "The demo runs on the synthetic stand-in, not on CIFAR-10, in a clone of the last commit: demo/"
	rm -rf demo
	git clone --quiet . demo
	cd demo && dvc exp run $(addprefix -S ,$(DEMO))
	@cd demo && git add --all && git -c user.name=demo -c user.email=demo@example.org -c commit.gpgSign=false \
	  commit --quiet --no-verify --message "The synthetic stand-in's results, not CIFAR-10's"
	@cat demo/metrics/comparison.md
	@echo "Pictures: demo/metrics/figures, for example demo/metrics/figures/predictions_resnet18.png"

repro: $(READY)
	dvc repro
	@cat metrics/comparison.md

RUNS ?= table2-*
JOBS ?= 1
grid: $(READY)
	dvc repro split
	python -m stages.grid $(foreach run,$(RUNS),'$(run)') --jobs $(JOBS)
	dvc repro --single-item compare
	dvc repro --single-item plot

collect: $(READY)
	python -m stages.collect
	dvc repro --single-item compare
	dvc repro --single-item plot

paper-ref: $(READY)
	@python -m stages.paper_ref

verify: $(READY)
	python -m stages.verify

bench: $(READY)
	python -m benchmarks.bench

kills: $(READY)
	python -m tests.kills

test: $(READY)
	python -m pytest

lint: $(READY)
	ruff check .
	ruff format --check .
	mypy

lock: $(READY)
	pip install --quiet uv
	uv lock --quiet --upgrade
	uv export --quiet --no-hashes --no-annotate --no-header --extra dev --no-emit-project > .venv/lock
	{ echo "# Every package and version, for Python 3.11 to 3.13, locked from pyproject.toml by \`make lock\`."; \
	  cat .venv/lock; } > requirements.txt
