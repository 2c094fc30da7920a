"""An agent that dies, or whose system calls fail, at a chosen point; and what must hold after."""

import contextlib
import dataclasses
import http.client
import json
import os
import re
import socket
import time
from pathlib import Path

import torpor
from torpor import BUILD, LAYOUTS, MB, Pod, wait_for

CRASHPOINT = BUILD / "tests/faults/crashpoint"

# A point that takes this long to be answered hangs; the guest is ten times slower than a host.
ANSWER_SECONDS = 10
# The agent tries again what failed after 20 ms, and then less and less often.
CONVERGE_SECONDS = 5

# The guest has swap and its limits, and a tenth of the speed.
SLOW = torpor.has_memory

# Fewer points than this would mean that the tracer missed most of them.
POINTS_MIN = 40

# Every point, unless somebody has less time.
STEP = int(os.environ.get("FAULTS_STEP") or 1)

summary = []


# ---- the agent under the tracer ----


@dataclasses.dataclass(frozen=True)
class Hit:
    """Where the process died, or which call failed."""

    call: str
    what: str
    thread: str

    @classmethod
    def parse(cls, line):
        return cls(*re.fullmatch(r"hit (\S+) on (.*) by (.*)", line).groups())

    def __str__(self):
        return f"{self.call} {self.what} ({self.thread})"


