"""What can go wrong in an export. Each message says what was found, expected, and what to do."""


class ExportError(Exception):
    """Root of this package's errors."""


class CheckpointError(ExportError):
    """The checkpoint's files are missing, broken, or contradict its config.json."""


class UnsupportedModelError(ExportError):
    """A model type, or a config value, that this exporter does not support."""


class OptionsError(ExportError):
    """Options that contradict each other or the model."""


class OutputError(ExportError):
    """The output folder exists, cannot be written, or the disk is too small."""


class VerificationError(ExportError):
    """What was written is not what the checkpoint says."""


class MissingPackageError(ExportError):
    """A Python package that this command needs is not installed."""
