"""How evenly a group's drawn images are spread over its real ones, with and without cell guidance.

200 images of pullovers on grass by a LoRA of that group (outfits at 0.99), everything else at its
defaults. `tv`: total variation between even shares and those that 8 k-means cells of the real
images' CLIP vectors get, which is another space than the guidance's; `real tv`: the real images'
own; `own tv`: of the cells in latents that images are guided to. `right`: the judge sees garment
and ground that were asked for. `copies`: images more similar to their nearest training image than
99 % of the validation images are to theirs.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from judge import accuracies, load_judge
from workload import jobs_of, pack_of, write_real

from raysynth.clustering.embed import vectors_column
from raysynth.clustering.kmeans import k_means
from raysynth.clustering.neighbours import Neighbours, real_neighbours
from raysynth.config.config import Config
from raysynth.datasets.listing import list_dataset
from raysynth.finetune.jobs import record_of
from raysynth.finetune.training import train_pack
from raysynth.generators.lending import settled
from raysynth.generators.recipe import recipe_of
from raysynth.models.base import load_base
from raysynth.models.clip import load_clip
from raysynth.models.latents import encode
from raysynth.storage.tables import decode_bytes
from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.fits import read
from raysynth.synthesis.levels import FITS, find_way
from raysynth.synthesis.specs import aim_of, group_voices, image_seed
from raysynth.synthesis.task import Drawing

GROUP, IMAGES, QUICK_IMAGES, CELLS, BATCH, QUANTILE = 0, 200, 96, 8, 50, 0.99
PLAIN = {"name": "classifier_free", "interval": (0.3, 1.0)}
ARMS: dict[str, list[Any]] = {"off": [PLAIN], "cell": [PLAIN, "cell"]}


class Bed:
    """A group's model and real images, and what looks at images."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.config = config = configured(seed, "off")
        data, self.groups, listing = list_dataset(config.dataset, seed)
        parts = {s: listing.filter(pc.equal(listing["split"], s)) for s in ("train", "validation")}
        self.train, self.real = parts["train"], folder / f"separation-{seed}"
        self.work = folder / f"spread-{seed}"
        if not self.real.exists():
            write_real(self.real, data, self.groups, self.train)
        self.clip, self.judge = load_clip(config.base), load_judge()
        tables = {}
        for split, table in parts.items():
            pixels = decode_bytes(pa.array(data.images(table)))
            found = {n: self.clip.images(p) for n, p in (("", pixels), ("m", pixels[:, :, ::-1]))}
            columns = {
                "embedding": vectors_column(found[""]),
                "mirrored": vectors_column(found["m"]),
            }
            tables[split] = pa.table({"id": table["id"], "group": table["group"], **columns})
            if split == "train":
                self.vectors = found[""][table["group"].to_numpy() == GROUP]
        self.search = Neighbours(
            tables["train"], tables["validation"], self.groups, self.clip.device
        )
        near = real_neighbours(tables["train"], tables["validation"], self.groups, seed)
        own = near["similarity"].to_numpy()[near["group"].to_numpy() == GROUP]
        self.limit = float(np.quantile(own, QUANTILE))
        label = k_means(self.vectors, CELLS, seed)
        self.centres = np.stack([self.vectors[label == m].mean(0) for m in range(CELLS)])
        self._train(config)

    def _train(self, config: Config) -> None:
        group = self.train["group"].to_numpy()
        clusters = pa.table(
            {"id": self.train["id"], "group": group, "cluster": np.zeros_like(group)}
        )
        jobs = [job for job in jobs_of(config, clusters, self.groups) if job.group == GROUP]
        pack = pack_of(config, jobs, self.groups, str(self.real), str(self.work))
        failed = train_pack(pack)
        assert not failed, failed
        training = recipe_of(config).training
        assert training is not None
        self.adapters = [record_of(jobs[0], training, self.groups, 0, 0.0)]
        self.counts = np.bincount(group, minlength=self.groups.count)

    def shares(self, vectors: np.ndarray) -> float:
        """Total variation from even shares of the cells that vectors lie in."""
        away = ((vectors[:, None] - self.centres) ** 2).sum(2)
        share = np.bincount(away.argmin(1), minlength=CELLS) / len(vectors)
        return float(np.abs(share - 1 / CELLS).sum() / 2)

    def drawn(self, config: Config, images: int) -> tuple[np.ndarray, float]:
        """[N, 32, 32, 3] images, and the CPU seconds of drawing them."""
        recipe = settled(recipe_of(config), self.counts)
        sections = (config.base, config.synthesis, recipe, config.resources)
        place = str(self.work / "way")
        way = find_way(*sections, str(self.real), self.groups, place, config.seed)
        given = (recipe, config.prompts, self.adapters, self.groups, self.counts)
        (voice,) = group_voices(*given, GROUP)
        aims = {name: aim_of(np.arange(images), own[GROUP]) for name, own in way.aims.items()}
        generate = ImageGenerator(Drawing.of(config, way=way), str(self.work), [voice.adapter])
        began, parts = time.process_time(), []
        for rows in np.array_split(np.arange(images), -(-images // BATCH)):
            same = (voice.prompt, voice.negative_prompt, voice.adapter)
            seeds = [image_seed(config.seed, GROUP, voice.cluster, row) for row in rows.tolist()]
            each = ([said] * len(rows) for said in same)
            mine = {name: own[rows].tolist() for name, own in aims.items()}
            parts.append(generate(*each, seeds, groups=[GROUP] * len(rows), aims=mine))
        return np.concatenate(parts), time.process_time() - began

    def seen(self, pixels: np.ndarray) -> dict[str, float]:
        """What the judge, CLIP and the search for copies see of images."""
        vectors = self.clip.images(pixels)
        _, similarity = self.search(vectors)
        right = accuracies(self.judge, pixels, np.full(len(pixels), GROUP), self.groups)["both"]
        copies = float((similarity > self.limit).mean())
        return {"tv": self.shares(vectors), "right": right, "copies": copies}

    def own_shares(self, pixels: np.ndarray) -> float:
        """Total variation from even shares of the cells that images are guided to."""
        fit = read(f"{self.work}/way/{FITS}", ["cell"])["cell"]
        base = load_base(self.config.base, ("vae",))
        latents = torch.cat([encode(base, some) for some in np.array_split(pixels, 4)]).flatten(1)
        place = latents @ fit["into"][GROUP].T - fit["origin"][GROUP]
        nearest = (place[:, None] - fit["centres"][GROUP]).norm(dim=2).argmin(1).numpy()
        share = np.bincount(nearest, minlength=CELLS) / len(pixels)
        return float(np.abs(share - 1 / CELLS).sum() / 2)


def configured(seed: int, arm: str) -> Config:
    """The configuration of an arm."""
    given = {"seed": seed, "generator": "lora", "dataset": {"severity": 0.99}}
    synthesis = {"guidance": ARMS[arm], "images_per_group": IMAGES}
    return Config.model_validate({**given, "synthesis": synthesis})


@cache
def bed_of(folder: Path, seed: int) -> Bed:
    """Made once."""
    return Bed(folder, seed)


def spread(folder: Path, seed: int, quick: bool) -> dict[str, float]:
    """All numbers of one seed."""
    torch.set_num_threads(1)
    bed = bed_of(folder, seed)
    found = {"real tv": bed.shares(bed.vectors)}
    for arm in sorted(ARMS):  # guided ones first: their cells are what the others are seen in
        pixels, spent = bed.drawn(configured(seed, arm), QUICK_IMAGES if quick else IMAGES)
        found |= {f"{name}: {arm}": value for name, value in bed.seen(pixels).items()}
        found |= {f"own tv: {arm}": bed.own_shares(pixels), f"CPU s: {arm}": spent}
    found["tv: cell / off"] = found["tv: cell"] / found["tv: off"]
    return {name: round(value, 4) for name, value in found.items()}
