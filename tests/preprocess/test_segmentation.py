"""Segmentation: the palette, real transformers formats, wide guides, rings, and models with other classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import (
    ConvNextConfig,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    OneFormerConfig,
    OneFormerForUniversalSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    SwinConfig,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

import preprocess
from preprocess.control import Runtime
from preprocess.errors import DetectorError
from preprocess.estimators.annotators import controlnet_aux
from preprocess.estimators.transformers_models import ADE20K, TransformersSegmentation, most_likely
from tests.conftest import TOKENS, tiny_tokenizer

OFFLINE = Runtime(offline=True)
NATIVE, CLASSES, WIDTH = 64, 150, 8
STAGES = ["stage1", "stage2", "stage3", "stage4"]
SIZES = {"encoder_feedforward_dim": 16, "encoder_layers": 1, "dim_feedforward": 16, "num_queries": 5}
SWIN = {"image_size": NATIVE, "embed_dim": WIDTH, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 4}


def segformer(folder: Path, classes: int = CLASSES) -> None:
    """Save a tiny random SegFormer with an input of 64 px."""
    sizes = {"hidden_sizes": [WIDTH] * 4, "depths": [1] * 4, "num_attention_heads": [1] * 4}
    network = SegformerForSemanticSegmentation(SegformerConfig(**sizes, decoder_hidden_size=WIDTH, num_labels=classes))
    network.decode_head.classifier.weight.data.mul_(100)
    network.save_pretrained(folder)
    SegformerImageProcessor(size={"height": NATIVE, "width": NATIVE}).save_pretrained(folder)


def upernet(folder: Path) -> None:
    """Save a tiny random UperNet on ConvNeXt."""
    backbone = ConvNextConfig(hidden_sizes=[WIDTH] * 4, depths=[1] * 4, out_features=STAGES)
    sizes = {"hidden_size": WIDTH, "auxiliary_in_channels": WIDTH, "auxiliary_channels": WIDTH}
    UperNetForSemanticSegmentation(
        UperNetConfig(backbone_config=backbone, **sizes, num_labels=CLASSES)
    ).save_pretrained(folder)
    SegformerImageProcessor(size={"height": NATIVE, "width": NATIVE}).save_pretrained(folder)


def mask2former(folder: Path) -> None:
    """Save a tiny random Mask2Former."""
    config = Mask2FormerConfig(
        backbone_config=SwinConfig(**SWIN, out_features=STAGES),
        **SIZES,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        decoder_layers=2,
        num_attention_heads=2,
        num_labels=CLASSES,
    )
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    Mask2FormerImageProcessor(size={"shortest_edge": NATIVE, "longest_edge": 4096}).save_pretrained(folder)


def oneformer(folder: Path) -> None:
    """Save a tiny random OneFormer with its tokenizer, and the published settings of its processor."""
    config = OneFormerConfig(
        backbone_config=SwinConfig(**SWIN, out_features=STAGES),
        **SIZES,
        conv_dim=32,
        mask_dim=32,
        hidden_dim=32,
        decoder_layers=2,
        query_dec_layers=1,
        num_attention_heads=2,
        task_seq_len=TOKENS,
        num_labels=CLASSES,
        is_training=False,
    )
    OneFormerForUniversalSegmentation(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    values = {
        "image_processor_type": "OneFormerImageProcessor",
        "class_info_file": "ade20k_panoptic.json",
        "repo_path": "shi-labs/oneformer_demo",
        "size": {"shortest_edge": NATIVE, "longest_edge": 4096},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(values), encoding="utf-8")


def guide(width: int = 301, height: int = 97) -> Image.Image:
    """Return smooth noise."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 18, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def test_the_palette_is_that_of_segmentation_controlnets() -> None:
    with controlnet_aux():
        from controlnet_aux.util import ade_palette
    assert ADE20K.tolist() == ade_palette()
    assert len(ADE20K) == CLASSES


@pytest.mark.parametrize("save", [upernet, segformer, mask2former, oneformer])
def test_real_formats_give_colours_of_the_palette(save: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save(tmp_path)  # type: ignore[operator]
    control_map = preprocess.load("segmentation", str(tmp_path), offline=True)(guide())
    assert control_map.size == guide().size and control_map.mode == "RGB"
    assert set(map(tuple, np.asarray(control_map).reshape(-1, 3))) <= set(map(tuple, ADE20K))


def test_wide_guides_are_scaled_by_height(tmp_path: Path) -> None:
    segformer(tmp_path)
    estimator = TransformersSegmentation(str(tmp_path), OFFLINE, "")
    assert estimator._size(256, 1536) == (NATIVE, 6 * NATIVE)
    assert estimator._size(1536, 256) == (6 * NATIVE, NATIVE)
    image = np.array(guide(6 * NATIVE, NATIVE))
    pixels = estimator.processor(image, do_resize=False, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        logits = estimator.network(pixel_values=pixels).logits
        expected = functional.interpolate(logits, image.shape[:2], mode="bilinear")[0].argmax(0).numpy()
    assert len(np.unique(expected)) > 5
    assert (estimator(image) == expected).mean() > 0.999


def test_pixels_have_their_most_likely_class() -> None:
    scores = torch.randn(150, 5, 9, generator=torch.Generator().manual_seed(0))
    expected = functional.interpolate(scores[None], (20, 40), mode="bilinear")[0].argmax(0)
    assert torch.equal(most_likely(scores, 20, 40), expected)


def test_rings_close_without_mixed_colours(tmp_path: Path) -> None:
    segformer(tmp_path)
    detect = preprocess.load("segmentation", str(tmp_path), offline=True, loop=True)
    ring = Image.fromarray(np.concatenate([np.asarray(guide(192, 64)), np.asarray(guide(192, 64))[:, ::-1]], axis=1))
    colours = np.asarray(detect(ring))
    assert set(map(tuple, colours.reshape(-1, 3))) <= set(map(tuple, ADE20K))
    assert (colours[:, 0] == colours[:, -1]).all(axis=1).mean() > 0.8  # these columns of the guide are equal


def test_models_with_other_classes_are_errors(tmp_path: Path) -> None:
    segformer(tmp_path, classes=19)
    with pytest.raises(DetectorError, match=r"knows 19 classes, not the 150 of ADE20K.*use a model trained on ADE20K"):
        preprocess.load("segmentation", str(tmp_path), offline=True)


def test_an_invalid_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"cannot be used.*name a folder with a segmentation model") as error:
        preprocess.load("segmentation", str(tmp_path), offline=True)
    assert "\n" not in str(error.value)
