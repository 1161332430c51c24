"""Errors of quantization."""


class QuantizationError(Exception):
    """Base class of this package's errors."""


class SchemeError(QuantizationError):
    """No kernel supports the scheme, or the scheme does not fit the weight."""


class SingularStatisticsError(QuantizationError):
    """A method cannot use the statistics of a weight's inputs, so another method is needed."""
