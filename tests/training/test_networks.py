"""The networks in training: one prediction for mixed controls, ControlNets alike, a model trained further."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from synccontrol.models.codec import PatchAutoencoder
from training.export import export
from training.networks import CONTROLS, Networks
from training.tokenizer import build as build_tokenizer
from training.train_model import CHECKPOINT

CHANNELS = 4
COUNTS = {"depth": 2, "pose": 1}  # windows under a control; one more goes without


@pytest.fixture(scope="module")
def networks() -> Networks:
    torch.manual_seed(0)
    made = Networks.fresh(CHANNELS, build_tokenizer())
    with torch.no_grad():
        for network in made.controlnets.values():  # zero at first: nothing would be seen
            for layer in (*network.controlnet_down_blocks, network.controlnet_mid_block):
                layer.weight.fill_(0.02)
    return made


def batch() -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    maps = {control: torch.rand(count, 3, 64, 32, generator=generator) for control, count in COUNTS.items()}
    x_t = torch.randn(4, CHANNELS, 8, 4, generator=generator)
    return x_t, torch.tensor([5, 400, 800, 999]), torch.randint(0, 900, (4, 30), generator=generator), maps


@torch.no_grad()
def test_mixed_controls_are_predicted_as_each_alone(networks: Networks) -> None:
    x_t, t, tokens, maps = batch()
    mixed = networks.predict(x_t, t, tokens, maps)
    states = networks.text(tokens).last_hidden_state
    start = 0
    for control, images in maps.items():
        these = slice(start, start := start + len(images))
        down, middle = networks.controlnets[control](
            x_t[these], t[these], states[these], controlnet_cond=images, return_dict=False
        )
        (alone,) = networks.unet(
            x_t[these],
            t[these],
            states[these],
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )
        torch.testing.assert_close(mixed[these], alone, rtol=1e-4, atol=1e-5)
    free = networks.unet(x_t, t, states, return_dict=False)[0]
    torch.testing.assert_close(mixed[start:], free[start:], rtol=1e-4, atol=1e-5)
    assert (mixed - free)[:start].abs().amax((1, 2, 3)).min() > 1e-3  # the controls are heard


def test_shared_gradients_keep_controlnets_alike_but_for_their_embeddings(networks: Networks) -> None:
    x_t, t, tokens, maps = batch()
    before = networks.controlnets["depth"].conv_in.weight.clone()
    optimizer = torch.optim.AdamW(networks.parameters(), 1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        networks.predict(x_t, t, tokens, maps).square().mean().backward()
        networks.share_gradients()
        optimizer.step()
    depth, *others = (networks.controlnets[control].state_dict() for control in CONTROLS)
    assert not torch.equal(depth["conv_in.weight"], before)
    for other in others:
        different = {name for name, value in depth.items() if not torch.equal(value, other[name])}
        assert different and all(name.startswith("controlnet_cond_embedding") for name in different)


def test_an_exported_model_is_what_is_trained_further(networks: Networks, tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    PatchAutoencoder(latent_channels=CHANNELS).save_pretrained(tmp_path / "codec")
    weights = {name: module.state_dict() for name, module in networks.modules().items()}
    torch.save({"ema": weights}, tmp_path / CHECKPOINT)
    export(tmp_path / CHECKPOINT, tmp_path / "codec", tmp_path / "tokenizer", tmp_path / "model")
    loaded = Networks.exported(tmp_path / "model")
    for name, module in loaded.modules().items():
        for key, value in module.state_dict().items():
            assert value.dtype == weights[name][key].dtype
            torch.testing.assert_close(value, weights[name][key], rtol=1e-3, atol=1e-6)
