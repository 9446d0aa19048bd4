"""Stable Diffusion 1.5's shapes: a grouped step against PEFT, and the memory estimate.

    python benchmarks/real_shapes.py [--storage FOLDER]

A UNet of the published configuration with random weights, 4 x 64 x 64 latents, takes one optimizer
step with 4 adapters of one row each: bfloat16, gradient checkpointing, all of LoRA's targets. PEFT
then takes the same step adapter by adapter, from the same weights, images and noise. The grouped
step is the worker's own code (`train_pack`), on what device there is. AdamW's first step is the
sign of the gradient: weights whose gradient is below bfloat16's resolution may go either way, and
are counted. Bars: 20 GB for the process; losses, gradients and weights equal to PEFT's within what
bfloat16 rounds; the peak that packing estimates within 15 % of the measured one (on the tiny base:
benchmarks/growth.py).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import checkout  # noqa: F401
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import cast_training_params
from growth import ESTIMATE
from measure import finish, run
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel
from workload import make_workload

from pretraining.words import build_tokenizer
from raysynth.adapters.grouped_lora import GroupedConv2d, GroupedLinear, GroupedLoRA
from raysynth.config.config import Config
from raysynth.finetune import memory, training
from raysynth.finetune.engines import precision_of
from raysynth.finetune.optimizer import BETAS
from raysynth.finetune.settings import FinetuneConfig
from raysynth.generators.recipe import recipe_of
from raysynth.models.base import load_base
from raysynth.models.device import pick_device
from raysynth.models.family import FAMILIES, USUAL, layers_of
from raysynth.models.prediction import Prediction

ADAPTERS = 4
BAR_GB = 20.0
LOSS, GRADIENT, WEIGHT = 0.01, 0.02, 0.05
"""Largest allowed differences, relative: of a loss; of the gradient's norm; of a weight's change
where the gradient is larger than all differences between the two gradients."""
TURNED = 0.02
"""Largest allowed share of the weights that changed the other way."""
WIDTH = 768
LORA_FILE = "pytorch_lora_weights.safetensors"


def write_model(folder: Path, whole: bool = False) -> None:
    """A Stable Diffusion 1.5 folder; its UNet has the published shape, the other parts are small.

    diffusers' defaults for UNet2DConditionModel are Stable Diffusion 1.x's blocks and widths.
    `whole`: text encoder, decoder and number of tokens have the published shapes, too.
    """
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64, cross_attention_dim=WIDTH, attention_head_dim=8, layers_per_block=2
    )
    tokenizer = build_tokenizer()
    if whole:
        tokenizer.model_max_length = 77
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_attention_heads=12,
            num_hidden_layers=12 if whole else 1,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512) if whole else (16,) * 4,
        layers_per_block=2 if whole else 1,
        norm_num_groups=32 if whole else 4,
        sample_size=512,
        mid_block_add_attention=whole,
    )
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False
    )
    parts = (vae, text, tokenizer, unet.bfloat16(), scheduler)
    StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False).save_pretrained(
        folder
    )


def sections(storage: Path) -> dict[str, Any]:
    """The configuration of the step."""
    return {
        "base": {"name": str(storage / "model"), "dtype": "bfloat16"},
        "finetune": {
            "steps": 1,
            "batch_size": 1,
            "precision": "bfloat16",
            "gradient_checkpointing": True,
            "prompt_dropout": 0.0,
        },
        "resources": {"workers": 1},
    }


def grouped(storage: Path) -> dict[str, Any]:
    """The step with all adapters at once; leaves its inputs and results in files."""
    kept: dict[str, Tensor] = {}
    loops: list[training.Loop] = []
    noised, start, reset = Prediction.noised, training.start, GroupedLoRA.reset

    def kept_noised(self: Prediction, *given: Tensor) -> tuple[Tensor, Tensor]:
        noisy, target = noised(self, *given)
        kept.update(noisy=noisy, target=target, timestep=given[2])
        return noisy, target

    def kept_start(*given: Any) -> training.Loop:
        loops.append(start(*given))
        loops[0].trainee.unet.register_forward_pre_hook(
            lambda _, __, named: kept.update(states=named["encoder_hidden_states"]),
            with_kwargs=True,
        )
        return loops[0]

    def begun(lora: GroupedLoRA, position: int, dice: torch.Generator, *form: float | None) -> None:
        reset(lora, position, dice)
        for layer in lora.layers.values():  # B is not zero, or A would have no gradient
            B = layer.B[position]
            B.copy_(torch.randn(B.shape, generator=dice) * 0.01)
        lora.save(position, str(storage / "start" / str(position)))

    Prediction.noised, training.start, GroupedLoRA.reset = kept_noised, kept_start, begun
    work = make_workload(storage, ADAPTERS, **sections(storage))
    device = pick_device(work.config.base.device)
    failed: dict[str, str] = {}

    def train() -> None:
        failed.update(training.train_pack(work.pack(storage / "out")))

    peak = memory.peak_bytes(device, train)
    if failed or loops[0].slots != ADAPTERS:
        raise SystemExit(f"real_shapes: {failed or str(loops[0].fit)}")
    layers = {
        name: module
        for name, module in loops[0].trainee.unet.named_modules()
        if isinstance(module, GroupedLinear | GroupedConv2d)
    }
    kept |= {f"{name}.lora_A.weight": layer.A.grad for name, layer in layers.items()}
    kept |= {f"{name}.lora_B.weight": layer.B.grad for name, layer in layers.items()}
    save_file({k: v.detach().cpu().contiguous() for k, v in kept.items()}, storage / "kept.st")
    footprint = loops[0].fit.footprint
    assert footprint is not None
    return {
        "peak_bytes": peak,
        "estimated_bytes": footprint.of(ADAPTERS, ADAPTERS),
        "footprint_mb": {k: round(v / 1e6, 1) for k, v in vars(footprint).items()},
        "parameters": sum(p.numel() for p in loops[0].trainee.unet.parameters()),
        "trained_per_adapter": loops[0].trainee.rows.values.shape[1],
        "names": [job.name for job in work.jobs],
    }


def add_peft(unet: Any, settings: FinetuneConfig) -> None:
    """Add PEFT's LoRA as `settings` have ours, in float32 whatever the base is kept in."""
    layers = layers_of(FAMILIES[USUAL], settings.targets)
    targets = [name for ends in layers.values() for name in ends]
    unet.add_adapter(LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=targets))
    cast_training_params(unet, torch.float32)


