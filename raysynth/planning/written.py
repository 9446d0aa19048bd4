"""A proposal as a YAML file that explains itself, and as a few lines for the terminal."""

from __future__ import annotations

import textwrap
from typing import Any

import yaml

from raysynth.datasets.listing import few_measured, split_counts
from raysynth.planning.minutes import in_words
from raysynth.planning.planned import Plan
from raysynth.planning.proposal import Proposal, layout_words
from raysynth.terminal import shown

WIDTH = 96
HEAD = """Written by `raysynth init`: what was found, to be read and changed.
Every key: `raysynth config --help-keys`. Settings override this file:
  raysynth run FILE dataset.severity=0.95"""
WHY = {
    "embedded": "the labels are among the ten garments that the embedded base knows",
    "gpu": "Stable Diffusion 1.5, from the hub on the first run (5 GB); values are not tuned",
    "cpu": "Stable Diffusion 1.5 on CPUs, from the hub on the first run (5 GB): few steps, few "
    "small images, heads on CLIP's features. A first look, not the method at its best; a run stops "
    "where images do not show their label. With a GPU: `raysynth init FOLDER --gpu`",
}
ABOUT = {
    "name": "The run's folder is storage_path/name.",
    "dataset": "The images.",
    "prompts": "How groups are spoken; {token}: the word that fine-tuning binds to your images.",
    "base": "Generates and embeds.",
    "generator": "One adapter for each group.",
    "classifier": "What is trained in the end.",
    "references": "What it is compared with.",
    "search": "Settings that are tried on validation.",
    "resources": "What one worker takes.",
}


def as_yaml(proposal: Proposal, plan: Plan) -> str:
    """The file: settings, and comments with the groups, the prompts and what the plan says."""
    parts = [_commented(HEAD), "#\n", *map(_commented, summary(proposal, plan))]
    for key, value in proposal.settings.items():
        parts += ["\n", _commented(_about(key, proposal))] if key in ABOUT else []
        parts.append(_dumped(key, value))
    return "".join(parts)


def _commented(text: str) -> str:
    """A text as comments: its lines, the long ones of sentences wrapped."""
    lines = [
        part
        for line in text.split("\n")
        for part in (textwrap.wrap(line, WIDTH) if ". " in line else [line]) or [""]
    ]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _about(key: str, proposal: Proposal) -> str:
    if key == "dataset":
        return f"The images. {layout_words(proposal.settings['dataset']['name'])}."
    if key == "base":
        return f"What generates and embeds: {WHY[proposal.recipe]}."
    return ABOUT.get(key, "")


def _dumped(key: str, value: Any) -> str:
    # Inner mappings stand in one line each, but not the outermost one of a single value.
    inner = None if isinstance(value, dict) else False
    told = {key: value}
    text: str = yaml.safe_dump(
        told, sort_keys=False, allow_unicode=True, width=WIDTH, default_flow_style=inner
    )
    return text


def summary(proposal: Proposal, plan: Plan) -> list[str]:
    """What was found and what it would take, a line each; "" between parts."""
    groups = next(iter(plan.generators.values())).groups
    width = max(len(shown(group.name)) for group in groups)
    lines = [f"{'group':<{width}}  {'train':>7} {'validation':>10} {'test':>7}  prompt"]
    for group in groups:
        lines.append(
            f"{shown(group.name):<{width}}  {group.images:>7,} {group.validation:>10,} "
            f"{group.test:>7,}  {shown(group.prompt)}"
        )
    if proposal.size:
        lines += ["", f"images: {proposal.size[0]} x {proposal.size[1]} pixels, the first"]
    if plan.minutes is not None:
        lines += ["", f"time: {in_words(plan.minutes.total)} on this machine's CPUs"]
    else:
        lines += ["", f"time: {sum(plan.gpu_hours.values()):,.1f} GPU-hours, see `raysynth plan`"]
    counts = split_counts(proposal.listing, proposal.groups)
    lines += [f"warning: {shown(each)}" for each in few_measured(counts, proposal.groups)]
    return lines
