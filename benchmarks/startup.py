"""Seconds from the start of ``metastable demo`` until its first block runs: imports, reading, compilation.

    python benchmarks/startup.py [--json] [--times 3]

The demo runs in a process of its own, twice: with an empty compilation cache, and with the cache that the first left
behind. The time told is that at which the first block is done, less what a later block takes; the process is then
ended. ``ours`` is in wall seconds, which is what somebody in front of it waits; ``cpu`` in CPU seconds of the process,
which on a busy machine says more. There is no peer: ``ratio`` is ``ours``, ``reach`` is what it must not exceed.
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from table import options_of, show, within

REACH = {"first time": 15.0, "from the persistent cache": 5.0}
WAIT = 600  # s, after which something is wrong


class Start(NamedTuple):
    """Seconds until the first block began."""

    wall: float
    cpu: float


def measure(cache: Path) -> Start:
    """Start the demo with a compilation cache, and end it when it has done three blocks."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "metastable.cli.main", "demo", "--out", str(out)],
                                   env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
        try:
            first = _blocks(process, out, 1)
            block = _blocks(process, out, 4)
        finally:
            process.kill()
            process.wait()
        one_wall, one_cpu = ((b - a) / 3 for a, b in zip(first, block, strict=True))
        return Start(first[0] - began - one_wall, first[1] - one_cpu)


def _blocks(process: subprocess.Popen, out: Path, wanted: int) -> tuple[float, float]:
    """(clock, CPU seconds of the process) when so many blocks are done."""
    timing = out / "timing.csv"
    for _ in range(int(WAIT / 0.02)):
        if timing.exists() and len(list(csv.reader(timing.open()))) > wanted:
            return time.perf_counter(), _cpu(process.pid)
        if process.poll() is not None:
            error = process.stderr.read().decode() if process.stderr else ""
            raise RuntimeError(f"the demo ended before block {wanted}:\n{error}")
        time.sleep(0.02)
    raise RuntimeError(f"the demo did not come to block {wanted} in {WAIT} s")


def _cpu(pid: int) -> float:
    import psutil

    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def rows(times: int) -> list[dict[str, Any]]:
    """The two rows, the best of so many times."""
    starts: dict[str, list[Start]] = {name: [] for name in REACH}
    for _ in range(times):
        with tempfile.TemporaryDirectory() as cache:
            for name in REACH:
                starts[name].append(measure(Path(cache)))
    found = []
    for name, reach in REACH.items():
        wall, cpu = (min(s[i] for s in starts[name]) for i in range(2))
        found.append({"row": f"start of the demo, {name}", "ours": wall, "peer": None, "ratio": wall, "reach": reach,
                      "cpu": cpu})  # fmt: skip
    return found


def main() -> int:
    """Print the table; exit 1 where a row does not reach what it should."""
    parser = options_of(__doc__)
    parser.add_argument("--times", type=int, default=3, help="how many times; the best counts")
    options = parser.parse_args()
    heading = f"{'row':50} {'wall s':>8} {'CPU s':>8} {'reach':>7}"
    line = "{row:50} {ours:8.1f} {cpu:8.1f} {reach:7.0f}".format_map
    return show(rows(options.times), line, within, options.json, heading)


if __name__ == "__main__":
    sys.exit(main())
