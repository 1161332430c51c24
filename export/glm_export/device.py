"""The PyTorch device that runs the calibration."""

import torch

from glm_export.errors import OptionsError


def check_device(name: str) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        OptionsError: PyTorch does not know the device, or this machine does not have it.
    """
    try:
        torch.empty(1, device=torch.device(name))
    except (RuntimeError, AssertionError) as error:  # a PyTorch without CUDA raises AssertionError
        reason = str(error).splitlines()[0]
        raise OptionsError(
            f"device {name!r} cannot be used ({reason}); choose cpu, or cuda on a machine with "
            "a CUDA device and a CUDA build of PyTorch."
        ) from error
