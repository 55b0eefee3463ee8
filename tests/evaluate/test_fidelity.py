"""Set distances against closed forms, and the CLIP score against the model's own arithmetic."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.linalg import sqrtm
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPVisionConfig

from synccontrol.errors import InputError
from synccontrol.evaluate import fidelity
from synccontrol.evaluate import fidelity as clip
from synccontrol.evaluate.dataset import open_gallery
from synccontrol.evaluate.fidelity import kernel_difference, kernel_distance, kernel_interval
from synccontrol.evaluate.measurement import Settings
from synccontrol.evaluate.networks import FeatureNetworks
from tests.conftest import tiny_text_encoder, tiny_tokenizer

SIDE = 32
SETTINGS = Settings(window=SIDE, offline=True, groups=("fidelity",), draws=50)


def gaussian(n: int, seed: int, mean: float = 0.0, spread: float = 1.0, d: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + spread * torch.randn(n, d, generator=generator, dtype=torch.float64)


def test_frechet_distance_of_two_known_gaussians() -> None:
    # N(0, I) and N(m, s^2 I): d (m^2 + (s - 1)^2)
    found = fidelity.frechet_distance(gaussian(20000, 0, 0.5, 2.0), gaussian(20000, 1))
    assert found == pytest.approx(4 * (0.25 + 1), rel=0.03)


def test_frechet_distance_agrees_with_its_formula_on_the_same_samples() -> None:
    a, b = gaussian(30, 0), gaussian(40, 1, 0.3, 1.5) @ torch.rand(4, 4, dtype=torch.float64)
    means, covariances = (a.mean(0) - b.mean(0)).numpy(), [np.cov(x.numpy().T) for x in (a, b)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = means @ means + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert fidelity.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_agrees_with_its_formula_and_is_zero_for_equal_sets() -> None:
    x, y = gaussian(12, 0), gaussian(12, 1, 1.0)

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a @ b / 4 + 1) ** 3)

    same = sum(k(s[i], s[j]) for s in (x, y) for i in range(12) for j in range(12) if i != j) / (12 * 11)
    expected = same - 2 * sum(k(a, b) for a in x for b in y) / 144
    assert kernel_distance(x, y, 0) == pytest.approx(expected, rel=1e-9)
    big = gaussian(1500, 2)
    assert abs(kernel_distance(big, big, 0)) < 0.02 < kernel_distance(big, big + 0.5, 0)


def test_sets_of_different_size_are_compared_without_the_global_generator() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, other = (kernel_distance(gaussian(80, 0), gaussian(60, 1), 5) for _ in range(2))
    assert one == other and torch.equal(before, torch.random.get_rng_state())


def test_the_interval_of_kid_holds_its_value_and_narrows_with_montages() -> None:
    reference = gaussian(300, 9)
    widths = []
    for montages in (10, 60):
        sets = [gaussian(5, 100 + i, 0.4) for i in range(montages)]
        low, high = kernel_interval(sets, reference, 200, 0)
        assert low < kernel_distance(torch.cat(sets), reference, 0) < high
        widths.append(high - low)
    assert widths[1] < widths[0]
    assert np.isnan(kernel_interval([reference], reference, 10, 0)).all()


def test_the_interval_of_a_kid_difference_is_paired_by_montage() -> None:
    reference, guides = gaussian(300, 9), torch.linspace(-2, 2, 30)
    baseline = [gaussian(5, 100 + i) + guide for i, guide in enumerate(guides)]
    nearer = [features * 0.9 for features in baseline]
    assert kernel_difference(baseline, baseline, reference, 100, 0) == (0.0, 0.0)
    low, high = kernel_difference(nearer, baseline, reference, 200, 0)
    apart = kernel_distance(torch.cat(nearer), reference, 0) - kernel_distance(torch.cat(baseline), reference, 0)
    assert low < apart < high < 0
    alone = kernel_interval(baseline, reference, 200, 0)
    assert high - low < alone[1] - alone[0]
    assert kernel_difference(baseline, nearer, reference, 200, 0) == pytest.approx((-high, -low))


def test_giqa_is_the_sum_of_the_nearest_inverse_distances() -> None:
    reference = torch.tensor([[0.0, 0.0], [1.0, 1.0], [10.0, 0.0]])
    scores = fidelity.giqa(torch.tensor([[0.0, 1.0], [10.0, 0.0]]), reference, neighbours=2)
    assert scores[0] == pytest.approx(1 / 1 + 1 / 1, rel=1e-4)
    assert torch.isfinite(scores[1]) and scores[1] > scores[0]


def save(path: Path, width: int, seed: int, prompt: str = "") -> None:
    info = PngInfo()
    if prompt:
        info.add_itxt("synccontrol", json.dumps({"prompt": prompt}))
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, pnginfo=info)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Return a folder with montages/ (5 of 10 windows) and reference/ (10 of 10 windows)."""
    for i in range(5):
        save(tmp_path / "montages" / f"{i}.png", 10 * SIDE, i)
    for i in range(10):
        save(tmp_path / "reference" / f"{i}.png", 10 * SIDE, 50 + i)
    return tmp_path


