"""The tiny base's denoiser: UNet2DConditionModel on 16x8x8 latents, trained by rectified flow.

Noise level s in (0, 1): x_s = (1 - s) x_0 + s e, target e - x_0, timestep 1000 s (Liu et al. 2023;
logit-normal levels as Esser et al. 2024). Text states come from the frozen CLIP text tower, latents
from the frozen autoencoder; both are computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPTextModel, CLIPTokenizer

from pretraining.clip import tokenise
from pretraining.loop import Plan, descend, train
from pretraining.photographs import BASE, BaseGarments, compose, sample_grounds
from pretraining.vae import LATENT_CHANNELS
from pretraining.words import GROUNDS, captions
from raysynth.datasets.garments import CLASSES
from raysynth.pretraining.loop import warm_then_decay

CLASS_WEIGHTS = torch.tensor([1.0, 0.8, 2.6, 1.0, 2.6, 0.8, 1.2, 0.8, 0.8, 0.8])
"""How often each class is drawn: pullover and coat must be learned well."""

_BATCH = 64
_RATE = 1.5e-3
_EMA = 0.9985
_UNIFORM_SHARE = 0.1
_SAYING = torch.tensor([0.74, 0.08, 0.08, 0.10])
"""How often a caption names garment and ground, the garment, the ground, nothing."""


def build_unet() -> UNet2DConditionModel:
    """The untrained denoiser, with plain attention: SDPA's backward is slow on CPUs."""
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(96, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    unet.set_attn_processor(AttnProcessor())
    return unet


@dataclass(frozen=True)
class LatentCache:
    """Encoded BASE images: `latents` float16 [N, 16, 8, 8], `garments` and `grounds` int64 [N]."""

    latents: Tensor
    garments: Tensor
    grounds: Tensor


@torch.no_grad()
def cache_latents(
    vae: AutoencoderKL, base: BaseGarments, count: int, work: Path, seed: int
) -> LatentCache:
    """Compose and encode `count` training images once (kept in `work`)."""
    path = work / "latents.pt"
    if not path.exists():
        dice = torch.Generator().manual_seed(seed)
        positions = base.sample(count, CLASS_WEIGHTS, dice)
        grounds = sample_grounds(count, dice)
        latents = torch.empty(count, LATENT_CHANNELS, 8, 8, dtype=torch.float16)
        for rows in torch.arange(count).split(256):
            images, _ = compose(base.cutouts[positions[rows]], grounds[rows], BASE, dice)
            with torch.autocast("cpu", torch.bfloat16):
                latents[rows] = vae.encode(images * 2 - 1).latent_dist.sample(dice).half()
        part = path.with_suffix(".part")
        content = {"latents": latents, "garments": base.labels[positions], "grounds": grounds}
        torch.save(content, part)
        part.replace(path)
    return LatentCache(**torch.load(path, weights_only=True))


class PromptStates:
    """Text states [T, 24, 64] of the empty prompt and of every caption, drawn by meaning."""

    def __init__(self, encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> None:
        texts: list[str] = []
        first = []
        for garment in (*range(len(CLASSES)), None):
            for ground in (*range(len(GROUNDS)), None):
                first.append(len(texts))
                silent = garment is None and ground is None
                texts += [""] if silent else captions((garment, ground))
        with torch.no_grad():
            parts = [encoder(part)[0] for part in tokenise(tokenizer, texts).split(256)]
        self.states = torch.cat(parts).float()
        self.first = torch.tensor(first)
        self.count = torch.tensor([*first[1:], len(texts)]) - self.first

    def draw(self, garments: Tensor, grounds: Tensor, dice: torch.Generator) -> Tensor:
        """States [B, 24, 64] of random captions; some say only one thing, some nothing."""
        said = torch.multinomial(_SAYING, len(garments), replacement=True, generator=dice)
        names_garment, names_ground = said <= 1, (said == 0) | (said == 2)
        garment = torch.where(names_garment, garments, len(CLASSES))
        ground = torch.where(names_ground, grounds, len(GROUNDS))
        meaning = garment * (len(GROUNDS) + 1) + ground
        place = torch.rand(len(garments), generator=dice) * self.count[meaning]
        return self.states[self.first[meaning] + place.long()]


def train_unet(
    plan: Plan,
    cache: LatentCache,
    prompts: PromptStates,
    on_save: Callable[[int, UNet2DConditionModel], None] | None = None,
) -> UNet2DConditionModel:
    """Train (or resume, or just load) the denoiser; returns its averaged weights.

    `on_save` gets the number of steps done and the averaged weights at every checkpoint.
    """
    torch.manual_seed(plan.seed)
    unet = build_unet()
    averaged = AveragedModel(unet, multi_avg_fn=get_ema_multi_avg_fn(_EMA))
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    schedule = LambdaLR(optimizer, warm_then_decay(plan.steps, 0.4))

    def step(dice: torch.Generator) -> dict[str, float]:
        rows = torch.randint(len(cache.latents), (_BATCH,), generator=dice)
        states = prompts.draw(cache.garments[rows], cache.grounds[rows], dice)
        loss = flow_loss(unet, cache.latents[rows].float(), states, dice)
        norm = descend(loss, unet, optimizer, schedule)
        averaged.update_parameters(unet)
        return {"loss": loss.item(), "norm": norm.item()}

    parts = {"unet": unet, "averaged": averaged, "optimizer": optimizer, "schedule": schedule}

    def saved(done: int) -> None:
        if on_save:
            on_save(done, averaged.module)

    train(plan, parts, step, saved)
    result: UNet2DConditionModel = averaged.module
    return result.eval().requires_grad_(False)


def flow_loss(
    unet: UNet2DConditionModel, latents: Tensor, states: Tensor, dice: torch.Generator
) -> Tensor:
    """Rectified-flow loss of latents [B, 16, 8, 8] given text states [B, 24, 64].

    A tenth of the noise levels is uniform, so that the sampler's first step (nearly pure noise)
    is trained as well.
    """
    count = len(latents)
    level = torch.randn(count, generator=dice).sigmoid()
    uniform = torch.rand(count, generator=dice) < _UNIFORM_SHARE
    level = torch.where(uniform, torch.rand(count, generator=dice), level)
    noise = torch.randn(latents.shape, generator=dice)
    mixed = torch.lerp(latents, noise, level[:, None, None, None])
    with torch.autocast("cpu", torch.bfloat16):
        flow = unet(mixed, level * 1000, encoder_hidden_states=states).sample
    return F.mse_loss(flow.float(), noise - latents)
