"""Pretrain the tiny base: `python -m pretraining --idx DIR --work DIR`.

Stages: clip, vae, judge, unet, export, bars; `all` runs them in this order. Every stage goes on
from its last checkpoint under --work, and a finished stage costs nothing. One thread per process
is fastest on shared cores; clip and vae may run side by side. The judge's weights are also written
as judge.safetensors, which the benchmarks use.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import safetensors.torch
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.optim.swa_utils import AveragedModel
from transformers import CLIPModel, CLIPTokenizer

from pretraining.bars import measure
from pretraining.clip import build_clip, train_clip
from pretraining.export import export
from pretraining.judge import train_judge
from pretraining.loop import Plan, restore
from pretraining.photographs import BaseGarments, load_base_garments
from pretraining.unet import PromptStates, cache_latents, train_unet
from pretraining.vae import train_vae
from pretraining.words import build_tokenizer
from raysynth.pretraining.export import text_tower

STAGES = ("clip", "vae", "judge", "unet", "export", "bars")
_STEPS = {"clip-joint": 600, "clip": 2600, "vae": 6500, "judge": 3000, "unet": 15000}
_CACHED_LATENTS = 200_000


@dataclass(frozen=True)
class Pretraining:
    """All stages on one work folder; `pace` shortens them for a trial run."""

    idx: str
    work: Path
    out: Path
    seed: int
    pace: float
    export_every_s: float

    @cached_property
    def base(self) -> BaseGarments:
        """The garments of the base."""
        return load_base_garments(self.idx, self.work)

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer, built anew (it is a function of the captions)."""
        return build_tokenizer()

    def plan(self, name: str) -> Plan:
        """Steps and checkpoint of one stage."""
        return Plan(name, max(2, round(_STEPS[name] * self.pace)), self.work, self.seed)

    def clip(self) -> CLIPModel:
        """Train or load the CLIPModel."""
        return train_clip(self.plan("clip-joint"), self.plan("clip"), self.base, self.tokenizer)

    def clip_so_far(self) -> CLIPModel:
        """The CLIPModel of the last checkpoint; its text tower must be final."""
        clip = build_clip(self.tokenizer)
        if not restore(self.plan("clip-joint"), {"clip": clip}) == self.plan("clip-joint").steps:
            raise SystemExit("unet: the text tower is not final yet; run --stage clip first.")
        if self.plan("clip").checkpoint.exists():
            averaged = AveragedModel(clip)
            restore(self.plan("clip"), {"averaged": averaged})
            clip = averaged.module
        return clip.eval().requires_grad_(False)

    def vae(self) -> AutoencoderKL:
        """Train or load the autoencoder."""
        return train_vae(self.plan("vae"), self.base)

    def unet(self) -> UNet2DConditionModel:
        """Train or load the UNet, exporting what there is every `export_every_s` seconds."""
        vae, clip = self.vae(), self.clip_so_far()
        count = max(256, round(_CACHED_LATENTS * self.pace))
        cache = cache_latents(vae, self.base, count, self.work, self.seed)
        prompts = PromptStates(text_tower(clip), self.tokenizer)
        exported = time.monotonic()

        def on_save(done: int, averaged: UNet2DConditionModel) -> None:
            nonlocal exported
            if time.monotonic() - exported > self.export_every_s:
                exported = time.monotonic()
                self.write(vae, averaged, f"unet {done}/{self.plan('unet').steps}")

        return train_unet(self.plan("unet"), cache, prompts, on_save)

    def write(self, vae: AutoencoderKL, unet: UNet2DConditionModel, state: str) -> None:
        """Export to --out and say so in STATUS.txt."""
        size = export(self.out, vae, self.clip_so_far(), unet, self.tokenizer)
        line = f"{time.strftime('%H:%M:%S')} exported {size / 1e6:.2f} MB to {self.out}: {state}"
        (self.work / "STATUS.txt").write_text(line + "\n")
        print(line, flush=True)

    def run(self, stage: str) -> None:
        """Run one stage."""
        began = time.monotonic()
        if stage == "clip":
            self.clip()
        elif stage == "vae":
            self.vae()
        elif stage == "judge":
            judge = train_judge(self.plan("judge"), self.base)
            weights = {
                name: tensor.bfloat16() if tensor.is_floating_point() else tensor
                for name, tensor in judge.state_dict().items()
            }
            safetensors.torch.save_file(weights, self.work / "judge.safetensors")
        elif stage == "unet":
            self.unet()
        elif stage == "export":
            self.write(self.vae(), self.unet(), "final")
        elif stage == "bars":
            judge = train_judge(self.plan("judge"), self.base)
            for bar in measure(self.out, self.base, judge, self.work / "vanilla.png"):
                print(bar, flush=True)
        print(f"stage {stage}: {time.monotonic() - began:.0f} s", flush=True)


def main() -> None:
    """Parse the command line and run the stages."""
    parser = argparse.ArgumentParser(prog="python -m pretraining", description=__doc__)
    parser.add_argument("--stage", choices=("all", *STAGES), default="all")
    parser.add_argument("--idx", required=True, help="folder with Fashion-MNIST's IDX files")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints, judge, sheets")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pace", type=float, default=1.0, help="factor on all steps, e.g. 0.01")
    parser.add_argument("--export-every", type=float, default=600, help="seconds between exports")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    pretraining = Pretraining(
        arguments.idx,
        arguments.work,
        arguments.out,
        arguments.seed,
        arguments.pace,
        arguments.export_every,
    )
    for stage in STAGES if arguments.stage == "all" else (arguments.stage,):
        pretraining.run(stage)


if __name__ == "__main__":
    main()
