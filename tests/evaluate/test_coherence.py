"""Coherence figures against literal loops, closed forms and the packages they come from."""

import itertools
from collections.abc import Callable
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from synccontrol.evaluate import coherence, networks
from synccontrol.evaluate.dataset import open_gallery
from synccontrol.evaluate.measurement import Settings
from synccontrol.evaluate.networks import (
    CropFeatures,
    FeatureBlocks,
    FeatureNetworks,
    PerceptualNetwork,
    StyleNetwork,
    gram_matrix,
)
from synccontrol.sampling import objectives
from tests.sampling.test_objectives import untrained_lpips

SIDE = 32
OFFLINE = Settings(window=SIDE, offline=True, groups=("coherence",))


def pictures(n: int, seed: int, side: int = SIDE) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def by_name(name: str) -> coherence.CoherenceMetric:
    return next(kind for kind in coherence.coherence_metrics(Settings()) if kind.metric == name)


def mean_of(kind: coherence.CoherenceMetric, look: CropFeatures) -> float:
    """Return a figure over the pairs of one look."""
    seen = FeatureBlocks(lambda start, stop: look, len(look), len(look))
    return coherence.over_pairs([kind], seen, seen)[kind.metric]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("block", [1, 2, 3, 7])
def test_blocks_give_the_same_pairs_and_few_stay_in_memory(block: int, alone: bool) -> None:
    points = torch.arange(5)[:, None].float()
    alive: list[int] = []

    class Counted(CropFeatures):
        def __del__(self) -> None:
            alive.pop()

    def look(start: int, stop: int) -> CropFeatures:
        alive.append(start)
        assert len(alive) <= 5  # two that are compared, two that were, and the next
        return Counted(points=tuple(points[start:stop]))

    one = FeatureBlocks(look, 5, block)
    other = one if alone else FeatureBlocks(look, 5, block)
    found = [(a.points[i].item(), b.points[j].item()) for a, i, b, j in one.pairs(other)]
    assert sorted(found) == list(itertools.combinations(range(5), 2))


@pytest.fixture
def montages(tmp_path: Path) -> Path:
    """Return a folder: two montages of noise, and one that repeats a crop four times."""
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (SIDE, 3 * SIDE + 5, 3), np.uint8)).save(tmp_path / f"{name}.png")
    crop = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(np.pad(np.tile(crop, (1, 3, 1)), ((0, 0), (0, 5), (0, 0)))).save(tmp_path / "repeated.png")
    return tmp_path


@pytest.mark.parametrize("make", [lambda: untrained_lpips(), lambda: objectives._stlpips("alex")])
def test_pairs_agree_with_a_literal_double_loop(make: Callable[[], nn.Module]) -> None:
    network = make()
    crops = pictures(4, 0)
    with torch.no_grad():
        pairs = [network(crops[i : i + 1] * 2 - 1, crops[j : j + 1] * 2 - 1).item() for i in range(4) for j in range(i)]
        look = PerceptualNetwork(objectives.FeatureDistance(network), "cpu").extract(crops)
    ours = mean_of(by_name("Intra-LPIPS"), look)
    assert ours == pytest.approx(np.mean(pairs), rel=1e-4)
    assert ours > 0.01


def test_lpips_weights_are_never_negative() -> None:
    for name in ("stlpips", "stlpips-vgg"):
        distance = objectives.load(name)
        assert isinstance(distance, objectives.FeatureDistance)
        assert all(layer.model[-1].weight.min() >= 0 for layer in distance.network.lins)
    assert isinstance(lpips.LPIPS, type)


def test_a_known_gram_matrix() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # two channels of 1 x 2
    assert torch.equal(gram_matrix(features), torch.tensor([[[5.0, 11.0], [11.0, 25.0]]]) / 4)


