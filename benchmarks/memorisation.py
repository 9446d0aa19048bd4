"""Does the measure of copies find copies, and when do adapters make them?

    python benchmarks/memorisation.py [--storage FOLDER] [--steps 30 120 1000] [--quick]

Measure: training images are sent through the base's VAE with noise in the latents (what a model
that has memorised them would at least do to them), also mirrored; printed is the share that is
called a copy, and the share whose original is named, by plain and by whitened CLIP embeddings, at
the same false alarm rate on validation images.

Training: the adapters of the two bias-conflicting groups of outfits (20 images each at severity
0.99) are trained for more and more steps, the others for one; last the whole UNet. Printed per
group: similarities, the share of copies, and how far the flagged and the other images agree with
their nearest training image in pixels (correlation, the better of both orientations), which the
measure does not see. Writes results/memorisation.png, the most similar pairs of every training.
Exits 1 if whitened embeddings find less than 80 % of the copies.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from measure import RESULTS, finish, parser
from PIL import Image

from raysynth.clustering.embed import encoded, read_embeddings
from raysynth.clustering.neighbours import Neighbours
from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.generators.recipe import recipe_of
from raysynth.models.base import load_base
from raysynth.models.clip import load_clip
from raysynth.pipeline import run_pipeline
from raysynth.selection.copies import QUANTILE
from raysynth.stages.run import Run
from raysynth.storage.tables import decode_images, groups_of, read_table
from raysynth.strips import mosaic
from raysynth.synthesis.shards import read_shards

STEPS, QUICK_STEPS = (30, 120, 1000), (30,)
FULL_STEPS, QUICK_FULL_STEPS = 1000, 100
FULL = ["finetune.engine=full", "finetune.learning_rate=4e-4", "finetune.prior_weight=0"]
IMAGES, QUICK_IMAGES = 400, 100
SAMPLE = 60  # training images per group that are copied through the VAE
NOISE = 0.15  # of the latents' standard deviation
PAIRS = 12
CONFLICTING = (1, 2)  # outfits' groups of few images
BAR = 0.8


def configuration(storage: str, steps: int, images: int, more: Sequence[str] = ()) -> Config:
    """The quickstart whose conflicting groups' adapters take `steps`."""
    overrides = ", ".join(f"{g}-0: {{steps: {steps}}}" for g in CONFLICTING)
    return load_config(
        None,
        [
            f"storage_path={storage}",
            "name=memorisation",
            "finetune.steps=1",
            f"finetune.overrides={{{overrides}}}",
            f"synthesis.images_per_group={images}",
            *more,
        ],
    )


def recalls(run: Run) -> list[dict[str, Any]]:
    """Share of VAE copies that are called copies and whose original is named, by space."""
    config, clusters = run.config, run.folder("clustering")
    table, validation = read_embeddings(clusters), read_embeddings(clusters, "validation.parquet")
    real = read_table(run.folder("ingest"))
    groups = groups_of(real.schema)
    row_of = {name: row for row, name in enumerate(real["id"].to_pylist())}
    group, clip = table["group"].to_numpy(), load_clip(config.base)
    rng = np.random.default_rng(0)
    searches = {
        "plain": plain(table),
        "whitened": Neighbours(table, validation, groups, torch.device("cpu")),
    }
    rows = []
    for g in range(groups.count):
        some = rng.permutation(np.flatnonzero(group == g))[:SAMPLE]
        names = table["id"].take(some).to_pylist()
        pixels = decode_images(real["image"].take([row_of[name] for name in names]))
        copies = through_vae(config, pixels)
        made = {"copies": clip.images(copies), "mirrored": clip.images(copies[:, :, ::-1])}
        mine = validation["group"].to_numpy() == g
        honest = encoded(validation)[mine]
        for space, search in searches.items():
            limit = np.quantile(search(honest)[1], QUANTILE)
            row: dict[str, Any] = {"group": groups.name(g), "space": space}
            for kind, vectors in made.items():
                found, similarity = search(vectors)
                row[kind] = round(float((similarity > limit).mean()), 3)
                row[f"{kind} named"] = round(float((found == np.array(names)).mean()), 3)
            rows.append(row)
            print(f"  {row}", file=sys.stderr)
    return rows


