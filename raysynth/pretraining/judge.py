"""The judge: a small network that reads label and attribute off images. Only bars need it.

It learns from real training images alone, every group drawn alike.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from raysynth.networks.small import NORMALISATION, SmallNetwork
from raysynth.pretraining.loop import Numbers, descend, train, warm_then_decay
from raysynth.pretraining.making import Making
from raysynth.pretraining.views import strong_views

WIDTHS = (32, 64, 128)
BATCH, RATE, WEIGHT_DECAY = 128, 2e-3, 0.05


def train_judge(making: Making) -> SmallNetwork:
    """Train (or resume, or just load) the judge, on this worker alone."""
    groups = making.material.groups
    assert groups is not None
    crew = making.crew.alone()
    plan = making.plan("judge", making.settings.judge_steps, crew)
    torch.manual_seed(making.seed)
    labels, attributes = len(groups.label_names), len(groups.attribute_names)
    judge = SmallNetwork(WIDTHS, 3, labels + attributes).to(crew.device).train()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    schedule = LambdaLR(optimizer, warm_then_decay(plan.steps, 0.7))
    weights, material = making.material.weights(1.0), making.material

    def step(dice: torch.Generator) -> Numbers:
        chosen = torch.multinomial(weights, BATCH, replacement=True, generator=dice)
        rows = material.trained[chosen]
        images = strong_views(material.pixels[rows], making.settings, dice).to(crew.device)
        with crew.autocast():
            logits = judge(_normalised(images)).float()
        label, attribute = (x[rows].to(crew.device) for x in (material.label, material.attribute))
        loss = F.cross_entropy(logits[:, :labels], label)
        if (attribute >= 0).any():
            loss = loss + F.cross_entropy(logits[:, labels:], attribute, ignore_index=-1)
        norm = descend(crew, loss, judge, optimizer, schedule)
        return {"loss": loss.detach(), "norm": norm}

    train(plan, {"judge": judge, "optimizer": optimizer, "schedule": schedule}, step)
    return judge.eval().requires_grad_(False)


@torch.no_grad()
def verdict(judge: SmallNetwork, images: Tensor, labels: int) -> tuple[Tensor, Tensor]:
    """Label [B] and attribute [B] that the judge sees in images [B, 3, S, S] in 0..1."""
    device = next(judge.parameters()).device
    parts = [judge(_normalised(part.to(device))).float().cpu() for part in images.split(256)]
    logits = torch.cat(parts)
    return logits[:, :labels].argmax(1), logits[:, labels:].argmax(1)


def _normalised(images: Tensor) -> Tensor:
    seen = (images - NORMALISATION) / NORMALISATION
    return seen.contiguous(memory_format=torch.channels_last)
