"""`raysynth doctor`: all checks of a configuration, and how they end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

from raysynth.cluster.capacity import is_local
from raysynth.config.config import Config
from raysynth.doctor.check import CHECKS, FAIL, HERE, Failed, Finding, Scene, together
from raysynth.doctor.nodes import alive_nodes, cluster, look, look_everywhere
from raysynth.errors import RaysynthError
from raysynth.planning.plan import plan_run
from raysynth.planning.planned import Plan
from raysynth.terminal import masked, shown


def examine(config: Config) -> Iterator[tuple[str, Finding]]:
    """(Check, finding) of all checks in their order; starts no Ray, joins the run's cluster.

    Nothing is kept: what the checks write to the run's storage is removed again.
    """
    names = sorted(CHECKS.names, key=lambda name: CHECKS[name].order)
    scene = _scene(config, names)
    for name in names:
        yield from ((name, finding) for finding in _judged(name, scene))


def line(name: str, finding: Finding) -> str:
    """A finding as it is printed."""
    fix = f". Fix: {finding.fix}" if finding.fix else ""
    return shown(masked(f"{finding.mark:<5} {name:<14} {finding.text}{fix}"))


def exit_code(findings: Sequence[Finding]) -> int:
    """0: nothing failed; 3: only what may be over in a moment; 2: something else."""
    failed = [finding for finding in findings if finding.mark == FAIL]
    if not failed:
        return 0
    return 3 if all(finding.passing for finding in failed) else 2


def _judged(name: str, scene: Scene) -> Iterator[Finding]:
    yield from together(scene.failed(name))
    try:
        yield from CHECKS[name].judge(scene)
    except Exception as error:
        yield from together({HERE: Failed.of(error)})


def _scene(config: Config, names: Sequence[str]) -> Scene:
    visit, plan = uuid.uuid4().hex[:12], _plan(config)
    if is_local(config.resources):
        return Scene(config, visit, True, plan, seen={HERE: look(config, visit, names)})
    try:
        with cluster(config):
            import ray

            nodes = alive_nodes()
            seen, silent = look_everywhere(config, visit, names, nodes)
            own = ray.get_runtime_context().get_node_id()
            driver = next((node.name for node in nodes if node.id == own), "")
            return Scene(config, visit, False, plan, None, nodes, driver, seen, silent)
    except RaysynthError as error:
        seen = {HERE: look(config, visit, names)}
        return Scene(config, visit, False, plan, Failed.of(error), seen=seen)


def _plan(config: Config) -> Plan | Failed:
    try:
        return plan_run(config)
    except Exception as error:
        return Failed.of(error)
