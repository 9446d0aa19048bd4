"""The stage of fidelity: numbers and, of what does not show its label, pictures."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from raysynth.cluster.settings import ResourcesConfig
from raysynth.cluster.tasks import on_worker
from raysynth.fidelity.gate import SHEET, told
from raysynth.fidelity.measure import Asked, measure
from raysynth.fidelity.seen import Tables, choose, listed
from raysynth.fidelity.settings import FidelityConfig
from raysynth.groups.groups import Groups
from raysynth.knobs import Sections
from raysynth.networks.build import blueprint_of
from raysynth.progress import Progress
from raysynth.stages.stage import Work
from raysynth.storage.files import write_atomic
from raysynth.storage.tables import write_table
from raysynth.strips import COLUMNS, ROWS, Strip, captioned, mosaic, png, spaced, thumbnails

DIGITS = 4
IMAGES = "images.parquet"
"""Of every generated image that was looked at: id, and whether `label` and `attribute` are seen."""


def run_fidelity(
    config: Sections, tables: Tables, groups: Groups, work: str, progress: Progress
) -> dict[str, Any]:
    """Measure the kept images of every group beside its real ones.

    Writes `work`/fidelity.json, and IMAGES: what is seen of each generated image. Where images of
    a group do not show their label it writes unfaithful.png too.

    Returns
    -------
    Facts: rows (images looked at), encoder (in words), independent, dimensions, `unfaithful` (names
    of groups, see `gate`), `border` (see `measure`), and by name of the group in `groups`:
    `agreement` {real, candidates, kept: {images, label, attribute, both}}, `distances` (see
    `distances.beside_floor`), `spread` (see `statistics.spreads`), `unfaithful`, `needed` and
    `not_judged` (see `gate.Verdict`). fidelity.json has `clusters` in these too.
    """
    progress.update("images compared")
    settings, resources = config[FidelityConfig], config[ResourcesConfig]
    chosen = choose(tables, settings.images, groups.count)
    cpus = resources.cpus_per_worker
    asked = Asked(settings, blueprint_of(config), tables, chosen, groups, cpus)
    measured = ray.get(on_worker(measure, resources).remote(asked))
    write_table(pa.table(measured.pop("images")), f"{work}/{IMAGES}")
    found = _rounded(measured)
    write_atomic(f"{work}/fidelity.json", json.dumps(found, indent=1, allow_nan=False).encode())
    if found["unfaithful"]:
        progress.update("pictures of what does not show its label")
        write_atomic(f"{work}/{SHEET}", _sheet(tables, groups, found["unfaithful"]))
    for name in found["unfaithful"]:
        progress.say(f"  {told(name, found['groups'][name])}")
    compact = {
        name: {key: value for key, value in group.items() if key != "clusters"}
        for name, group in found["groups"].items()
    }
    return {**found, "groups": compact}


def _rounded(value: Any) -> Any:
    """Plain values with `DIGITS` digits behind the point: no more is known of any."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def _sheet(tables: Tables, groups: Groups, unfaithful: list[str]) -> bytes:
    """PNG of the groups' real images, and below them the kept ones."""
    real, kept, _ = listed(tables)
    sides = {"real": (tables.real, real), "synthetic, kept": (tables.synthetic, kept)}
    strips = []
    for name in unfaithful:
        g = groups.names.index(name)
        for kind, (folder, table) in sides.items():
            ids = table.filter(pc.equal(table["group"], g))["id"].to_pylist()
            shown = [ids[place] for place in spaced(len(ids), COLUMNS * ROWS)]
            pixels = thumbnails(folder, shown)
            strips.append(Strip(f"{name}, {kind}", len(ids), mosaic([pixels[i] for i in shown])))
    return png(captioned("Kept images that do not show their label", strips))


def build(work: Work) -> dict[str, Any]:
    """The stage's outputs, see `run_fidelity`."""
    tables = Tables(*map(work.path, ("ingest", "synthesis", "selection")))
    return run_fidelity(work.config, tables, work.groups, work.folder, work.progress)
