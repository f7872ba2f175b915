"""The box of every frame."""

import numpy as np
from jaxtyping import Float


def of_frames(box: Float[np.ndarray, "*frames 3 3"], batch: tuple[int, ...]) -> Float[np.ndarray, "*batch 3 3"]:
    """A box for each of the frames of a batch, (time,) or (time, walkers): one for all, one a time, or all of them.

    Raises ValueError for other shapes, and for a box that is not reduced as :mod:`metastable.core.space` says.
    """
    box = np.asarray(box, float)
    if box.shape[-2:] != (3, 3) or box.shape[:-2] not in (batch, batch[:1], ()):
        raise ValueError(f"box {box.shape} must be (3, 3), or one for each of the frames, {(*batch, 3, 3)}")
    sides = np.diagonal(box, axis1=-2, axis2=-1)
    tilt = np.abs(box[..., [1, 2, 2], [0, 0, 1]]) > 0.5001 * sides[..., [0, 0, 1]]
    above = np.abs(box[..., [0, 0, 1], [1, 2, 2]]) > 1e-5 * sides[..., :1]
    if np.any(tilt) or np.any(above) or not np.all(sides > 0):
        raise ValueError("box: rows must be the vectors of a reduced box; metastable.core.space.reduced makes one")
    if box.ndim == 3:
        box = box.reshape(-1, *(1,) * (len(batch) - 1), 3, 3)
    return np.broadcast_to(box, (*batch, 3, 3))
