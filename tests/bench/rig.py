"""What the measures stand on: the programs that hold the clock, pods and an agent to measure."""

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import torpor  # noqa: E402

TOOLS = torpor.BUILD / "tests/bench"
TMPFS = "/dev/shm"
NSEC_PER_MSEC = 1e6


def say(text):
    print(f"  {text}", flush=True)


class Answer:
    """Of a tool: moments in nanoseconds, a status and a number of bytes."""

    def __init__(self, line):
        self.start, self.end, self.status, self.bytes = map(int, line.split())

    @property
    def msec(self):
        return (self.end - self.start) / NSEC_PER_MSEC


class Tool:
    """One of our programs: a command on its stdin, an answer on its stdout."""

    def __init__(self, name, *arguments, container=None):
        command = [TOOLS / name, *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 1}
        start = container.run if container else lambda c, **o: subprocess.Popen(c, text=True, **o)
        self.process = start([str(part) for part in command], **pipes)

    def send(self, command):
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def answer(self):
        return Answer(torpor.read_line(self.process.stdout, "a tool", seconds=300))

    def ask(self, command):
        self.send(command)
        return self.answer()

    def finish(self):
        """Its input ends; what it says then."""
        self.process.stdin.close()
        return self.answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Client(Tool):
    """HTTP to the agent. Everything is expected to succeed."""

    def __init__(self, agent):
        super().__init__("client", agent.socket)

    def post(self, path, body):
        answer = self.ask(f"POST {path} {body}")
        assert answer.status == 200, f"{path} {body}: {answer.status}"
        return answer

    def freeze(self, uid, reclaim="off"):
        return self.post("/freeze", f'{{"pod_uid":"{uid}","reclaim":"{reclaim}"}}')

    def thaw(self, uid):
        return self.post("/thaw", f'{{"pod_uid":"{uid}"}}')


class Agent(torpor.Agent):
    """With its state on a tmpfs, as in production, or in another directory."""

    def __init__(self, *flags, state_on=TMPFS):
        super().__init__(*flags)
        self._own_state = tempfile.TemporaryDirectory(prefix="torpor-bench-", dir=state_on)
        self.state = Path(self._own_state.name) / "state"

    def __exit__(self, *_):
        super().__exit__(*_)
        self._own_state.cleanup()

    def start_timed(self):
        """Starts it and returns the milliseconds from exec to READY=1."""
        address = self.directory / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(address))
            notify.settimeout(60)
            start = time.monotonic()
            self._spawn({**self.environment, "NOTIFY_SOCKET": str(address)})
            while b"READY=1" not in notify.recv(4096):
                pass
            took = time.monotonic() - start
        address.unlink()
        return took * 1e3

    def _spawn(self, environment):
        with open(self.log_file, "a") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )

    def rss_mib(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no VmRSS")

    def cpu_msec(self):
        """Of all its threads. /proc/PID/stat would count in hundredths of a second."""
        return sum(map(_cpu_msec, Path(f"/proc/{self.process.pid}/task").iterdir()))

    def loop_cpu_msec(self):
        """Of the thread that everything waits for."""
        return _cpu_msec(Path(f"/proc/{self.process.pid}/task/{self.process.pid}"))


def _cpu_msec(task):
    return int((task / "schedstat").read_text().split()[0]) / NSEC_PER_MSEC


class Subject(torpor.Pod):
    """A pod of two containers: one with the app that says when it runs, one that sleeps."""

    def __init__(self):
        super().__init__(sandbox=False)
        self.app = Tool("app", container=self.container())
        self.sleeper = self.containers[0].run(["sleep", "infinity"])
        self.second = self.container()
        self.second.run(["sleep", "infinity"])
        self.raw = Tool("raw", *[container.path for container in self.containers])
        self.app.ask("")

    def __exit__(self, *_):
        self.raw.__exit__()
        super().__exit__(*_)
        torpor.reap()

    def raw_freeze(self):
        return self.raw.ask("freeze")

    def raw_thaw(self):
        return self.raw.ask("thaw")

    def poke(self):
        """Something for the app to do once it runs."""
        self.app.send("")

    def ran_after(self, thaw):
        """Milliseconds from the beginning of the thaw until the app ran."""
        return (self.app.answer().start - thaw.start) / NSEC_PER_MSEC


class Crowd:
    """Many pods of two containers, each with a sleeping process."""

    def __init__(self, n):
        self.uids = [str(uuid.uuid4()) for _ in range(n)]
        layout = torpor.Layout()
        self.pods = [torpor.Cgroup(torpor.TEST_ROOT / layout.pod_path(uid)) for uid in self.uids]
        self.sleepers = Tool("sleepers")
        for pod in self.pods:
            for _ in range(2):
                container = torpor.Cgroup(pod.path / (uuid.uuid4().hex * 2)).make()
                self.sleepers.send(str(container.path))
        self.sleepers.finish()

    def check_frozen(self):
        """No restart has thawed one of them."""
        running = [c for pod in self.pods for c in pod.groups()[:-1] if not c.frozen()]
        assert not running, f"{len(running)} containers run"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sleepers.__exit__()
        for pod in self.pods:
            pod.remove()


def take_turns(client, baseline, subject, turns):
    """Freezes and thaws, by turns raw and through the agent: a dict of milliseconds for each."""
    raw, ours = ({"freeze": [], "thaw": [], "app": []} for _ in range(2))
    for _ in turns:
        _one_turn(baseline, raw, baseline.raw_freeze, baseline.raw_thaw)
        _one_turn(
            subject, ours, lambda: client.freeze(subject.uid), lambda: client.thaw(subject.uid)
        )
    return raw, ours


def _one_turn(pod, into, freeze, thaw):
    into["freeze"].append(freeze().msec)
    pod.poke()
    answer = thaw()
    into["thaw"].append(answer.msec)
    into["app"].append(pod.ran_after(answer))


@contextlib.contextmanager
def test_root():
    """The group that everything lives below, with a kubelet's own in it, as an agent finds them."""
    root = torpor.Cgroup(torpor.TEST_ROOT).make()
    torpor.Cgroup(root.path / "kubepods/burstable").make()
    try:
        yield root
    finally:
        root.remove()
        torpor.reap()


def cpu_share(seconds=0.5):
    """How much of the machine is busy while we wait: 0 to 1."""

    def read():
        fields = [int(f) for f in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        return sum(fields[:8]), fields[3] + fields[4]

    total, idle = read()
    time.sleep(seconds)
    later_total, later_idle = read()
    return 1 - (later_idle - idle) / max(1, later_total - total)
