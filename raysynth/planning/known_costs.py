"""Networks' costs that are known already: to count them takes torch and diffusers, ten seconds.

`known_costs.json` has those of the embedded base, of the usual family at the sizes that are met
most, and of the others at their own (written by `python -m raysynth.planning.known_costs`); all
else is counted once, and kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from raysynth.errors import RaysynthError
from raysynth.knobs import digest_of
from raysynth.models.family import FAMILIES, USUAL, Family
from raysynth.planning.network_cost import UNetCost
from raysynth.storage.cache import cache_folder, make_cache
from raysynth.storage.files import write_atomic

SHIPPED = Path(__file__).parent / "known_costs.json"
KIND = "costs"
"""Their folder in the cache."""
SIDES = (256, 512)
"""Sides of the usual family's images whose costs are shipped, pixels."""


def cost_of_network(
    shape: Mapping[str, Any],
    targets: Sequence[str] | None,
    rank: int,
    checkpointing: bool,
    tokens: int,
    family: Family,
) -> UNetCost:
    """As `denoiser_cost.unet_cost`, which is asked for what is not known."""
    key = _key(shape, targets, rank, checkpointing, tokens, family)
    if found := _shipped().get(key) or _read(key):
        return found
    from raysynth.planning.denoiser_cost import unet_cost

    cost = unet_cost(shape, targets, rank, checkpointing, tokens, family)
    _shipped()[key] = cost
    _write(key, cost)
    return cost


def _key(
    shape: Mapping[str, Any],
    targets: Sequence[str] | None,
    rank: int,
    checkpointing: bool,
    tokens: int,
    family: Family,
) -> str:
    told = {name: value for name, value in shape.items() if not name.startswith("_")}
    kinds = None if targets is None else list(targets)
    lora = {} if kinds is None else {"targets": kinds, "rank": rank}  # else no rank is read
    kept = {"checkpointing": checkpointing, "tokens": tokens, "family": family.title}
    return digest_of({"shape": told, **lora, **kept})


@cache
def _shipped() -> dict[str, UNetCost]:
    return {key: UNetCost(**cost) for key, cost in json.loads(SHIPPED.read_bytes()).items()}


def _kept(key: str) -> Path:
    """Where a cost is kept that this version of the counting has found."""
    counting = (Path(__file__).parent / "denoiser_cost.py").read_bytes()
    version = hashlib.sha256(counting).hexdigest()[:8]
    return cache_folder() / KIND / f"{key}-{version}.json"


def _read(key: str) -> UNetCost | None:
    with suppress(OSError, ValueError, TypeError):  # a cache that cannot be read is none
        return UNetCost(**json.loads(_kept(key).read_bytes()))
    return None


def _write(key: str, cost: UNetCost) -> None:
    path = _kept(key)
    with suppress(OSError, RaysynthError):
        make_cache(KIND)
        write_atomic(str(path), json.dumps(asdict(cost)).encode(), patience=0)


def shipped_arguments() -> Iterator[tuple[Any, ...]]:
    """The arguments of `cost_of_network` whose answers are shipped, at the default knobs."""
    from raysynth.config.config import Config
    from raysynth.planning.sizes import base_shape, published_shape

    finetune = Config().finetune
    targets, rank = finetune.targets, finetune.rank
    embedded = base_shape(Config(), [])
    usual = published_shape(FAMILIES[USUAL])
    others = [published_shape(f) for f in FAMILIES.each() if f is not usual.family]
    own = [(shape, (shape.side,)) for shape in (embedded, *others)]
    for shape, sides in (*own, (usual, SIDES)):
        for side in sides:
            for kinds in (targets, None):
                for checkpointing in (False, True):
                    network = shape.network if side == shape.side else shape.at(side)
                    yield network, kinds, rank, checkpointing, shape.tokens, shape.family


def main() -> None:
    """Write what is shipped anew."""
    from raysynth.planning.denoiser_cost import unet_cost

    found = {_key(*given): asdict(unet_cost(*given)) for given in shipped_arguments()}
    SHIPPED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
