"""Pods without Kubernetes, and the agent beside them, for tests on a real kernel.

A Pod is what a kubelet and a container runtime make on a node, as far as the agent sees it: groups
in the cgroup tree with processes in them. An Agent is one running freeze-agent. Everything lives
below one group of our own, TEST_ROOT, so that the suite also runs on a machine with other pods.

Needs root and Python's standard library.
"""

import contextlib
import dataclasses
import http.client
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("TORPOR_BUILD", CHECKOUT / "build"))
FREEZE_AGENT = Path(os.environ.get("FREEZE_AGENT", BUILD / "freeze-agent"))
WORKLOADS = CHECKOUT / "tests/support/workload"  # scripts
BUILT_WORKLOADS = BUILD / "tests/workload"  # programs

MB = 1 << 20


# ---- waiting ----


def wait_for(what, check, seconds=20):
    """Returns check()'s first true value; fails with `what` when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.005)  # the pace of looking; what counts is the check


def read_line(stream, what, seconds=30):
    """A line that a child process prints, or a failure when it says nothing in time."""
    ready, _, _ = select.select([stream], [], [], seconds)
    line = stream.readline() if ready else ""
    if not line:
        raise AssertionError(f"{what}: {'ended' if ready else f'silent for {seconds} s'}")
    return line.strip()


# ---- cgroup files ----


def find_cgroup_root():
    """Where cgroup v2 is mounted: /sys/fs/cgroup, on a hybrid host /sys/fs/cgroup/unified."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split()[0] == "cgroup2":
            return Path(fields.split()[4])
    raise RuntimeError("cgroup v2 is not mounted")


CGROUP_ROOT = Path(os.environ.get("CGROUP_ROOT") or find_cgroup_root())
TEST_ROOT = CGROUP_ROOT / f"torpor-test-{os.getpid()}"
has_memory = "memory" in (CGROUP_ROOT / "cgroup.controllers").read_text().split()


class Cgroup:
    """One group: its files, the processes in it, its end."""

    def __init__(self, path):
        self.path = Path(path)

    def make(self):
        """Makes it and what is missing above it, with the controllers on that a node has on."""
        for path in reversed([self.path, *self.path.parents]):
            if CGROUP_ROOT in path.parents and not path.exists():
                enable_controllers(path.parent)
                path.mkdir()
        return self

    def read(self, name):
        return (self.path / name).read_text().strip()

    def write(self, name, value):
        (self.path / name).write_text(str(value))

    def keyed(self, name):
        """A file of "key value" lines."""
        return {key: int(value) for key, value in map(str.split, self.read(name).splitlines())}

    def frozen(self):
        """The kernel's word, as against what was asked for (cgroup.freeze)."""
        return self.keyed("cgroup.events")["frozen"] == 1

    def populated(self):
        return self.keyed("cgroup.events")["populated"] == 1

    def cpu_usec(self):
        return self.keyed("cpu.stat")["usage_usec"]

    def memory_current(self):
        return int(self.read("memory.current"))

    def swap_current(self):
        return int(self.read("memory.swap.current"))

    def pids(self):
        return [int(pid) for pid in self.read("cgroup.procs").split()]

    def relative(self):
        """The path as the agent names it."""
        return str(self.path.relative_to(TEST_ROOT))

    def groups(self):
        """Itself and all below it, the deepest first, as rmdir needs them."""
        return [Cgroup(top) for top, _, _ in os.walk(self.path, topdown=False)]

    def remove(self):
        """Kills what is in it and removes it with everything below it."""
        if not self.path.exists():
            return
        self.write("cgroup.kill", 1)
        wait_for(f"{self.path} is empty", lambda: not self.populated())
        for group in self.groups():
            group.path.rmdir()


def enable_controllers(path):
    available = (path / "cgroup.controllers").read_text().split()
    for controller in ("memory", "pids"):
        if controller in available:
            (path / "cgroup.subtree_control").write_text(f"+{controller}")


# ---- layouts ----


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one kind of node names a pod's groups."""

    driver: str = "cgroupfs"  # or "systemd"
    qos: str = "burstable"  # "" is Guaranteed
    runtime: str = "containerd"  # or "crio", "docker"
    prefix: str = ""  # groups above the kubelet's root
    root: str = "kubepods"  # the kubelet's own root; "kubelet-kubepods" below kubelet.slice
    nested: bool = False  # crun puts the processes into a group "container" below the container's

    def pod_path(self, uid):
        steps = [self.prefix] if self.prefix else []
        if self.driver == "systemd":
            names = [self.root, *([f"{self.root}-{self.qos}"] if self.qos else [])]
            pod = f"{names[-1]}-pod{uid.replace('-', '_')}"
            steps += [f"{name}.slice" for name in [*names, pod]]
        else:
            steps += [self.root, *([self.qos] if self.qos else []), f"pod{uid}"]
        return "/".join(steps)

    def container_name(self, container_id):
        if self.driver == "cgroupfs":
            return container_id
        prefix = {"containerd": "cri-containerd", "crio": "crio", "docker": "docker"}
        return f"{prefix[self.runtime]}-{container_id}.scope"


