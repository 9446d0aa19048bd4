"""The ground of every run's configuration: its name, its place, its seed, its sections by type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from raysynth.cluster.asked import Asked
from raysynth.knobs import NAME, Place, S, Section, digest_of

if TYPE_CHECKING:
    from raysynth.cluster.settings import ResourcesConfig

APART = {"name", "storage_path", "resources", "trackers"}
"""Keys that say where and how wide a run is, not what comes out."""


class RunConfig(Section):
    """What the configurations of all commands have that leave a run's folder."""

    suffix: ClassVar[str] = ""
    """Of the folder's name, behind the run's."""
    name: str = Field("quickstart", pattern=NAME, description="Run's name.")
    storage_path: Place = Field("runs", description="Folder or URI (s3://, gs://) of the runs.")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="Seed of the whole run.")

    if TYPE_CHECKING:
        resources: ResourcesConfig  # each has it, at a place of its own among its sections

    def __getitem__(self, kind: type[S]) -> S:
        """The section of this type; rooms ask so, and know no configuration."""
        for _, value in self:
            if isinstance(value, kind):
                return value
        raise KeyError(kind.__name__)

    @property
    def asked(self) -> tuple[Asked, ...]:
        """What the stages ask of the cluster, each by itself."""
        found = (getattr(section, "asked", None) for _, section in self)
        return tuple(each for each in found if each is not None)

    @property
    def root(self) -> str:
        """The run's folder or URI."""
        return f"{self.storage_path.rstrip('/')}/{self.name}{self.suffix}"

    @property
    def sources(self) -> dict[str, str]:
        """Key -> folder or URI of images that it reads, among which it must not be stored."""
        return {}

    def digest(self) -> str:
        """Hex digest of everything that can change a result (not where it runs)."""
        return digest_of(self.model_dump(mode="json", exclude=APART))
