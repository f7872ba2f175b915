"""The cells of a grid, and angles that may be averaged."""

import numpy as np
import pytest

from metastable.core.axis import Axis
from metastable.estimate.axes import cell_index, grid, straighten


def test_cells_count_in_c_order_and_stay_out_together():
    axes = (Axis(0, 1, 2), Axis(0, 3, 3))
    samples = np.concatenate([grid(axes).reshape(-1, 2), [[0.5, 4.0], [-1.0, 0.5]]])
    np.testing.assert_array_equal(cell_index(samples, axes), [0, 1, 2, 3, 4, 5, -1, -1])


def test_straightened_angles_do_not_jump():
    near = straighten(np.array([[np.pi - 1e-6, 5.0], [-np.pi + 1e-6, 5.0]]), (Axis.angle(), Axis(0, 9, 3)))
    np.testing.assert_allclose(near[0], near[1], atol=1e-5)
    assert near.shape == (2, 3)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="3 collective variables, the grid 2"):
        cell_index(np.zeros((5, 3)), (Axis.angle(), Axis.angle()))
