"""Configurations: overrides, YAML files, every key with odd values, benchmarks' rows."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from hypothesis import strategies as st
from pydantic import BaseModel

from raysynth.config.config import Config
from raysynth.config.files import load_config
from raysynth.groups.groups import Groups
from raysynth.groups.prompts import spoken
from tests.fuzz.harness import Target
from tests.fuzz.values import DEEP, changed_bytes, numbers, odd, scalars, words

GROUPS = Groups(("a", "b"), ("x", "y"), ("a b", "{b}"), ("x", "y"))
ODD_YAML = (
    "!!int x", "!!float x", "!!timestamp x", "!!binary '=='", "!!python/object/apply:os.getcwd []",
    "!!set {a}", "!!omap [a: 1]", "!!str", "!!null x", "!!bool x", "&a [*a]", "&a {b: *a}", "*a",
    "[",
    "{a: 1, a: 2}", "{[a]: 1}", "? [1]", "? {a: 1}", "'", '"\\x00"', "|", ">-", "%", "@", "`",
    "- - -",
    "1:30", "190:20:30", "0o17", "0x1F", "1_0", "2024-01-01", "2024-13-45",
    "2024-01-01 10:00:00 +99:99",
    ".inf", "-.inf", ".nan", "~", "yes", "no", "0b11", "<<: {a: 1}", "{<<: 1}", "{<<: [1]}", "=",
    "[" * DEEP,
    "{a: " * DEEP, "9" * 5000, "1e" + "9" * 20,
    "[&a [x,x,x,x], &b [*a,*a,*a,*a], &c [*b,*b,*b,*b], "
    "&d [*c,*c,*c,*c], &e [*d,*d,*d,*d], &f [*e,*e,*e,*e], *f]", "!<x> y", "--- a\n--- b",
    "a: b: c",
)  # fmt: skip


def keys_of(model: Any = Config, prefix: str = "") -> dict[str, Any]:
    """Every key of the configuration, with its type."""
    found: dict[str, Any] = {}
    for name, about in model.model_fields.items():
        kind = about.annotation
        found[f"{prefix}{name}"] = Annotated[(kind, *about.metadata)] if about.metadata else kind
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= keys_of(kind, f"{prefix}{name}.")
    return found


KEYS = keys_of()


def fitting(kind: Any) -> st.SearchStrategy[Any]:
    """Values of about the right type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return fitting(inner[0])
    if origin is Literal:
        return st.sampled_from(inner)
    if origin in (Union, types.UnionType):
        return st.one_of([fitting(each) for each in inner])
    if origin is tuple:
        if inner[-1] is Ellipsis:
            return st.lists(fitting(inner[0]), max_size=3)
        return st.tuples(*map(fitting, inner)).map(list)
    if origin is dict:
        return st.dictionaries(words, st.one_of(fitting(inner[1]), scalars), max_size=2)
    simple = {
        int: st.integers(0, 300),
        float: st.floats(0, 1),
        bool: st.booleans(),
        str: words,
        type(None): st.none(),
    }
    if kind in simple:
        return simple[kind]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return section(kind)
    return odd


@st.composite
def section(draw: st.DrawFn, model: Any) -> dict[str, Any]:
    """A few keys of a section."""
    names = draw(st.lists(st.sampled_from(sorted(model.model_fields)), max_size=3, unique=True))
    return {name: draw(fitting(model.model_fields[name].annotation)) for name in names}


def _flow(value: Any) -> str:
    """As it is written on the command line."""
    return (
        yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**9)
        .split("\n...")[0]
        .strip("\n")
    )


@st.composite
def override(draw: st.DrawFn) -> str:
    """`section.key=value`, near a valid one."""
    key = draw(st.sampled_from(sorted(KEYS)))
    how = draw(st.sampled_from(("fits", "fits", "fits", "odd", "yaml", "text", "key")))
    if how == "key":
        wrong = st.sampled_from(
            (key[:-1], f"{key}.x", f".{key}", key.upper(), key.replace(".", ".."))
        )
        return f"{draw(st.one_of(wrong, words))}={draw(words)}"
    if how == "text":
        return draw(st.one_of(words, st.builds("{}={}".format, st.just(key), words)))
    if how == "yaml":
        return f"{key}={draw(st.sampled_from(ODD_YAML))}"
    return f"{key}={_flow(draw(fitting(KEYS[key]) if how == 'fits' else odd))}"


@st.composite
def whole(draw: st.DrawFn) -> dict[str, Any]:
    """Some sections and top-level keys, valid ones most often."""
    values: dict[str, Any] = {}
    for key in draw(st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=4, unique=True)):
        *above, last = key.split(".")
        holder = values
        for name in above:
            holder = holder.setdefault(name, {})
            if not isinstance(holder, dict):
                break
        else:
            holder[last] = draw(st.one_of(fitting(KEYS[key]), fitting(KEYS[key]), odd))
    return values


