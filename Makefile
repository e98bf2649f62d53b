# Every recipe is commands that can be copied: what make adds is the order.
PYTHON ?= python3
PRESET ?= quick
STUDY ?= $(PRESET)
SEEDS ?=
WORKERS ?= 2
THREADS ?= 1

BIN := .venv/bin

.PHONY: help setup repro repro-abrupt repro-blocks repro-icl repro-grok repro-capacity check-abrupt check-blocks check-icl check-grok check-capacity test test-slow lint format bench report

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/installed ## make .venv with everything (one to two minutes; nothing to do when nothing changed)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("found Python %d.%d, expected 3.11 or newer: make PYTHON=python3.12 setup" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,dev]'
	@touch $@

repro: repro-abrupt repro-blocks repro-icl repro-grok repro-capacity ## all papers, one after another (PRESET=quick|medium|gpu|paper)

# A paper's study: train, analyse, draw, judge. SEEDS="[6, 7, 8]" STUDY=second makes another one beside it.
define reproduce
	$(BIN)/python -m common.sweep $(1)/configs/sweep.yaml --preset $(PRESET) --study $(STUDY) $(if $(SEEDS),--seeds "$(SEEDS)") --workers $(WORKERS) --threads $(THREADS); \
	failed=$$?; $(BIN)/python $(1)/claims.py --study runs/$(1)/$(STUDY) && exit $$failed
endef

repro-abrupt: setup ## abrupt learning: train, analyse, draw, judge (PRESET=quick|medium|gpu|paper)
	$(call reproduce,abrupt_learning)

repro-blocks: setup ## simplified transformer blocks: train, analyse, draw, judge (PRESET=quick|medium|gpu|paper)
	$(call reproduce,simplifying_blocks)

repro-icl: setup ## stages of in-context learning: train, analyse, draw, judge (PRESET=quick|medium|gpu|paper)
	$(call reproduce,icl_landscape)

repro-grok: setup ## LayerNorm position and grokking: train, analyse, draw, judge (PRESET=quick|medium|gpu|paper|paper_figures)
	$(call reproduce,layernorm_grok)

repro-capacity: setup ## bits a model stores, for one hop and two: train, analyse, draw, judge (PRESET=quick|gpu|paper)
	$(call reproduce,capacity_reasoning)

check-abrupt: setup ## compare your study of abrupt learning with the published one, a line for what departs
	$(BIN)/python abrupt_learning/claims.py --study runs/abrupt_learning/$(STUDY) --against results/abrupt_learning/$(PRESET).json

check-blocks: setup ## compare your study of the blocks with the published one, a line for what departs
	$(BIN)/python simplifying_blocks/claims.py --study runs/simplifying_blocks/$(STUDY) --against results/simplifying_blocks/$(PRESET).json

check-icl: setup ## compare your study of in-context learning with the published one, a line for what departs
	$(BIN)/python icl_landscape/claims.py --study runs/icl_landscape/$(STUDY) --against results/icl_landscape/$(PRESET).json

check-grok: setup ## compare your study of grokking with the published one, a line for what departs
	$(BIN)/python layernorm_grok/claims.py --study runs/layernorm_grok/$(STUDY) --against results/layernorm_grok/$(PRESET).json

check-capacity: setup ## compare your study of capacity with the published one, a line for what departs
	$(BIN)/python capacity_reasoning/claims.py --study runs/capacity_reasoning/$(STUDY) --against results/capacity_reasoning/$(PRESET).json

test: setup ## the whole suite (about seven minutes on 2 cores)
	$(BIN)/python -m pytest -n $(WORKERS)

test-slow: setup ## the long tests
	$(BIN)/python -m pytest -n $(WORKERS) -m slow

lint: setup ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## speed beside the literal way, both sides in one run
	$(BIN)/python abrupt_learning/bench.py
	$(BIN)/python simplifying_blocks/bench.py
	$(BIN)/python icl_landscape/bench.py
	$(BIN)/python layernorm_grok/bench.py
	$(BIN)/python capacity_reasoning/bench.py

report: setup ## an index page over all run folders
	$(BIN)/python -m common.claims runs
