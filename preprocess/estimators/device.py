"""Where networks run."""

from __future__ import annotations

import torch

from preprocess.errors import DetectorError, reason


def torch_device(name: str) -> torch.device:
    """Returns the torch device `name`.

    Raises:
        DetectorError: There is no such device here.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise DetectorError(f"device '{name}' cannot be used: {reason(error)}; use cpu") from error
