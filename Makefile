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

# Where the system has no onnxruntime_c_api.h: that of Debian 13's libonnxruntime-dev. Any from 1.16 on will do.
HEADER := .onnxruntime
HEADER_PACKAGE := pool/main/o/onnxruntime/libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb
# The second keeps what the first replaces.
HEADER_PLACES := http://deb.debian.org/debian http://snapshot.debian.org/archive/debian/20251101T000000Z
HEADER_SHA256 := 14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08

.PHONY: demo test test-optimum test-cpp fuzz-cpp onnxruntime-header lint clean

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

# With the library of an unpacked release, too: make test-cpp ONNXRUNTIME_ROOT=./onnxruntime-linux-x64
test-cpp: $(READY)
	ONNXRUNTIME_ROOT=$(ONNXRUNTIME_ROOT) $(BIN)/pytest tests/hosts/test_cpp*.py

fuzz-cpp: $(READY)
	ONNXRUNTIME_ROOT=$(ONNXRUNTIME_ROOT) $(BIN)/python runtime/cpp/fuzz/run.py $(SAMPLE) $(FUZZ_SECONDS)

onnxruntime-header: $(HEADER)/.ready

$(HEADER)/.ready:
	@mkdir -p $(HEADER)
	for place in $(HEADER_PLACES); do \
		curl --fail --silent --show-error --location --retry 3 --output $(HEADER)/package.deb \
			"$$place/$(HEADER_PACKAGE)" && break; \
	done
	echo '$(HEADER_SHA256)  $(HEADER)/package.deb' | sha256sum --check --quiet
	dpkg-deb --extract $(HEADER)/package.deb $(HEADER)
	@touch $@

lint: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/mypy --platform win32

clean:
	rm -rf $(VENV) $(OPTIMUM) $(HEADER) $(DEMO)

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
