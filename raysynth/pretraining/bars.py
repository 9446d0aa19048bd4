"""What a base reaches: measured on held-out images, and on samples of what was exported."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raysynth.fidelity.distances import beside_floor, principal
from raysynth.fidelity.encoder import open_space
from raysynth.fidelity.settings import FidelityConfig
from raysynth.models.clip import Clip, load_clip
from raysynth.networks.build import Blueprint
from raysynth.networks.small import SmallNetwork
from raysynth.pretraining.autoencoder import reconstructed
from raysynth.pretraining.export import export
from raysynth.pretraining.judge import verdict
from raysynth.pretraining.making import Making
from raysynth.pretraining.order import Bar
from raysynth.pretraining.previews import prompts_of, samples
from raysynth.pretraining.start import Parts

RECONSTRUCTION, RECOGNISED, AGREEMENT = 28.0, 0.85, 0.85
"""What should be reached: decibels; shares of images."""
MOST_TEXTS = 100
"""Own captions that an image is found among."""


@torch.no_grad()
def measure(
    making: Making, parts: Parts, judge: SmallNetwork | None, space: FidelityConfig, drawn_by: Any
) -> Iterator[Bar]:
    """All bars of a base; `drawn_by`: the blueprint of the classifier, whose encoder judges."""
    material = making.material
    rows = material.measured
    images = material.pixels[rows].float() / 255
    came_back = reconstructed(parts.vae, images.to(making.crew.device)).cpu()
    error = (came_back - images).square().mean().log10().item()
    yield Bar("autoencoder, held-out images, PSNR (dB)", -10 * error, RECONSTRUCTION)
    prompts = prompts_of(making)
    yield from _zero_shot(making, parts, rows)
    count = making.settings.samples
    made = samples(making, parts.clip, parts.vae, parts.unet, prompts, count)
    if judge is not None:
        yield from _agreement(making, judge, images, made)
    yield from _fidelity(making, images, made, space, drawn_by)


def _zero_shot(making: Making, parts: Parts, rows: Tensor) -> Iterator[Bar]:
    """How often the exported CLIP finds what a held-out image shows among what there is."""
    material, captions = making.material, making.material.captions
    if not captions.said:
        return
    with tempfile.TemporaryDirectory(prefix="raysynth-clip-") as folder:
        export(folder, parts.clip, parts.vae, parts.unet, making.tokenizer)
        made = {"clip": str(Path(folder) / "clip"), "clip_revision": None}
        clip = load_clip(making.base.model_copy(update=made))
    pixels = material.pixels[rows].permute(0, 2, 3, 1).numpy()
    if material.groups is None:
        labels = material.label[rows][:MOST_TEXTS].unique()
        texts = [captions.first((int(label), -1)) for label in labels]
        own = torch.isin(material.label[rows], labels)
        right = labels[_named(clip, pixels[own.numpy()], texts)] == material.label[rows][own]
        yield Bar(f"CLIP zero-shot, its caption of {len(texts)}", _share(right))
        return
    sides = (("label", material.label), ("attribute", material.attribute))
    for place, (side, truth) in enumerate(sides):
        names = sorted({each[place] for each in captions.concepts if each[1 - place] == -1} - {-1})
        known = (truth[rows] >= 0).numpy()
        if len(names) > 1 and known.any():
            meanings = [(name, -1) if place == 0 else (-1, name) for name in names]
            found = _named(clip, pixels[known], [captions.first(each) for each in meanings])
            right = torch.tensor(names)[found] == truth[rows][known]
            yield Bar(f"CLIP zero-shot, held-out images, {side}", _share(right), RECOGNISED)


def _named(clip: Clip, pixels: np.ndarray, texts: list[str]) -> Tensor:
    """[B] number of the text that fits each image best."""
    return torch.from_numpy((clip.images(pixels) @ clip.texts(texts).T).argmax(axis=1))


def _agreement(
    making: Making, judge: SmallNetwork, images: Tensor, made: list[Tensor]
) -> Iterator[Bar]:
    """How often the judge reads off what was asked for; beside it, off real held-out images."""
    material, groups = making.material, making.material.groups
    assert groups is not None
    labels, rows = len(groups.label_names), making.material.measured
    seen, at = verdict(judge, images, labels)
    known = material.attribute[rows] >= 0
    yield Bar("judge, held-out images, label", _share(seen == material.label[rows]))
    if known.any():
        yield Bar(
            "judge, held-out images, attribute", _share((at == material.attribute[rows])[known])
        )
    both = [each for each in material.captions.concepts if min(each) >= 0]
    asked = both or material.captions.concepts
    verdicts = [verdict(judge, each, labels) for each in made]
    right = [seen == label for (label, _), (seen, _) in zip(asked, verdicts, strict=True)]
    yield Bar("judge, samples, label", _share(torch.cat(right)), AGREEMENT)
    if both:
        there = [at == a for (_, a), (_, at) in zip(asked, verdicts, strict=True)]
        yield Bar("judge, samples, attribute", _share(torch.cat(there)), AGREEMENT)
    for (label, attribute), hits in zip(asked, right, strict=True):
        name = groups.label_names[label]
        name += f" / {groups.attribute_names[attribute]}" if attribute >= 0 else ""
        yield Bar(f"  of these, {name}, label", _share(hits))


def _fidelity(
    making: Making,
    images: Tensor,
    made: list[Tensor],
    config: FidelityConfig,
    blueprint: Blueprint,
) -> Iterator[Bar]:
    """Samples of all prompts beside as many held-out images, and these beside each other."""
    space = open_space(config, blueprint, making.settings.side)
    real, drawn = (_features(space.embed, each) for each in (images, torch.cat(made)))
    axes, _ = principal(real)
    found = beside_floor(real, drawn, axes, np.random.default_rng([making.seed, 311]))
    for name in ("frechet", "precision", "recall", "coverage"):
        if found[name] is not None:
            for what in ("value", "floor"):
                said = "samples" if what == "value" else "other held-out images"
                yield Bar(f"fidelity, {name}, {said} (n={found['n']})", found[name][what])


def _features(embed: Any, images: Tensor) -> np.ndarray:
    pixels = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    return np.concatenate([embed(pixels[n : n + 256]) for n in range(0, len(pixels), 256)])


def _share(hits: Tensor) -> float:
    return hits.float().mean().item()