def peft(storage: Path, names: list[str]) -> dict[str, Any]:
    """The same steps by PEFT, one adapter after another; the largest differences."""
    config = Config.model_validate(sections(storage))
    settings, trained_as = config.finetune, recipe_of(config).training
    assert trained_as is not None
    budget = trained_as.budget
    base = load_base(config.base, ("model",))
    unet = base.model
    unet.enable_gradient_checkpointing()
    add_peft(unet, settings)
    trained = {
        name.replace(".default.", "."): p for name, p in unet.named_parameters() if p.requires_grad
    }
    kept = {key: value.to(base.device) for key, value in load_file(storage / "kept.st").items()}
    accelerator = Accelerator(
        mixed_precision=precision_of(settings, config.base),
        cpu=base.device.type == "cpu",
        device_placement=False,
    )
    found = []
    for row, name in enumerate(names):
        print(f"PEFT: adapter {row + 1} of {len(names)}", file=sys.stderr)
        begun = load_file(storage / "start" / str(row) / LORA_FILE)
        with torch.no_grad():
            for key, parameter in trained.items():
                parameter.copy_(begun[f"unet.{key}"])
                parameter.grad = None
        optimizer = torch.optim.AdamW(
            trained.values(),
            lr=budget.learning_rate,
            betas=BETAS,
            weight_decay=settings.weight_decay,
        )
        with accelerator.autocast():
            one = slice(row, row + 1)
            predicted = unet(kept["noisy"][one], kept["timestep"][one], kept["states"][one]).sample
        loss = F.mse_loss(predicted.float(), kept["target"][one])
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(list(trained.values()), settings.max_grad_norm)
        gradients = {key: (p.grad.cpu(), kept[key][row].cpu()) for key, p in trained.items()}
        optimizer.step()
        ours = load_file(storage / "out" / name / LORA_FILE)
        changes = {
            key: tuple(
                after - begun[f"unet.{key}"] for after in (p.detach().cpu(), ours[f"unet.{key}"])
            )
            for key, p in trained.items()
        }
        losses = json.loads((storage / "out" / name / "losses.json").read_text())
        found.append(
            {
                "loss": loss.item(),
                "loss_difference": abs(losses[0] - loss.item()),
                **compare(gradients, changes),
            }
        )
    return {"adapters": found}


