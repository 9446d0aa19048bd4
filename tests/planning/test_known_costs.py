"""Costs that are shipped are those that are counted, and others are counted once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from raysynth.models.family import FAMILIES, USUAL
from raysynth.models.sources import resolve
from raysynth.planning import denoiser_cost, known_costs
from raysynth.planning.known_costs import cost_of_network
from raysynth.planning.network_cost import UNetCost

FAMILY = FAMILIES[USUAL]
SHIPPED = list(known_costs.shipped_arguments())
SMALL = [given for given in SHIPPED if given[0]["sample_size"] < 16]


def test_every_shipped_cost_is_there():
    shipped = json.loads(known_costs.SHIPPED.read_bytes())
    assert {known_costs._key(*given) for given in SHIPPED} == set(shipped)


@pytest.mark.parametrize("given", [*SMALL, SHIPPED[-1]])  # the larger ones are the same counting
def test_shipped_costs_are_the_counted_ones(given):
    assert cost_of_network(*given) == denoiser_cost.unet_cost(*given)


def test_another_network_is_counted_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with open(f"{resolve('embedded')}/unet/config.json") as file:
        given = (json.load(file), ("attention",), 3, False, 77, FAMILY)
    found = cost_of_network(*given)
    known_costs._shipped().pop(known_costs._key(*given))  # as in the next process
    assert (tmp_path / "raysynth").stat().st_mode & 0o077 == 0, "runs keep notes beside it"
    (kept,) = (tmp_path / "raysynth" / "costs").iterdir()
    assert UNetCost(**json.loads(kept.read_text())) == found
    kept.write_text(json.dumps(asdict(found) | {"trained": 7}))
    assert cost_of_network(*given).trained == 7
    kept.write_text("broken")
    assert cost_of_network(*given) == found


def test_a_plan_waits_for_no_library_that_computes():
    heavy = {"torch", "ray", "diffusers", "transformers", "scipy", "sklearn", "matplotlib"}
    code = (
        "import sys; sys.argv = ['raysynth', 'plan']\n"
        "from raysynth.cli import app\n"
        "app(standalone_mode=False)\n"
        f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "adapters" in done.stdout
