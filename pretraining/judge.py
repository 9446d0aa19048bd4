"""The judge: a CNN that names garment and ground. For evaluation only; it is never shipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from pretraining.loop import Plan, descend, train
from pretraining.photographs import BASE, OUTFITS_LIKE, BaseGarments, compose, sample_grounds
from pretraining.words import GROUNDS
from raysynth.datasets.garments import CLASSES
from raysynth.pretraining.loop import warm_then_decay

CLASS_WEIGHTS = torch.tensor([1.0, 0.7, 2.0, 1.0, 2.0, 0.7, 1.6, 0.7, 0.7, 0.7])
_BATCH = 128
_RATE = 2e-3


class Judge(nn.Module):
    """Residual CNN on images [B, 3, 32, 32] in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.stages = nn.ModuleList(
            [_Residual(32, 64, 2), _Residual(64, 128, 2), _Residual(128, 192, 2)]
        )
        self.garment = nn.Linear(192, len(CLASSES))
        self.ground = nn.Linear(192, len(GROUNDS))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the garment [B, 10] and of the ground [B, 11]."""
        hidden = self.stem(images * 2 - 1)
        for stage in self.stages:
            hidden = stage(hidden)
        pooled = hidden.mean((2, 3)).float()
        return self.garment(pooled), self.ground(pooled)

    @torch.no_grad()
    def verdict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Garment [B] and ground [B] the judge sees in images."""
        parts = [self(part) for part in images.split(256)]
        garments, grounds = zip(*parts, strict=True)
        return torch.cat(garments).argmax(1), torch.cat(grounds).argmax(1)


class _Residual(nn.Module):
    """Two pre-activated 3x3 convolutions and a strided shortcut."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(out)
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(width, out, stride, stride, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        active = F.relu(self.norm1(hidden))
        inner = self.conv2(F.relu(self.norm2(self.conv1(active))))
        shortcut: Tensor = self.shortcut(active)
        return shortcut + inner


def train_judge(plan: Plan, base: BaseGarments) -> Judge:
    """Train (or resume, or just load) the judge on base and outfits-like renderings."""
    torch.manual_seed(plan.seed)
    judge = Judge()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=_RATE, weight_decay=0.05, fused=True)
    schedule = LambdaLR(optimizer, warm_then_decay(plan.steps, 0.7))

    def step(dice: torch.Generator) -> dict[str, float]:
        positions = base.sample(_BATCH, CLASS_WEIGHTS, dice)
        grounds, garments = sample_grounds(_BATCH, dice), base.labels[positions]
        look = BASE if torch.rand((), generator=dice) < 0.6 else OUTFITS_LIKE
        images, _ = compose(base.cutouts[positions], grounds, look, dice)
        with torch.autocast("cpu", torch.bfloat16):
            garment, ground = judge(images)
        loss = F.cross_entropy(garment, garments) + 0.3 * F.cross_entropy(ground, grounds)
        descend(loss, judge, optimizer, schedule)
        return {
            "loss": loss.item(),
            "garment": (garment.argmax(1) == garments).float().mean().item(),
        }

    judge.train()
    train(plan, {"judge": judge, "optimizer": optimizer, "schedule": schedule}, step)
    return judge.eval().requires_grad_(False)
