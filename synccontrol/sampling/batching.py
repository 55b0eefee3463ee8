"""How many windows go into one call of the networks: as many as wished, fewer when the device is out of memory."""

import gc
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from synccontrol.errors import MemoryLimitError

Note = Callable[[str], object]
WindowPredict = Callable[[Tensor, Sequence[int]], Tensor]  # windows (k, c, h, w), their indices -> predictions


class Batches:
    """Calls a function for windows, some at a time. Half as many, from then on, whenever the memory does not suffice.

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
        """Returns the predictions (c, h, w) of some of the windows z (n, c, h, w), by their index.

        Raises:
            MemoryLimitError: not even one window fits.
        """
        found: dict[int, Tensor] = {}
        while rest := [window for window in windows if window not in found]:
            for some in self._groups(rest):
                predictions = self._attempt(predict, z, some)
                if predictions is None:
                    break
                found.update(zip(some, predictions, strict=True))
        return found

    def _groups(self, windows: Sequence[int]) -> Iterator[Sequence[int]]:
        for start in range(0, len(windows), self.size):
            yield windows[start : start + self.size]

    def _attempt(self, predict: WindowPredict, z: Tensor, windows: Sequence[int]) -> Tensor | None:
        """Returns the predictions of windows; None when that was too many at once, and fewer are to be tried."""
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
        free()
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that a device, or the CPU, has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in str(error) or "allocate memory" in str(error))
    )


def free() -> None:
    """Gives memory that nothing holds any longer back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
