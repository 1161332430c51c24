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
