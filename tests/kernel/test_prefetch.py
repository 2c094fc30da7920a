"""What a wake brings back by itself, and what it must never do: kill, delay, or go on for too long."""

import contextlib
import re
import subprocess
import tempfile
from pathlib import Path

import pytest
import torpor
from conftest import require
from torpor import MB, NodeHog, wait_for

pytestmark = pytest.mark.memory

HELD = 64  # MB of the hog
MODES = ["all", "recorded"]


@pytest.fixture
def fetcher(new_agent):
    """fetcher(mode) starts an agent that says how each prefetch ended."""
    return lambda mode: new_agent("--prefetch", mode, "--log-level", "debug")


def ends(agent):
    """How the prefetches have ended so far: done, limit, …"""
    return re.findall(r"prefetched [0-9.]+ MiB in [0-9]+ ms: ([a-z_]+)", agent.log_file.read_text())


def wait_for_end(agent, which=0):
    return wait_for("the prefetch has ended", lambda: ends(agent)[which:])[0]


@contextlib.contextmanager
def frozen_hog(agent, pod):
    """A hog whose memory is in swap: (pod, container, hog)."""
    p = pod()
    container = p.container(swap_max="max")
    hog = torpor.hog(container, HELD)
    answer = agent.freeze(p.uid)
    assert answer["reclaim"] == "done"
    assert container.memory_current() < 4 * MB
    yield p, container, hog


def knows_everything(hog):
    return torpor.hog_again(hog)[0] == hog.checksum


def oom_kills(container):
    return container.keyed("memory.events")["oom_kill"]


@pytest.mark.parametrize("mode", MODES)
def test_memory_comes_back_before_it_is_touched(fetcher, pod, mode):
    agent = fetcher(mode)
    with frozen_hog(agent, pod) as (p, container, hog):
        agent.thaw(p.uid)
        assert wait_for_end(agent) == "done"
        wait_for("the memory is back", lambda: container.memory_current() > HELD * MB)
        assert knows_everything(hog)


def test_off_leaves_it_to_the_app(fetcher, pod):
    agent = fetcher("off")
    with frozen_hog(agent, pod) as (p, container, hog):
        agent.thaw(p.uid)
        wait_for_quiet(container)
        assert container.memory_current() < HELD / 4 * MB
        assert knows_everything(hog)
        assert ends(agent) == []


def wait_for_quiet(container):
    """Waits until no CPU time is used in the group any more."""
    last = [-1]

    def is_quiet():
        before, last[0] = last[0], container.cpu_usec()
        return before == last[0]

    wait_for("the app is idle", is_quiet)


@pytest.mark.parametrize("mode", MODES)
def test_again_and_again(fetcher, pod, mode):
    agent = fetcher(mode)
    with frozen_hog(agent, pod) as (p, container, hog):
        for turn in range(4):
            agent.thaw(p.uid)
            assert wait_for_end(agent, turn) == "done"
            assert knows_everything(hog)
            agent.freeze(p.uid)
            assert container.memory_current() < 4 * MB
        agent.thaw(p.uid)


def test_several_processes_and_a_nested_group(fetcher, pod):
    agent = fetcher("all")
    p = pod(layout=torpor.Layout(driver="systemd", runtime="crio", nested=True))
    first, second = p.container(swap_max="max"), p.container(swap_max="max")
    for leaf in (first, second):
        leaf.leaf.write("memory.swap.max", "max")
    hogs = [torpor.hog(first, 24), torpor.hog(first, 24), torpor.hog(second, 24)]
    agent.freeze(p.uid)
    agent.thaw(p.uid)
    assert wait_for_end(agent) == "done"
    wait_for("the first is back", lambda: first.memory_current() > 48 * MB)
    wait_for("the second is back", lambda: second.memory_current() > 24 * MB)
    assert all(knows_everything(hog) for hog in hogs)


def test_a_limit_that_is_too_small_for_everything(fetcher, pod):
    """Nothing is killed for what we bring in: it stops well before memory.max."""
    agent = fetcher("all")
    with frozen_hog(agent, pod) as (p, container, hog):
        container.write("memory.max", 40 * MB)
        agent.thaw(p.uid)
        assert wait_for_end(agent) == "limit"
        assert container.memory_current() < 36 * MB
        assert container.keyed("memory.events")["max"] == 0
        container.write("memory.max", "max")
        assert knows_everything(hog)
        assert oom_kills(container) == 0


