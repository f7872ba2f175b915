"""What ``replicate`` writes: traced once, the replicas last, and no branch that none of them takes."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from metastable.core.replicas import replicate

REPLICAS = 4
PAIRS = np.array([[0, 1], [2, 3], [6, 1]])


def pair_energy(x):
    d = x[PAIRS[:, 0]] - x[PAIRS[:, 1]]
    return jnp.sum(jnp.linalg.norm(d, axis=-1) ** 3) + jnp.sum(jnp.cos(x) @ jnp.ones((3, 4)))


def test_traces_the_function_once():
    count = []

    @jax.jit
    def call(x):
        return replicate(lambda x: (count.append(1), lax.fori_loop(0, 3, lambda i, y: y + x, x))[1])(x)

    x = jnp.ones((7, 3, REPLICAS))
    call(x), call(x + 1)
    assert len(count) == 1


def test_replicas_stay_last():
    """No intermediate of a force has the replicas anywhere but last: that is what the module is for."""
    distinct = 11
    x = jnp.zeros((7, 3, distinct))
    jaxpr = jax.make_jaxpr(replicate(jax.grad(pair_energy)))(x)
    shapes = [v.aval.shape for eqn in jaxpr.eqns for v in eqn.outvars]
    assert len(shapes) > 20
    assert all(distinct not in shape[:-1] for shape in shapes)


def test_a_branch_that_no_replica_takes_is_not_computed():
    """What is done every few steps costs nothing in between, though each replica counts for itself."""

    def step(count, x):
        return lax.cond(count == 3, lambda x: x[jnp.argsort(x)], lambda x: -x, x)

    counts, x = jnp.array([1, 2, 1, 2]), jax.random.normal(jax.random.key(0), (5, REPLICAS))
    inside = [str(eqn) for eqn in jax.make_jaxpr(replicate(step))(counts, x).eqns if eqn.primitive.name == "cond"]
    assert sum("sort" in eqn for eqn in inside) == 1
    outside = [eqn for eqn in jax.make_jaxpr(replicate(step))(counts, x).eqns if eqn.primitive.name != "cond"]
    assert not any("sort" in str(eqn) for eqn in outside)
    assert np.array_equal(replicate(step)(counts, x), -x)
    some = jnp.array([1, 3, 3, 2])
    assert np.array_equal(replicate(step)(some, x), jnp.stack([step(some[r], x[:, r]) for r in range(REPLICAS)], -1))