def test_images_like_the_reference_score_like_its_halves(folders: Path) -> None:
    settings = SETTINGS.replace(reference=folders / "reference", features="stlpips")
    gallery = open_gallery(folders / "montages", settings)
    fidelity.check(gallery, settings)
    measured, skipped = fidelity.measure(gallery, FeatureNetworks(gallery, settings), settings, lambda line: None)
    fid, kid, giqa = measured
    assert [figure.metric.split()[0] for figure in measured] == ["FID", "KID", "Mean-GIQA"]
    assert kid.low < 0 < kid.high or abs(kid.value) < 1e-4
    assert fid.value < 2 * fid.bounds[fidelity.HALVES] and np.isnan(fid.low)
    assert giqa.value == pytest.approx(giqa.bounds[fidelity.HALVES], rel=0.2)
    assert len(giqa.values) == giqa.n == 5
    assert [metric.split()[0] for metric, _ in skipped] == ["CLIP"]


def test_reference_features_are_cached_until_it_changes(folders: Path) -> None:
    settings = SETTINGS.replace(reference=folders / "reference", features="stlpips")
    gallery, seen = open_gallery(folders / "montages", settings), []

    def measured() -> list[float]:
        found, _ = fidelity.measure(gallery, FeatureNetworks(gallery, settings), settings, seen.append)
        return [figure.value for figure in found]

    first = measured()
    seen.clear()
    assert measured() == first
    assert not [line for line in seen if "reference" in line]
    save(folders / "reference" / "0.png", 10 * SIDE, 99)
    assert measured() != first


def test_too_few_windows_are_rejected_with_the_required_number(folders: Path) -> None:
    settings = SETTINGS.replace(reference=folders / "reference")
    (folders / "montages" / "0.png").unlink()
    with pytest.raises(InputError, match="has 40 windows of 32 px, and FID and KID need 50: give 5 montages"):
        fidelity.check(open_gallery(folders / "montages", settings), settings)
    fidelity.check(open_gallery(folders / "montages", SETTINGS), SETTINGS)
    save(folders / "montages" / "0.png", 10 * SIDE, 0)
    gallery = open_gallery(folders / "montages", settings)
    (folders / "reference" / "0.png").unlink()
    with pytest.raises(InputError, match="has 90 windows of 32 px in 9 images; FID and KID need 100"):
        fidelity.check(gallery, settings)
    Image.new("RGB", (SIDE, SIDE - 1)).save(folders / "reference" / "0.png")
    with pytest.raises(InputError, match="below a window"):
        fidelity.check(gallery, settings)


def test_unreadable_reference_images_are_excluded(folders: Path) -> None:
    settings = SETTINGS.replace(reference=folders / "reference", features="stlpips")
    (folders / "reference" / "text.png").write_text("no picture")
    Image.new("RGB", (SIDE, SIDE - 1)).save(folders / "reference" / "low.png")
    whole = (folders / "reference" / "0.png").read_bytes()
    (folders / "reference" / "cut.png").write_bytes(whole[: len(whole) // 2])
    gallery = open_gallery(folders / "montages", settings)
    fidelity.check(gallery, settings)
    measured, skipped = fidelity.measure(gallery, FeatureNetworks(gallery, settings), settings, lambda line: None)
    assert len(measured) == 3
    told = dict(skipped)
    assert {"reference text.png", "reference low.png", "reference cut.png"} <= set(told)
    assert "below a window of 32 px" in told["reference low.png"] and "cut short" in told["reference cut.png"]


def test_distances_without_a_reference_are_skipped_with_a_reason(folders: Path) -> None:
    gallery = open_gallery(folders / "montages", SETTINGS)
    measured, skipped = fidelity.measure(gallery, FeatureNetworks(gallery, SETTINGS), SETTINGS, lambda line: None)
    assert not measured and len(skipped) == 4
    assert sum("--reference" in why for _, why in skipped) == 3 and "no montage carries one" in skipped[3][1]


def test_clip_score_is_the_models_own_cosine(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE, patch_size=8
    )
    config = CLIPConfig(
        text_config=tiny_text_encoder(tokenizer).config.to_dict(), vision_config=vision.to_dict(), projection_dim=12
    )
    size = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=size)
    model, processor = CLIPModel(config).eval(), CLIPProcessor(image_processor=images, tokenizer=tokenizer)
    model.save_pretrained(tmp_path / "clip")
    processor.save_pretrained(tmp_path / "clip")
    save(tmp_path / "montages" / "a.png", 2 * SIDE, 0, "a sea")
    settings = SETTINGS.replace(clip=str(tmp_path / "clip"), embedding=str(tmp_path / "clip"))
    gallery = open_gallery(tmp_path / "montages", settings)
    save(tmp_path / "montages" / "silent.png", 2 * SIDE, 1)
    measured, skipped = clip.measure_clip(open_gallery(tmp_path / "montages", settings), settings, lambda line: None)
    assert skipped == [("CLIP score of silent.png", "it carries no prompt")]
    crops = gallery.crops(gallery.montages[0]).take()
    with torch.no_grad():
        inputs = processor(text=["a sea"], images=list((crops * 255).to(torch.uint8)), return_tensors="pt")
        expected = (
            100
            * torch.nn.functional.cosine_similarity(
                *(model(**inputs)[key] for key in ("image_embeds", "text_embeds"))
            ).mean()
        )
        pooled = model.vision_model(inputs["pixel_values"]).pooler_output
    assert measured[0].value == pytest.approx(max(float(expected), 0), abs=1e-3)
    assert torch.allclose(
        FeatureNetworks(gallery, settings).extract_batched(settings.embedding, crops).pooled, pooled, atol=1e-5
    )
