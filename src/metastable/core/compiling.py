"""How programs are compiled."""

from collections.abc import Callable
from typing import Any

import equinox as eqx

_filter_jit: Any = eqx.filter_jit  # its overloads know nothing of compiler_options


def filter_jit_once(function: Callable) -> Callable:
    """``equinox.filter_jit`` for what runs once or seldom: it compiles in half the time, and may run half as fast.

    On a CPU, that is, with XLA's older emitter of fused loops; elsewhere nothing changes.
    """
    return _filter_jit(function, compiler_options={"xla_cpu_use_fusion_emitters": False})


def filter_jit_tiny(function: Callable) -> Callable:
    """``equinox.filter_jit`` for what takes microseconds to run, as in tests: the compiler does not optimise at all."""
    return _filter_jit(
        function, compiler_options={"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 0}
    )
