"""How `glm-export` and `glm-eval` fail; the runtime's command line holds the rest they share."""

from typing import ClassVar

from glm_export.errors import ExportError, OptionsError
from glm_runtime import GlmRuntimeError
from glm_runtime.cli.failure import PlainErrorCommand


class ExportCommand(PlainErrorCommand):
    """A command whose errors are those of the exporter and the runtime."""

    expected_errors: ClassVar = (ExportError, GlmRuntimeError)
    usage_errors: ClassVar = (OptionsError,)
    memory_advice: ClassVar = "close other programs, or see what `glm-export --plan` says is needed"
