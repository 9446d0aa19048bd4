"""What one training does: its phases, and the heads that are tried on its snapshots.

References, mixtures, search trials and the final classifier are plans, nothing else.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Images = Literal[
    "real", "real_subset", "real_errors", "synthetic", "synthetic_fill", "usb", "asb", "joint"
]
"""What a phase trains on; `raysynth.classify.trainset` defines each."""

Objective = Literal["erm", "balanced", "group_dro", "dfr"]
"""Stage 2 on real training images; heads of these are swept over weight decays."""

ALONE = ("trained", "dfr_train", "dfr_validation", "self")
"""Heads without a weight decay to sweep: trained along, or tuned inside their own fit."""


@dataclass(frozen=True)
class HeadSpec:
    """A head tried on every snapshot: the one trained along, or one refitted on real images.

    `penalty` is that of `dfr_train` and `dfr_validation`. `real_share`: lambda of
    lambda * CE(real) + (1 - lambda) * CE(synthetic); below 1, `erm` and `balanced` are fitted to
    the synthetic images of the plan's first phase too.
    """

    objective: Objective | Literal["trained", "dfr_train", "dfr_validation", "self"]
    weight_decay: float = 0.0
    penalty: Literal["l1", "l2"] = "l1"
    real_share: float = 1.0

    @property
    def name(self) -> str:
        """Distinct text, e.g. `balanced-0.01`, or `balanced-0.01-real-0.5`."""
        if self.objective in ALONE:
            return self.objective
        share = "" if self.real_share == 1 else f"-real-{self.real_share:g}"
        return f"{self.objective}-{self.weight_decay:g}{share}"


TRAINED = HeadSpec("trained")


@dataclass(frozen=True)
class Phase:
    """Optimizer steps on one kind of images.

    `ratio`: synthetic images used / real training images. `sampling`: shuffled epochs, or groups
    equally often. `reweighted`: losses weighted by inverse group frequency. `dro_step_size`:
    group-DRO when above 0. `real_share`: weight of the real images' loss in `joint`. `upweight`:
    copies of the misread images in `real_errors`. `fresh`: start from new weights. `keep_best`:
    evaluations after which the next phase goes on from the best; 0: from the last weights.
    """

    images: Images
    steps: int
    learning_rate: float
    weight_decay: float
    ratio: float = 0.0
    sampling: Literal["uniform", "balanced"] = "uniform"
    reweighted: bool = False
    beta: float = 1.0
    temperature: float = 0.1
    dro_step_size: float = 0.0
    real_share: float = 0.0
    upweight: int = 1
    fresh: bool = False
    keep_best: int = 0

    def told(self) -> dict[str, Any]:
        """The fields that say something: those always set, and others than their default."""
        always = ("images", "steps", "learning_rate", "weight_decay")
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name in always or getattr(self, f.name) != f.default
        }


@dataclass(frozen=True)
class Plan:
    """One training and the heads tried on it; everything but the images and `Config`.

    Only the last phase has snapshots: `evaluations`, evenly spaced. `seed`: index of the seed.
    """

    phases: tuple[Phase, ...]
    heads: tuple[HeadSpec, ...]
    evaluations: int = 4
    seed: int = 0

    @property
    def last(self) -> Phase:
        """The phase whose snapshots are evaluated."""
        return self.phases[-1]

    @property
    def frozen(self) -> bool:
        """No phase takes a step: the encoder stays as it was loaded."""
        return not any(phase.steps for phase in self.phases)

    @property
    def mixes(self) -> bool:
        """Some head is fitted to synthetic images too."""
        return any(spec.real_share < 1 for spec in self.heads)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def told(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan's settings flat, for results and reports; earlier phases as `stage_1_<field>`."""
    phases = [Phase(**values).told() for values in plan["phases"]]
    first = {f"stage_{n}_{k}": v for n, p in enumerate(phases[:-1], 1) for k, v in p.items()}
    return first | phases[-1]
