"""What a run says while it runs: a line on a terminal, a few lines elsewhere; and the times, in a file of their own."""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from metastable.cli.endings import Stopped
from metastable.loops.run import Block
from metastable.recipes.plan import Plan

_SPARSE = 30.0  # s between two lines where there is no terminal
CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}


@contextmanager
def stopping() -> Iterator[Callable[[], int | None]]:
    """SIGTERM and Ctrl-C only ask, and the block is finished; a second Ctrl-C ends the process at once.

    Gives a function that tells the exit code asked for, None while nobody has.
    """
    asked: list[int] = []

    def ask(number, frame):
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(CODES[number])
        print("stopping: the block is finished and saved first", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, ask) for number in CODES}
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Watch:
    """Called after every block: shows how far the run is, keeps ``timing.csv``, and raises Stopped when asked to.

    ns/day counts all walkers together, over the last blocks, without compilation.
    """

    def __init__(self, plan: Plan, cv: Any, directory: Path, asked: Callable[[], int | None], line: Any = None):
        self.plan, self.cv, self.directory, self.asked, self.line = plan, cv, directory, asked, line
        self._ends = [time.perf_counter()]
        self._said = -math.inf
        path = directory / "timing.csv"
        if not path.exists():
            path.write_text("block,wall_s,ns_per_day\n")

    def __call__(self, block: Block) -> None:
        self._ends.append(time.perf_counter())
        seconds = self._ends[-1] - self._ends[-2]
        with (self.directory / "timing.csv").open("a") as file:
            file.write(f"{block.index},{seconds:.4f},{self._speed(seconds):.1f}\n")
        self._show(block)
        code = self.asked()
        if code is not None and block.index + 1 < self.plan.blocks:
            raise Stopped(block.index + 1, code)

    def _speed(self, seconds: float) -> float:
        return self.plan.steps * self.plan.dt * self.plan.walkers / 1e3 / seconds * 86400

    def _show(self, block: Block) -> None:
        recent = np.diff(self._ends)[1:][-10:]  # the first block has the compilation in it
        pace = float(np.mean(recent)) if len(recent) else self._ends[-1] - self._ends[-2]
        done, left = block.index + 1, pace * (self.plan.blocks - block.index - 1)
        text = f"{self._speed(pace):,.0f} ns/day  {duration(left)} left  {_glance(self.cv, block)}"
        if self.line is not None:
            self.line(done, text)
        elif time.perf_counter() - self._said > _SPARSE or done == self.plan.blocks:
            self._said = time.perf_counter()
            print(f"block {done}/{self.plan.blocks}  {text}", flush=True)


def _glance(cv: Any, block: Block) -> str:
    """The CVs of the first walker and the bias there, in a few words; its temperature where there are none."""
    if not cv.components:
        return f"{block.records['temperature'][-1, 0]:.0f} K"
    words = []
    for component, value in zip(cv.components, block.records["cvs"][-1, 0], strict=True):
        shown = f"{math.degrees(value):.0f}°" if component.unit == "rad" else f"{value:.3g} {component.unit}".strip()
        words.append(f"{component.label} {shown}")
    bias = float(np.mean(block.records["bias"][-1]))
    return "  ".join(words) + (f"  bias {bias:.1f} kJ/mol" if bias else "")


def duration(seconds: float) -> str:
    """As people say it: 12 s, 3 min, 2 h 5 min."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours / 24:.1f} days"


@contextmanager
def progress_line(blocks: int) -> Iterator[Callable[[int, str], None] | None]:
    """A line that is rewritten in place, on a terminal; None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as progress:
        task = progress.add_task("compiling", total=blocks)
        progress.refresh()
        yield lambda done, text: progress.update(task, completed=done, description=text, refresh=True)
