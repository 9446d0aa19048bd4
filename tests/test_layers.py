"""Who may import whom: rooms lie on floors, and no import runs up.

UP names every import that still does. It may only shrink: an arrow that is gone must leave it, and
a new one is no exception to be added.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "raysynth"
FLOORS = """
pace terminal
errors
sides
values
json_lines
gauges metrics view pages repeated
progress
knobs
registry
groups
storage
stages strips log
models trackers
cluster
endings
networks
heads
datasets
clustering
generators
adapters scoring
finetune
synthesis
training audit
grouping
fidelity
evaluation search pretraining
references
selection classify
report
config
parts method
planning
jobs
ahead doctor
pipeline verify finished compare
export
publish
rehearsal inspection base_run
adapter_runs prompt_runs pretrain
again python
dashboards
benchmark
cli
__main__
"""
FLOOR = {room: floor for floor, row in enumerate(FLOORS.split("\n")) for room in row.split()}

UP: set[str] = set()
"""`file -> module`: imports that run up."""

LONGEST_FILE = 350
LONGEST_FUNCTION = 40
LONG_FUNCTIONS = 4


def modules() -> dict[str, Path]:
    """Dotted name -> file, of the whole package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("raysynth", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(path: Path, *, lazy: bool) -> set[str]:
    """Modules of the package that a file imports; `lazy`: in its functions too.

    What only a type checker reads (`if TYPE_CHECKING`) counts as well: it is knowledge.
    """
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if lazy else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in below}
    return {name for name in found if name in MODULES and MODULES[name].name != "__init__.py"}


def room(module: str) -> str:
    """The room of a module: its folder, or the file itself; the package's own is the highest."""
    return module.split(".")[1] if "." in module else "__main__"


def test_every_room_has_a_floor():
    rooms = {room(name) for name in MODULES}
    assert rooms == set(FLOOR) & rooms, f"no floor: {sorted(rooms - set(FLOOR))}"


def test_no_import_runs_up():
    found = {
        f"{name} -> {target}"
        for name, path in MODULES.items()
        for target in imports(path, lazy=True)
        if room(target) != room(name) and FLOOR[room(target)] >= FLOOR[room(name)]
    }
    assert not found - UP, f"new imports that run up: {sorted(found - UP)}"
    assert not UP - found, f"gone, take them off the list: {sorted(UP - found)}"


def test_no_files_import_each_other_in_a_circle():
    arrows = {name: imports(path, lazy=True) - {name} for name, path in MODULES.items()}
    left = dict(arrows)
    while ends := [name for name, targets in left.items() if not targets & set(left)]:
        for name in ends:
            del left[name]
    while starts := [n for n in left if not any(n in left[other] for other in left if other != n)]:
        for name in starts:
            del left[name]
    assert not left, f"files in or between circles: {sorted(left)}"


@pytest.mark.parametrize("name", ["url_to_fs", "fsspec"])
def test_only_the_room_of_storage_speaks_to_file_systems(name):
    found = [m for m, path in MODULES.items() if name in path.read_text() and room(m) != "storage"]
    assert not [m for m in found if _names(MODULES[m], name)], found


def _names(path: Path, name: str) -> bool:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name) and node.id == name:
            return True
        if isinstance(node, ast.Attribute) and node.attr == name:
            return True
    return False


def test_files_and_functions_can_be_read_at_once():
    files = {m: len(path.read_text().splitlines()) for m, path in MODULES.items()}
    assert not {m: n for m, n in files.items() if n > LONGEST_FILE}
    long = [
        f"{m}.{node.name} ({lines})"
        for m, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        if (lines := node.end_lineno - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert len(long) <= LONG_FUNCTIONS, long
