"""Checks that optional packages are installed, without importing them."""

import importlib.util

from glm_export.errors import MissingPackageError

# What to import, and how `pip install` names it.
_EXPORT_PACKAGES = {
    "torch": "torch",
    "onnx": "onnx",
    "onnx_ir": "onnx-ir",
    "onnxscript": "onnxscript",
}


def require_export_packages() -> None:
    """Check that the packages of an export are installed.

    Raises:
        MissingPackageError: names the missing packages.
    """
    missing = [
        package
        for name, package in _EXPORT_PACKAGES.items()
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingPackageError(
            f"{', '.join(missing)} {verb} not installed; `pip install {' '.join(missing)}`."
        )


def require_onnxruntime() -> None:
    """Check early that ONNX Runtime is installed.

    Raises:
        MissingPackageError: onnxruntime is not installed.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingPackageError(
            "onnxruntime is not installed; `pip install onnxruntime` (for an NVIDIA GPU "
            "onnxruntime-gpu); only an export with --verify tensors or none, and without "
            "--conformance, works without it."
        )


def require_plot_packages() -> None:
    """Check early that matplotlib is installed.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError(
            "matplotlib is not installed; `pip install matplotlib`, or leave the pictures out."
        )


def require_lm_eval() -> None:
    """Check early that lm-evaluation-harness is installed.

    Raises:
        MissingPackageError: lm-eval is not installed.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingPackageError(
            "lm-eval is not installed; `pip install 'lm-eval[api]'`, or leave --tasks out."
        )
