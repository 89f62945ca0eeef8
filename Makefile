# Needs python3 (3.11 or newer) with pip and venv, and make. `make help` lists the commands.
PYTHON ?= python3
# Where torch comes from, if not from pip's own index. Without an NVIDIA GPU this saves several GB:
#   make repro TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# The tested versions of all packages. `make install CONSTRAINTS=` takes the newest ones that pyproject.toml allows.
CONSTRAINTS ?= constraints.txt
HOST ?= 127.0.0.1
SERVE_PORT ?= 5001
UI_PORT ?= 5000
STUDIO_PORT ?= 7860
FLOWS_PORT ?= 4200

VENV := .venv
INSTALLED := $(VENV)/installed
PIP_INSTALL := $(VENV)/bin/python -m pip install $(addprefix --constraint ,$(CONSTRAINTS))
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: help install repro test lint serve studio ui flows
.DEFAULT_GOAL := help

help:  ## This list
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

install: $(INSTALLED)  ## .venv with everything in it

repro: $(INSTALLED)  ## Run whatever is out of date in the pipeline, then say what there is
	dvc repro
	@python -m stages.summary

test: $(INSTALLED)  ## All tests but the long one: the paper profile from end to end
	python -m pytest -m "not long" --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED)  ## ruff, mypy, and oxlint for the studio's script
	ruff check .
	ruff format --check .
	mypy
	oxlint

serve: $(INSTALLED)  ## Serve the registered model: http://127.0.0.1:5001/invocations
	python -m stages.serve --host $(HOST) --port $(SERVE_PORT)

studio: $(INSTALLED)  ## The drawing page: http://127.0.0.1:7860
	image-conductor studio --host $(HOST) --port $(STUDIO_PORT)

ui: $(INSTALLED)  ## Runs, curves and models in MLflow: http://127.0.0.1:5000
	mlflow server --backend-store-uri "$$(python -m stages.params mlflow.tracking_uri)" --host $(HOST) --port $(UI_PORT)

flows: $(INSTALLED)  ## Prefect server, worker and schedules: http://127.0.0.1:4200
	python -m flows.server --host $(HOST) --port $(FLOWS_PORT)

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed; $(PYTHON) is {sys.version.split()[0]}. Name another with: make PYTHON=python3.12")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
ifneq ($(TORCH_INDEX),)
	$(VENV)/bin/python -c 'import tomllib; print(*(d for d in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"] if d.startswith(("torch>", "torchvision>"))), sep="\n")' > $(VENV)/torch.txt
	$(PIP_INSTALL) --no-deps --index-url $(TORCH_INDEX) -r $(VENV)/torch.txt
endif
	$(PIP_INSTALL) --quiet --editable '.[dev]'
	touch $@
