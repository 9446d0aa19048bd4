"""Weights of the small network: `python -m pretraining.network --idx DIR --work DIR`.

Two encoders, trained on the tiny base's own garments, in the base's look, to name the garment:
`other_garments` has never seen a pullover or a coat and is the stand-in for a network pretrained on
ImageNet; `all_garments` has seen all ten and is a control row: what the base's labelled images are
worth by themselves. No garment and no tile of outfits is among them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from pretraining.loop import Plan, descend, train
from pretraining.photographs import BASE, BaseGarments, compose, load_base_garments, sample_grounds
from raysynth.datasets.garments import CLASSES
from raysynth.networks.checks import UNSEEN
from raysynth.networks.settings import EMBEDDED_WIDTHS
from raysynth.networks.small import NORMALISATION, WEIGHTS, SmallNetwork
from raysynth.pretraining.loop import warm_then_decay

KNOWN = {
    "other_garments": tuple(name for name in CLASSES if name not in UNSEEN),
    "all_garments": CLASSES,
}
"""Shipped file -> the garments that it was trained to tell apart."""

STEPS, BATCH, RATE, WEIGHT_DECAY = 1200, 128, 2e-3, 0.05


def train_network(plan: Plan, base: BaseGarments, known: tuple[str, ...]) -> SmallNetwork:
    """Train (or resume, or just load) a network that names these garments."""
    torch.manual_seed(plan.seed)
    network = SmallNetwork(EMBEDDED_WIDTHS, 3, len(known))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    schedule = LambdaLR(optimizer, warm_then_decay(plan.steps, 0.7))
    weights = torch.tensor([float(name in known) for name in CLASSES])
    index = torch.tensor([known.index(name) if name in known else -1 for name in CLASSES])

    def step(dice: torch.Generator) -> dict[str, float]:
        positions = base.sample(BATCH, weights, dice)
        label = index[base.labels[positions]]
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(_rendered(base, positions, dice))
        loss = F.cross_entropy(logits.float(), label)
        descend(loss, network, optimizer, schedule)
        return {"loss": loss.item(), "right": (logits.argmax(1) == label).float().mean().item()}

    network.train()
    train(plan, {"network": network, "optimizer": optimizer, "schedule": schedule}, step)
    return network.eval().requires_grad_(False)


@torch.no_grad()
def held_out_accuracy(network: SmallNetwork, base: BaseGarments, known: tuple[str, ...]) -> float:
    """Share of right answers on garments that no training of the base sees."""
    index = torch.tensor([known.index(name) if name in known else -1 for name in CLASSES])
    label = index[base.labels[base.held_out]]
    dice = torch.Generator().manual_seed(1)
    images = _rendered(base, base.held_out[label >= 0], dice)
    found = torch.cat([network(part) for part in images.split(256)]).argmax(1)
    return float((found == label[label >= 0]).float().mean())


def _rendered(base: BaseGarments, positions: Tensor, dice: torch.Generator) -> Tensor:
    """Normalised images [B, 3, 32, 32] of garments on random grounds, in the base's look."""
    grounds = sample_grounds(len(positions), dice)
    images, _ = compose(base.cutouts[positions], grounds, BASE, dice)
    images = (images - NORMALISATION) / NORMALISATION
    return images.contiguous(memory_format=torch.channels_last)


def write(network: SmallNetwork, known: tuple[str, ...], file: Path) -> None:
    """The encoder as bfloat16 safetensors; the head, which no one uses, is left out."""
    weights = {
        name: (value.bfloat16() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
        if not name.startswith("classifier.")
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(weights, file, metadata={"garments": ", ".join(known)})


def main() -> None:
    """Train, measure and write both encoders."""
    parser = argparse.ArgumentParser(prog="python -m pretraining.network", description=__doc__)
    parser.add_argument("--idx", required=True, help="folder with Fashion-MNIST's IDX files")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and cut-outs")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    base = load_base_garments(arguments.idx, arguments.work)
    for name, known in KNOWN.items():
        plan = Plan(name, arguments.steps, arguments.work, arguments.seed)
        network = train_network(plan, base, known)
        right = held_out_accuracy(network, base, known)
        write(network, known, arguments.out / f"{name}.safetensors")
        print(f"{name}: {len(known)} garments, held-out accuracy {right:.3f}", flush=True)


if __name__ == "__main__":
    main()
