# Two commands do the main things: `make compare` and `make test`. `make help` lists the rest.
# Everything is set up in .venv and build/, which git ignores. The package is installed editable: it rebuilds itself when it
# is imported after a change to its sources.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
BUILD := build/venv
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq

PYTHON ?=# interpreter to build with, 3.11 or newer; looked for when empty
SETUP_ARGS ?=# options of meson.options, for example -Dcpu_targets=baseline
ARGS ?=# added to the command of compare, test, gallery-check, bench, bench-quick, bench-compare and gallery
BASE ?=# bench-compare: the commit to compare with
HEAD ?= HEAD

# The tools of the environment come first: meson, ninja and cython are run by name.
export PATH := $(CURDIR)/$(BIN):$(PATH)

help:
	@echo 'make compare               set up all that is needed, race the solvers on Old Faithful, draw out/race.png'
	@echo 'make test                  build, then run the whole test suite'
	@echo 'make lint                  ruff, cython-lint, clang-format'
	@echo 'make test-c                the micro-kernels alone, in C: every CPU target against plain loops, exp and log'
	@echo 'make deep                  what takes long: the five that follow'
	@echo 'make vmath                 exp and log: every float32, 1e8 float64'
	@echo 'make sanitize              kernels under the address, undefined-behaviour and thread sanitizers, indices checked'
	@echo 'make fuzz                  the property tests of passes on many more examples, never the same ones'
	@echo 'make cross                 the C tests of the aarch64 build, in an emulator'
	@echo 'make gallery-check         every experiment anew, into out/gallery; fails where a table in docs/experiments/ differs'
	@echo 'make bench                 run the benchmarks on the working tree and write benchmarks/results/'
	@echo 'make bench-quick           run every benchmark once, keep nothing; fails when none ran'
	@echo 'make bench-check           import and check the benchmarks, run none'
	@echo 'make bench-compare BASE=x  benchmark two commits, BASE and HEAD, and print a table'
	@echo 'make bench-pages           make pages of all benchmark runs so far'
	@echo 'make report                one page on EM against the gradient from the stored results: out/report.html'
	@echo 'make gallery               every experiment anew, into docs/experiments/; ARGS="overlap lange" does these alone'
	@echo 'make wheel                 build the sdist and the wheel into dist/'
	@echo 'make clean                 remove everything that these made'
	@echo
	@echo 'PYTHON=python3.12 chooses the interpreter, SETUP_ARGS=-Dopenmp=disabled gives options to the build,'
	@echo 'ARGS="..." is added to the command that is run.'

compare: $(VENV)/built $(VENV)/extra-cli $(VENV)/extra-sklearn
	@mkdir -p out
	$(BIN)/emcore compare --components 2 --start random-points --output out/race.png $(ARGS)

test: $(VENV)/built $(VENV)/extra-test $(VENV)/extra-cli $(VENV)/extra-sklearn
	$(BIN)/pytest -n auto $(ARGS)

lint: $(VENV)/extra-lint
	$(BIN)/ruff check .
	find emcore tests -name '*.py[xd]' -exec $(BIN)/cython-lint {} +
	find src_c tests/c -name '*.[ch]' -exec $(BIN)/clang-format --dry-run --Werror {} +

# The micro-kernels alone, in builds without Python: $(call only_c,NAME,OPTIONS) makes or updates one in build/NAME.

TOOLS := $(VENV)/built
only_c = meson setup $(if $(wildcard build/$(1)/build.ninja),--reconfigure) build/$(1) -Donly_c=true $(2) > /dev/null

test-c: $(TOOLS)
	@$(call only_c,c,)
	meson test -C build/c --print-errorlogs --verbose

vmath: $(TOOLS)
	@$(call only_c,c,)
	meson test -C build/c --benchmark --verbose

cross: $(TOOLS)
	@for tool in aarch64-linux-gnu-gcc qemu-aarch64; do command -v $$tool > /dev/null || { \
	    echo "$$tool is missing: install gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user." >&2; exit 2; }; done
	@$(call only_c,cross,--cross-file tests/c/aarch64.ini)
	meson test -C build/cross --print-errorlogs --verbose

fuzz: $(VENV)/built $(VENV)/extra-test
	EMCORE_FUZZ=1 $(BIN)/pytest tests/test_fuzz.py $(ARGS)

