"""A run's folder, read: its results as pandas tables, its images, its classifier."""

from __future__ import annotations

import html
import io
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from raysynth.config.config import Config
from raysynth.config.files import read_config
from raysynth.errors import ConfigError
from raysynth.groups.groups import Groups
from raysynth.method import FOLDERS

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from raysynth.python.classifier import Classifier


class RunFolder:
    """What a run has made so far.

    Each table is read when it is asked for, and ConfigError says what has to run first where it is
    not there yet.
    """

    def __init__(self, root: str) -> None:
        """`root`: folder or URI, `storage_path/name`."""
        self.root = root.rstrip("/") if "://" in root else os.path.abspath(root)

    def __repr__(self) -> str:
        return f"RunFolder({self.root!r})"

    @cached_property
    def config(self) -> Config:
        """The configuration that the run was last started with."""
        return read_config(f"{self.root}/config.yaml")

    @property
    def stages(self) -> pd.DataFrame:
        """A row per finished stage, by name: seconds, rows, folder."""
        import pandas as pd

        rows = {
            name: {
                "seconds": record["seconds"],
                "rows": record.get("rows"),
                "folder": self.folder(name),
            }
            for name, record in self._records.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=["seconds", "rows", "folder"])

    @property
    def _manifest(self) -> dict[str, Any]:
        from raysynth.stages.record import read_manifest

        return read_manifest(self.root) or {"stages": {}}

    @property
    def _records(self) -> dict[str, Any]:
        return dict(self._manifest["stages"])

    def folder(self, stage: str) -> str:
        """Folder or URI of a finished stage's outputs.

        Raises
        ------
        ConfigError
            There is no such stage, or it is not finished.
        """
        from raysynth.stages.record import SHARED
        from raysynth.stages.shelf import Shelf

        manifest = self._manifest
        records = manifest["stages"]
        if stage not in records:
            kind = stage.partition("/")[0]
            known = "" if kind in FOLDERS else f"; expected one of {', '.join(FOLDERS)}"
            raise ConfigError(
                f"{self.root}: stage {stage!r} is not finished{known}. Fix: "
                f"raysynth.run(..., until={stage!r})"
            )
        return Shelf(self.root, FOLDERS, manifest.get(SHARED)).at(stage, records[stage])

    @cached_property
    def _real(self) -> str:
        """The stage of the real images in the run's groups."""
        from raysynth.stages.record import real_stage

        stage = real_stage(self._records)
        self.folder(stage)
        return stage

    @cached_property
    def _groups(self) -> Groups:
        return Groups.from_dict(self._records[self._real]["facts"]["groups"])

    def _photographs(self, split: str) -> pd.DataFrame:
        """A row per real image of a split, in the groups that it is measured in."""
        from raysynth.storage.tables import groups_of, read_table, split_files

        columns = ["id", "split", "label", "attribute", "group"]
        folder = self.folder(self._real)
        table = read_table(folder, columns, split_files(folder, split))
        return _named(table.to_pandas(), groups_of(table.schema))

    @property
    def groups(self) -> pd.DataFrame:
        """A row per group: label, attribute, real images of each split, kept generated ones.

        With a grouping method the groups are those it found; where test images are measured in the
        data set's own, these are rows too.
        """
        import numpy as np

        from raysynth.storage.tables import read_table

        groups, facts = self._groups, self._records[self._real]["facts"]
        counts = dict(facts["counts"])
        if measured := facts.get("measured"):
            apart = _counted(Groups.from_dict(measured), {"test": counts.pop("test")})
        table = _counted(groups, counts)
        if "selection" in self._records:
            chosen = read_table(self.folder("selection"), ["group", "kept"]).to_pandas()
            kept = chosen["group"][chosen["kept"]]
            table["kept"] = np.bincount(kept, minlength=groups.count)
        if measured:  # test images lie in the data set's own groups
            columns = table.columns.insert(2 + len(counts), "test")
            table = table.combine_first(apart)[columns]
        return table

    @property
    def results(self) -> pd.DataFrame:
        """A row per method, best test WGA first: accuracies in percent over its seeds.

        Columns `wga`, `aga`, `weighted` with `_std`, `validation_wga`, `kind`, `shipped`.
        """
        import pandas as pd

        from raysynth.classify.verdict import verdict_of
        from raysynth.references.titles import title_of

        found = self._results
        chosen = (verdict_of(found) or {}).get("name")
        rows = {}
        for name, row in found["methods"].items():
            told: dict[str, Any] = {"title": title_of(name), "kind": row["kind"]}
            for key in ("wga", "aga", "weighted"):
                told |= {key: 100 * row[key]["mean"], f"{key}_std": 100 * row[key]["std"]}
            told |= {"validation_wga": 100 * row["validation"]["wga"]["mean"]}
            rows[name] = told | {"shipped": name == chosen}
        table = pd.DataFrame.from_dict(rows, orient="index")
        table.index.name = "method"
        return table.sort_values("wga", ascending=False)

    @property
    def accuracies(self) -> pd.DataFrame:
        """Test accuracy, percent, of every method (rows) in every group (columns)."""
        import pandas as pd

        rows = {
            name: {group: 100 * each["mean"] for group, each in row["groups"].items()}
            for name, row in self._results["methods"].items()
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    @cached_property
    def _results(self) -> dict[str, Any]:
        from raysynth.storage.files import read_record

        stage = "report" if "report" in self._records else "classification"
        return dict(read_record(f"{self.folder(stage)}/results.json"))

    @property
    def real(self) -> pd.DataFrame:
        """A row per real image: id, split, names of its label, attribute and group; no pixels."""
        import pandas as pd

        from raysynth.storage.tables import SPLITS

        return pd.concat([self._photographs(split) for split in SPLITS], ignore_index=True)

    @property
    def kept(self) -> pd.DataFrame:
        """A row per kept generated image: id, names of its group, prompt, scores; no pixels."""
        from raysynth.storage.tables import read_table

        chosen = read_table(self.folder("selection")).to_pandas()
        chosen = chosen[chosen["kept"]]
        made = self._made(chosen["id"])
        other = [name for name in chosen.columns if name not in made.columns]
        return _named(made.merge(chosen[["id", *other]], on="id"), self._groups)

    def _made(self, ids: Any) -> pd.DataFrame:
        """The generated images of these ids, without pixels."""
        import pyarrow.parquet as pq

        from raysynth.storage.files import open_storage
        from raysynth.storage.tables import IMAGE_COLUMN, parquet_files, read_table

        folder = self.folder("synthesis")
        storage, _ = open_storage(folder)
        with storage.open(parquet_files(folder)[0], "rb") as file:
            names = pq.read_schema(file).names
        columns = [name for name in names if name != IMAGE_COLUMN]
        table = read_table(folder, columns).to_pandas()
        return table[table["id"].isin(ids)]

    def images(self, ids: Sequence[str], stage: str = "synthesis") -> list[Image.Image]:
        """Pictures by id, in the order asked: generated ones, or real ones (`stage="ingest"`)."""
        import pyarrow as pa
        from PIL import Image

        from raysynth.storage.tables import STORED, read_parts

        wanted = list(ids)
        found = {
            row["id"]: row["image"]["bytes"]
            for part in read_parts(self.folder(stage), ["id", "image"], ids=pa.array(wanted))
            for row in part.to_pylist()
        }
        if gone := [each for each in wanted if each not in found]:
            raise ConfigError(
                f"{self.root}: no image {gone[0]!r} in stage {stage}. Fix: ids of `kept`, or "
                "stage='ingest' for those of real images"
            )
        return [Image.open(io.BytesIO(found[each]), formats=STORED) for each in wanted]

    @property
    def predictions(self) -> pd.DataFrame:
        """A row per test image, method and seed: predicted and true names, and whether right."""
        from raysynth.storage.tables import read_table

        # Those of the classification are of all methods, the references' among them.
        stage = "references" if "classification" not in self._records else "classification"
        folder = self.folder(stage)
        found = read_table(folder, files=[f"{folder}/predictions.parquet"]).to_pandas()
        names = self._groups.label_names
        found["predicted"] = [names[value] for value in found["predicted"]]
        whole = found.merge(self._photographs("test").drop(columns="split"), on="id")
        return whole.assign(right=whole["predicted"] == whole["label"])

    def classifier(self) -> Classifier:
        """The classifier that the run ships, to be called with images.

        Raises
        ------
        ConfigError
            The run has none yet.
        """
        from raysynth.python.classifier import Classifier

        return Classifier.open(f"{self.folder('classification')}/model")

    @property
    def page(self) -> str:
        """Path or URI of the report's page."""
        return f"{self.folder('report')}/index.html"

    def _repr_html_(self) -> str:
        """In a notebook: the table of methods, and where the page is."""
        if not {"classification", "report"} & set(self._records):
            return f"<p>{html.escape(repr(self))}: {html.escape(', '.join(self._records))}</p>"
        shown = self.results[["title", "wga", "aga", "validation_wga", "shipped"]]
        page = self.page if "report" in self._records else self.root
        return f"{shown.to_html(float_format='{:.1f}'.format)}<p>{html.escape(page)}</p>"


def _named(table: pd.DataFrame, groups: Groups) -> pd.DataFrame:
    """The rows with names for labels, attributes and groups; None where there is none."""
    names = {
        "label": groups.label_names,
        "attribute": groups.attribute_names,
        "group": groups.names,
    }
    told: dict[str, Any] = {
        column: [names[column][value] if value >= 0 else None for value in table[column]]
        for column in names
        if column in table
    }
    return table.assign(**told).reset_index(drop=True)


def _counted(groups: Groups, counts: Mapping[str, Any]) -> pd.DataFrame:
    """Group -> names of its label and attribute, and images of each split."""
    import pandas as pd

    of = range(groups.count)
    named = {
        "label": [groups.label_names[groups.label(g)] for g in of],
        "attribute": [groups.attribute_names[groups.attribute(g)] for g in of],
    }
    return pd.DataFrame(named | dict(counts), index=pd.Index(groups.names, name="group"))
