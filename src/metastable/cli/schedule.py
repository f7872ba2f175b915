"""When things happen: times as whole numbers of steps."""

from dataclasses import dataclass

from metastable.cli.models import DynamicsInput, OutputInput
from metastable.cli.quantities import Quantity
from metastable.core.errors import Problem

_MOST_STEPS = 2**31 - 1
_BLOCKS = 100
_LONGEST_BLOCK = 20.0  # ps


@dataclass(frozen=True)
class Schedule:
    """All in steps: between records, between hills (0: none), of a block; frames: records between trajectory frames.

    duration, block: as text, for the resolved input.
    """

    every: int
    pace: int
    frames: int
    steps: int
    blocks: int
    duration: str
    block: str

    @property
    def records(self) -> int:
        """How many times the collective variables are recorded."""
        return self.blocks * self.steps // self.every


def plan(
    dynamics: DynamicsInput, output: OutputInput, pace: Quantity | None, problems: list[Problem]
) -> Schedule | None:
    """Turn times into steps; what is no whole number of them is a problem.

    The duration is rounded up to whole blocks, which the resolved input then shows.
    """
    before, dt = len(problems), dynamics.timestep
    every = _whole(output.every, dt, "output.every", "time steps", problems)
    pace_steps = 0 if pace is None else _whole(pace, dt, "bias.pace", "time steps", problems)
    frames = _whole(output.trajectory, output.every, "output.trajectory", "records (output.every)", problems)
    if dynamics.duration > _MOST_STEPS * dt:
        message = f"'{dynamics.duration.text}' is more than {_MOST_STEPS} steps of '{dt.text}': run it in parts"
        problems.append(Problem("dynamics.duration", message))
    elif dynamics.duration < output.every:
        message = f"'{dynamics.duration.text}' must be at least output.every, '{output.every.text}'"
        problems.append(Problem("dynamics.duration", message))
    if len(problems) > before:
        return None
    records = _ceil(dynamics.duration / output.every)
    if output.block is None:
        length = _block_length(records, min(records / _BLOCKS, _LONGEST_BLOCK / output.every))
    else:
        length = min(_whole(output.block, output.every, "output.block", "records (output.every)", problems), records)
    if len(problems) > before:
        return None
    blocks = -(-records // length)
    duration = dynamics.duration.text
    if blocks * length != records or abs(records * output.every - dynamics.duration) > 1e-6 * dynamics.duration:
        duration = _time(blocks * length * every * dt)
    return Schedule(every, pace_steps, frames, length * every, blocks, duration, _time(length * every * dt))


def _whole(time: float, unit: float, where: str, what: str, problems: list[Problem]) -> int:
    count = round(min(time / unit, 1e15))
    if count < 1 or count > _MOST_STEPS or abs(time / unit - count) > 1e-6 * count:
        text = getattr(time, "text", time)
        message = f"'{text}' is {time / unit:.6g} {what}: it must be a whole number of them, at least 1"
        problems.append(Problem(where, f"{message}; for example '{_time(max(count, 1) * unit)}'"))
    return count


def _block_length(records: int, wanted: float) -> int:
    """Records in a block: a divisor of ``records`` near what is wanted, so that nothing is rounded, else that."""
    wanted = max(1, round(wanted))
    near = [n for n in range(max(1, wanted // 2), 2 * wanted + 1) if records % n == 0]
    return min(near, key=lambda n: abs(n - wanted)) if near else wanted


def _ceil(x: float) -> int:
    return max(1, round(x)) if abs(x - round(x)) < 1e-6 * max(x, 1) else int(x) + 1


def _time(ps: float) -> str:
    return f"{float(f'{ps:.12g}')!r} ps"
