"""Normal deviates for noise: a counter-based generator that costs a fraction of threefry."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def normal(key: PRNGKeyArray, shape: tuple[int, ...] = (), dtype=jnp.float32) -> Float[Array, "..."]:
    """Standard normal deviates."""
    return jax.random.normal(key, shape, dtype)
