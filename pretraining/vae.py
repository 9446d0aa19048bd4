"""The tiny base's AutoencoderKL: 32x32 RGB to 16 channels of 8x8 and back.

Four or eight latent channels lost the garments' texture in first tries; sixteen keep it. After
training, the latents' mean and spread are folded into the two 1x1 convolutions at the bottleneck,
so that latents are centred, have unit variance, and diffusers' `scaling_factor` is 1.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from pretraining.loop import Plan, descend, train
from pretraining.photographs import BASE, WILD, BaseGarments, compose, sample_grounds
from raysynth.pretraining.autoencoder import fold
from raysynth.pretraining.loop import warm_then_decay

LATENT_CHANNELS = 16
_BATCH = 48
_RATE = 2e-3
_GARMENT_WEIGHT = 4.0
_KL_WEIGHT = 2e-5


def build_vae() -> AutoencoderKL:
    """The untrained autoencoder."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=32,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def train_vae(plan: Plan, base: BaseGarments) -> AutoencoderKL:
    """Train (or resume, or just load) the autoencoder; latents normalised at the end."""
    torch.manual_seed(plan.seed)
    vae = build_vae()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = LambdaLR(optimizer, warm_then_decay(plan.steps, 0.5))
    class_weights = torch.ones(10)

    def step(dice: torch.Generator) -> dict[str, float]:
        positions = base.sample(_BATCH, class_weights, dice)
        look = BASE if torch.rand((), generator=dice) < 0.6 else WILD
        images, coverage = compose(
            base.cutouts[positions], sample_grounds(_BATCH, dice), look, dice
        )
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(images * 2 - 1).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=dice)
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        loss = reconstruction_loss(decoded.float(), images * 2 - 1, coverage)
        kl = posterior.kl().mean() / noise[0].numel()
        descend(loss + _KL_WEIGHT * kl, vae, optimizer, schedule)
        error = F.mse_loss(decoded.float() / 2, images - 0.5).item()
        return {"loss": loss.item(), "kl": kl.item(), "mse": error}

    train(plan, {"vae": vae, "optimizer": optimizer, "schedule": schedule}, step)
    normalise_latents(vae, base, plan.dice(0))
    return vae.eval().requires_grad_(False)


def reconstruction_loss(decoded: Tensor, target: Tensor, coverage: Tensor) -> Tensor:
    """Squared + 0.1 absolute + 0.1 gradient error, garment pixels weighted 4x ([B, ., H, W])."""
    weight = 1 + (_GARMENT_WEIGHT - 1) * coverage
    weight = weight / weight.mean()
    error = decoded - target
    along_x, along_y = error.diff(dim=3).abs().mean(), error.diff(dim=2).abs().mean()
    pixelwise = (weight * (error.square() + 0.1 * error.abs())).mean()
    return pixelwise + 0.05 * (along_x + along_y)


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, base: BaseGarments, dice: torch.Generator) -> None:
    """Fold mean and spread of composed images' latents into the bottleneck."""
    positions = base.sample(1024, torch.ones(10), dice)
    images, _ = compose(base.cutouts[positions], sample_grounds(1024, dice), BASE, dice)
    posterior = vae.encode(images * 2 - 1).latent_dist
    latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=dice)
    fold(vae, latents)
