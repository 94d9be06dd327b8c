# `make` alone lists the targets. Every target makes .venv when it is missing, and installs again
# when pyproject.toml or constraints.txt has changed.
#
# On Linux the ordinary package index serves torch with several GB of CUDA libraries. For the small
# CPU build, set PIP_EXTRA_INDEX_URL to the CPU index that pytorch.org names under "Get started"
# before the first `make`: the pinned version is then taken from there.

PROFILE ?= laptop
CONSTRAINTS = constraints.txt
VENV = .venv
STAMP = $(VENV)/.installed
SITE_STAMP = $(VENV)/.site-installed
BIN = $(VENV)/bin

# The first of these that starts, is 3.11 or newer, and can make a virtual environment.
# (A name alone says little: version managers put shims on the path that only complain.)
FITS = import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python3.14; do \
	"$$python" -c '$(FITS)' >/dev/null 2>&1 && { echo "$$python"; break; }; done)

# Two processes, a file each; files in the order of tests/conftest.py, the longest first.
PYTEST = $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

NOTEBOOKS = $(wildcard notebooks/*.ipynb notebooks/laboratory/*.ipynb)
PROFILES = $(basename $(notdir $(wildcard notebooks/profiles/*.yaml)))

.DEFAULT_GOAL := help
.PHONY: help install report laboratory chinese bench bench-user test test-fast test-avx2 torture lint lab app page site clean

help: ## list these targets
	@echo "seqlm: a small GPT-2 that classifies and generates handwritten digits."
	@echo
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## make .venv with all that the project needs

report: $(STAMP) ## run the notebooks, rebuild figures and report (PROFILE=smoke|laptop|mnist|original|gpu)
	$(BIN)/seqlm report --profile $(PROFILE)

laboratory: $(STAMP) ## the same and the long experiments (about 23 minutes more)
	$(BIN)/seqlm report --profile $(PROFILE) --laboratory

# Their results have a folder of their own: no file of the English notebooks changes.
chinese: $(STAMP) ## write the notebooks in Chinese to notebooks/zh-CN (RUN=report|laboratory: run them)
	$(BIN)/python notebooks/locale/translate.py build
	$(if $(RUN),SEQLM_HOME="$(CURDIR)/build/zh-CN" $(BIN)/seqlm report --profile $(PROFILE) \
		--notebooks_path notebooks/zh-CN $(if $(filter laboratory,$(RUN)),--laboratory))

bench: $(STAMP) ## measure the speed of training, sampling and reading; results in bench/results
	$(BIN)/python bench/run.py

bench-user: $(STAMP) ## cross-validate a GPT, n-grams and forests on your rows (DATA=… VOCAB=…)
	@test -n "$(DATA)" -a -n "$(VOCAB)" || { echo "give DATA=mine.jsonl VOCAB=vocab.json" >&2; exit 2; }
	$(BIN)/python bench/user_rows.py --data_path "$(DATA)" --vocab_path "$(VOCAB)"

test: lint ## check the style, then run every test
	$(PYTEST)

test-fast: $(STAMP) ## the short tests only: no notebooks, browsers, servers or long training
	$(PYTEST) -m "not slow and not browser and not subprocess"

# Two variables that oneDNN and torch read: a newer processor then computes as one with AVX2 only.
test-avx2: $(STAMP) ## the numeric tests once more, as on a processor without AVX-512 and bf16
	DNNL_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(PYTEST) \
		-m "not browser and not subprocess" tests/data tests/models tests/evaluation tests/training

torture: $(STAMP) ## stop training, report and server at 100 random moments: nothing may be lost
	$(BIN)/python bench/torture.py --write

lint: $(STAMP) ## check the style of code and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(if $(NOTEBOOKS),$(BIN)/nbstripout --keep-id --verify $(NOTEBOOKS))

lab: $(STAMP) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir notebooks

app: $(STAMP) ## serve the playground as a web application (PROFILE=…, or MODEL=your/best_model)
	@echo "Open the address below in a browser; only who has its token can use the playground."
	@SEQLM_PROFILE=$(PROFILE) SEQLM_MODEL="$$MODEL" JUPYTER_PATH=notebooks/app \
		$(BIN)/voila notebooks/08_playground.ipynb --template seqlm --no-browser \
		--Voila.auto_token=True

page: $(STAMP) ## write the trained model as one HTML file that can be mailed (PROFILE=…)
	$(BIN)/seqlm export --format html --precision int8 --model_path outputs/$(PROFILE)/best_model \
		--data_path data/$(PROFILE)/sequences.jsonl --output_file outputs/$(PROFILE)/page.html

site: $(SITE_STAMP) chinese ## build a website of the executed notebooks and all pages in build/site (PROFILE=…)
	$(BIN)/python docs/site/build.py --profile $(PROFILE)

clean: ## remove .venv and all that was built, trained models too; keep figures/ and your own data
	rm -rf $(VENV) outputs build notebooks/zh-CN seqlm.egg-info .pytest_cache .ruff_cache
	rm -rf $(addprefix data/,$(filter-out sample mnist,$(PROFILES)))
	find data -path 'data/mnist/*' ! -name '*ubyte*' -prune -exec rm -rf {} +
	find . -name .git -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) \
		-prune -exec rm -rf {} +

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@python="$(PYTHON)"; "$$python" -c '$(FITS)' >/dev/null 2>&1 || { \
		echo "seqlm needs Python 3.11 or newer with its venv module (on Debian:" \
			"apt install python3 python3-venv); install it, or name one with" \
			"make PYTHON=/path/to/python3." >&2; exit 1; }; \
	$(BIN)/python -c '' 2>/dev/null || "$$python" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c $(CONSTRAINTS) -e ".[test,serve,export,finetune,app]"
	@touch $(STAMP)

# What only `make site` needs, so that no other target waits for it.
$(SITE_STAMP): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -c $(CONSTRAINTS) -e ".[site]"
	@touch $(SITE_STAMP)
