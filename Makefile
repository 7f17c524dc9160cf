# A few commands that wrap dvc. You can use dvc directly instead and miss nothing.
#
#   make demo       the whole pipeline in minutes, on synthetic data, in demo/; the committed results do not change
#   make repro      the real thing: CIFAR-10, both models, the comparison with the paper
#   make grid       Table 2: the missing runs of experiments.yaml, collected in metrics/runs.csv; hours
#                   RUNS='table2-* screen-*' chooses them by name, JOBS=2 runs two at once
#                   THREADS=1 each on one thread: more runs an hour, and numbers that differ a little (docs/performance.md)
#                   CLUSTER=host:port runs them on several machines (docs/scale.md); MIXED=1 on any processor
#   make cluster-head                 start a cluster of machines for the grid; Ctrl-C ends it
#   make cluster-join HEAD=host:port  let this machine run runs of that cluster; Ctrl-C leaves it
#   make collect    experiments that were made here, or pulled, into metrics/runs.csv and the pages
#   make beyond     the second pipeline: the missing runs of beyond/experiments.yaml, collected in beyond/runs; hours
#                   LADDER='ladder-0.03-*' chooses them by name
#   make search     a hyperparameter search with Optuna; STUDY=<name in beyond/search.yaml>, JOBS=2; hours
#   make paper-ref  the git tag `paper`, and one for each cell of Table 2, for dvc metrics diff paper
#   make predict IMAGE=picture.jpg    classify a picture, or a folder of them; MODEL=resnet18 once that is trained
#   make app        a local page that classifies a picture with both models; PORT=8000 for another port than 7860
#   make verify     check that the committed tables follow from the committed predictions; seconds
#   make bench      how fast training is, compared with the notebook's way, and what the pipeline costs; 15 minutes
#   make kills      kill both trainings at random moments on real data, and check that they resume; ten minutes
#   make test       run the tests
#   make lint       run ruff and mypy
#   make lock       write the three requirements files anew, with the latest versions
#
#   PYTHON=python3.12        another Python (3.11 to 3.13) for .venv
#   CIFAR10_ARCHIVE=/path    a local copy of CIFAR-10, the archive or its extracted folder, instead of a download
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu    PyTorch without CUDA: several GB less to download and keep

SHELL := /bin/bash
PYTHON ?= python3
READY := .venv/ready
READY_CLUSTER := .venv/ready-cluster
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Tools are run as `python -m`: the scripts in .venv/bin stop working when the checkout is renamed or moved.
DVC := python -m dvc

# Also as an argument of make. A relative path starts at this folder.
export CIFAR10_ARCHIVE
# With it, `python -m stages.download` would not find this folder.
unexport PYTHONSAFEPATH

ifdef TORCH_INDEX
INSTALL = grep -vE '^(nvidia|cuda|triton)' requirements.txt > .venv/requirements.txt && \
          python -m pip install --extra-index-url $(TORCH_INDEX) -r .venv/requirements.txt
else
INSTALL = python -m pip install -r requirements.txt
endif

DEMO = data.source=synthetic data.synthetic.train_images=4000 batch_size=32 keras_cnn.epochs=5 resnet18.epochs=2 \
       evaluate.augmented_draws=3
CLONE = demo/$(shell git rev-parse --show-prefix)

.DEFAULT_GOAL := help
.PHONY: help demo repro grid collect paper-ref predict app verify bench kills test lint lock cluster-head \
        cluster-join beyond search committed
.NOTPARALLEL:

help:
	@sed -n 's/^#   //p' Makefile

# Before the set-up, which takes minutes.
committed:
	@said=$$(git cat-file -e HEAD:./dvc.yaml 2>&1) || { echo "make: this folder has no git commit, which DVC needs:" \
	  "git clone the repository, or run: git init && git add --all && git commit -m start" \
	  "($$(echo "$$said" | head -n 1))"; exit 1; }

# Set up again if the Python that .venv was made with is gone. `|| true`: on a status of 127 make would print the message.
ifneq ($(shell .venv/bin/python -c 'import psutil; print("works")' 2>&1 || true),works)
.PHONY: $(READY)
endif

define CHECK_PYTHON
@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
  { echo "This needs Python 3.11, 3.12 or 3.13, not $$($(PYTHON) --version 2>&1): make PYTHON=python3.12 ..."; exit 1; }
endef

$(READY): requirements.txt
	$(CHECK_PYTHON)
	@echo "Setting up .venv, once: 8 GB on Linux, most of it PyTorch's CUDA libraries, which TORCH_INDEX leaves out ..."
	@.venv/bin/python -c '' 2>/dev/null || rm -rf .venv
	$(PYTHON) -m venv .venv
	$(INSTALL) --quiet --no-input --disable-pip-version-check
	@touch $@

# Ray, S3 and the S3 server of the tests: an extra, which only a cluster needs.
$(READY_CLUSTER): requirements-cluster.txt $(READY)
	python -m pip install --quiet --no-input --disable-pip-version-check -r requirements-cluster.txt
	@touch $@

demo: committed $(READY)
	@echo "The demo runs on synthetic data, not on CIFAR-10, in a clone of the last commit: $(CLONE)"
	rm -rf demo
	git clone --quiet "$$(git rev-parse --show-toplevel)" demo
	git -C demo config user.name demo && git -C demo config user.email demo@example.org
	cd "$(CLONE)" && $(DVC) exp run $(addprefix -S ,$(DEMO))
	@cd "$(CLONE)" && git add --all && git -c commit.gpgSign=false commit --quiet --no-verify \
	  --message "Results of synthetic data, not of CIFAR-10"
	@cat "$(CLONE)metrics/comparison.md"
	@echo "Pictures: $(CLONE)metrics/figures, for example $(CLONE)metrics/figures/predictions_resnet18.png"

