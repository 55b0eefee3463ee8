"""What text encoders have made of the last few prompts, for pipelines that nobody changes between two images."""

from collections.abc import Callable, Hashable
from typing import Any

from synccontrol.sampling.batching import Note


class Remembered:
    """Makes what is asked for once, and says each time what was noted when it was made.

    Args:
        most: how many are kept; the one that was not asked for longest goes first. 0: all are made anew.
    """

    def __init__(self, most: int = 0) -> None:
        self._most = most
        self._kept: dict[Hashable, tuple[Any, list[str]]] = {}

    def __call__(self, key: Hashable, make: Callable[[Note], Any], note: Note) -> Any:
        """Returns what `make` makes for a key. It is given what notes, and never returns None."""
        if not self._most:
            return make(note)
        made, noted = self._kept.pop(key, (None, []))
        if made is None:
            made = make(noted.append)
        self._kept[key] = made, noted
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
        for text in noted:
            note(text)
        return made