def test_style_loss_agrees_with_the_published_formula() -> None:
    # The layers of VGG-19 up to its fifth convolution, fewer channels; ReLUs work in place, as torchvision's do.
    torch.manual_seed(0)
    widths = [(3, 4), (4, 4), "pool", (4, 6), (6, 6), "pool", (6, 8), (8, 8)]
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.MaxPool2d(2)] if width == "pool" else [nn.Conv2d(*width, 3, padding=1), nn.ReLU(inplace=True)]
    network = nn.Sequential(*layers)
    crops = pictures(3, 1)

    def grams(crop: Tensor) -> list[Tensor]:
        mean, deviation = (torch.tensor(side).view(-1, 1, 1) for side in networks.IMAGENET)
        x, found = (crop - mean) / deviation, []
        for layer in network:
            x = torch.relu(x) if isinstance(layer, nn.ReLU) else layer(x)
            if isinstance(layer, nn.Conv2d):
                _, c, h, w = x.shape
                flat = x.reshape(c, h * w)
                found.append(flat @ flat.T / (c * h * w))
        return found[:5]

    with torch.no_grad():
        expected = 0.0
        for one, other in itertools.combinations(crops, 2):
            for a, b in zip(grams(one[None]), grams(other[None]), strict=True):
                expected += nn.functional.mse_loss(a, b).item()
        look = StyleNetwork(network, "cpu").extract(crops)
    assert mean_of(by_name("Intra-Style-L (sum)"), look) == pytest.approx(expected, rel=1e-5)
    assert mean_of(by_name("Intra-Style-L"), look) == pytest.approx(expected / 3, rel=1e-5)


def test_gram_matrices_are_computed_before_the_relu() -> None:
    eye = PerceptualNetwork(objectives.FeatureDistance(objectives._stlpips("alex")), "cpu")
    crops = pictures(1, 2)
    with torch.no_grad():
        look = eye.extract(crops)
        network = eye._distance.network
        first = next(module for module in network.net.modules() if isinstance(module, nn.Conv2d))
        expected = gram_matrix(first(network.scaling_layer(crops * 2 - 1)))
    assert len(look.grams) == networks.STYLE_LAYERS
    assert torch.allclose(look.grams[0], expected, rtol=1e-4)


def test_similarity_is_the_cosine_and_ignores_position() -> None:
    look = CropFeatures(pooled=torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, -2.0]]))
    assert coherence.similarity(look, 0, look, 1) == pytest.approx(0.5**0.5)
    assert coherence.similarity(look, 1, look, 2) == pytest.approx(-(0.5**0.5))


def test_smaller_blocks_give_the_same_figures(montages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = open_gallery(montages, OFFLINE)
    whole, _ = coherence.measure(gallery, FeatureNetworks(gallery, OFFLINE), OFFLINE, lambda line: None)
    monkeypatch.setattr(networks, "BLOCK_BYTES", 1)
    one_by_one, _ = coherence.measure(gallery, FeatureNetworks(gallery, OFFLINE), OFFLINE, lambda line: None)
    for a, b in zip(whole, one_by_one, strict=True):
        assert a.metric == b.metric and a.value == pytest.approx(b.value, rel=1e-3)
        assert a.bounds == pytest.approx(b.bounds, rel=1e-3, abs=1e-6)


def test_a_folder_is_measured_and_a_repeated_crop_is_perfectly_coherent(montages: Path) -> None:
    gallery = open_gallery(montages, OFFLINE)
    measured, skipped = coherence.measure(gallery, FeatureNetworks(gallery, OFFLINE), OFFLINE, lambda line: None)
    figures = {measurement.metric: measurement for measurement in measured}
    for name in ("Intra-ST-LPIPS (alex)", "Intra-ST-LPIPS (vgg)", "Intra-ST-Style-L"):
        figure = figures[name]
        assert figure.values["repeated.png"] == 0 == figure.bounds["one crop repeated"]
        assert min(figure.values["a.png"], figure.values["b.png"]) > 0
        assert figure.bounds["crops of different montages"] > 0
        assert figure.value == pytest.approx(np.mean(list(figure.values.values())))
        assert figure.low <= figure.value <= figure.high and figure.n == 3
    assert figures["embedding similarity (stlpips-vgg)"].values["repeated.png"] == pytest.approx(1, abs=1e-9)
    assert set(figures).isdisjoint(metric for metric, _ in skipped)


def test_missing_weights_are_reported_without_substitute(
    montages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    eyes = FeatureNetworks(open_gallery(montages, OFFLINE), OFFLINE)
    for name, file in (("lpips", "vgg16-397923af.pth"), ("vgg19", "vgg19-dcbb9e9d.pth"), ("inception", "inception")):
        with pytest.raises(networks.ModelError, match=file):
            eyes.load(name)
    with pytest.raises(networks.ModelError, match="no/such-model"):
        eyes.load("no/such-model")
