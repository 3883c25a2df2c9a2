# Every target sets up .venv first; a machine with Python 3.11, git and make is enough.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
DOCS := .venv/.docs-installed

.PHONY: setup reproduce reproduce-all test test-hosts lint bench figures paper publish check-results fuzz docs

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

# The main job: rows to runs/, tables and figures beside them, compared with the published rows.
reproduce: setup
	$(BIN)/eplb-gap reproduce

# Everything: the main job and all benches (hours; stop and start it as you like), compared with the published rows.
reproduce-all: setup
	$(BIN)/eplb-gap reproduce --all

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The plug-ins inside released vLLM, SGLang and vLLM-Ascend, of which the Python parts are downloaded once; skipped, and it is said
# why, where they cannot be had.
test-hosts: setup
	$(BIN)/python -m pytest tests/hosts -s -rs

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Exact engines, heuristics and planning for serving against their levels and each other (45 minutes): rows to runs/, tables printed.
bench: setup
	$(BIN)/eplb-gap bench solvers
	$(BIN)/eplb-gap bench heuristics
	$(BIN)/eplb-gap bench serving

# Redraw the published figures, tables and the paper's numbers from results/; nothing is solved.
figures: setup
	$(BIN)/python -m eplb_gap.experiments.published.draw

# paper/paper.pdf from its text and what `figures` draws.
paper: figures
	$(BIN)/python -m eplb_gap.experiments.published.paper

# Copy finished rows from runs/ to results/ and rewrite the manifest.
publish: setup
	$(BIN)/python -m eplb_gap.experiments.published.publish

# Hashes, schema, figures, tables, proofs and certificates of results/ checked, and a random sample of its rows run again.
check-results: setup
	$(BIN)/python -m eplb_gap.experiments.published.check_results

# Damage valid files of every format 10,000 times per reader: nothing but data or one clear error may come of it.
# And replay controllers on 200 random small traces against the best sequences of maps.
fuzz: setup
	$(BIN)/python -m eplb_gap.experiments.fuzzing.fuzz
	$(BIN)/python -m eplb_gap.experiments.fuzzing.controller_sweep

$(DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $(DOCS)

# The site, docs/_build/index.html: pages of docs/, the interface from docstrings, the commands from their help texts.
docs: $(DOCS)
	$(BIN)/python -m sphinx -q -W --keep-going -d docs/_build/.doctrees docs docs/_build
