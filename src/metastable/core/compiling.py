"""How programs are compiled."""

from functools import partial

import equinox as eqx

filter_jit_once = partial(eqx.filter_jit, compiler_options={"xla_cpu_use_fusion_emitters": False})
"""``equinox.filter_jit`` for what runs once or seldom: it compiles in half the time, and may run half as fast.

On a CPU, that is, with XLA's older emitter of fused loops; elsewhere nothing changes.
"""
