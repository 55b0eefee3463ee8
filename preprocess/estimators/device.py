"""Where networks run."""

from __future__ import annotations

import torch

from preprocess.errors import DetectorError, reason


def torch_device(name: str) -> torch.device:
    """Returns the torch device `name`.

    Raises:
        DetectorError: There is no such device here.
        RuntimeError: It is out of memory.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        if "out of memory" in str(error):  # it is there, and may have room later
            raise
        raise DetectorError(f"device '{name}' cannot be used: {reason(error)}; use cpu") from error
