"""The volume of the box as a collective variable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.frame import Frame
from metastable.cvs import Volume


def test_it_is_the_determinant_of_any_box():
    box = np.array([[2.0, 0, 0], [0.5, 1.5, 0], [-0.7, 0.6, 1.8]])
    with jax.enable_x64(True):
        frame = Frame(jnp.zeros((1, 3)), jnp.asarray(box))
        assert np.isclose(float(Volume()(frame)[0]), np.linalg.det(box), rtol=1e-14)
        slope = jax.grad(lambda b: Volume()(Frame(frame.positions, b))[0])(frame.box)
        assert np.allclose(slope, np.linalg.det(box) * np.linalg.inv(box).T)


def test_without_a_box_there_is_none():
    with pytest.raises(ValueError, match="periodic box"):
        Volume()(Frame(jnp.zeros((1, 3))))
