"""Predict windows in batches, and shrink the batch when the device runs out of memory."""

import gc
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from synccontrol.errors import MemoryLimitError

Note = Callable[[str], object]
WindowPredict = Callable[[Tensor, Sequence[int]], Tensor]  # windows (k, c, h, w), their indices -> predictions


class BatchedPredictor:
    """Calls a prediction function for batches of windows.

    The batch size halves whenever memory runs out, and stays halved.

    Args:
        size: windows in one call.
        note: called with a line when the size shrinks.
    """

    def __init__(self, size: int, note: Note) -> None:
        self.size = size
        self._note = note

    def predict(
        self, predict: WindowPredict, z: Float[Tensor, "n c h w"], windows: Sequence[int]
    ) -> dict[int, Float[Tensor, "c h w"]]:
        """Return the predictions (c, h, w) of some of the windows z (n, c, h, w), by index.

        Raises:
            MemoryLimitError: not even one window fits.
        """
        predictions: dict[int, Tensor] = {}
        while remaining := [window for window in windows if window not in predictions]:
            for batch in self._groups(remaining):
                batch_predictions = self._attempt(predict, z, batch)
                if batch_predictions is None:
                    break
                predictions.update(zip(batch, batch_predictions, strict=True))
        return predictions

    def _groups(self, windows: Sequence[int]) -> Iterator[Sequence[int]]:
        for start in range(0, len(windows), self.size):
            yield windows[start : start + self.size]

    def _attempt(self, predict: WindowPredict, z: Tensor, windows: Sequence[int]) -> Tensor | None:
        """Return the predictions of windows, or None if memory ran out and the batch size was halved."""
        try:
            return predict(z[list(windows)], windows)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self.size == 1:
                raise MemoryLimitError(
                    "the device is out of memory with one window at a time; "
                    "try dtype float16 or bfloat16, offloading, or a smaller model"
                ) from error
        self.size = -(-self.size // 2)
        self._note(f"the device was out of memory: windows go {self.size} at a time from here on")
        free_memory()
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports that a device or the CPU is out of memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in str(error) or "allocate memory" in str(error))
    )


def free_memory() -> None:
    """Return unused cached memory to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