_DOCKER_ID = "4f1c" * 16  # of the container that is a "node" of kind or minikube

LAYOUTS = {
    **{
        f"{driver}-{qos or 'guaranteed'}-{runtime}": Layout(driver, qos, runtime)
        for driver in ("systemd", "cgroupfs")
        for qos in ("", "burstable", "besteffort")
        for runtime in ("containerd", "crio", "docker")
    },
    "crun": Layout("systemd", "burstable", "crio", nested=True),
    "kind": Layout("systemd", prefix=f"docker/{_DOCKER_ID}/kubelet.slice", root="kubelet-kubepods"),
    "kind-slice": Layout("systemd", prefix="kubelet.slice", root="kubelet-kubepods"),
    "kind-cgroupfs": Layout("cgroupfs", prefix=f"docker/{_DOCKER_ID}/kubelet"),
    "minikube": Layout("systemd", prefix=f"system.slice/docker-{_DOCKER_ID}.scope"),
    "k3s": Layout("cgroupfs", prefix="system.slice/k3s.service"),
}


# ---- pods ----


class Container(Cgroup):
    """A container's group, by the name the runtime gives it. Processes live in `leaf`."""

    def __init__(self, path, container_id, nested):
        super().__init__(path)
        self.id = container_id
        self.leaf = Cgroup(self.path / "container") if nested else self

    def run(self, arguments, **options):
        """Starts a process inside the group, as a runtime does: it enters the group, then execs."""
        procs = str(self.leaf.path / "cgroup.procs")

        def enter():
            with open(procs, "w") as file:
                file.write("0")  # the writer itself

        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen([str(a) for a in arguments], preexec_fn=enter, text=True, **options)

    def swap_max(self):
        return self.read("memory.swap.max")


class Pod(Cgroup):
    """A pod's group with its containers. Removes itself at the end of a `with`."""

    def __init__(self, layout=Layout(), static=False, sandbox=True):
        # A static pod's UID is the hash of its manifest, and has no dashes.
        self.uid = uuid.uuid4().hex if static else str(uuid.uuid4())
        self.layout = layout
        super().__init__(TEST_ROOT / layout.pod_path(self.uid))
        self.make()
        self.containers = []
        self.sandbox = self._start_sandbox() if sandbox else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()

    def _new_container(self):
        container_id = uuid.uuid4().hex * 2
        path = self.path / self.layout.container_name(container_id)
        container = Container(path, container_id, self.layout.nested)
        container.leaf.make()
        return container

    def _start_sandbox(self):
        """The "pause" container: a process of that name that holds the pod's namespaces."""
        container = self._new_container()
        with tempfile.TemporaryDirectory() as directory:
            pause = Path(directory) / "pause"  # the process is named for the file it came from
            pause.symlink_to(shutil.which("sleep"))
            process = container.run([pause, "infinity"])
            comm = Path(f"/proc/{process.pid}/comm")
            wait_for("the sandbox runs", lambda: comm.read_text() == "pause\n")
        return container

    def container(self, swap_max=None):
        """A new container without processes. The kubelet sets swap_max to 0 by default."""
        container = self._new_container()
        if swap_max is not None and has_memory:
            container.write("memory.swap.max", swap_max)
        self.containers.append(container)
        return container

    def app(self, arguments=("sleep", "infinity"), swap_max=None, **options):
        """A container with a process in it."""
        container = self.container(swap_max)
        container.process = container.run(arguments, **options)
        return container

    def all_frozen(self):
        return all(container.frozen() for container in self.containers)

    def none_frozen(self):
        return not any(container.frozen() for container in self.containers)


def reap():
    """Collects the children that ended, also orphans that became ours (PR_SET_CHILD_SUBREAPER)."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


# ---- workloads ----


class NodeHog:
    """A Node process with N MB of its own; answers over HTTP what it still knows."""

    def __init__(self, container, megabytes=64):
        script = WORKLOADS / "node-hog.js"
        self.container = container
        self.process = container.run(
            ["node", script, megabytes], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.port = int(read_line(self.process.stdout, "node-hog", seconds=120))

    def get(self, path, seconds=120):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    def send(self, path):
        """Sends a request and does not wait: the connection, to be read later."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("GET", path)
        return connection


