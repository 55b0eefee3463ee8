"""The whole recipe from one command: `python -m training.train --out DIR`; finished stages are kept, others resume."""

import argparse
import shutil
from pathlib import Path

import cv2

from training.cache import build
from training.dataset import encode_cache
from training.export import export
from training.parallel import launch
from training.plot import plot
from training.samples import sheet
from training.tokenizer import build as build_tokenizer
from training.train_codec import train_codec
from training.train_model import CHECKPOINT, LOG, Plan, train_model

STAGES = ("cache", "codec", "encode", "model", "export", "sheet")


def run(
    out: Path,
    target: Path,
    stages: tuple[str, ...],
    *,
    scenes: int,
    first_seed: int,
    workers: int,
    channels: int,
    codec_seconds: float,
    plan: Plan,
) -> None:
    """Run stages of the recipe, in order; everything but the exported model is written below `out`."""
    cache, codec, encoded, model, tokenizer = (
        out / name for name in ("cache", "codec", "encoded", "model", "tokenizer")
    )
    if "cache" in stages:
        build(cache, scenes, first_seed, workers)
    if plan.start and not codec.exists():
        out.mkdir(parents=True, exist_ok=True)
        shutil.copytree(plan.start / "vae", codec)
        shutil.copytree(plan.start / "tokenizer", tokenizer)
    if "codec" in stages and not codec.exists():
        launch(train_codec, workers, codec, cache, codec_seconds, channels)
    if not tokenizer.exists():
        build_tokenizer().save_pretrained(tokenizer)
    if "encode" in stages:
        launch(encode_cache, workers, cache, encoded, codec, tokenizer)
    if "model" in stages:
        model.mkdir(parents=True, exist_ok=True)
        launch(train_model, 1 if plan.device == "cuda" else workers, model, encoded, tokenizer, plan)
    if "export" in stages:
        export(model / CHECKPOINT, codec, tokenizer, target)
        if (model / LOG).exists():  # a run shorter than the first entry has no curve
            plot(model / LOG, out / "curve.png")
    if "sheet" in stages:
        cv2.imwrite(str(out / "sheet.png"), cv2.cvtColor(sheet(target), cv2.COLOR_RGB2BGR))


def main() -> None:
    """Parse the command line and run the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("training/runs"), help="cache, checkpoints, log")
    parser.add_argument("--target", type=Path, default=Path("synccontrol/models/tiny"), help="the exported model")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="which stages, in this order")
    parser.add_argument("--scenes", type=int, default=20_000, help="rendered scenes")
    parser.add_argument("--first-seed", type=int, default=0, help="of the scenes; another one gives other scenes")
    parser.add_argument(
        "--workers",
        type=int,
        default=2,
        help="processes, one thread each; the model trains in one where it is on a GPU",
    )
    parser.add_argument("--channels", type=int, default=8, help="latent channels")
    parser.add_argument("--codec-seconds", type=float, default=300, help="training time of the codec")
    parser.add_argument("--minutes", type=float, default=106, help="training time of the model, over all resumptions")
    parser.add_argument("--start", type=Path, help="an exported model to train further, e.g. synccontrol/models/tiny")
    parser.add_argument("--learning-rate", type=float, default=Plan.learning_rate, help="at its peak")
    parser.add_argument(
        "--controlled-share", type=float, default=Plan.controlled_share, help="of the windows, above 0, at most 1"
    )
    parser.add_argument("--ema", type=float, default=Plan.most_ema, help="decay of the averaged weights, a step")
    parser.add_argument(
        "--device", default=Plan.device, choices=("cpu", "cuda"), help="where the model trains; one process on cuda"
    )
    parser.add_argument("--narrow-share", type=float, default=Plan.narrow_share, help="of the time, on narrow windows")
    parser.add_argument("--warm-up", type=int, default=Plan.warm_up, help="steps of a rising learning rate")
    parser.add_argument("--batch", type=int, default=Plan.batch, help="windows a process and step")
    arguments = parser.parse_args()
    if not 0 < arguments.controlled_share <= 1:
        parser.error(f"--controlled-share is {arguments.controlled_share}; it must be above 0 and at most 1")
    if arguments.device == "cuda" and round(arguments.controlled_share * arguments.batch) % 50:
        parser.error(
            "on a GPU every step is alike, so that --batch times --controlled-share must be a multiple of 50 windows, "
            "e.g. --batch 250 --controlled-share 0.4"
        )
    run(
        arguments.out,
        arguments.target,
        tuple(arguments.stages),
        scenes=arguments.scenes,
        first_seed=arguments.first_seed,
        workers=arguments.workers,
        channels=arguments.channels,
        codec_seconds=arguments.codec_seconds,
        plan=Plan(
            minutes=arguments.minutes,
            start=arguments.start,
            batch=arguments.batch,
            controlled_share=arguments.controlled_share,
            learning_rate=arguments.learning_rate,
            warm_up=arguments.warm_up,
            most_ema=arguments.ema,
            device=arguments.device,
            narrow_share=arguments.narrow_share,
        ),
    )


if __name__ == "__main__":
    main()
