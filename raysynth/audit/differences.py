"""How much less likely an image is to a model without a group: differences of evidence bounds.

ELBO_full(x | c) - ELBO_without(x | c) of Murata et al. 2026, with the prompt c that the image was
drawn with, at the same noise levels and the same noise for all models: the noise is the image's
own (theirs: its batch's).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from raysynth.adapters.banks import Bank, of_text, open_bank
from raysynth.adapters.record import LoraShape
from raysynth.errors import DataError
from raysynth.generators.recipe import Training
from raysynth.models.base import load_base
from raysynth.models.condition import Condition
from raysynth.models.denoiser import Denoiser
from raysynth.models.family import Base
from raysynth.models.latents import encode, images_at_once
from raysynth.models.likelihood import elbo, even_shares, noise_of
from raysynth.models.loading import round_weights
from raysynth.models.settings import BaseConfigSection
from raysynth.models.threads import use_threads
from raysynth.storage.files import exists
from raysynth.storage.tables import decode_images, read_parts, write_table
from raysynth.synthesis.shards import shard_files
from raysynth.terminal import masked

ENCODED = 64
"""Images encoded at once, at most."""
SCORES = pa.schema([("id", pa.string()), ("scores", pa.list_(pa.float32()))])


@dataclass(frozen=True)
class Compared:
    """What is compared, and with what.

    `full`, `without`: folders or URIs of the full models and of those without a group. `models`:
    full model -> {group: model without it}. `synthetic`: folder or URI of the images' table.
    """

    base: BaseConfigSection
    training: Training
    shape: LoraShape
    full: str
    without: str
    models: Mapping[str, Mapping[int, str]]
    groups: int
    synthetic: str
    timesteps: int
    rows: int
    """Rows that the network sees at once."""


class Judge:
    """The full models and those without a group, each on a network of its own."""

    def __init__(self, asked: Compared) -> None:
        """Load both; raises ModelError where a model cannot be read."""
        self.asked = asked
        names = [name for own in asked.models.values() for name in own.values()]
        live = of_text(names, asked.training, asked.shape)
        self.base = replace(load_base(asked.base), live=live)
        other = replace(load_base(asked.base, ("model", "text")), live=live)
        self.full = self._bank(self.base, asked.full, list(asked.models))
        self.without = self._bank(other, asked.without, names)
        self.shares = even_shares(self.base.prediction, asked.timesteps)

    def _bank(self, base: Base, folder: str, names: Sequence[str]) -> Bank:
        round_weights(base.network, base.dtype)
        return open_bank(base, folder, names, self.asked.training, self.asked.shape)

    @torch.inference_mode()
    def scores(self, images: pa.Table, pixels: np.ndarray) -> np.ndarray:
        """[N, G] what images owe, NaN to groups that their model was not trained on.

        Parameters
        ----------
        images : id, adapter and prompt of each.
        pixels : [N, H, W, 3] uint8.
        """
        each = images_at_once(pixels.shape[1], ENCODED)
        parts = np.array_split(pixels, -(-len(pixels) // each))
        clean = torch.cat([encode(self.base, part) for part in parts])
        noise = noise_of(images["id"].to_pylist(), range(len(self.shares) - 1), clean.shape[1:])
        said = images["prompt"].to_pylist()
        prompts = list(dict.fromkeys(said))
        told = self.base.condition(prompts).take([prompts.index(one) for one in said])
        adapter = np.array(images["adapter"].to_pylist())
        found = np.full((len(pixels), self.asked.groups), np.nan, np.float32)
        for name, models in self.asked.models.items():
            rows = np.flatnonzero(adapter == name)
            if len(rows):
                some = torch.from_numpy(rows)
                given = (clean[some], told.take(some), noise[some])
                whole = self._bound(self.full, name, *given)
                for group, other in models.items():
                    less = whole - self._bound(self.without, other, *given)
                    found[rows, group] = less.cpu().numpy()
        return found

    def _bound(
        self, bank: Bank, name: str, clean: Tensor, told: Condition, noise: Tensor
    ) -> Tensor:
        """[N] evidence bounds of images under their own prompts."""
        denoise = Denoiser(self.base, bank.use([name] * len(clean), 1))
        own = torch.arange(len(clean))[:, None]
        return elbo(denoise, clean, told, self.shares, noise, self.asked.rows, own)[:, 0]


def compare(asked: Compared, parts: Mapping[str, pa.Table], cpus: float) -> None:
    """Write the scores of each part of the images, id, adapter and prompt, to its path, if new."""
    use_threads(cpus)
    judge: Judge | None = None
    for path, images in parts.items():
        if not exists(path):
            judge = judge or Judge(asked)
            scores = judge.scores(images, read_pixels(asked.synthetic, images["id"]))
            columns = [images["id"].combine_chunks(), pa.array(list(scores), SCORES[1].type)]
            write_table(pa.table(columns, schema=SCORES), path)


def read_pixels(synthetic: str, ids: pa.ChunkedArray) -> np.ndarray:
    """[N, H, W, 3] uint8 images of the synthetic table, in the order of `ids`.

    DataError: some are not there.
    """
    wanted = ids.combine_chunks()
    found = list(read_parts(synthetic, ["id", "image"], shard_files(synthetic), wanted))
    table = pa.concat_tables(found) if found else pa.table({"id": [], "image": []})
    place = pc.index_in(wanted, table["id"].combine_chunks().cast(wanted.type))
    if place.null_count:
        raise DataError(
            f"{masked(synthetic)}: {place.null_count} of {len(wanted)} images are not there; "
            "expected those that its manifest names. Fix: raysynth verify RUN says which file has "
            "changed, and how it is made again"
        )
    return decode_images(table["image"].take(place))
