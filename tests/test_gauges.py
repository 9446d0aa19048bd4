"""What a machine says of itself: memory of processes, counters of energy, GPUs by their library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from raysynth.gauges import Gauges, Gpus, Rapl, memory


def test_memory_grows_with_this_process_and_with_those_below_it():
    before = memory()
    held = bytearray(64_000_000)
    assert memory() - before > 50e6 and len(held)
    hold = "import sys; x = bytearray(80_000_000); print(len(x), flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold], **pipes) as child:
        child.stdout.readline()
        assert memory() - before > 64e6 + 60e6
        child.stdin.close()


def zone(root: Path, name: str, microjoules: int, most: int = 1_000_000_000) -> Path:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    return folder / "energy_uj"


def test_processors_are_added_up_and_their_parts_are_not(tmp_path):
    first, second = zone(tmp_path, "intel-rapl:0", 5_000_000), zone(tmp_path, "intel-rapl:1", 0)
    part, odd = zone(tmp_path, "intel-rapl:0:0", 0), tmp_path / "dtpm"
    odd.mkdir()
    rapl = Rapl(tmp_path)
    assert rapl.joules() == 0
    for counter, now in ((first, 7_000_000), (second, 500_000), (part, 900_000_000)):
        counter.write_text(str(now))
    assert rapl.joules() == pytest.approx(2.5)


def test_a_counter_that_began_again_goes_on(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", 999_000_000)
    rapl = Rapl(tmp_path)
    counter.write_text("3000000")
    assert rapl.joules() == pytest.approx(4.0)
    counter.write_text("no number")
    assert rapl.joules() == pytest.approx(4.0)


def test_energy_that_nobody_counts_is_not_zero(tmp_path):
    assert Rapl(tmp_path).joules() is None and Rapl(tmp_path / "none").joules() is None


class Refused(Exception):
    """A GPU's answer to what it does not know."""


def read_energy(handle: int) -> int:
    if handle == 9:
        raise Refused
    return 1000 * handle


LIBRARY = SimpleNamespace(
    NVMLError=Refused,
    nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=handle * 10**9),
    nvmlDeviceGetTotalEnergyConsumption=read_energy,
)
"""What is used of NVIDIA's library: there is no GPU where tests run."""


def test_gpus_say_the_fullest_ones_memory_and_the_energy_of_all():
    gpus = Gpus(LIBRARY, [1, 3])
    assert (gpus.memory(), gpus.joules()) == (3e9, 4.0)
    assert Gpus(LIBRARY, [1, 9]).joules() is None, "part of the energy would be no total"
    assert Gpus(LIBRARY, []).memory() is None


def test_reading_all_gauges_imports_no_ray_where_there_is_no_gpu():
    code = "import sys; from raysynth.gauges import Gauges; print(Gauges()().memory > 1e6)\n"
    code += "from pathlib import Path\n"
    code += "print('ray' in sys.modules and not Path('/dev/nvidiactl').exists())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["True", "False"]
    assert Gauges()().memory
