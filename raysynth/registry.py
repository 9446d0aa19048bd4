"""A folder is a registry: every file in it is one part, of the file's name.

Names are known from the files alone; a part is imported when it is asked for, or when its own knobs
are given. Other packages add parts by an entry point in the group of the folder's dotted name, such
as `raysynth.references.methods`.
"""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import core_schema

from raysynth.errors import ConfigError
from raysynth.terminal import clipped

P = TypeVar("P")
ATTRIBUTE = "PART"
"""What each file calls its part."""


@cache
def installed(group: str) -> dict[str, str]:
    """Name -> module of the entry points of a group: looking through all packages takes a while.

    Names that are no identifiers are left out: a name becomes a folder of a run.
    """
    from importlib.metadata import entry_points  # email and zipfile with it: 50 ms

    found = entry_points(group=group)
    return {entry.name: entry.value for entry in found if entry.name.isidentifier()}


class Registry(Generic[P]):
    """The parts of one kind, by name, in the order of their names."""

    def __init__(self, package: str, kind: str) -> None:
        """`package`: dotted name of the folder; `kind`: what a part is called, in messages."""
        self.package, self.kind = package, kind

    @cached_property
    def _own(self) -> dict[str, str]:
        folder = import_module(self.package)
        return {
            module.name: f"{self.package}.{module.name}"
            for module in pkgutil.iter_modules(folder.__path__)
        }

    @property
    def _others(self) -> dict[str, str]:
        # Read when a name is none of ours.
        return installed(self.package)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all parts, sorted."""
        return tuple(sorted({**self._others, **self._own}))

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._others

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def each(self) -> Iterator[P]:
        """Every part, imported; the folder's own first, others when all these were passed over."""
        yield from (self[name] for name in sorted(self._own))
        yield from (self[name] for name in sorted(self._others) if name not in self._own)

    def __getitem__(self, name: str) -> P:
        """The part of this name; its file is imported.

        Raises
        ------
        ConfigError
            No file and no entry point has this name, or it cannot be imported or is no part.
        """
        if name not in self:
            raise ConfigError(f"{self.kind}: {self.unknown(name)}")
        where = self._where(name)
        module, _, attribute = where.partition(":")
        try:
            part: P = getattr(import_module(module), attribute or ATTRIBUTE)
        except Exception as error:
            if name in self._own:
                raise
            raise ConfigError(
                f"{self.kind} {name!r}: the entry point {where!r} of group {self.package!r} cannot "
                f"be loaded ({type(error).__name__}: {clipped(str(error))}); expected a module "
                f"with {ATTRIBUTE}. Fix: mend or uninstall the package that has it"
            ) from error
        return part

    def _where(self, name: str) -> str:
        """The module of a part, as `module` or `module:attribute`; its own files come first."""
        return self._own.get(name) or self._others[name]

    def about(self, name: str) -> str:
        """What a part is: the first sentence of its file; empty without any."""
        module = self._where(name).partition(":")[0]
        text = " ".join((import_module(module).__doc__ or "").partition("\n\n")[0].split())
        return text.rstrip(".")

    def only(self, kind: str, among: Callable[[P], bool]) -> Registry[P]:
        """The parts that `among` takes, called `kind`; to know, a part's file is imported."""
        return _Some(self, kind, among)

    def unknown(self, name: str, *also: str) -> str:
        """What is said of a name that is none; `also`: names that would do besides the parts'."""
        known = (*self.names, *also)
        close = difflib.get_close_matches(str(name), known, 1)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        return f"got {clipped(str(name))!r}, expected one of {', '.join(known)}{hint}"


class _Some(Registry[P]):
    """Some of the parts of another registry."""

    def __init__(self, whole: Registry[P], kind: str, among: Callable[[P], bool]) -> None:
        super().__init__(whole.package, kind)
        self._whole, self._among = whole, among

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in self._whole.names if name in self)

    def each(self) -> Iterator[P]:
        return filter(self._among, self._whole.each())

    def __contains__(self, name: object) -> bool:
        return name in self._whole and self._among(self._whole[str(name)])


class Chosen(BaseModel):
    """A part and its own knobs as a configuration names them: `name`, or `{name: ..., knob: ...}`.

    `knobs`: an instance of the part's `Knobs` with what was given and the part's defaults.
    """

    model_config = ConfigDict(frozen=True)
    name: str = Field(description="The part's name.")
    given: dict[str, Any] = Field({}, description="Its own knobs, as they were given.")

    def knobs(self, registry: Registry[Any]) -> Any:
        """The part's knobs, its defaults filled in; its file is imported."""
        return registry[self.name].Knobs.model_validate(self.given)


@dataclass(frozen=True)
class Names:
    """What a knob of `named_part` may be, for the configuration's reference."""

    registry: Registry[Any]
    also: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        return iter((*self.registry.names, *self.also))


def named_part(registry: Registry[Any], *also: str) -> Any:
    """The type of a knob whose value is the name of a part of `registry`, or one of `also`."""

    def check(name: str) -> str:
        if name not in registry and name not in also:
            raise ValueError(registry.unknown(name, *also))
        return name

    return Annotated[str, AfterValidator(check), Names(registry, also)]


def chosen_part(registry: Registry[Any], *also: str) -> Any:
    """The type of a knob whose value is a part of `registry`, with knobs of its own (`Chosen`).

    `also`: names that stand for no part, and have no knobs.
    """

    def read(value: Any) -> Chosen:
        if isinstance(value, Chosen):
            return value
        if not isinstance(value, str | dict) or not isinstance(_name(value), str):
            raise ValueError(
                f"expected the name of a {registry.kind}, or {{name: ..., its own knobs}}; got "
                f"{clipped(repr(value))}"
            )
        name = _name(value)
        if value in also:
            return Chosen(name=name)
        if name not in registry:
            raise ValueError(registry.unknown(name, *also))
        given = {k: v for k, v in value.items() if k != "name"} if isinstance(value, dict) else {}
        if not given:
            return Chosen(name=name)  # its file is not imported
        knobs = registry[name].Knobs.model_validate(given)
        return Chosen(name=name, given=knobs.model_dump(mode="json", exclude_unset=True))

    def dump(value: Chosen) -> Any:
        return {"name": value.name, **value.given} if value.given else value.name

    class Of:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
            return core_schema.no_info_plain_validator_function(
                read, serialization=core_schema.plain_serializer_function_ser_schema(dump)
            )

    return Annotated[Chosen, Of, Names(registry, also)]


def _name(value: Any) -> Any:
    return value if isinstance(value, str) else value.get("name")
