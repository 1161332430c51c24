"""Errors of an export. A message says what was found, what was expected, and what to do."""


class ExportError(Exception):
    """Base class of this package's errors."""


class CheckpointError(ExportError):
    """The checkpoint's files are missing, broken, or contradict its config.json."""


class UnsupportedModelError(ExportError):
    """The exporter does not support the model type or a value of config.json."""


class OptionsError(ExportError):
    """Options contradict each other or the model."""


class OutputError(ExportError):
    """The output folder exists, cannot be written or run, or the disk is too small."""


class VerificationError(ExportError):
    """The written folder does not match the checkpoint."""


class MissingPackageError(ExportError):
    """A Python package that this command needs is not installed."""


def describe_overflow(place: str, dtype: str) -> CheckpointError:
    """Describe numbers that a type cannot hold.

    Args:
        place: where they are, with a verb.
        dtype: "fp32" or "fp16"; the larger one is recommended for the smaller one only.
    """
    advice = "" if dtype == "fp32" else ", or export with --dtype fp32"
    return CheckpointError(
        f"{place} NaN, Inf or a number too large for {dtype}; check the checkpoint's file{advice}."
    )