@st.composite
def yaml_file(draw: st.DrawFn) -> bytes:
    """A configuration file, changed as text."""
    text = yaml.safe_dump(draw(whole()), allow_unicode=True, sort_keys=False)
    lines = text.splitlines()
    how = draw(st.sampled_from(("whole", "line", "double", "yaml", "bytes", "encoding")))
    at = draw(st.integers(0, len(lines)))
    if how == "line":
        lines.insert(at, draw(st.one_of(words, st.sampled_from(ODD_YAML))))
    elif how == "double":
        lines = lines + lines[at:] + lines[:1]
    elif how == "yaml" and lines:
        head = lines[at % len(lines)].split(":")[0]
        lines[at % len(lines)] = f"{head}: {draw(st.sampled_from(ODD_YAML))}"
    data = ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")
    if how == "encoding":
        encoding = draw(st.sampled_from(("utf-16", "latin-1", "utf-8-sig", "utf-32")))
        return data.decode("utf-8", "replace").encode(encoding, "replace")
    return draw(changed_bytes(data)) if how == "bytes" else data


def _start(folder: Path) -> Path:
    return folder


def _load_overrides(folder: Path, given: list[str]) -> Config:
    return load_config(None, given)


def _load_file(folder: Path, given: bytes) -> Config:
    file = folder / "config.yaml"
    file.write_bytes(given)
    return load_config(str(file))


def _load_key(folder: Path, given: tuple[str, Any]) -> Config:
    *above, last = given[0].split(".")
    values: Any = {last: given[1]}
    for name in reversed(above):
        values = {name: values}
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(values))
    return load_config(str(file))


def _use(folder: Path, config: Config) -> None:
    """Digest, dump as a run does, read back; speak of every group."""
    values = config.model_dump(mode="json")
    file = folder / "again.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    again = load_config(str(file))
    assert again.digest() == config.digest(), "read back it is another configuration"
    assert json.loads(config.model_dump_json()) == json.loads(again.model_dump_json())
    json.dumps(values, allow_nan=False)
    for group in range(GROUPS.count):
        spoken(config.prompts, GROUPS, group)


def _plan(folder: Path, given: dict[str, Any]) -> Any:
    from raysynth.benchmark.cells import plan_cells

    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(given))
    return plan_cells(load_config(str(file)))


def _use_cells(folder: Path, cells: Any) -> None:
    for cell in cells:
        assert cell.digest and cell.references and cell.folders and cell.without_references.name


@st.composite
def benchmark(draw: st.DrawFn) -> dict[str, Any]:
    """A benchmark of a few rows, each with a few settings."""
    keys = st.sampled_from(sorted(KEYS))
    rows: dict[str, Any] = {}
    for name in draw(
        st.lists(
            st.sampled_from(("ours", "ours", "vanilla", "vanilla", "b-1", "erm", "a b")),
            min_size=1,
            max_size=2,
        )
    ):
        settings: Any = {}
        for key in draw(st.lists(keys, max_size=2)):
            settings[key] = draw(st.one_of(fitting(KEYS[key]), fitting(KEYS[key]), odd))
        rows[name] = draw(st.one_of(*[st.just(settings)] * 8, odd))
    values: dict[str, Any] = {"rows": rows, "seeds": draw(st.sampled_from((0, 1, 1, 1, 1, 2, 2)))}
    if draw(st.integers(0, 3)) == 0:
        values["severities"] = draw(
            st.lists(st.sampled_from((0.9, 0.99, "original", 1)), max_size=2)
        )
        values["baseline"] = draw(st.one_of(st.sampled_from(("ours", "vanilla")), words))
        places = st.lists(st.sampled_from((0.9, 0.99, 1)), max_size=2)
        values["only_at"] = draw(st.dictionaries(st.sampled_from(("ours", "x")), places))
        chosen = st.lists(st.sampled_from(("ours", "vanilla", "x")), max_size=3)
        values["by_validation"] = draw(st.dictionaries(words, chosen, max_size=1))
    return {
        "benchmark": values,
        **({"seed": draw(numbers)} if draw(st.integers(0, 5)) == 0 else {}),
    }


_key = st.sampled_from(sorted(KEYS))
TARGETS = [
    Target(
        "overrides", st.lists(override(), min_size=1, max_size=3), _start, _load_overrides, _use, 2
    ),
    Target("YAML files", yaml_file(), _start, _load_file, _use, 2),
    Target("every key x odd values", st.tuples(_key, odd), _start, _load_key, _use, 3),
    Target("benchmark rows", benchmark(), _start, _plan, _use_cells, 0.4),
]
