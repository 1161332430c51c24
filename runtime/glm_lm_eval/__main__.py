"""`python -m glm_lm_eval`: lm-eval's own command, with the model `glm-onnx`.

lm-eval 0.4.13 does not look for models of other packages; later versions find them by the entry
point `lm_eval.models`, and do not need this module.
"""

import sys

from lm_eval.__main__ import cli_evaluate

import glm_lm_eval.model  # noqa: F401  # registers the model
from glm_runtime.errors import GlmRuntimeError


def main() -> None:
    """Run lm-eval; an error of the runtime is one sentence."""
    try:
        cli_evaluate()
    except GlmRuntimeError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
