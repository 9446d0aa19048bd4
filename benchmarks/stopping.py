"""Seconds from a signal to the end of a run, at several moments of it.

    python benchmarks/stopping.py [--signals TERM INT] [--moments NAME ...] [--repeat N] [--busy N]

A miniature run is started as its command, signalled once it is seen at the moment, and started
again for the next one: it goes on where it was. `exit` is the time to the command's end, `gone`
until no process of its session is left, Ray's and the workers. Bar: 5 s to the command's end.
`--busy N` does the same beside N processes that keep a core busy each; `--stacks` prints where the
driver is, each second after the signal.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

BAR_SECONDS = 5.0
SLOW = [
    *("name=stopping", "dataset.severity=0.8", "dataset.train_images=160"),
    *("dataset.validation_images=40", "dataset.test_images=40"),
    *("clustering.max_k=2", "clustering.min_size=10"),
    *("finetune.steps=1500", "finetune.max_passes=100000", "finetune.checkpoint_steps=10"),
    *("synthesis.images_per_group=400", "synthesis.batch_size=8", "synthesis.steps=20"),
    *("search.trials=40", "search.steps=[300, 3000]", "references.names=[]"),
]
"""Stages that last long enough to be met."""
SHORT = ["finetune.steps=20"]
"""Of a run in which fine-tuning is no moment."""
MOMENTS = {
    "import": "",
    "Ray starts": "gcs_server",
    "fine-tuning": r"finetune .*steps [1-9]",
    "generation": r"synthesis .*images generated [1-9]",
    "search": r"search .*trials ",
}
"""Moment -> what is seen of it: a process, or a line of the display; "": a second after the start.

In the order in which a run meets them."""
DRIVER = (
    "import faulthandler, signal; faulthandler.register(signal.SIGUSR1, all_threads=True); "
    "import raysynth.progress; raysynth.progress.LINE_SECONDS = 1.0; "
    "from raysynth.__main__ import main; main()"
)
PATIENCE_SECONDS = 900.0


class Command:
    """A run in a session of its own, and what it has printed."""

    def __init__(self, storage: str, settings: list[str]) -> None:
        arguments = ["run", f"storage_path={storage}", *settings]
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line

    def wait_for(self, seen: str) -> None:
        """Until a moment; raises RuntimeError if it does not come."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        if not seen:
            time.sleep(1.0)
            return
        while time.monotonic() < deadline and self.process.poll() is None:
            if re.search(seen, self.text) or seen in (each.name() for each in self.others()):
                return
            time.sleep(0.05)
        raise RuntimeError(f"the run came to no {seen}:\n{self.text[-3000:]}")

    def others(self) -> list[psutil.Process]:
        """Live processes of the session besides the command itself."""
        found = []
        for each in psutil.process_iter():
            try:
                own = os.getsid(each.pid) == self.process.pid != each.pid
                if own and each.status() != psutil.STATUS_ZOMBIE:
                    found.append(each)
            except (ProcessLookupError, psutil.Error):
                continue
        return found

    def stop(self, number: int, stacks: bool) -> tuple[float, float]:
        """Seconds until the command has ended, and until nothing of it is left."""
        before = time.monotonic()
        self.process.send_signal(number)
        while self.process.poll() is None:
            time.sleep(0.02)
            if stacks and time.monotonic() - before > 1:
                time.sleep(1)
                self.process.send_signal(signal.SIGUSR1)
        ended = time.monotonic() - before
        while self.others() and time.monotonic() - before < PATIENCE_SECONDS:
            time.sleep(0.05)
        return ended, time.monotonic() - before


@contextmanager
def beside(busy: int) -> Iterator[None]:
    """`busy` processes that each keep a core busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        yield
    finally:
        for each in others:
            each.kill()
            each.wait()


def measure(storage: str, moment: str, name: str, settings: list[str], stacks: bool) -> bool:
    """Print a row of the table; whether the bar is met."""
    number = signal.Signals[f"SIG{name}"]
    command = Command(storage, settings)
    try:
        command.wait_for(MOMENTS[moment])
        ended, gone = command.stop(number, stacks)
    finally:
        for each in (
            [*command.others(), psutil.Process(command.process.pid)]
            if (command.process.poll() is None)
            else command.others()
        ):
            each.kill()
    code = command.process.returncode
    load = os.getloadavg()[0]
    print(f"| {moment} | SIG{name} | {code} | {ended:.1f} | {gone:.1f} | {load:.0f} |", flush=True)
    if stacks:
        print(command.text[-20000:])
    return ended <= BAR_SECONDS


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--signals", nargs="+", default=["TERM", "INT"], choices=["TERM", "INT"])
    parser.add_argument("--moments", nargs="+", default=list(MOMENTS), choices=list(MOMENTS))
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--storage", default="", help="Go on with the run that is there.")
    parser.add_argument("--stacks", action="store_true")
    given = parser.parse_args()
    storage = given.storage or tempfile.mkdtemp(prefix="stopping-")
    Path(storage).mkdir(parents=True, exist_ok=True)
    settings = SLOW if "fine-tuning" in given.moments else [*SLOW, *SHORT]
    print("| moment | signal | exit code | exit, s | gone, s | load |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    with beside(given.busy):
        met = [
            measure(storage, moment, name, settings, given.stacks)
            for moment in given.moments
            for name in given.signals
            for _ in range(given.repeat)
        ]
    sys.exit(not all(met))


if __name__ == "__main__":
    main()
