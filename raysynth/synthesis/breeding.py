"""Breeding on Ray: rounds of whole generations of all groups, each kept as soon as it is judged.

Images are drawn to be judged and not kept: what is found is where the accepted ones begin, and the
stage draws these as it draws any others. A round that was cut off is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.util import ActorPool

from raysynth.cluster.tasks import RETRIES
from raysynth.cluster.workers import actor_pool
from raysynth.errors import DataError, RaysynthError
from raysynth.groups.groups import Groups
from raysynth.models.threads import use_threads
from raysynth.progress import Progress
from raysynth.scoring.attributes import AttributeJudge, judge_of
from raysynth.storage.files import exists
from raysynth.storage.tables import read_table, write_table
from raysynth.synthesis.actor import DiffusionSampler
from raysynth.synthesis.rebalance import Seen, Start, Wanted, births, evolve, farther, targets
from raysynth.synthesis.settings import RebalanceConfig
from raysynth.synthesis.solver import check_kind, kind_of
from raysynth.synthesis.specs import ROW, SPECS, Asked, Voice, voice_specs
from raysynth.synthesis.task import LINEAGE, Task

FOLDER = "lineages"
"""Of the rounds' answers, below the stage's attempt."""
VOICE, DRAWN, ACCEPTED = "voice", "drawn", "accepted"
ANSWER = pa.schema([(VOICE, pa.int32()), *LINEAGE, (DRAWN, pa.bool_()), (ACCEPTED, pa.bool_())])


@dataclass(frozen=True)
class Breed:
    """A voice and what its images are bred for."""

    voice: Voice
    wanted: Wanted


class Breeder:
    """An actor: draws what is asked for and says what the judge makes of it."""

    def __init__(self, task: Task, shares: Sequence[float]) -> None:
        """What it draws and judges with is loaded at the first call, whose errors are told.

        `shares`: [G] of the classes' training images, see `shares_of`.
        """
        self.task, self.shares = task.unscored, np.asarray(shares)

    def look(self, specs: pa.Table) -> pa.Table:
        """[B] specs with VOICE and LINEAGE -> ANSWER, in their order."""
        use_threads(self.task.resources.cpus_per_worker)
        drawn = np.array([self._farther(*own) for own in _origins(specs)], bool)
        judged, accepted = np.zeros(len(drawn), np.float32), np.zeros(len(drawn), bool)
        if drawn.any():
            judged[drawn], accepted[drawn] = self._judged(specs.filter(pa.array(drawn)))
        said = {"judged": judged, DRAWN: drawn, ACCEPTED: accepted}
        columns = [pa.array(said[n]) if n in said else specs[n] for n in ANSWER.names]
        return pa.table(columns, names=ANSWER.names).cast(ANSWER)

    def drawn(self, specs: pa.Table) -> np.ndarray:
        """[B, side, side, 3] uint8 images of specs."""
        return self._sampler.draw(specs)

    @cached_property
    def _sampler(self) -> DiffusionSampler:
        sampler = DiffusionSampler(self.task)
        solver = sampler.generate.solver
        check_kind(kind_of(type(solver).__name__, solver.config))
        return sampler

    @cached_property
    def _judge(self) -> AttributeJudge:
        scoring = self.task.scoring
        return judge_of(scoring.clip, scoring.groups, scoring.prompts)

    def _farther(self, seed: int, path: tuple[int, ...]) -> bool:
        from raysynth.synthesis.lineage import likeness  # torch: not in the driver

        generate = self._sampler.generate
        return not path or farther(*likeness(seed, path, generate.sigma, generate.shape))

    def _judged(self, specs: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """[B] probabilities of the images' attributes, and whether these are the `targets`."""
        group, own = specs["group"].to_numpy(), specs["attribute"].to_numpy()
        likely = self._judge(self.drawn(specs), group)
        return likely[np.arange(len(own)), own], targets(likely, group, self.shares) == own


def _origins(specs: pa.Table) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Each spec's seed and path."""
    for seed, path in zip(specs["seed"].to_pylist(), specs["path"].to_pylist(), strict=True):
        yield seed, births(path)


def breed(
    look: Callable[[pa.Table], pa.Table],
    task: Task,
    asked: Asked,
    breeds: Sequence[Breed],
    work: str,
    progress: Progress,
) -> tuple[pa.Table, dict[str, Any]]:
    """The specs of accepted images, sorted by group, then id, and what it took to find them.

    Parameters
    ----------
    look : draws and judges, `Breeder.look` or a pool of them (`Breeders`).
    breeds : of every voice, by group.
    work : folder or URI of the stage's attempt; rounds that are there are not done again.

    Returns
    -------
    SPECS with the columns of `Way.aims` and LINEAGE; facts {group name: {images (drawn to be
    judged), plain, founders, accepted, images_per_accepted (all drawn, the accepted ones again)}}.

    Raises
    ------
    StageError
        See `rebalance.evolve`.
    """
    seen: list[list[Seen]] = [[] for _ in breeds]
    total = sum(each.wanted.quota for each in breeds)
    for number in count():
        starts = [evolve(each.wanted, own) for each, own in zip(breeds, seen, strict=True)]
        if not any(starts):
            break
        specs = begun(task, asked, breeds, starts)
        _take_in(_round(look, specs, f"{work}/{FOLDER}/round-{number:05d}.parquet"), seen)
        accepted, drawn = sum(map(len, _accepted(breeds, seen))), sum(map(len, seen))
        progress.update("images accepted", accepted, total)
        progress.detail("drawn", f"{drawn:,} images, {100 * accepted / max(drawn, 1):.0f} % taken")
    return _chosen(task, asked, breeds, seen), _facts(task.scoring.groups, breeds, seen)


