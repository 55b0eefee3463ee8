"""Objectives agree with the packages they wrap, and their gradients are finite everywhere."""

import warnings

import lpips
import pytest
import torch
from torch import Tensor

from synccontrol.sampling import objectives


@pytest.fixture(scope="module")
def stlpips() -> objectives.FeatureDistance:
    objective = objectives.load("stlpips")
    assert isinstance(objective, objectives.FeatureDistance)
    return objective


def pictures(n: int, seed: int) -> Tensor:
    return torch.rand(n, 3, 48, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_stlpips_agrees_with_its_package(stlpips: objectives.FeatureDistance) -> None:
    images, anchor = pictures(3, 1), pictures(1, 2)
    ours = stlpips.for_anchor(anchor)(images)
    theirs = stlpips.network(images, anchor.expand_as(images)).flatten()
    assert torch.allclose(ours, theirs.detach(), rtol=1e-5)
    assert ours.min() > 0.01


def untrained_lpips() -> lpips.LPIPS:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's deprecated arguments, inside lpips
        return lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)


def test_lpips_agrees_with_its_package() -> None:
    # The trunk's trained weights are a download; the arithmetic around it is the same with random ones.
    network = untrained_lpips()
    images, anchor = pictures(2, 1), pictures(1, 2)
    ours = objectives.FeatureDistance(network).for_anchor(anchor)(images)
    theirs = network(images, anchor.expand_as(images)).flatten()
    assert torch.allclose(ours, theirs.detach(), rtol=1e-4)


def test_identical_images_have_distance_zero(stlpips: objectives.FeatureDistance) -> None:
    anchor = pictures(1, 3)
    assert stlpips.for_anchor(anchor)(anchor).item() == 0


class _Identity(torch.nn.Module):
    """A network whose features are the image itself, so that a black pixel is a column of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.lins, self.scaling_layer = (lambda x: [x]), [torch.nn.Conv2d(3, 1, 1)], torch.nn.Identity()


def test_zero_columns_have_finite_gradients() -> None:
    picture = torch.zeros(1, 3, 4, 4, requires_grad=True)
    theirs = ((lpips.normalize_tensor(picture) - lpips.normalize_tensor(pictures(1, 1)[..., :4, :4])) ** 2).sum()
    assert torch.autograd.grad(theirs, picture)[0].isnan().any()
    ours = objectives.FeatureDistance(_Identity()).for_anchor(pictures(1, 1)[..., :4, :4])(picture).sum()
    assert torch.autograd.grad(ours, picture)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_give_the_same_loss(stlpips: objectives.FeatureDistance, dtype: torch.dtype) -> None:
    images, anchor = pictures(1, 4), pictures(1, 5)
    expected = stlpips.for_anchor(anchor)(images).item()
    loss = stlpips.for_anchor(anchor.to(dtype))(images.to(dtype))
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert loss.item() == pytest.approx(expected, rel=0.02)


def test_a_function_is_an_objective() -> None:
    objective = objectives.load(lambda images, anchor: (images - anchor).abs().mean(dim=(1, 2, 3)))
    images, anchor = pictures(2, 1), pictures(1, 2)
    assert torch.equal(objective.for_anchor(anchor)(images), (images - anchor).abs().mean(dim=(1, 2, 3)))