repro: committed $(READY)
	$(DVC) repro
	@cat metrics/comparison.md

RUNS ?= table2-*
grid: committed $(if $(CLUSTER),$(READY_CLUSTER),$(READY))
	$(if $(CLUSTER),,$(DVC) repro split)
	python -m stages.tools.grid $(foreach run,$(RUNS),'$(run)') $(if $(JOBS),--jobs $(JOBS)) \
	  $(if $(THREADS),--threads $(THREADS)) $(if $(CLUSTER),--cluster $(CLUSTER) $(if $(MIXED),--mixed))
	$(DVC) repro --single-item compare
	$(DVC) repro --single-item plot
	$(DVC) repro --single-item report
	$(DVC) repro --single-item beyond/dvc.yaml:confirm

cluster-head: committed $(READY_CLUSTER)
	python -m stages.tools.cluster head $(if $(PORT),--port $(PORT))

cluster-join: committed $(READY_CLUSTER)
	@[ -n "$(HEAD)" ] || { echo "make: which cluster? make cluster-join HEAD=host:port, as make cluster-head prints it"; exit 1; }
	python -m stages.tools.cluster join $(HEAD) $(if $(CPUS),--cpus $(CPUS))

collect: committed $(READY)
	python -m stages.tools.collect
	$(DVC) repro --single-item compare
	$(DVC) repro --single-item plot
	$(DVC) repro --single-item report
	$(DVC) repro --single-item beyond/dvc.yaml:confirm

beyond: committed $(READY)
	$(DVC) repro split
	python -m beyond.tools.ladder $(foreach run,$(LADDER),'$(run)') $(if $(JOBS),--jobs $(JOBS))
	$(DVC) repro --single-item beyond/dvc.yaml:compare

STUDY ?= keras_cnn
search: committed $(READY)
	$(DVC) repro split
	python -m beyond.tools.search '$(STUDY)' $(if $(JOBS),--jobs $(JOBS))
	$(DVC) repro --single-item beyond/dvc.yaml:confirm

paper-ref: committed $(READY)
	@python -m stages.tools.paper_tags

# The page's environment is enough, and ready sooner.
MODEL ?= keras_cnn
PREDICTING := $(if $(wildcard $(READY)),.venv,.venv-app)
predict: $(PREDICTING)/ready
	@[ -n "$$IMAGE" ] || { echo "make: which picture? make predict IMAGE=picture.jpg"; exit 1; }
	@$(PREDICTING)/bin/python -m stages.tools.predict --model "$(MODEL)" -- "$$IMAGE"

# Gradio 6 wants older versions of Pillow and tomlkit than requirements.txt has. So the page has its own environment,
# which is also ready sooner: it needs no TensorFlow and no PyTorch.
ifneq ($(shell .venv-app/bin/python -c 'import PIL; print("works")' 2>&1 || true),works)
.PHONY: .venv-app/ready
endif

.venv-app/ready: requirements-app.txt
	$(CHECK_PYTHON)
	@echo "Setting up .venv-app, once: 450 MB ..."
	@.venv-app/bin/python -c '' 2>/dev/null || rm -rf .venv-app
	$(PYTHON) -m venv .venv-app
	.venv-app/bin/python -m pip install --quiet --no-input --disable-pip-version-check -r requirements-app.txt
	@touch $@

app: .venv-app/ready
	@.venv-app/bin/python -m stages.tools.app $(if $(PORT),--port "$(PORT)")

verify: $(READY)
	python -m stages.tools.verify

bench: $(READY)
	python -m benchmarks.bench

kills: $(READY)
	python -m tests.support.kills

# Three files at a time: many tests wait for a process. Those that run the whole graph come first (tests/conftest.py).
test: $(READY)
	python -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

lint: $(READY)
	python -m ruff check .
	python -m ruff format --check .
	python -m mypy

lock: $(READY)
	python -m pip install --quiet uv
	python -m uv lock --quiet --upgrade
	python -m uv export --quiet --no-hashes --no-annotate --no-header --extra dev --extra search --no-emit-project > .venv/lock
	{ echo "# Every package and its version, for Python 3.11 to 3.13, locked from pyproject.toml by \`make lock\`."; \
	  cat .venv/lock; } > requirements.txt
	printf '%s\n' 'gradio>=6' jinja2 numpy onnxruntime pillow | python -m uv pip compile --quiet --upgrade --universal \
	  --python-version 3.11 --no-annotate --no-header - > .venv/lock-app
	{ echo "# The packages of \`make app\`, for Python 3.11 to 3.13, locked by \`make lock\`."; cat .venv/lock-app; } \
	  > requirements-app.txt
	python -m uv export --quiet --no-hashes --no-annotate --no-header --extra dev --extra cluster --no-emit-project \
	  > .venv/lock-cluster
	{ echo "# What the extra \`cluster\` needs beside requirements.txt, locked from pyproject.toml by \`make lock\`."; \
	  echo "-c requirements.txt"; grep -vxFf .venv/lock .venv/lock-cluster; } > requirements-cluster.txt
