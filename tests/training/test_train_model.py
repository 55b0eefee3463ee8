"""A step of training."""

import torch
from torch import nn

from training.train_model import update


def test_a_step_without_a_finite_gradient_is_left_out() -> None:
    weight, other = (nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = torch.optim.AdamW([weight, other], 0.1, fused=True)

    def step(gradient: float) -> None:
        weight.grad, other.grad = torch.full((3,), gradient), torch.ones(3)
        update(optimizer, [weight, other])

    step(1.0)
    before = weight.detach().clone(), other.detach().clone()
    assert (before[0] < 1).all()
    step(float("nan"))
    step(float("inf"))
    assert torch.equal(weight, before[0]) and torch.equal(other, before[1])
    step(1.0)
    assert (weight < before[0]).all() and (other < before[1]).all()
