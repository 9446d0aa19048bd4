"""What was found of the kept images' fidelity, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysynth.fidelity.settings import REAL_ONLY

NARROW, WIDE = 0.9, 1.1
"""Ratios of spreads from which they are called so, where their interval leaves out 1."""
FAR = 2.0
"""Times its floor from which a Fréchet distance is called far."""


def marks(group: Mapping[str, Any]) -> list[str]:
    """What stands out of a group, each in a few words; `group`: of the facts of `fidelity`."""
    found = []
    if group["unfaithful"]:
        found.append("does not show its label")
    elif group["not_judged"]:
        found.append(f"label not judged: {group['not_judged']}")
    frechet = group["distances"]["frechet"]
    if frechet and frechet["value"] > FAR * frechet["floor"]:
        found.append(f"far from real: {frechet['value'] / frechet['floor']:.1f} times the floor")
    spread = {name: one for name, one in group["spread"].items() if one}
    narrow = [name for name, one in spread.items() if one["ratio"] < NARROW and one["high"] < 1]
    wide = [name for name, one in spread.items() if one["ratio"] > WIDE and one["low"] > 1]
    for word, names in (("narrower", narrow), ("wider", wide)):
        if names:
            found.append(f"{word}: {', '.join(names).replace('_', '-')}")
    if unknown := group["distances"]["unknown"]:
        found.append(unknown)
    return found or ["as real images"]


def warning(fidelity: Mapping[str, Any], on_unfaithful: str) -> str:
    """A sentence on groups that do not show their label and what was done; empty without any."""
    groups = ", ".join(fidelity.get("unfaithful", ()))
    if not groups:
        return ""
    how = f"selection.on_unfaithful={on_unfaithful}"
    if on_unfaithful == REAL_ONLY:
        return f"no synthetic image was used, for those of {groups} do not show their label ({how})"
    return f"synthetic images of {groups} do not show their label, and were used ({how})"
