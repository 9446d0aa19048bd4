"""GSURE: denoising learnt from images of which parts are missing or noisy, and none is clean.

Kawar et al. 2024 (arXiv 2305.13128): of an image x only y = m (x + s0 n) is known. The network is
given sqrt(a) (y + sqrt(s_t^2 - s0^2) z) where the image is seen and pure noise where it is not, and
learns mean(m (f - y)^2) + 2 L v^T J v / n, with f its clean image, v = m times normal numbers and J
the gradient of f by its input. Their code has L = (1-a) 1e-4 everywhere, s0^2 at the least of their
noises. Ours: Stein's identity gives L = s0^2 sqrt(a) (of rectified flow s0^2 (1-s)); without noise
nothing of it is left, and the rest is the error of what is seen. Also ours: all of it in latents,
with s0 measured there and places that the autoencoder mixes with missing ones counted as missing;
and the weight of a level, which is the base's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from raysynth.errors import ConfigError, DataError
from raysynth.finetune.settings import FinetuneConfig
from raysynth.knobs import Section, Sections, knob

if TYPE_CHECKING:
    from torch import Tensor

    from raysynth.finetune.jobs import Job
    from raysynth.finetune.material import Drawn, Material
    from raysynth.finetune.objective import Noised
    from raysynth.models.denoiser import Denoiser
    from raysynth.models.family import Base
    from raysynth.models.prediction import Prediction

NAME = "gsure"
RELEASED = 1e-4
"""L of their code, times 1-a."""
LEAST = 0.1
"""Share of noise below which the weight of a level does not rise further."""
MEASURED = 64
"""Images by which noise in latents is measured, at most."""


class GsureKnobs(Section):
    """Which divergence, and what counts as missing."""

    divergence: Literal["stein", "released", "none"] = knob(
        "stein",
        "What makes up for the noise of what is seen: Stein's coefficient; that of the released "
        "code; nothing, which is the error of what is seen alone.",
    )
    margin: Annotated[int, Field(ge=0)] = knob(
        1,
        "Latent positions around missing ones that count as missing: the autoencoder mixes them.",
    )


def projected_divergence(
    clean: Tensor, x: Tensor, seen: Tensor, probe: Tensor, train: bool
) -> Tensor:
    """[B] v^T J v with v = seen * probe, J the gradient of `clean` by `x`; all [B, C, h, w].

    Its mean over probes is the trace of J where the image is seen (Hutchinson 1990). Rows depend on
    themselves alone, so one backward pass serves all of them. `train`: with a graph of its own.
    """
    import torch

    v = seen * probe
    (pulled,) = torch.autograd.grad((clean * v).sum(), x, create_graph=train, retain_graph=True)
    return (v * pulled).flatten(1).sum(1)


def coefficient(kind: str, prediction: Prediction, timestep: Tensor, sigma: Tensor) -> Tensor:
    """[B] 2 L of rows at timesteps, whose images have noise [B] `sigma`."""
    signal, spread = (share.flatten() for share in prediction.levels(timestep))
    if kind == "stein":
        return 2 * sigma.square() * signal
    share = spread.square() / (signal.square() + spread.square())
    return 2 * RELEASED * share if kind == "released" else 0 * share


def weight_of(prediction: Prediction, timestep: Tensor) -> Tensor:
    """[B] what the base's own error is of that of the clean image."""
    signal, spread = (share.flatten() for share in prediction.levels(timestep))
    least = spread.clamp(min=LEAST)
    if prediction.kind == "sample":
        return 0 * least + 1
    return ((signal if prediction.kind == "epsilon" else 1) / least).square()