class TracedAgent(torpor.Agent):
    """An agent that tests/faults/crashpoint.c runs."""

    def __init__(self, *flags, **options):
        super().__init__(*flags, **options)
        self.control = self.directory / "crashpoint.sock"
        self._socket = self._answers = None
        self.hit = None
        self.ready = False

    def start(self, order=None):
        """With an order it is armed from the moment when it has locked its records."""
        self.control.unlink(missing_ok=True)
        super().start(CRASHPOINT, self.control, *(["--from", "flock", f"arm {order}"] * bool(order)))
        assert order or self.ready, f"the agent is not ready: {self.log_file.read_text()}"
        return self

    def _is_ready(self):
        """True as soon as waiting longer makes no difference."""
        self._connect()
        try:
            self.ready = not self.died() and self.request("GET", "/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return self.died()
        return True

    def _connect(self):
        if self._socket:
            return
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(str(self.control))
        except OSError:  # it does not listen yet
            connection.close()
            return
        self._socket, self._answers = connection, connection.makefile()

    def kill(self):
        """By the tracer, which ends when the last thread is gone; so the records are unlocked."""
        self._tell("kill")
        self.process.wait(ANSWER_SECONDS)
        self._hang_up()

    def _end(self, number):
        self._hang_up()
        return super()._end(number)

    def _hang_up(self):
        if self._socket:
            self._answers.close()
            self._socket.close()
        self._socket = None

    def _tell(self, order):
        self._socket.sendall(order.encode() + b"\n")

    def _heard(self):
        """The tracer's next word; "" when it ended."""
        with contextlib.suppress(ConnectionError):
            return self._answers.readline().strip()
        return ""

    def arm(self, order):
        self._tell(f"arm {order}")
        answer = self._heard()
        assert answer == "armed", answer

    def disarm(self):
        """The Hit, or None when the point was not reached."""
        hit = None
        with contextlib.suppress(ConnectionError):
            self._tell("disarm")
        while (line := self._heard()) and not line.startswith("counted"):
            hit = Hit.parse(line)
        return hit

    @contextlib.contextmanager
    def armed(self, order):
        """What is done within meets the fault; the Hit, if any, is then in self.hit."""
        self.arm(order)
        try:
            yield
        except AssertionError as error:
            self.hit = self.disarm()
            raise AssertionError(f"{order}, {self.hit}: {error}") from error
        self.hit = self.disarm()

    def died(self):
        return self.process.poll() is not None

    def start_again(self):
        """After it has died."""
        self.process.wait()
        self._hang_up()
        return self.start()

    def ask(self, path, pod):
        """(status, answer), or None when the agent has died, of this or before."""
        headers = {"Content-Type": "application/json"}
        body = json.dumps({"pod_uid": pod.uid})
        try:
            status, answer = self.request("POST", path, body, headers, seconds=ANSWER_SECONDS)
        except TimeoutError:
            raise AssertionError(f"{path} was not answered") from None
        except (ConnectionError, FileNotFoundError, http.client.HTTPException):
            status, answer = None, {}
        if status is None or answer.get("code") == "unavailable":
            wait_for("the agent has ended", self.died)
            return None
        return status, answer

    def is_there(self, pod):
        """After a fault. An agent that has died is started again."""
        if self.ask("/status", pod):
            return True
        self.start_again()
        return False


# ---- the pod ----


class Victim(Pod):
    """A pod with everything that could be lost: limits of each kind, a group below each container."""

    def __init__(self):
        super().__init__(LAYOUTS["crun"], sandbox=not SLOW)
        self.hog = torpor.hog(self.container(swap_max="0"), 1)
        self.app(swap_max=64 * MB)
        if torpor.has_memory:
            for container, limit in zip(self.containers, ["max", 0]):
                container.leaf.write("memory.swap.max", limit)
        self.originals = self.limits()

    def limits(self):
        """memory.swap.max of every group that a freeze may touch, by its path."""
        if not torpor.has_memory:
            return {}
        groups = [group for container in self.containers for group in container.groups()]
        return {group.relative(): group.read("memory.swap.max") for group in groups}

    def use_memory(self):
        """So that there is something to reclaim; and what was in swap is still the same."""
        checksum, _ = torpor.hog_again(self.hog)
        assert checksum == self.hog.checksum

    def asked_to_freeze(self):
        return [container.read("cgroup.freeze") == "1" for container in self.containers]


# ---- what must hold ----


def checksum(text):
    """FNV-1a with 64 bits."""
    value = 0xCBF29CE484222325
    for byte in text:
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return value


def read_record(path):
    """What a record says, when it is whole."""
    line, check, rest = path.read_bytes().split(b"\n")
    assert rest == b"" and check == b"%016x" % checksum(line), f"{path} is damaged"
    return json.loads(line)


def recorded_limits(record):
    limits = {}
    for container in record["containers"]:
        for group in container["groups"]:
            path = "/".join(filter(None, [container["cgroup"], group["path"]]))
            limits[path] = group["swap_max"]
    return limits


def in_state_directory(agent):
    """Without what says nothing about pods: the lock, and what the self-test writes."""
    return sorted(set(path.name for path in agent.state.iterdir()) - {".lock", ".probe"})


def leftover_groups():
    """Of a self-test that did not come to its end."""
    return [path.name for path in torpor.TEST_ROOT.iterdir() if "selftest" in path.name]


def is_running(agent, pod):
    return (
        not any(pod.asked_to_freeze())
        and pod.none_frozen()
        and pod.limits() == pod.originals
        and in_state_directory(agent) == []
    )


def is_frozen(agent, pod):
    """Frozen as a whole, and what is needed to thaw it is on disk."""
    if not (all(pod.asked_to_freeze()) and pod.all_frozen()):
        return False
    if in_state_directory(agent) != [f"{pod.uid}.json"]:
        return False
    try:
        recorded = recorded_limits(read_record(agent.state / f"{pod.uid}.json"))
    except FileNotFoundError:  # it went just now
        return False
    limits = pod.limits()
    # What was not seen (reading failed with ENOENT) is not recorded, and was not touched either.
    return all(
        recorded.get(path) == original or (not recorded.get(path) and limits[path] == original)
        for path, original in pod.originals.items()
    )


def describe(agent, pod):
    return {
        "asked to freeze": pod.asked_to_freeze(),
        "frozen": [container.frozen() for container in pod.containers],
        "limits": pod.limits(),
        "originals": pod.originals,
        "state directory": in_state_directory(agent),
    }


def converge(agent, pod, check=None, seconds=CONVERGE_SECONDS):
    """"frozen" or "running", as a whole, or "died"; fails when it is none of these in time."""
    states = {"running": is_running, "frozen": is_frozen}
    deadline = time.monotonic() + seconds
    while True:
        for state, holds in states.items():
            if check in (None, state) and holds(agent, pod):
                return state
        if agent.died():
            return "died"
        assert time.monotonic() < deadline, f"not {check or 'whole'}: {describe(agent, pod)}"
        time.sleep(0.002)  # the pace of looking


def bring_back(agent, pod):
    """A thaw always restores everything."""
    status, answer = agent.ask("/thaw", pod)
    assert status == 200, answer
    assert answer["state"] == "running", answer
    assert converge(agent, pod, "running") == "running"
    assert agent.status(pod.uid)["state"] == "running"


def freeze(agent, pod):
    status, answer = agent.ask("/freeze", pod)
    assert status == 200, answer
    assert converge(agent, pod, "frozen") == "frozen"


def half_thaw(pod):
    """As an agent that died in the middle leaves it."""
    pod.containers[0].write("cgroup.freeze", 0)
    if torpor.has_memory:
        pod.containers[0].write("memory.swap.max", 0)


@contextlib.contextmanager
def naming(what):
    """Says where something did not hold."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from error
