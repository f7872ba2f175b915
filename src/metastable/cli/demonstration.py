"""``demo``: the example of the package, shortened."""

import time
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from metastable.cli.progress import duration
from metastable.cli.running import resume, start
from metastable.core.errors import InputError
from metastable.loops.checkpoint import Checkpoints

SHORT = ("dynamics.duration=800 ps", "output.trajectory=1 ps")


def demo(out: Path, overrides: Sequence[str] = ()) -> None:
    """Run the example into ``out``, or go on with it where it was stopped."""
    began = time.perf_counter()
    if Checkpoints(out).identity() is not None:
        if overrides:
            raise InputError(f"{out} holds a demo already, which --set cannot change: give another --out")
        print(f"going on with {out}", flush=True)
        resume(out)
    else:
        print("alanine dipeptide, 64 walkers, well-tempered metadynamics of phi and psi", flush=True)
        with as_file(files("metastable.cli") / "examples") as examples:
            start(examples / "alanine-dipeptide.toml", out, [*SHORT, *overrides])
    print(f"in {duration(time.perf_counter() - began)}")
