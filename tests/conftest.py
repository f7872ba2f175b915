"""What many tests ask for: real data where it is at hand, and double precision."""

import os
import tempfile
from pathlib import Path

import jax
import pytest

_compiled = tempfile.TemporaryDirectory(prefix="metastable-compiled-", ignore_cleanup_errors=True)


def pytest_configure(config):
    """Of programs that a session compiles twice, such as a run and the one that goes on with it, the second is loaded.

    Where the environment names no cache that outlives the session; processes that tests start share it.
    """
    folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _compiled.name)
    jax.config.update("jax_compilation_cache_dir", folder)


def pytest_unconfigure(config):
    _compiled.cleanup()


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