def plain(table: pa.Table) -> Any:
    """As Neighbours, by plain cosines and without mirrored training images."""
    ids, vectors = table["id"].to_numpy(), encoded(table)

    def search(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cosine = queries @ vectors.T
        return ids[cosine.argmax(1)], cosine.max(1)

    return search


@torch.inference_mode()
def through_vae(config: Config, pixels: np.ndarray) -> np.ndarray:
    """Images encoded, disturbed and decoded."""
    vae = load_base(config.base, ("vae",)).vae
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = vae.encode(x).latent_dist.mean
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    decoded = vae.decode(latents + NOISE * latents.std() * noise).sample.clamp(-1, 1)
    return ((decoded + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def trained(config: Config) -> tuple[Run, list[dict[str, Any]], Image.Image | None]:
    """Similarities and copies of one training, and its most similar pairs."""
    run = run_pipeline(config, until="selection")
    facts = run.manifest()["stages"]["selection"]["facts"]
    real = read_table(run.folder("ingest"), ["id", "image"])
    groups = groups_of(read_table(run.folder("ingest")).schema)
    row_of = {name: row for row, name in enumerate(real["id"].to_pylist())}
    synthetic = read_shards(run.folder("synthesis"))
    rows: list[dict[str, Any]] = []
    pairs: list[Image.Image] = []
    for g in CONFLICTING:
        table = synthetic.filter(pa.compute.equal(synthetic["group"], g))
        similarity = table["nearest_similarity"].to_numpy()
        made = decode_images(table["image"])
        found = [row_of[name] for name in table["nearest"].to_pylist()]
        originals = decode_images(real["image"].take(found))
        agree = correlation(made, originals)
        limit = facts["copy_threshold"][groups.name(g)]
        flagged = similarity > limit
        best = np.argsort(-similarity)[:PAIRS]
        pairs += [Image.fromarray(x) for x in (*made[best], *originals[best])]
        rows.append(
            {
                "group": groups.name(g),
                "threshold": limit,
                "median": round(float(np.median(similarity)), 3),
                "q99": round(float(np.quantile(similarity, 0.99)), 3),
                "copies": round(float(flagged.mean()), 4),
                "different_originals": len(set(np.array(found)[flagged].tolist())),
                "pixels_flagged": middle(agree[flagged]),
                "pixels_others": middle(agree[~flagged]),
            }
        )
        print(f"  {rows[-1]}", file=sys.stderr)
    return run, rows, mosaic(pairs, PAIRS)


def middle(values: np.ndarray) -> float | None:
    """Median, None of nothing."""
    return round(float(np.median(values)), 3) if len(values) else None


def correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[N] correlation of images' pixels with others' or their mirror images', the larger."""
    x, y, mirrored = (_standard(p) for p in (first, second, second[:, :, ::-1]))
    return np.maximum((x * y).sum(1), (x * mirrored).sum(1))


def _standard(pixels: np.ndarray) -> np.ndarray:
    flat = pixels.reshape(len(pixels), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def stacked(pictures: list[Any]) -> Image.Image:
    """Pictures below each other, enlarged."""
    gap = 8
    width = max(picture.width for picture in pictures)
    canvas = Image.new("RGB", (width, sum(p.height + gap for p in pictures)), "white")
    top = 0
    for picture in pictures:
        canvas.paste(picture, (0, top), picture)
        top += picture.height + gap
    return canvas.resize((canvas.width * 2, canvas.height * 2), Image.Resampling.NEAREST)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--storage", default=None, help="folder of the runs; default: new")
    options.add_argument("--steps", type=int, nargs="+", help="of the trainings")
    arguments = options.parse_args()
    storage = arguments.storage or tempfile.mkdtemp(prefix="raysynth-bench-")
    images = QUICK_IMAGES if arguments.quick else IMAGES
    rows, pictures, measured = [], [], []
    full = QUICK_FULL_STEPS if arguments.quick else FULL_STEPS
    trainings: list[tuple[int, list[str]]] = [
        *((steps, []) for steps in arguments.steps or (QUICK_STEPS if arguments.quick else STEPS)),
        (full, FULL),
    ]
    for steps, more in trainings:
        run, found, picture = trained(configuration(storage, steps, images, more))
        measured = measured or recalls(run)
        training = recipe_of(run.config).training
        assert training is not None
        rows += [{"engine": training.engine, "steps": steps, **row} for row in found]
        pictures.append(picture)
    if not arguments.quick:
        RESULTS.mkdir(exist_ok=True)
        stacked(pictures).save(RESULTS / "memorisation.png")
    whitened = [row["copies"] for row in measured if row["space"] == "whitened"]
    bars = {f"whitened embeddings find {BAR:.0%} of the copies": float(np.mean(whitened)) >= BAR}
    finish("memorisation", {"measure": measured, "trainings": rows}, bars, arguments.quick)


if __name__ == "__main__":
    main()
