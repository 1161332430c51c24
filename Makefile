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

.PHONY: demo test lint clean

demo: $(READY)
	$(BIN)/glm-export $(SAMPLE) --quant int4 -o $(DEMO) --force
	@printf '\nWhat quantizing cost:\n'
	@$(BIN)/glm-eval $(SAMPLE) $(DEMO)
	@printf '\nAn answer:\n'
	$(BIN)/glm-run generate $(DEMO) --prompt '背诵李白的《静夜思》。' --greedy --max-new-tokens 128

test: $(READY)
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(DEMO)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(ORT),export,dev$(PEERS)]'
	@touch $@
