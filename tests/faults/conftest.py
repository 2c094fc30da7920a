"""Fixtures of the fault suite: those of the kernel suite, and a summary of what was covered."""

import importlib.util
import sys
from pathlib import Path

# Under a name of its own, because pytest calls this very file "conftest".
_path = Path(__file__).resolve().parents[1] / "kernel/conftest.py"
_spec = importlib.util.spec_from_file_location("kernel_conftest", _path)
kernel_conftest = importlib.util.module_from_spec(_spec)
sys.modules["kernel_conftest"] = kernel_conftest
_spec.loader.exec_module(kernel_conftest)

from kernel_conftest import *  # noqa: E402, F403

import faults  # noqa: E402


def pytest_terminal_summary(terminalreporter):
    """A table that was generated is to be seen, lest it becomes empty without anybody noticing."""
    for line in faults.summary:
        terminalreporter.write_line(line)
