"""Fixtures of the kernel suite: an agent, pods, and the check that a test leaves nothing behind."""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import torpor  # noqa: E402

PR_SET_CHILD_SUBREAPER = 36


def require(condition, reason):
    """Skips a test that this kernel cannot run; where everything must be there, that is a failure."""
    if not condition:
        (pytest.fail if os.environ.get("REQUIRE_KERNEL") else pytest.skip)(reason)


@pytest.fixture(autouse=True)
def needs(request):
    """@pytest.mark.memory: only where cgroup v2 has the memory controller."""
    if request.node.get_closest_marker("memory"):
        require(torpor.has_memory, "cgroup v2 has no memory controller here")


@pytest.fixture(scope="session", autouse=True)
def test_root():
    """The one group that everything lives below."""
    # Orphans of a test become our children, so that we see and reap them.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    root = torpor.Cgroup(torpor.TEST_ROOT).make()
    torpor.enable_controllers(root.path)
    yield root
    root.remove()


def children():
    me = os.getpid()
    return [
        int(pid)
        for task in Path(f"/proc/{me}/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]


def end_children():
    """Those that still run, by now ended."""
    torpor.reap()
    running = children()
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return running


@pytest.fixture(autouse=True)
def nothing_left(test_root):
    """A test that leaves a group or a process behind fails; the next begins clean all the same."""
    yield
    left = [str(path.relative_to(test_root.path)) for path in groups_below(test_root)]
    remove_all(test_root)
    processes = end_children()
    assert not left, f"groups left behind: {left}"
    assert not processes, f"processes left behind: {processes}"


def groups_below(test_root):
    """Those with processes, and those of containers; a kubelet's own directories may stay empty."""
    return [group.path for group in test_root.groups()[:-1] if group.populated()]


def remove_all(test_root):
    for path in [path for path in test_root.path.iterdir() if path.is_dir()]:
        torpor.Cgroup(path).remove()


@pytest.fixture
def pod():
    """pod(...) makes a Pod; all are removed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(torpor.Pod(*args, **options))


@pytest.fixture
def new_agent():
    """new_agent(flags...) starts an Agent; all are stopped at the end."""
    with contextlib.ExitStack() as stack:

        def start(*flags, **options):
            agent = torpor.Agent(*flags, **options)
            # pytest shows what was printed when the test has failed
            stack.callback(lambda: print(agent.final_log))
            return stack.enter_context(agent)

        yield start


@pytest.fixture
def agent(new_agent):
    return new_agent()


def pytest_configure(config):
    config.addinivalue_line("markers", "memory: needs cgroup v2 with the memory controller")