def compare(
    gradients: dict[str, tuple[Tensor, ...]], changes: dict[str, tuple[Tensor, ...]]
) -> dict[str, float]:
    """How far PEFT's and our gradients, and changes of the weights, are apart."""

    def flat(pairs: dict[str, tuple[Tensor, ...]], side: int) -> Tensor:
        return torch.cat([pair[side].float().flatten() for pair in pairs.values()])

    theirs, ours = (flat(gradients, side) for side in (0, 1))
    apart = (theirs - ours).abs()
    stepped, our_step = (flat(changes, side) for side in (0, 1))
    clear = theirs.abs() > apart.max()
    missed = (stepped - our_step)[clear].abs()
    return {
        "gradient_norm": theirs.norm().item(),
        "gradient_difference_norm": apart.norm().item(),
        "gradient_largest": theirs.abs().max().item(),
        "gradient_largest_difference": apart.max().item(),
        "weights_above_rounding": clear.float().mean().item(),
        "their_largest_change": stepped[clear].abs().max().item(),
        "their_largest_difference": missed.max().item(),
        "weights_turned": (stepped * our_step < 0).float().mean().item(),
    }


def in_process(storage: Path, *asked: Any) -> tuple[Any, dict[str, Any]]:
    """One of the sides in a process of its own; its cost and what it found."""
    command = [sys.executable, __file__, "--storage", str(storage), "--one", json.dumps(asked)]
    cost, output = run(command)
    return cost, json.loads(output.splitlines()[-1])


def real(storage: Path) -> tuple[dict[str, Any], dict[str, bool]]:
    """The step on Stable Diffusion 1.5's UNet."""
    if not (storage / "model").exists():
        in_process(storage, "model")
    cost, numbers = in_process(storage, "grouped")
    print(json.dumps(numbers), file=sys.stderr)
    other, against = in_process(storage, "peft", numbers.pop("names"))
    peak, estimated = numbers.pop("peak_bytes"), numbers.pop("estimated_bytes")
    numbers |= {
        "peak_gb": round(peak / 1e9, 2),
        "estimated_gb": round(estimated / 1e9, 2),
        "estimate_over_peak": round(estimated / peak, 3),
        "grouped process": vars(cost),
        "peft process": vars(other),
        "against PEFT": against["adapters"],
    }
    apart = against["adapters"]
    loss = max(one["loss_difference"] / one["loss"] for one in apart)
    gradient = max(one["gradient_difference_norm"] / one["gradient_norm"] for one in apart)
    weight = max(one["their_largest_difference"] / one["their_largest_change"] for one in apart)
    bars = {
        "peak <= 20 GB": peak <= BAR_GB * 1e9,
        "estimate within 15 %: Stable Diffusion 1.5": abs(estimated / peak - 1) <= ESTIMATE,
        "losses equal PEFT's": loss <= LOSS,
        "gradients equal PEFT's": gradient <= GRADIENT,
        "weights equal PEFT's where gradients are above rounding": weight <= WEIGHT,
        "few weights turned": max(one["weights_turned"] for one in apart) <= TURNED,
    }
    return {"Stable Diffusion 1.5, 4 adapters x 1 row": numbers}, bars


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--storage", type=Path, default=None)
    options.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    storage = arguments.storage or Path(mkdtemp(prefix="raysynth-real-shapes-"))
    if arguments.one:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
        side, *given = arguments.one
        if side == "model":
            write_model(storage / "model")
            print("{}")
        else:
            print(json.dumps({"grouped": grouped, "peft": peft}[side](storage, *given)))
        return
    numbers, bars = real(storage)
    if arguments.storage is None:  # the model is 1.7 GB
        shutil.rmtree(storage)
    finish("real_shapes", numbers, bars, quick=False)


if __name__ == "__main__":
    main()
