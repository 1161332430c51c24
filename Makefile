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

.PHONY: demo test test-optimum test-cpp fuzz-cpp lint clean

demo: $(READY)
	$(BIN)/glm-export $(SAMPLE) --quant int4 -o $(DEMO) --force
	@printf '\nWhat quantizing cost:\n'
	@$(BIN)/glm-eval $(SAMPLE) $(DEMO)
	@printf '\nAn answer:\n'
	$(BIN)/glm-run generate $(DEMO) --prompt '背诵李白的《静夜思》。' --greedy --max-new-tokens 128

test: $(READY)
	$(BIN)/pytest

test-optimum: $(OPTIMUM)/.ready
	$(OPTIMUM)/bin/pytest $(OPTIMUM_TESTS)

# Where onnxruntime_c_api.h is not the system's: make test-cpp ONNXRUNTIME_ROOT=./onnxruntime-linux-x64
test-cpp: $(READY)
	ONNXRUNTIME_ROOT=$(ONNXRUNTIME_ROOT) $(BIN)/pytest tests/hosts/test_cpp.py tests/hosts/test_cpp_bad_input.py

fuzz-cpp: $(READY)
	ONNXRUNTIME_ROOT=$(ONNXRUNTIME_ROOT) $(BIN)/python runtime/cpp/fuzz/run.py $(SAMPLE) $(FUZZ_SECONDS)

lint: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(OPTIMUM) $(DEMO)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(ORT),export,dev$(PEERS)]'
	@touch $@

# A wheel, not the sources: optimum-cli finds GLM-4 by a file that the wheel installs.
$(OPTIMUM)/.ready: pyproject.toml $(OPTIMUM_TESTS)/constraints.txt $(wildcard export/glm_export/optimum_*.py)
	$(PYTHON) -m venv $(OPTIMUM)
	$(OPTIMUM)/bin/pip install --quiet --disable-pip-version-check -c $(OPTIMUM_TESTS)/constraints.txt \
		'.[onnxruntime,export]' 'optimum-onnx[onnxruntime]' pytest
	@touch $@
