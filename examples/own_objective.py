"""Keeps windows together by colour alone, with an objective of one's own: python examples/own_objective.py"""

from dataclasses import replace

from torch import Tensor

from synccontrol import Montage


def colour_distance(images: Tensor, anchor: Tensor) -> Tensor:
    """Returns the squared distance of mean colours (n,), whatever is where."""
    return ((images.mean(dim=(2, 3)) - anchor.mean(dim=(2, 3))) ** 2).sum(dim=1)


montage = Montage.from_pretrained("tiny")
sync = replace(montage.defaults.sync, objective=colour_distance, weight=10.0, steps=6, adain=0.0, scaffold=0.0)
montage("a landscape", height=256, width=1024, seed=2, sync=sync).image.save("one-mood.png")
print("one-mood.png")
