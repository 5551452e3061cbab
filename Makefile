# Two commands for a fresh machine: `make demo` and `make test`. Each builds what it needs first.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
# The group in pyproject.toml whose packages the tests need
TEST_GROUP ?= test

SOURCES := $(shell find native -name "*.[chS]") native/build.py setup.py pyproject.toml
READY := $(VENV)/ready
DEMO := $(VENV)/demo

CFLAGS_STRICT := -std=c11 -O2 -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes \
	-Wno-missing-field-initializers -Werror=implicit-function-declaration -Werror=incompatible-pointer-types \
	-DPy_LIMITED_API=0x030b0000 -fPIC -fsyntax-only

.PHONY: demo test test-native test-rungs test-faults sanitize lint coverage docs bench clean

demo: $(DEMO)
	$(BIN)/vrange demo

test: $(READY) test-native
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# The whole suite on the lower rungs of the ladder.
test-rungs: $(READY)
	VRANGE_RUNG=sentinel $(BIN)/python -m pytest $(PYTEST_ARGS)
	VRANGE_RUNG=eager $(BIN)/python -m pytest $(PYTEST_ARGS)

test-native: $(READY)
	$(MAKE) -C tests/native -j "$$(nproc)"

lint: $(READY)
	$(BIN)/python -m pip install --quiet --group lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m dashboards --check
	$(BIN)/clang-format --dry-run --Werror $$(find native tests benchmarks -name "*.[ch]")
	@awk 'length > 112 { print FILENAME ":" FNR ": longer than 112 columns"; long = 1 } END { exit long }' $$(find native -name "*.[ch]")
	$(CC) $(CFLAGS_STRICT) -I$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))') -Inative -Inative/core $$(find native -name "*.c")

# Measures how much of the Python and the C code the tests run; PYTEST_ARGS chooses tests.
coverage:
	scripts/coverage $(PYTEST_ARGS)

# The documentation as a site, in build/site.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "build/site/index.html (its search needs a server: $(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site)"

# The Python tests with the address and undefined-behaviour sanitizers.
sanitize:
	scripts/test-under-sanitizers $(PYTEST_ARGS)

# Every system call and every allocation of the main operations fails once.
test-faults:
	scripts/test-faults

bench: $(READY)
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m benchmarks

# Builds vrange, and installs it with the packages of a group in pyproject.toml.
define install
	@command -v $(PYTHON) >/dev/null || { echo "vrange needs CPython 3.11 or later: $(PYTHON) was not found (set PYTHON=...)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vrange needs CPython 3.11 or later; $(PYTHON) is $$($(PYTHON) --version)"; exit 1; }
	@[ "$$(uname -s)" = Linux ] || { echo "vrange needs Linux: it is built on MADV_FREE and userfaultfd"; exit 1; }
	@command -v $(CC) >/dev/null || { echo "vrange needs a C compiler: $(CC) was not found (Debian: apt-get install gcc)"; exit 1; }
	@printf '#include <zlib.h>\nint main(void) { return !zlibVersion(); }\n' | $(CC) -x c - -lz -o /dev/null 2>/dev/null || { echo "vrange needs zlib and its header (Debian: apt-get install zlib1g-dev)"; exit 1; }
	@$(PYTHON) -c 'import sysconfig, pathlib, sys; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' || { echo "vrange needs Python's headers (Debian: apt-get install python3-dev)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "vrange needs Python's venv module (Debian: apt-get install python3-venv)"; exit 1; }
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@echo "building vrange and installing what it needs in $(VENV) (pip downloads what it does not have)"
	$(BIN)/python -m pip install --quiet --editable . --group $(1)
	@touch $@
endef

$(DEMO): $(SOURCES)
	$(call install,demo)

# All that the demo needs is among what the tests need.
$(READY): $(SOURCES)
	$(call install,$(TEST_GROUP))
	@touch $(DEMO)

clean:
	rm -rf $(VENV) build runtime/vrange/_native.c runtime/vrange/*.so runtime/vrange/*.so.0 runtime/*.egg-info
