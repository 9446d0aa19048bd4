"""Adapters of four kinds, and a file of prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.prompt_runs.adapters import write_lora


@pytest.fixture(scope="session")
def loras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`plain`, `larger` (another rank, alpha and kind of scale), `mixed` (patterns), `untold`."""
    root = tmp_path_factory.mktemp("loras")
    attention = ["to_q", "to_k", "to_v", "to_out.0"]
    write_lora(root / "plain", 1, r=2, lora_alpha=2, target_modules=attention)
    more = [*attention, "conv1", "ff.net.2"]
    write_lora(root / "larger", 2, r=4, lora_alpha=3, use_rslora=True, target_modules=more)
    write_lora(
        root / "mixed",
        3,
        r=2,
        lora_alpha=4,
        rank_pattern={"to_q": 3},
        alpha_pattern={"to_k": 1},
        target_modules=["to_q", "to_k"],
    )
    write_lora(root / "untold", 4, told=False, r=3, lora_alpha=3, target_modules=["proj_in"])
    return root
