"""Keeps windows together by colour alone, with an objective of one's own: python examples/own_objective.py"""

from torch import Tensor

from synccontrol import Montage, SyncConfig


def colour_distance(images: Tensor, anchor: Tensor) -> Tensor:
    """Returns the squared distance of mean colours (n,), whatever is where."""
    return ((images.mean(dim=(2, 3)) - anchor.mean(dim=(2, 3))) ** 2).sum(dim=1)


montage = Montage.from_pretrained("tiny")
sync = SyncConfig(objective=colour_distance, weight=10.0, steps=6, adain=0.0, draft_strength=0.0)
montage("a landscape", height=256, width=1024, seed=2, sync=sync).image.save("one-mood.png")
print("one-mood.png")
