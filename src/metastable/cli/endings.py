"""How a run may end other than well: exceptions that carry what the shell is told. Light, for ``main`` imports it."""


class Stopped(Exception):
    """A signal asked the run to stop; its last block is saved. code: 130 for Ctrl-C, 75 for SIGTERM."""

    def __init__(self, block: int, code: int):
        self.block, self.code = block, code
        super().__init__(f"stopped after block {block}")


class DiskError(Exception):
    """A file of the run could not be written."""