def _chosen(
    task: Task, asked: Asked, breeds: Sequence[Breed], seen: Sequence[Sequence[Seen]]
) -> pa.Table:
    """The specs that `breed` returns."""
    chosen = _accepted(breeds, seen)
    judged = pa.array([one.judged for own in chosen for one in own], pa.float32())
    specs = begun(task, asked, breeds, chosen).drop_columns([VOICE])
    specs = specs.append_column("judged", judged).sort_by(
        [("group", "ascending"), ("id", "ascending")]
    )
    rows = pa.array(np.arange(specs.num_rows))
    return specs.set_column(0, ROW, rows)


class Breeders:
    """Breeders, as many as fit, from the first batch on."""

    def __init__(self, task: Task, shares: Sequence[float]) -> None:
        self.shares = tuple(shares)
        self.task, self.batch = task, task.drawing.synthesis.batch_size
        self.actors: list[Any] = []

    def __call__(self, specs: pa.Table) -> pa.Table:
        """ANSWER of specs; a RaysynthError of an actor is raised as it raised it."""
        self.actors = self.actors or self._start()
        batches = [specs.slice(n, self.batch) for n in range(0, specs.num_rows, self.batch)]
        answers = ActorPool(self.actors).map(lambda actor, some: actor.look.remote(some), batches)
        try:
            return pa.concat_tables(answers)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, RaysynthError) else error from None

    def _start(self) -> list[Any]:
        resources = self.task.resources
        pool = actor_pool(resources, self.task.drawing.synthesis.actors)
        breeder = ray.remote(
            num_cpus=pool["num_cpus"],
            num_gpus=pool["num_gpus"],
            max_restarts=RETRIES,
            max_task_retries=RETRIES,
        )(Breeder)
        return [breeder.remote(self.task, self.shares) for _ in range(pool["compute"].min_size)]

    def close(self) -> None:
        """Give back what the actors hold: those that write the images need it."""
        for actor in self.actors:
            ray.kill(actor)


def begun(
    task: Task, asked: Asked, breeds: Sequence[Breed], starts: Sequence[Sequence[Start]]
) -> pa.Table:
    """What is begun at, voice by voice, as specs with VOICE, `founder` and `path`."""
    tables, groups, aims = [], task.scoring.groups, task.drawing.way.aims
    for number, (breed, own) in enumerate(zip(breeds, starts, strict=True)):
        founders = np.array([start.founder for start in own], np.int32)
        table = voice_specs(asked, groups, breed.voice, founders, aims=aims)
        paths = [start.told for start in own]
        names = zip(table["id"].to_pylist(), paths, strict=True)
        told = pa.array([f"{i}-{path}" if path else i for i, path in names], pa.string())
        table = table.set_column(table.schema.get_field_index("id"), SPECS.field("id"), told)
        table = table.append_column(VOICE, pa.array(np.full(len(own), number, np.int32)))
        table = table.append_column("founder", pa.array(founders))
        tables.append(table.append_column("path", pa.array(paths, pa.string())))
    return pa.concat_tables(tables)


def _round(look: Callable[[pa.Table], pa.Table], specs: pa.Table, path: str) -> pa.Table:
    """A round's answers: those of an earlier attempt, if they are what is asked now."""
    asked = specs.select([VOICE, "founder", "path"])
    if exists(path):
        with suppress(DataError):  # cut off
            found = read_table(path.rpartition("/")[0], files=[path])
            if found.schema.equals(ANSWER) and found.select(asked.column_names).equals(asked):
                return found
    answers = look(specs)
    write_table(answers, path)
    return answers


def _take_in(answers: pa.Table, seen: list[list[Seen]]) -> None:
    for row in answers.to_pylist():
        what = (row[DRAWN], row["judged"], row[ACCEPTED])
        seen[row[VOICE]].append(Seen(births(row["path"]), row["founder"], *what))


def _accepted(breeds: Sequence[Breed], seen: Sequence[Sequence[Seen]]) -> list[list[Seen]]:
    """Of each voice the first accepted ones, no more than its quota."""
    return [
        [one for one in own if one.accepted][: breed.wanted.quota]
        for breed, own in zip(breeds, seen, strict=True)
    ]


def _facts(
    groups: Groups, breeds: Sequence[Breed], seen: Sequence[Sequence[Seen]]
) -> dict[str, Any]:
    """What it took, see `breed`."""
    found = {}
    for group, name in enumerate(groups.names):
        own = [n for n, breed in enumerate(breeds) if breed.voice.group == group]
        images = [one for n in own for one in seen[n] if one.drawn]
        plain = [one for one in images if not one.path]
        quota = sum(breeds[n].wanted.quota for n in own)
        if not quota:
            continue
        found[name] = {
            "images": len(images),
            "plain": len(plain),
            "founders": sum(one.accepted for one in plain),
            "accepted": quota,
            "images_per_accepted": round(len(images) / quota + 1, 2),
        }
    return found


def breeds_of(
    config: RebalanceConfig,
    voices: Sequence[tuple[Voice, int]],
    groups: Groups,
    shares: Sequence[float],
) -> list[Breed]:
    """What every voice is bred for.

    Parameters
    ----------
    voices : with the candidates that are asked of each.
    shares : [G] of the classes' training images, see `shares_of`.
    """
    found = []
    for voice, quota in voices:
        share = shares[voice.group]
        what = f"{groups.name(voice.group)} ({voice.adapter or 'the base'})"
        wanted = Wanted(what, quota, share, config.founders, config.children)
        found.append(Breed(voice, wanted))
    return [each for each in found if each.wanted.quota]
