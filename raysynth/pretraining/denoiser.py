"""The denoiser: a UNet on cached latents, trained by rectified flow.

Noise level s in (0, 1): x_s = (1 - s) x_0 + s e, target e - x_0, timestep 1000 s (Liu et al. 2023,
arXiv 2209.03003, equation 1; logit-normal levels as Esser et al. 2024, arXiv 2403.03206, section
3.1). Text states come from the frozen text tower, latents from the frozen autoencoder.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from transformers import CLIPModel

from raysynth.pretraining.crew import Crew
from raysynth.pretraining.loop import Numbers, averaging, descend, load, train, warm_then_decay
from raysynth.pretraining.making import Making
from raysynth.pretraining.previews import keep_samples
from raysynth.pretraining.tokens import tokenise
from raysynth.pretraining.views import views
from raysynth.storage.files import write_atomic

UNIFORM_SHARE = 0.1
"""Of noise levels, so that the sampler's first step, of nearly pure noise, is trained as well."""
ENCODED_AT_ONCE = 256
MOST_STATES = 4096
"""Texts up to which all states are kept; beyond, they are computed anew."""


@dataclass(frozen=True)
class Cache:
    """`latents` float16 [N, C, H, W] and the row of the image that each is a view of, [N]."""

    latents: Tensor
    rows: Tensor


def cache_latents(making: Making, vae: AutoencoderKL) -> Cache:
    """Encode views of training images once; they are kept beside the checkpoints."""
    file = f"{making.folder}/stages/latents-{making.keys['latents']}.pt"
    found = load(file, torch.device("cpu"))
    if found is None:
        if making.crew.leads:
            buffer = io.BytesIO()
            torch.save(_encoded(making, vae), buffer)
            write_atomic(file, buffer.getbuffer())
        making.crew.wait()
        found = load(file, torch.device("cpu"))
        assert found is not None
    return Cache(**found)


@torch.no_grad()
def _encoded(making: Making, vae: AutoencoderKL) -> dict[str, Tensor]:
    count = making.settings.denoiser.latents
    dice = torch.Generator().manual_seed(making.seed)
    rows, parts = making.draw(count, dice), []
    for part in rows.split(ENCODED_AT_ONCE):
        images = views(making.material.pixels[part], making.settings, dice) * 2 - 1
        with making.crew.autocast():
            posterior = vae.encode(images.to(making.crew.device)).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=dice).to(posterior.mean.device)
        parts.append((posterior.mean + posterior.std * noise).half().cpu())
        making.told("latents", sum(map(len, parts)), count, {})
    return {"latents": torch.cat(parts), "rows": rows}


class States:
    """The text tower's states of captions, [T, length, D]."""

    def __init__(self, making: Making, clip: CLIPModel) -> None:
        self._text = clip.text_model.eval()
        self._tokens = tokenise(making.tokenizer, making.material.captions.texts)
        self._device = making.crew.device
        self._known: Tensor | None = None
        if len(self._tokens) <= MOST_STATES:
            self._known = torch.cat([self._computed(part) for part in self._tokens.split(256)])

    @torch.no_grad()
    def _computed(self, tokens: Tensor) -> Tensor:
        return self._text(input_ids=tokens.to(self._device)).last_hidden_state.float()

    def of(self, numbers: Tensor) -> Tensor:
        """[B, length, D] of texts by number."""
        if self._known is not None:
            return self._known[numbers.to(self._device)]
        return self._computed(self._tokens[numbers.cpu()])


def train_denoiser(
    making: Making, unet: UNet2DConditionModel, clip: CLIPModel, vae: AutoencoderKL
) -> UNet2DConditionModel:
    """Train (or resume, or just load) the denoiser; returns its averaged weights."""
    crew, settings = making.crew, making.settings.denoiser
    unet = unet.to(crew.device).train()
    crew.same(unet)
    plan = making.plan("denoiser", settings.steps)
    averaged = averaging(unet, settings.average)
    optimizer = torch.optim.AdamW(
        unet.parameters(),
        lr=settings.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=0.01,
        fused=True,
    )
    schedule = LambdaLR(optimizer, warm_then_decay(plan.steps, 0.4))
    cache, states = cache_latents(making, vae), States(making, clip)

    def step(dice: torch.Generator) -> Numbers:
        loss = batch_loss(making, unet, cache, states, dice)
        norm = descend(crew, loss, unet, optimizer, schedule)
        averaged.update_parameters(unet)
        return {"loss": loss.detach(), "norm": norm}

    def preview(done: int) -> None:
        keep_samples(making, done, clip, vae, averaged.module)

    parts = {"unet": unet, "averaged": averaged, "optimizer": optimizer, "schedule": schedule}
    train(plan, parts, step, preview)
    result: UNet2DConditionModel = averaged.module
    return result.eval().requires_grad_(False)


def batch_loss(
    making: Making,
    unet: UNet2DConditionModel,
    cache: Cache,
    states: States,
    dice: torch.Generator,
) -> Tensor:
    """The flow's loss on this worker's share of one drawn batch."""
    material, crew = making.material, making.crew
    chosen = torch.randint(
        len(cache.latents), (making.settings.denoiser.batch_size,), generator=dice
    )
    rows = cache.rows[chosen]
    told = material.captions.draw(material.label[rows], material.attribute[rows], dice)
    level = torch.randn(len(chosen), generator=dice).sigmoid()
    uniform = torch.rand(len(chosen), generator=dice) < UNIFORM_SHARE
    level = torch.where(uniform, torch.rand(len(chosen), generator=dice), level)
    noise = torch.randn(len(chosen), *cache.latents.shape[1:], generator=dice)
    own = chosen[crew.own(len(chosen))]
    latents = cache.latents[own].float().to(crew.device)
    return flow_loss(
        crew, unet, latents, states.of(crew.share(told)), crew.share(level), crew.share(noise)
    )


def flow_loss(
    crew: Crew,
    unet: UNet2DConditionModel,
    latents: Tensor,
    states: Tensor,
    level: Tensor,
    noise: Tensor,
) -> Tensor:
    """Mean squared error of the predicted flow e - x_0 at levels [b] between latents and noise."""
    mixed = torch.lerp(latents, noise, level[:, None, None, None])
    with crew.autocast():
        flow = unet(mixed, level * 1000, encoder_hidden_states=states).sample
    return F.mse_loss(flow.float(), noise - latents)
