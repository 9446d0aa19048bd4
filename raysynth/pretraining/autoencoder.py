"""The autoencoder. After training the latents' mean and spread are folded into its bottleneck.

So latents are centred with unit variance, and diffusers' `scaling_factor` is 1.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from raysynth.pretraining.loop import Numbers, descend, train, warm_then_decay
from raysynth.pretraining.making import Making
from raysynth.pretraining.previews import keep_beside
from raysynth.pretraining.views import strong_views, views
from raysynth.strips import spaced

KL_WEIGHT = 2e-5
PLAIN_SHARE = 0.6
"""Of steps on views as the denoiser sees them; the others are of strong views."""
NORMALISED_ON = 1024
MOST_SHOWN = 12


def train_autoencoder(making: Making, vae: AutoencoderKL) -> AutoencoderKL:
    """Train (or resume, or just load) the autoencoder; latents normalised at the end."""
    crew, settings = making.crew, making.settings.autoencoder
    vae = vae.to(crew.device).train()
    crew.same(vae)
    plan = making.plan("autoencoder", settings.steps)
    optimizer = torch.optim.AdamW(
        vae.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
    )
    schedule = LambdaLR(optimizer, warm_then_decay(plan.steps, 0.5))

    def step(dice: torch.Generator) -> Numbers:
        pixels = making.material.pixels[making.draw(settings.batch_size, dice)]
        plain = torch.rand((), generator=dice) < PLAIN_SHARE
        images = (views if plain else strong_views)(pixels, making.settings, dice) * 2 - 1
        noise = torch.randn(len(images), *_latent_shape(vae), generator=dice)
        loss, error = batch_loss(making, vae, crew.share(images), crew.share(noise))
        norm = descend(crew, loss, vae, optimizer, schedule)
        return {"loss": loss.detach(), "dB": -10 * error.log10(), "norm": norm}

    def preview(done: int) -> None:
        measured = making.material.measured
        rows = measured[torch.from_numpy(spaced(len(measured), MOST_SHOWN))]
        images = making.material.pixels[rows].to(crew.device).float() / 255
        keep_beside(making, "autoencoder", done, images, reconstructed(vae, images))

    parts = {"vae": vae, "optimizer": optimizer, "schedule": schedule}
    train(plan, parts, step, preview)
    normalise_latents(making, vae, plan.dice(0))
    return vae.eval().requires_grad_(False)


def batch_loss(
    making: Making, vae: AutoencoderKL, images: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss of images [b, 3, S, S] in -1..1, and mean squared error in 0..1.

    Squared, 0.1 absolute and 0.05 gradient error, and a little of the Kullback-Leibler divergence.
    """
    with making.crew.autocast():
        posterior = vae.encode(images).latent_dist
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
    error = decoded.float() - images
    edges = error.diff(dim=3).abs().mean() + error.diff(dim=2).abs().mean()
    kl = posterior.kl().mean() / noise[0].numel()
    squared = error.square().mean()
    loss = squared + 0.1 * error.abs().mean() + 0.05 * edges + KL_WEIGHT * kl
    return loss, squared.detach() / 4


@torch.no_grad()
def reconstructed(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Images [B, 3, S, S] in 0..1 after encoding and decoding."""
    parts = [vae.decode(vae.encode(x * 2 - 1).latent_dist.mode()).sample for x in images.split(256)]
    return (torch.cat(parts).float() / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def normalise_latents(making: Making, vae: AutoencoderKL, dice: torch.Generator) -> None:
    """Fold mean and spread of training images' latents into the bottleneck."""
    pixels = making.material.pixels[making.draw(NORMALISED_ON, dice)]
    images = views(pixels, making.settings, dice) * 2 - 1
    drawn = []
    for part in images.split(128):
        posterior = vae.encode(part.to(making.crew.device)).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=dice).to(posterior.mean.device)
        drawn.append(posterior.mean + posterior.std * noise)
    fold(vae, torch.cat(drawn))


@torch.no_grad()
def fold(vae: AutoencoderKL, latents: Tensor) -> None:
    """Fold mean m and spread s of channels of [N, C, h, w] latents into the 1x1 convolutions.

    The encoder then gives (z - m) / s and the decoder takes it: images are unchanged.
    """
    channels = latents.shape[1]
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out = vae.quant_conv, vae.post_quant_conv
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= spread[None, :, None, None]
    into.bias[:channels] -= mean
    into.bias[channels:] -= 2 * spread.log()
    into.weight[:channels] /= spread[:, None, None, None]
    into.bias[:channels] /= spread


def _latent_shape(vae: AutoencoderKL) -> tuple[int, int, int]:
    config = vae.config
    side = config.sample_size // 2 ** (len(config.block_out_channels) - 1)
    return (config.latent_channels, side, side)
