"""From which noise to the image: what all actors of a run are told, once it is settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Way:
    """Noise levels of a run's steps, and what they begin at."""

    levels: tuple[float, ...] | None = None
    """[N] falling; None: the solver's own, from pure noise."""
    gaussians: str = ""
    """File or URI of the Gaussians (`gaussian`) that images are drawn from and noised to the first
    level; empty: they begin as pure noise."""
    fits: str = ""
    """File or URI of what guidance learnt of the real images (`fits`); empty: nothing."""
    aims: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Name of a guidance term that is fitted -> [G] aims of each group, see `guidance.Fit`."""
    colours: str = ""
    """File or URI of what drawn images' colours are moved by (`colours`); empty: they stay."""