class Gsure:
    """See `raysynth.finetune.objective.OfImages`."""

    title = "GSURE"
    source = "Kawar et al. 2024 (arXiv 2305.13128); their code; the coefficient is ours"
    Knobs = GsureKnobs
    twice = True

    def passes(self, knobs: GsureKnobs) -> int:
        """Two: a second-order pass takes 1.9 times a plain one."""
        return 2

    def check(self, config: Sections, knobs: GsureKnobs) -> None:
        """Refuse images that are whole, and what has no second derivative."""
        from raysynth.datasets.damage import may_be_damaged
        from raysynth.datasets.settings import DatasetConfig
        from raysynth.models.settings import BaseConfigSection

        settings, dataset = config[FinetuneConfig], config[DatasetConfig]
        said = f"finetune.objective={NAME}"
        if not may_be_damaged(dataset):
            raise ConfigError(
                f"{said}: nothing is missing of the images of dataset.name={dataset.name}; "
                "expected masks or noise. Fix: the columns mask and noise of a folder's metadata, "
                "dataset.missing or dataset.noise to simulate them, or finetune.objective=denoising"
            )
        refused = {
            "finetune.precision": (settings.precision == "float16", "float16", "bfloat16"),
            "finetune.gradient_checkpointing": (settings.gradient_checkpointing, "true", "false"),
            "base.attention": (config[BaseConfigSection].attention == "sdpa", "sdpa", "plain"),
        }
        for key, (is_so, found, better) in refused.items():
            if is_so:
                raise ConfigError(
                    f"{said}: got {key}={found}; expected what gradients of gradients can be taken "
                    f"of, within its range. Fix: {key}={better}"
                )
        if settings.noise_offset:
            raise ConfigError(
                f"{said}: got finetune.noise_offset={settings.noise_offset:g}; expected 0, as what "
                "makes up for noise holds for white noise. Fix: finetune.noise_offset=0"
            )
        if settings.terms:
            raise ConfigError(
                f"{said}: got finetune.terms=[{', '.join(t.name for t in settings.terms)}], which "
                "compare what is said of whole images; expected none. Fix: finetune.terms=[]"
            )

    def extra(
        self, material: Material, job: Job, base: Base, seed: int, knobs: GsureKnobs
    ) -> Material:
        """Nothing more than `of_images`."""
        return material

    def of_images(
        self, drawn: Drawn, job: Job, base: Base, real: str, seed: int, knobs: GsureKnobs
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """`missing` [E, 1, h, w], 1 where nothing is known of the image, and `sigma` [E]."""
        import torch

        from raysynth.datasets.damage import read_damage
        from raysynth.finetune.damaged import latent_noise, leak, missing_pixels, missing_positions

        said = read_damage(real)
        if not said:
            raise DataError(
                f"finetune.objective={NAME}: no image of {real} has a mask or noise; expected some "
                "that have. Fix: name them in the metadata's columns mask and noise, or "
                "finetune.objective=denoising"
            )
        mine = [said.get(name, (b"", 0.0)) for name in drawn.ids]
        hidden = missing_pixels([mask for mask, _ in mine], drawn.pixels.shape[1])
        missing = missing_positions(hidden, base.latent_shape[1], knobs.margin)
        noise = torch.tensor([noise for _, noise in mine])
        sigma = noise * latent_noise(base, drawn.pixels[:MEASURED], noise, job, seed)
        found = missing[drawn.place]
        flips = torch.from_numpy(drawn.flips)[:, None, None, None]
        found = torch.where(flips, found.flip(3), found).to(base.device)
        some = slice(MEASURED)
        noted = {
            "missing": round(float(missing.mean()), 4),
            "sigma": round(float(sigma.mean()), 4),
            "leak": leak(base, drawn.pixels[some], hidden[some], missing[some]),
        }
        return {"missing": found, "sigma": sigma[drawn.place].to(base.device)}, {NAME: noted}

    def losses(self, batch: Noised, denoise: Denoiser, knobs: GsureKnobs) -> Tensor:
        """[B] of rows whose image is whole its squared error, of others what makes up for it."""
        import torch

        assert batch.draw_probe is not None, "of `Phase.noised`"
        prediction, trains = denoise.base.prediction, torch.is_grad_enabled()
        missing, sigma = batch.images["missing"], batch.images["sigma"]
        damaged = (missing.flatten(1).amax(1) > 0) | (sigma > 0)
        timestep = prediction.not_below(batch.timestep, sigma)
        timestep = torch.where(damaged, timestep, batch.timestep)
        x = torch.where(damaged.view(-1, 1, 1, 1), seen_at(batch, timestep), batch.x)
        seen = (1 - missing).expand_as(x)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            said = denoise(x, timestep, batch.condition)
            spread = projected_divergence(said.clean, x, seen, batch.draw_probe(), trains)
        own = (said.raw - batch.target).square().flatten(1).mean(1)
        known = (seen * (said.clean - batch.clean).square()).flatten(1).mean(1)
        share = coefficient(knobs.divergence, prediction, timestep, sigma) / x[0].numel()
        made_up = weight_of(prediction, timestep) * (known + share * spread)
        return torch.where(damaged, made_up, own)


def seen_at(batch: Noised, timestep: Tensor) -> Tensor:
    """[B, C, h, w] noisy images, what is missing of them pure noise, the rest no noisier for s0."""
    prediction = batch.denoise.base.prediction
    signal, spread = prediction.levels(timestep)
    sigma = batch.images["sigma"].view(-1, 1, 1, 1)
    added = ((spread / signal).square() - sigma.square()).clamp(min=0).sqrt()
    seen = signal * (batch.clean + added * batch.noise)
    return seen.where(batch.images["missing"] == 0, spread * batch.noise)


PART = Gsure()
