"""Measures that need the memory controller and swap: they run in a guest with its own kernel.

It has one processor, and system calls and page faults are slow in it: ratios hold, times do not.
"""

import contextlib
import re
import subprocess
import time
from pathlib import Path

import rig
from figures import figure
from rig import torpor

MIB = 1 << 20
RECLAIM = "reclaim, through the socket, against one raw write of everything"
STALL = "making a group while another that is being reclaimed is removed"
LOAD = "thaw while {} pods are being reclaimed, through the socket, against raw system calls"


class Load(torpor.Pod):
    """A pod with memory to reclaim. As the kubelet leaves it: without swap."""

    def __init__(self, megabytes):
        super().__init__(sandbox=False)
        self.box = self.container(swap_max=0)
        self.hog = torpor.hog(self.box, megabytes)
        self.raw = rig.Tool("raw", self.box.path)

    def __exit__(self, *_):
        self.raw.__exit__()
        super().__exit__(*_)
        torpor.reap()

    def refill(self):
        """All of its memory is in RAM again."""
        torpor.hog_again(self.hog)


# ---- reclaim ----


class Reclaims:
    """What some reclaims took and left."""

    def __init__(self):
        self.rate, self.block, self.total, self.left = [], [], [], []

    def add(self, load, before, reclaim_msec, total_msec):
        left = load.box.memory_current()
        self.rate.append((before - left) / MIB / (reclaim_msec / 1e3))
        self.block.append(reclaim_msec)
        self.total.append(total_msec)
        self.left.append(left / MIB)


def raw_reclaim(load, into):
    before = load.box.memory_current()
    freeze = load.raw.ask("freeze")
    reclaim = load.raw.ask("reclaim")
    into.add(load, before, reclaim.msec, freeze.msec + reclaim.msec)
    load.raw.ask("thaw")
    load.refill()


def agent_reclaim(agent, client, load, into):
    before = load.box.memory_current()
    total = client.freeze(load.uid, reclaim="wait").msec
    into.add(load, before, agent.status(load.uid)["durations"]["reclaim"], total)
    client.thaw(load.uid)
    load.refill()


def reclaims(quick):
    megabytes, n = (16, 2) if quick else (64, 7)
    rig.say(f"reclaim of {megabytes} MiB")
    raw, ours = Reclaims(), Reclaims()
    with rig.Agent() as agent, rig.Client(agent) as client:
        with Load(megabytes) as baseline, Load(megabytes) as subject:
            for _ in range(n):
                raw_reclaim(baseline, raw)
                agent_reclaim(agent, client, subject, ours)
    yield figure(
        RECLAIM, "throughput", "MiB/s", ours.rate, raw.rate,
        "ratio >= 0.9", lambda one: one.ratio >= 0.9,
    )
    yield figure(RECLAIM, f"freeze with reclaim, {megabytes} MiB", "ms", ours.total, raw.total)
    yield figure(RECLAIM, "memory that is left", "MiB", ours.left, raw.left)
    rig.say("its chunks")
    yield figure(
        RECLAIM, "how long one write blocks", "ms", chunks(megabytes), raw.block,
        "p99 < 200", lambda one: one.ours.p99 < 200,
    )


# ---- how long a chunk blocks ----


def chunk_durations(trace):
    """Milliseconds of each write to memory.reclaim, from strace -y -T."""
    pattern = re.compile(r"memory\.reclaim>.*<([0-9.]+)>$", re.MULTILINE)
    return [float(seconds) * 1e3 for seconds in pattern.findall(trace.read_text())]


def chunks(megabytes):
    """The agent's, in milliseconds. In a run of its own, because being traced takes time."""
    with contextlib.ExitStack() as stack:
        agent = rig.Agent()
        trace = agent.directory / "trace"
        # -D: strace, and not the agent, is the child that nobody waits for
        strace = ["strace", "-D", "-f", "-y", "-T", "-e", "trace=write", "-o", trace]
        stack.callback(agent.__exit__)
        agent.start(*map(str, strace))
        client = stack.enter_context(rig.Client(agent))
        load = stack.enter_context(Load(megabytes))
        client.freeze(load.uid, reclaim="wait")
        agent.stop()
        return chunk_durations(trace)


# ---- what a removal meets ----


class Doomed(torpor.Pod):
    """A pod whose memory stays when its processes die: files on a tmpfs."""

    def __init__(self, megabytes):
        super().__init__(sandbox=False)
        self.file = Path(rig.TMPFS) / f"doomed-{self.uid}"
        self.box = self.container(swap_max=0)
        self.box.run(["sleep", "infinity"])
        fill = ["dd", "if=/dev/urandom", f"of={self.file}", "bs=1M", f"count={megabytes}"]
        self.box.run(fill, stderr=subprocess.DEVNULL).wait()
        self.raw = rig.Tool("raw", self.box.path)

    def __exit__(self, *_):
        self.raw.__exit__()
        super().__exit__(*_)
        self.file.unlink()
        torpor.reap()

    def await_progress(self, before):
        torpor.wait_for("reclaim", lambda: self.box.memory_current() < before * 0.9)

    def destroy(self):
        """As at the end of a pod, reclaim or not. Milliseconds that the removal took."""
        self.box.write("cgroup.kill", 1)
        torpor.wait_for("empty", lambda: not self.box.populated())
        start = time.monotonic()
        self.box.path.rmdir()
        return (time.monotonic() - start) * 1e3


def stall_of(root, megabytes, start_reclaim):
    """Milliseconds of the longest mkdir beside the removal, and of the removal."""
    with Doomed(megabytes) as pod, rig.Tool("stall", root.path) as probe:
        before = pod.box.memory_current()
        start_reclaim(pod)
        pod.await_progress(before)
        removal = pod.destroy()
        return probe.finish().msec, removal


def start_raw(pod):
    pod.raw.ask("freeze")
    pod.raw.send("reclaim")


def stalls(quick):
    megabytes, n = (32, 1) if quick else (192, 3)
    rig.say("removals during a reclaim")
    raw, ours = [], []
    root = torpor.Cgroup(torpor.TEST_ROOT)
    with rig.Agent() as agent, rig.Client(agent) as client:
        for _ in range(n):
            raw.append(stall_of(root, megabytes, start_raw))
            ours.append(
                stall_of(root, megabytes, lambda pod: client.freeze(pod.uid, reclaim="background"))
            )
    names = ("longest mkdir of another group", "rmdir of the group itself")
    for name, mine, theirs in zip(names, zip(*ours), zip(*raw)):
        yield figure(STALL, name, "ms", list(mine), list(theirs))


# ---- thaw under load ----


def while_reclaiming(loads):
    """Goes on while at least one of them still has memory."""
    while any(load.box.memory_current() > 2 * MIB for load in loads):
        yield


def thaws_at_work(client, loads, baseline, subject):
    for load in loads:
        client.freeze(load.uid, reclaim="background")
    return rig.take_turns(client, baseline, subject, while_reclaiming(loads))


def under_load(quick):
    n, megabytes = (3, 8) if quick else (16, 16)
    rig.say(f"thaws beside {n} reclaims")
    with contextlib.ExitStack() as stack:
        agent = stack.enter_context(rig.Agent())
        client = stack.enter_context(rig.Client(agent))
        loads = [stack.enter_context(Load(megabytes)) for _ in range(n)]
        pods = [stack.enter_context(rig.Subject()) for _ in range(2)]
        raw_rest, rest = rig.take_turns(client, *pods, range(10 if quick else 300))
        raw_load, load = thaws_at_work(client, loads, *pods)
    group = LOAD.format(n)
    yield figure(group, "at rest, until the answer", "ms", rest["thaw"], raw_rest["thaw"])
    yield figure(group, "at work, until the answer", "ms", load["thaw"], raw_load["thaw"])
    yield figure(group, "at rest, until the app runs", "ms", rest["app"], raw_rest["app"])
    yield figure(group, "at work, until the app runs", "ms", load["app"], raw_load["app"])
    for name, key in (("answer", "thaw"), ("app runs", "app")):
        yield figure(
            group, f"until the {name}, at work against at rest", "ms", load[key], rest[key],
            "ratio <= 2", lambda one: one.ratio <= 2,
        )


def figures(quick):
    yield from reclaims(quick)
    yield from stalls(quick)
    yield from under_load(quick)