def hog(container, megabytes):
    """N MB of memory that does not compress. A line to its stdin makes it read all of it again."""
    process = container.run(
        [BUILT_WORKLOADS / "hog", megabytes], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.checksum = read_line(process.stdout, "hog", seconds=120).split()[0]
    return process


def hog_again(process):
    """Reads all of the hog's memory: (checksum, milliseconds)."""
    process.stdin.write("again\n")
    process.stdin.flush()
    checksum, msec = read_line(process.stdout, "hog", seconds=120).split()
    return checksum, float(msec)


# ---- the agent ----


class Problem(Exception):
    """An answer other than 200."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body
        self.code = body.get("code") if isinstance(body, dict) else None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, seconds):
        super().__init__("node", timeout=seconds)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Agent:
    """One run of freeze-agent. The directory outlives a restart: agent.restart()."""

    def __init__(self, *flags, cgroup_root=None, environment=None):
        self.directory = Path(tempfile.mkdtemp(prefix="torpor-agent-"))
        self.socket = self.directory / "agent.sock"
        self.state = self.directory / "state"
        self.log_file = self.directory / "log"
        self.flags = [str(flag) for flag in flags]
        self.environment = {**os.environ, **(environment or {})}
        self.cgroup_root = cgroup_root or TEST_ROOT
        self.final_log = ""
        self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
        self.final_log = self.log_file.read_text()
        shutil.rmtree(self.directory)

    # -- its life --

    def command(self, *more):
        return [
            *[str(FREEZE_AGENT), "--socket", str(self.socket), "--state-dir", str(self.state)],
            *["--cgroup-root", str(self.cgroup_root), "--log-format", "json"],
            *self.flags,
            *more,
        ]

    def start(self, *wrapper):
        """`wrapper` is put before the command: strace and the like."""
        with open(self.log_file, "a") as log:
            self.process = subprocess.Popen(
                [*wrapper, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
            )
        wait_for("the agent is ready", self._is_ready)
        return self

    def _is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the agent ended: {self.log_file.read_text()}")
        try:
            return self.request("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def stop(self):
        """As an init system does. Returns the exit status; None when it was not running."""
        return self._end(signal.SIGTERM)

    def kill(self):
        return self._end(signal.SIGKILL)

    def _end(self, number):
        if self.process is None:
            return None
        process, self.process = self.process, None
        process.send_signal(number)
        try:
            return process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the agent did not end on signal {number}") from None

    def restart(self, kill=False):
        self.kill() if kill else self.stop()
        return self.start()

    def run(self, *flags):
        """The same program with the same settings, to its end: --thaw-all, --check."""
        return subprocess.run(
            self.command(*flags), capture_output=True, text=True, timeout=60, env=self.environment
        )

    # -- what it says --

    def request(self, method, path, body=None, headers=None, seconds=120):
        """(status, answer): parsed where it is JSON, else text."""
        connection = _UnixConnection(self.socket, seconds)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            text = response.read().decode()
            is_json = "json" in response.getheader("Content-Type", "")
            return response.status, json.loads(text) if is_json else text

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, **body):
        headers = {"Content-Type": "application/json"}
        status, answer = self.request("POST", path, json.dumps(body), headers)
        if status != 200:
            raise Problem(status, answer)
        return answer

    def freeze(self, pod_uid, **body):
        return self.post("/freeze", pod_uid=pod_uid, **body)

    def thaw(self, pod_uid=None, **body):
        return self.post("/thaw", **({"pod_uid": pod_uid} if pod_uid else {}), **body)

    def status(self, pod_uid=None):
        return self.post("/status", **({"pod_uid": pod_uid} if pod_uid else {}))

    def events(self, since=0, seconds=20):
        """Yields each event; fails when none comes in time. The first names the run (epoch)."""
        connection = _UnixConnection(self.socket, seconds)
        with contextlib.closing(connection):
            connection.request("GET", f"/events?since={since}")
            response = connection.getresponse()
            assert response.status == 200, response.read()
            while line := response.readline():
                yield json.loads(line)

    def event(self, pod_uid, kind, since=0):
        """The first event of that kind about that pod, past ones included."""
        with contextlib.closing(self.events(since)) as events:
            return next(e for e in events if (e.get("pod_uid"), e.get("type")) == (pod_uid, kind))

    def records(self):
        """What is in the state directory, by pod UID."""
        records = {}
        for path in sorted(self.state.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):  # it went while we looked
                records[path.stem] = path.read_bytes()
        return records

    @property
    def log(self):
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]
