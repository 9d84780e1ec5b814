# Two commands for a fresh machine with Python 3.11, pip and make:
#   make demo    installs, compares cache methods on the built-in model and says where the results are
#   make test    installs with the development tools, gets a small pretrained model and runs the whole suite
# and for the documentation, with the same tools:
#   make docs    builds the site into site/; make docs-serve shows it, and follows what you write

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
export HF_HUB_OFFLINE ?= 1
export NO_MKDOCS_2_WARNING ?= 1

.PHONY: demo test lint format docs docs-serve clean

# torch first and by the constraints: whatever comes later is content with the tested version
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch -c constraints.txt
	$(BIN)/pip install --quiet -e . -c constraints.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet -e '.[compressed-tensors,dev,docs,lm-eval,postgres,ray]' -c constraints.txt
	touch $@

demo: $(VENV)/installed
	$(BIN)/pith compare --recipe snapkv --recipe streaming_llm --recipe random_eviction \
		--budgets 0.5,0.25,0.1 --tasks needle,perplexity --length 1024 --out demo
	@echo "The results: demo/report.html (open it in a browser) and demo/study.sqlite"

# tests that need the model skip with this command where it cannot be had
test: $(VENV)/installed-dev
	-$(BIN)/pith models get smollm2
	$(BIN)/python -m pytest -n $(WORKERS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/installed-dev
	$(BIN)/mkdocs build --strict --quiet
	@echo "The documentation: site/index.html (searching it needs make docs-serve)"

docs-serve: $(VENV)/installed-dev
	$(BIN)/mkdocs serve --watch src --watch benchmarks/results

clean:
	rm -rf $(VENV) demo build dist site
