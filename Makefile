# Everything happens in .venv: nothing is installed elsewhere.

PYTHON ?= python3
# What to install where torch is missing; https://pytorch.org/get-started/locally lists the choices,
# for instance: make setup TORCH="torch --index-url https://download.pytorch.org/whl/cu130"
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
TOOLS := $(VENV)/.tools
STAMP := $(VENV)/.installed
# One of the programs that gsd writes for wants an older pydantic than .venv has.
BIOIMAGEIO := $(VENV)/bioimageio
PRINT_PACKAGES := -c 'import site; print(site.getsitepackages()[0])'
# torch and the Triton that came with it stay as they are, whatever else is installed.
KEPT := $(VENV)/.kept
KEEP := $(BIN)/python -m pip list --format=freeze | grep -E '^(torch|.*triton.*)==' > $(KEPT)
INSTALL := $(BIN)/python -m pip install --constraint $(KEPT)
SOURCES := $(shell find csrc genselfdiff cli -type f -not -name '*.py[co]') \
	$(wildcard README.md LICENSE) pyproject.toml CMakeLists.txt
CXX_SOURCES := $(shell find csrc tests/native -name '*.cpp' -o -name '*.[ch]')

.DEFAULT_GOAL := help
.PHONY: help setup demo test browser soak bench gpu lint docs clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv, install torch (TORCH="torch --index-url ...") where missing, and the package

demo: setup  ## the whole journey on the sample slide, in a few minutes; results in demo/
	PATH="$(abspath $(BIN)):$$PATH" examples/demo.sh

# Not `python -m pytest`, which would put the source tree before the installed package.
test: setup $(BIOIMAGEIO)/.installed  ## run the tests on the installed package, one process a core
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --dist worksteal

browser: setup  ## install Chromium (apt, as root) where there is none, and Playwright, for the tests of the page
	command -v chromium || command -v google-chrome || \
		{ apt-get update -qq && apt-get install -qq --no-install-recommends chromium fonts-dejavu-core; }
	$(KEEP)
	$(INSTALL) --quiet playwright

soak: setup  ## run the tests that take many minutes: slides and models damaged by the thousand, runs killed
	$(BIN)/pytest -q -m soak

bench: setup  ## time operations and network against plain torch; benchmarks/tables
	mkdir -p .benchmarks
	$(BIN)/pytest -q -s benchmarks/test_operations.py --benchmark-quiet > .benchmarks/operations.jsonl
	PYTHONPATH=tests/kernels $(BIN)/python benchmarks/network.py > .benchmarks/network.jsonl
	$(BIN)/python benchmarks/table.py .benchmarks/operations.jsonl .benchmarks/network.jsonl

# No setup: it makes an environment of its own for the torch that PYTHON has. docs/gpu.md
gpu: OUT ?= gpu-day
gpu:  ## build, prove and measure everything on a GPU in nine minutes; OUT=gpu-day, OPTIONS="--wheels FOLDER"
	$(PYTHON) benchmarks/gpu_day.py --out $(OUT) $(OPTIONS)

lint: setup  ## ruff, mypy and clang-format, all without changing a file
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)

docs: setup  ## the documentation as a site, in site/; every warning is an error
	$(BIN)/mkdocs build --strict --quiet

clean:  ## remove .venv, caches and the demo's results
	rm -rf $(VENV) build demo gpu-day site .benchmarks .mypy_cache .pytest_cache .ruff_cache
	find csrc genselfdiff cli tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(TOOLS): Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip show --quiet torch 2>/dev/null || $(BIN)/python -m pip install $(TORCH)
	$(KEEP)
	$(INSTALL) 'scikit-build-core>=0.11' 'pybind11>=2.13' cmake ninja
	$(BIN)/python -c 'import triton' 2>/dev/null || $(INSTALL) torch \
		"triton>=3.6; platform_system == 'Linux' and platform_machine == 'x86_64'"
	touch $@

# Not editable: the tests shall see what a user gets.
$(STAMP): $(TOOLS) $(SOURCES)
	$(KEEP)
	$(INSTALL) --no-build-isolation '.[test,lint,docs]'
	$(BIN)/gsd info
	touch $@

# What .venv has is seen here too, and pip installs only the rest. Where it cannot, a test is
# skipped and says so. bioimageio.core 0.11.0 takes bioimageio.spec 0.5.12.0 and no other, which
# fails with pydantic 2.14.
$(BIOIMAGEIO)/.installed: Makefile | $(STAMP)
	$(BIN)/python -m venv --clear --without-pip $(BIOIMAGEIO)
	$(BIN)/python $(PRINT_PACKAGES) > "$$($(BIOIMAGEIO)/bin/python $(PRINT_PACKAGES))/venv.pth"
	if $(BIOIMAGEIO)/bin/python -m pip install --quiet --no-compile --constraint $(KEPT) \
		'bioimageio.core==0.11.0' 'pydantic<2.14'; \
		then touch $@; else echo "bioimageio.core could not be installed: its test is skipped"; fi