# The tables and pictures of docs/experiments/, as they are now. They are compared also where a run says itself that it failed.
gallery-check: $(VENV)/built $(VENV)/extra-cli
	@rm -rf out/gallery
	status=0; $(BIN)/emcore reproduce --output out/gallery $(ARGS) || status=$$?; \
	    $(BIN)/python tests/gallery.py out/gallery && exit $$status

gallery: $(VENV)/built $(VENV)/extra-cli
	@rm -rf out/gallery
	$(BIN)/emcore reproduce --output out/gallery $(ARGS)
	cp out/gallery/*.txt out/gallery/*.png docs/experiments/

deep: vmath sanitize fuzz cross gallery-check

# Sanitizers. A thread sanitizer knows nothing of OpenMP's own synchronisation: it sees the micro-kernels only, in C.

SLOW := --buildtype=debug -Doptimization=1 -Db_lundef=false
MEMORY := $(SLOW) -Db_sanitize=address,undefined
# What is loaded under the sanitizer: this build, everything else from $(VENV), but not the editable package.
CHECKED := $(CURDIR)/build/sanitize/site
KERNEL_TESTS := $(addprefix tests/test_,kernels.py sparse.py single.py arrays.py fuzz.py)
# The passes of all other models, and what is done with matrices beside them.
MODEL_TESTS := $(addprefix tests/test_,hessian.py::test_products_on_every_target \
    hessian.py::test_many_directions_by_the_missing_information objective.py::test_one_pass_gives_everything \
    missing_gaussian.py::test_pass_and_m_step_are_the_oracles discrete.py::test_symbols_that_are_tallied_are_rows \
    discrete.py::test_symbols_are_tallied_where_they_are poisson_inverse.py::test_rows_are_the_same_however_they_lie \
    discrete.py::test_kernels_touch_nothing_outside_whatever_rows_hold user.py::test_weights_of_0_and_pieces \
    uniform.py matrices.py)

sanitize: sanitize-c sanitize-threads sanitize-python

sanitize-c: $(TOOLS)
	@$(call only_c,sanitize-c,$(MEMORY))
	meson test -C build/sanitize-c --print-errorlogs

sanitize-threads: $(TOOLS)
	@$(call only_c,sanitize-threads,$(SLOW) -Db_sanitize=thread)
	meson test -C build/sanitize-threads --print-errorlogs

sanitize-python: $(VENV)/built $(VENV)/extra-test
	@meson setup $(if $(wildcard build/sanitize/build.ninja),--reconfigure) build/sanitize $(MEMORY) -Dboundscheck=true \
	    -Dpython.platlibdir=$(CHECKED) -Dpython.purelibdir=$(CHECKED) > /dev/null
	meson install -C build/sanitize --quiet
	@$(BIN)/python -m venv --without-pip build/sanitize/venv
	@$(BIN)/python -c 'import sysconfig; print("$(CHECKED)", sysconfig.get_path("purelib"), sep="\n")' > \
	    "$$(build/sanitize/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/checked.pth"
	LD_PRELOAD="$$($${CC:-cc} -print-file-name=libasan.so)" PYTHONSAFEPATH=1 PYTHONMALLOC=malloc \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	    build/sanitize/venv/bin/python -m pytest $(KERNEL_TESTS) $(MODEL_TESTS) $(ARGS)

# The benchmarks

ASV := $(BIN)/asv
CONF := --config benchmarks/asv.conf.json
HERE := -E existing:$(CURDIR)/$(BIN)/python
# A quick run is filed under a machine of its own, counted and forgotten.
QUICK := benchmarks/.asv/results/quick
READY := $(VENV)/built $(VENV)/extra-bench $(VENV)/asv-machine

bench: $(READY)
	$(ASV) run $(CONF) $(HERE) --set-commit-hash "$$(git rev-parse HEAD)" --show-stderr $(ARGS)
	$(BIN)/python benchmarks/export.py --build $(BUILD)

bench-quick: $(READY)
	@rm -rf $(QUICK)
	$(ASV) run $(CONF) $(HERE) --quick --machine quick --set-commit-hash "$$(git rev-parse HEAD)" --show-stderr $(ARGS)
	@$(BIN)/python benchmarks/export.py --count quick
	@rm -rf $(QUICK)

bench-check: $(READY)
	$(ASV) check $(CONF) $(HERE)

bench-compare: $(VENV)/extra-bench $(VENV)/asv-machine
	@test -n "$(BASE)" || { echo 'make bench-compare: say which commit to compare with, for example BASE=HEAD~1' >&2; exit 2; }
	@test -z "$$(git status --porcelain -uno)" || echo 'Note: commits are compared; changes not yet committed are not in.'
	@mkdir -p benchmarks/.asv
	git rev-parse "$(BASE)^{commit}" "$(HEAD)^{commit}" > benchmarks/.asv/commits
	$(ASV) run $(CONF) --interleave-rounds --show-stderr $(ARGS) HASHFILE:.asv/commits
	$(ASV) compare $(CONF) $$(cat benchmarks/.asv/commits)

bench-pages: $(VENV)/extra-bench
	$(ASV) publish $(CONF)
	@echo 'Look at them with: $(ASV) preview $(CONF)'

# asv's pages are made anew only where there are runs of it beside the tracked results.
report: $(VENV)/built $(VENV)/extra-bench $(VENV)/extra-cli
	@if ls benchmarks/.asv/results/*/????????-*.json > /dev/null 2>&1; then $(ASV) publish $(CONF); fi
	$(BIN)/python benchmarks/report.py $(ARGS)

