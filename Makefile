# One command each: `make demo` and `make test` install into .venv first, if that is needed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= demo
TEST_PROCESSES ?= 2

# PyPI's Linux build of torch brings several GB of CUDA. Where there is no NVIDIA GPU, the CPU build
# is asked for by its full version, which the CUDA build cannot satisfy.
TORCH_VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
TORCH_INDEX   ?= https://download.pytorch.org/whl/cpu
CPU_ONLY      := $(shell [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && echo yes)

.PHONY: install demo test check chaos lint clean
install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(CPU_ONLY),yes)
	$(BIN)/pip install -q "torch==$(TORCH_VERSION)+cpu" -c constraints.txt || \
	$(BIN)/pip install -q "torch==$(TORCH_VERSION)+cpu" -c constraints.txt --extra-index-url $(TORCH_INDEX)
endif
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	touch $@

demo: install  ## synthetic genome, scored and ranked; no download
	@echo "(to type raygenome in your own shell: source $(BIN)/activate)"
	$(BIN)/raygenome demo --out $(OUT) --overwrite

test: install  ## the whole suite but for the campaigns; a file's Ray tests share what they start
	$(BIN)/pytest -n $(TEST_PROCESSES) -m "not ray and not campaign"
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -m "ray and not campaign"

chaos: install  ## the campaigns: many kills, every failing file operation; `make test` runs samples
	$(BIN)/pytest -m campaign
	RAYGENOME_KILLS=300 RAYGENOME_IO_FAULTS=every RAYGENOME_CONFORMANCE=every \
		$(BIN)/pytest -s tests/chaos tests/vcf/test_conformance.py

check: install  ## what to run while working: about a minute
	$(BIN)/pytest -n $(TEST_PROCESSES) -m "not slow and not ray"

lint: install  ## format, lint and types, as CI runs them
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