def test_a_limit_of_the_pod_above(fetcher, pod):
    agent = fetcher("all")
    with frozen_hog(agent, pod) as (p, container, hog):
        p.write("memory.high", 40 * MB)
        agent.thaw(p.uid)
        assert wait_for_end(agent) == "limit"
        assert p.keyed("memory.events")["high"] == 0
        p.write("memory.high", "max")
        assert knows_everything(hog)


def available_mb():
    return int(re.search(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text())[1]) // 1024


@contextlib.contextmanager
def node_without_memory(leave_mb):
    """Fills a tmpfs until no more than that is available."""
    require(available_mb() < 4096, "more memory than one wants to fill")
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=95%", "tmpfs", directory], check=True)
        command = ["dd", "if=/dev/zero", f"of={directory}/filler", "bs=1M"]
        try:
            count = available_mb() - leave_mb
            subprocess.run([*command, f"count={count}"], check=True, capture_output=True)
            yield
        finally:
            subprocess.run(["umount", directory], check=True)


def node_oom_kills():
    return int(re.search(r"^oom_kill (\d+)", Path("/proc/vmstat").read_text(), re.M)[1])


def test_a_node_without_free_memory(fetcher, pod):
    agent = fetcher("all")
    killed = node_oom_kills()
    with frozen_hog(agent, pod) as (p, container, hog):
        with node_without_memory(60):
            agent.thaw(p.uid)
            assert wait_for_end(agent) == "memory_low"
            assert container.memory_current() < HELD / 2 * MB
        assert knows_everything(hog)
        assert node_oom_kills() == killed


@pytest.mark.parametrize("mode", MODES)
def test_frozen_again_in_the_middle(fetcher, pod, mode):
    agent = fetcher(mode)
    with frozen_hog(agent, pod) as (p, container, hog):
        for _ in range(5):
            agent.thaw(p.uid)
            assert agent.freeze(p.uid)["state"] == "frozen"
        assert set(ends(agent)) <= {"stopped", "done"}
        assert container.frozen()
        assert container.memory_current() < 4 * MB
        agent.thaw(p.uid)
        assert knows_everything(hog)


@pytest.mark.parametrize("mode", MODES)
def test_killed_in_the_middle(fetcher, pod, mode):
    """The group can be removed at once: nothing of ours holds it."""
    agent = fetcher(mode)
    with frozen_hog(agent, pod) as (p, container, hog):
        agent.thaw(p.uid)
        p.remove()
        hog.wait()
        assert wait_for_end(agent) in ("done", "stopped")
        assert agent.get("/healthz")[0] == 200


def test_a_thaw_does_not_wait_for_it(fetcher, pod):
    agent = fetcher("all")
    with frozen_hog(agent, pod) as (p, container, hog):
        answer = agent.thaw(p.uid)
        assert answer["state"] == "running"
        assert not container.frozen()
        assert ends(agent) in ([], ["done"])
        assert knows_everything(hog)


def test_an_original_limit_of_no_swap(fetcher, pod):
    """The kubelet's default: back at once, while the pages still are in swap."""
    agent = fetcher("all")
    p = pod()
    container = p.container(swap_max=0)
    hog = torpor.hog(container, HELD)
    agent.freeze(p.uid)
    agent.thaw(p.uid)
    assert container.read("memory.swap.max") == "0"
    assert wait_for_end(agent) == "done"
    assert knows_everything(hog)
    wait_for("nothing is left in swap", lambda: container.swap_current() < 4 * MB)


def test_node_answers(fetcher, pod):
    agent = fetcher("recorded")
    p = pod()
    node = NodeHog(p.container(swap_max="max"), 48)
    total = node.get("/sum")
    for turn in range(3):
        agent.freeze(p.uid)
        agent.thaw(p.uid)
        assert node.get("/counter") == str(turn + 1)
        assert node.get("/sum") == total
        assert wait_for_end(agent, turn) == "done"


def test_a_restart_forgets_the_record(fetcher, pod):
    """And goes on as without one."""
    agent = fetcher("recorded")
    with frozen_hog(agent, pod) as (p, _, hog):
        agent.restart()
        agent.thaw(p.uid)
        assert wait_for_end(agent) == "done"
        assert knows_everything(hog)


def test_metrics_tell_how_much(fetcher, pod):
    agent = fetcher("all")
    with frozen_hog(agent, pod) as (p, _, hog):
        agent.thaw(p.uid)
        wait_for_end(agent)
        text = agent.get("/metrics")[1]
        value = float(re.search(r"^freeze_agent_prefetched_bytes_total (\S+)", text, re.M)[1])
        assert value > HELD * MB
        assert knows_everything(hog)
