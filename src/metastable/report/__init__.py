"""Arrays in, files out: the files of a run while it goes, and the page that shows it."""

from metastable.report.page import write_report

__all__ = ["write_report"]
