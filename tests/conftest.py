"""What many tests ask for: real data where it is at hand, and double precision."""

import os
from pathlib import Path

import jax
import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data, METASTABLE_DATA; the test is skipped where it is unset."""
    folder = os.environ.get("METASTABLE_DATA")
    if not folder:
        pytest.skip("METASTABLE_DATA is not set: no real data to test against")
    return Path(folder)


@pytest.fixture(scope="module", autouse=True)
def forget_compilations():
    """What jax compiled for one file serves no other, and all of it together takes gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield
