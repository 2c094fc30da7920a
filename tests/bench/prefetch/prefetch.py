"""What bringing pages back before they are missed is worth.

One app, frozen and reclaimed again and again; each round wakes it once in each mode: `off` (every
page waits for its fault), `all`, `recorded`, and `warm` (not reclaimed: the floor). The request is there before the thaw, as in life. Each
mode has a driver of its own, the agent's own code in a group of its own, which is emptied too: the
file pages that a prefetch has read are charged there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))

import torpor  # noqa: E402

TOOLS = torpor.BUILD / "tests/bench/prefetch"
MODES = ("off", "all", "recorded", "warm")
RECORD_SECONDS = 3.5  # PREFETCH_RECORD_USEC and what noting takes
NSEC_PER_MSEC = 1e6


class Driver:
    """The agent's reclaim and prefetch for one pod, in one mode."""

    def __init__(self, mode, pod, group, floor_mb=64):
        groups = [container.path for container in pod.containers]
        passed = "off" if mode == "warm" else mode
        command = [TOOLS / "driver", passed, floor_mb, pod.path, *groups]
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            preexec_fn=lambda: group.write("cgroup.procs", os.getpid()),
        )
        self.mode = mode

    def send(self, command):
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def answer(self):
        return json.loads(torpor.read_line(self.process.stdout, "the driver", seconds=300))

    def freeze(self):
        self.send("hold" if self.mode == "warm" else "freeze")
        return self.answer()

    def thaw(self):
        self.send("thaw")
        return self.answer()["thawed"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Hog:
    """128 MB, of which a request needs 32."""

    name = "hog, 32 of 128 MB"

    def __init__(self, container):
        command = [str(TOOLS / "hog"), "128", "32"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = container.run(command, **pipes)
        torpor.read_line(self.process.stdout, "the hog", seconds=300)

    def ask(self, what):
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()

    def wait(self):
        return torpor.read_line(self.process.stdout, "the hog", seconds=300)


class Node:
    """A Node server: the first request needs the runtime, the second all of its 96 MB."""

    name = "Node, 96 MB"
    paths = {"first": "/counter", "all": "/sum"}

    def __init__(self, container):
        self.hog = torpor.NodeHog(container, 96)

    def ask(self, what):
        self.connection = self.hog.send(self.paths[what])

    def wait(self):
        answer = self.connection.getresponse().read()
        self.connection.close()
        return answer


def empty(group):
    """Writes to memory.reclaim until nothing comes any more."""
    for _ in range(20):
        try:
            group.write("memory.reclaim", 64 << 20)
        except OSError:
            if group.memory_current() < 1 << 20:
                return


class Subject:
    """A pod with one app, and the group that the drivers live in."""

    def __init__(self, pod, app_class, agent_group):
        self.pod = pod
        self.app = app_class(pod.container())
        self.agent_group = agent_group

    def memory_mib(self):
        return sum(container.memory_current() for container in self.pod.containers) / torpor.MB

    def wake(self, driver, everything=True):
        """One freeze and one wake: milliseconds from the thaw to the first answer and to all."""
        driver.freeze()
        if driver.mode != "warm":
            empty(self.agent_group)
        left = self.memory_mib()
        self.app.ask("first")
        thawed = driver.thaw()
        self.app.wait()
        first = time.monotonic_ns()
        if everything:
            self.app.ask("all")
            self.app.wait()
        last = time.monotonic_ns()
        return {
            "first_msec": (first - thawed) / NSEC_PER_MSEC,
            "all_msec": (last - thawed) / NSEC_PER_MSEC,
            "prefetch": driver.answer() if driver.mode in ("all", "recorded") else None,
            "left_mib": left,
            "agent_mib": self.agent_group.memory_current() / torpor.MB,
        }

    def record(self, driver):
        """A wake in which only the first request comes, as the one before the next."""
        self.wake(driver, everything=False)
        time.sleep(RECORD_SECONDS)


def measure(app_class, rounds, modes):
    agent_group = torpor.Cgroup(torpor.TEST_ROOT / "agent").make()
    wakes = {mode: [] for mode in modes}
    with torpor.Pod(sandbox=False) as pod:
        subject = Subject(pod, app_class, agent_group)
        drivers = [Driver(mode, pod, agent_group) for mode in modes]
        for driver in drivers:
            subject.record(driver)
        for turn in range(rounds):
            start = turn % len(drivers)  # another one begins each time
            for driver in drivers[start:] + drivers[:start]:
                wakes[driver.mode].append(subject.wake(driver))
                if driver.mode == "recorded":
                    subject.record(driver)
        for driver in drivers:
            driver.close()
    torpor.reap()
    agent_group.remove()
    return wakes


def median(wakes, key):
    return statistics.median(one[key] for one in wakes)


def column(wakes, mode, key):
    """The median, the range, and how many times faster than `off`."""
    values = [one[key] for one in wakes[mode]]
    times = median(wakes["off"], key) / median(wakes[mode], key) if "off" in wakes else 0
    spread = f"({min(values):.0f}..{max(values):.0f})"
    return f"{statistics.median(values):8.0f} {spread:>16} {times:6.1f}"


def describe(prefetch):
    if not prefetch:
        return ""
    mib = [prefetch[key] / torpor.MB for key in ("swapped_in", "file_read")]
    return f"  {mib[0]:.1f} + {mib[1]:.1f} MiB in {prefetch['msec']:.0f} ms, {prefetch['end']}"


def print_table(name, wakes):
    print(f"\n{name}")
    head = f"{'first answer, ms':>25}{'times':>7}{'everything, ms':>25}{'times':>7}"
    print(f"  {'':9}{head}  the last prefetch")
    for mode in wakes:
        columns = [column(wakes, mode, key) for key in ("first_msec", "all_msec")]
        print(f"  {mode:9}{''.join(columns)}{describe(wakes[mode][-1]['prefetch'])}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--apps", default="hog,node")
    options = parser.parse_args()
    root = torpor.Cgroup(torpor.TEST_ROOT).make()
    torpor.enable_controllers(root.path)
    figures = {}
    for app in options.apps.split(","):
        app = {"hog": Hog, "node": Node}[app]
        figures[app.name] = measure(app, options.rounds, options.modes.split(","))
        print_table(app.name, figures[app.name])
    root.remove()
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        kernel = os.uname().release
        options.json.write_text(json.dumps({"kernel": kernel, "apps": figures}, indent=1))


main()