wheel: $(VENV)/tool-build
	@rm -rf dist
	$(BIN)/python -m build $(addprefix -Csetup-args=,$(SETUP_ARGS)) --outdir dist .

clean:
	rm -rf $(VENV) build dist out benchmarks/.asv .pytest_cache .ruff_cache .hypothesis

# The environment: one stamp for each thing that is in it. What is needed is read from pyproject.toml.

$(VENV)/created:
	@python=''; \
	for try in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
	    if "$$try" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$try"; break; fi; \
	done; \
	test -n "$$python" || { \
	    echo 'emcore needs Python 3.11 or newer; $(or $(PYTHON),python3) is $(shell $(or $(PYTHON),python3) --version 2>&1 || true).' >&2; \
	    echo 'Say where one is: make PYTHON=/path/to/python3.12 ...' >&2; exit 1; }; \
	"$$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || { \
	    echo "The headers of $$python are missing (Python.h): install python3-dev or python3-devel." >&2; exit 1; }; \
	rm -rf $(VENV) $(BUILD); \
	"$$python" -m venv $(VENV) || { \
	    echo "$$python cannot make virtual environments: install python3-venv." >&2; rm -rf $(VENV); exit 1; }
	@touch $@

# $(call needs,EXPRESSION) writes one requirement a line; p is pyproject.toml, extras its optional dependencies.
needs = $(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb")); \
	extras = p["project"]["optional-dependencies"]; print(*($(1)), sep="\n")'

$(VENV)/extra-%: $(VENV)/created pyproject.toml
	@echo 'Installing the extra: $*'
	@$(call needs,extras["$*"]) > $(VENV)/$*.txt
	@$(PIP) install -r $(VENV)/$*.txt
	@touch $@

$(VENV)/tool-build: $(VENV)/created
	@$(PIP) install build
	@touch $@

# No build isolation: the editable install goes on using these tools.
$(VENV)/built: $(VENV)/created pyproject.toml meson.build meson.options
	@command -v $${CC:-cc} >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || { \
	    echo 'A C compiler is needed: install gcc or clang, or set CC.' >&2; exit 1; }
	@echo 'Building emcore in $(BUILD)'
	@$(call needs,p["build-system"]["requires"]) > $(VENV)/build.txt
	@$(PIP) install -r $(VENV)/build.txt meson ninja
	@$(PIP) install --no-build-isolation --config-settings=build-dir=$(BUILD) $(addprefix --config-settings=setup-args=,$(SETUP_ARGS)) --editable .
	@touch $@

$(VENV)/asv-machine: $(VENV)/extra-bench
	@$(ASV) machine $(CONF) --yes > /dev/null
	@$(ASV) machine $(CONF) --yes --machine quick > /dev/null
	@touch $@

.PHONY: help compare test lint test-c deep vmath sanitize sanitize-c sanitize-threads sanitize-python fuzz cross gallery gallery-check bench bench-quick bench-check bench-compare bench-pages report wheel clean
