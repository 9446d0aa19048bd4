"""The ground of every section of knobs: types, bounds, and how a digest is made of them."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from raysynth.values import named, place, plain

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0.0)]
Span = tuple[float, float]
Named = Annotated[str, AfterValidator(named)]
Place = Annotated[str, AfterValidator(place)]
"""A folder, a URI or a model's name."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"
"""What folders may be called; file systems take some 255 characters."""
_UNSET: Any = object()


class Section(BaseModel):
    """A part of the configuration; unknown keys are refused, values are frozen.

    By itself, the knobs of a part that has none.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _plainly(cls, value: Any, info: ValidationInfo) -> Any:
        """No boolean as a number, no secret in a URI; whole numbers as names of a mapping."""
        return plain(value, cls.model_fields[str(info.field_name)].annotation)


S = TypeVar("S", bound=Section)


class Sections(Protocol):
    """A configuration as rooms know it: its sections, each by its type."""

    @property
    def name(self) -> str:
        """The run's."""

    @property
    def seed(self) -> int:
        """The run's."""

    @property
    def generator(self) -> str:
        """Name of a generator, or `auto`."""

    def __getitem__(self, kind: type[S]) -> S:
        """The section of this type."""


def knob(
    default: Any, meaning: str, *, width: bool = False, neutral: Any = _UNSET, **bounds: Any
) -> Any:
    """A field of a section: its default, what it means (with its unit) and its bounds.

    Parameters
    ----------
    width : it changes how wide a stage runs, not what comes out: never in a digest.
    neutral : value at which a stage does what it did before the knob came, where it is left out of
        digests, so that what earlier versions made is still what it was. Not the default: a default
        that moves later renames what is made.
    bounds : pydantic's, such as `ge`.
    """
    said: dict[str, Any] = {"width": True} if width else {}
    if neutral is not _UNSET:
        said["neutral"] = neutral
    return Field(default, description=meaning, json_schema_extra=said or None, **bounds)


def decides(section: Section, *leave: str) -> dict[str, Any]:
    """The knobs of a section that decide what a stage makes, JSON-able; `leave`: not these.

    A knob that is not named anywhere decides: forgetting one makes things anew, never reuses them.
    """
    told: dict[str, Any] = {}
    for name, value in section.model_dump(mode="json", exclude=set(leave)).items():
        said = type(section).model_fields[name].json_schema_extra or {}
        assert isinstance(said, dict)
        if said.get("width") or ("neutral" in said and value == said["neutral"]):
            continue
        told[name] = value
    return told


def digest_of(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
