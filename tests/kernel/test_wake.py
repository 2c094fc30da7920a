"""Frozen servers, woken by their own first packet: that one is answered, and nothing is lost.

What must not wake is proved without waiting: packets are told of in the order in which they came,
so when a second pod has been woken by a later packet, nothing is to be told of the first.
"""

import base64
import concurrent.futures
import contextlib
import http.client
import json
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import torpor
from torpor import MB, Problem, wait_for

IN_GUEST = torpor.has_memory
SERVERS = 200
POLLED_SERVERS = 50 if IN_GUEST else SERVERS  # to make them is what takes the time there
RACES = int(os.environ.get("WAKE_RACES", 500 if IN_GUEST else 10000))


# ---- servers ----


def start_echo(container, address="127.0.0.1", *more, wrapper=()):
    process = container.run(
        [*wrapper, torpor.BUILT_WORKLOADS / "echo", address, *more], stdout=subprocess.PIPE
    )
    process.port = int(torpor.read_line(process.stdout, "echo"))
    return process


def echo_pod(pod, *arguments, **options):
    """A pod with one echo server, whose port it gets."""
    p = pod(**options)
    p.port = start_echo(p.container(swap_max=0), *arguments).port
    return p


def node_pod(pod):
    p = pod()
    script = torpor.WORKLOADS / "app.js"
    process = p.container(swap_max=0).run(["node", script], stdout=subprocess.PIPE)
    p.port = int(torpor.read_line(process.stdout, "app.js", seconds=120))
    return p


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except OSError:
        return False
    return True


@pytest.fixture
def directory():
    """Where any user may look: a server that gives up root must read its files."""
    with tempfile.TemporaryDirectory(prefix="torpor-wake-", dir="/var/tmp") as path:
        os.chmod(path, 0o755)
        yield Path(path)


# ---- clients ----


def connect(port, host="127.0.0.1", source=None):
    source = (source, 0) if source else None
    return socket.create_connection((host, port), timeout=60, source_address=source)


def exchange(connection, text=b"hello"):
    connection.sendall(text)
    answer = b""
    while len(answer) < len(text):
        piece = connection.recv(65536)
        assert piece, "the connection has ended"
        answer += piece
    assert answer == text


def ask(port, host="127.0.0.1", source=None):
    """A request on a connection of its own."""
    with connect(port, host, source) as connection:
        exchange(connection)


def ask_by_datagram(port, host="127.0.0.1"):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(60)
        s.connect((host, port))
        s.send(b"hello")
        assert s.recv(100) == b"hello"


def fetch(port, path, method="GET", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with contextlib.closing(connection):
        connection.request(method, path, body)
        return connection.getresponse().read()


def grow_old():
    """A request that came less than two seconds ago in the same tick of the kernel's clock as its
    answer may be unanswered, and wakes: an idle pod is one whose last answer is older."""
    time.sleep(2.2)


def tcp_info(connection, offset):
    size = offset + 4
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
    return struct.unpack_from("I", info, offset)[0]


def segments_sent(connection):
    return tcp_info(connection, 136)


# ---- what came of it ----


AFTER_ALL = 1 << 53  # a number that no event has yet: the answer says which was the last


def story(agent):
    """All events so far."""
    with contextlib.closing(agent.events(AFTER_ALL)) as events:
        last = next(events)["seq"]
    found = []
    with contextlib.closing(agent.events()) as events:
        seen = next(events)["seq"]
        while seen < last:
            found.append(next(events))
            seen = found[-1]["seq"]
    return found


def ends_of_sleep(agent, uid):
    """What ended each sleep of this pod so far."""
    return [e for e in story(agent) if e["pod_uid"] == uid and e["type"] in ("woken", "thawed")]


def metric(agent, name):
    _, text = agent.get("/metrics")
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, f"{name}: not in the metrics"
    return float(found[1])


def assert_woken_once(agent, p, cause=None):
    event = agent.event(p.uid, "woken")
    assert cause in (None, event["cause"])
    wait_for("it runs", p.none_frozen)
    wait_for("its record is gone", lambda: p.uid not in agent.records())
    assert [e["type"] for e in ends_of_sleep(agent, p.uid)] == ["woken"]
    return event


def assert_still_frozen(agent, p, pod):
    """A packet for another pod, that comes later, is told of; and none for this one."""
    canary = echo_pod(pod)
    agent.freeze(canary.uid)
    ask(canary.port)
    agent.event(canary.uid, "woken")
    canary.remove()
    assert p.all_frozen()
    assert ends_of_sleep(agent, p.uid) == []


def assert_swapped(p):
    if torpor.has_memory:
        assert all(c.memory_current() < 8 * MB for c in p.containers)


# ---- HTTP ----


def test_node_answers_the_request_that_wakes_it(agent, pod):
    p = node_pod(pod)
    assert fetch(p.port, "/") == b"hello"
    agent.freeze(p.uid)
    assert_swapped(p)
    assert fetch(p.port, "/") == b"hello"
    assert_woken_once(agent, p, "connection")


def test_a_large_post_is_carried_out_once(agent, pod):
    p = node_pod(pod)
    agent.freeze(p.uid)
    assert fetch(p.port, "/orders", "POST", b"x" * MB) == b"%d" % MB
    assert json.loads(fetch(p.port, "/orders")) == [MB]
    assert_woken_once(agent, p)


PROXY = """
daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
    upstream app {{ server 127.0.0.1:{upstream}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }}
        location /own {{ return 200 "nginx"; }}
    }}
}}
"""


def start_nginx(directory, run=subprocess.Popen, upstream=9):
    """Its process; `run` starts it in a container, or in none."""
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(PROXY.format(directory=directory, port=port, upstream=upstream))
    process = run(["nginx", "-c", config, "-e", directory / "error.log"])
    process.port = port
    wait_for("nginx listens", lambda: listens(port), seconds=60)
    return process


@contextlib.contextmanager
def nginx(directory, upstream):
    process = start_nginx(directory, upstream=upstream)
    try:
        yield process.port
    finally:
        process.terminate()
        process.wait()


def test_a_proxy_speaks_on_to_the_app_on_an_old_connection(agent, pod, directory):
    p = node_pod(pod)
    with nginx(directory, p.port) as port:
        before = fetch(port, "/peer")
        grow_old()
        agent.freeze(p.uid)
        assert fetch(port, "/peer") == before  # nginx did not notice
        assert_woken_once(agent, p, "data")


def test_nginx_as_the_app(agent, pod, directory):
    p = pod()
    port = start_nginx(directory, p.container(swap_max=0).run).port
    agent.freeze(p.uid)
    assert_swapped(p)
    assert fetch(port, "/own") == b"nginx"
    assert_woken_once(agent, p)


class WebSocket:
    """As a browser has one open to Vite; text frames only (RFC 6455)."""

    def __init__(self, port):
        self.connection = connect(port)
        key = base64.b64encode(os.urandom(16)).decode()
        self.connection.sendall(
            f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: vite-hmr\r\n\r\n".encode()
        )
        self.stream = self.connection.makefile("rb")
        assert b" 101 " in self.stream.readline()
        while self.stream.readline() != b"\r\n":
            pass

    def receive(self):
        """The next message."""
        _, length = self.stream.read(2)
        if length == 126:
            length = struct.unpack(">H", self.stream.read(2))[0]
        return json.loads(self.stream.read(length))

    def close(self):
        self.stream.close()
        self.connection.close()


@pytest.fixture
def vite(pod, directory):
    """A pod with a dev server, whose sources can be written to."""
    app = os.environ["TORPOR_APP"]
    source = directory / "app"
    shutil.copytree(app, source, ignore=shutil.ignore_patterns("node_modules"))
    (source / "node_modules").symlink_to(Path(app) / "node_modules")
    p = pod()
    p.source, p.port = source, free_port()
    command = ["node", "node_modules/vite/bin/vite.js", "--host", "127.0.0.1"]
    p.container(swap_max=0).run(
        [*command, "--port", p.port], cwd=source, stdout=subprocess.DEVNULL
    )
    wait_for("Vite listens", lambda: listens(p.port), seconds=120)
    return p


def test_hot_reload_goes_on_over_the_connection_from_before(agent, vite):
    assert b"App" in fetch(vite.port, "/src/App.jsx")  # from now on a change of it is told
    with contextlib.closing(WebSocket(vite.port)) as browser:
        assert browser.receive()["type"] == "connected"
        grow_old()
        agent.freeze(vite.uid)
        assert b"html" in fetch(vite.port, "/")
        assert_woken_once(agent, vite)
        with open(vite.source / "src/App.jsx", "a") as file:
            file.write("// changed\n")
        kinds = iter(lambda: browser.receive()["type"], None)
        assert next(kind for kind in kinds if kind in ("update", "full-reload"))


# ---- databases ----


@pytest.fixture
def postgres(pod, directory):
    p = pod()
    p.port, p.data = free_port(), directory / "data"
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    shutil.chown(directory, "postgres")
    subprocess.run(
        [*as_postgres, programs / "initdb", "-D", p.data, "-A", "trust", "--no-sync", "-N"],
        check=True,
        capture_output=True,
        cwd=directory,
    )
    options = ["-p", p.port, "-h", "127.0.0.1", "-k", directory, "-F", "-c", "shared_buffers=16MB"]
    p.container(swap_max=0).run(
        [*as_postgres, programs / "postgres", "-D", p.data, *options],
        cwd=directory,
        stderr=subprocess.DEVNULL,
    )
    wait_for("PostgreSQL answers", lambda: query(p.port, "select 1") == "1", seconds=120)
    return p


def psql(port):
    return ["psql", "-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]


def query(port, text):
    """On a connection of its own."""
    result = subprocess.run([*psql(port), "-c", text], capture_output=True, text=True, timeout=120)
    return result.stdout.strip()


@contextlib.contextmanager
def session(port):
    """A psql: ask(query) gives its answer."""
    pipe = subprocess.PIPE
    with subprocess.Popen(psql(port), stdin=pipe, stdout=pipe, text=True) as process:

        def ask(text):
            process.stdin.write(f"{text};\n")
            process.stdin.flush()
            return torpor.read_line(process.stdout, "psql", seconds=120)

        yield ask
        process.stdin.close()


def test_postgres_wakes_for_an_old_session_and_for_a_new_one(agent, postgres):
    with session(postgres.port) as ask_postgres:
        backend = ask_postgres("select pg_backend_pid()")
        grow_old()
        agent.freeze(postgres.uid)
        assert ask_postgres("select pg_backend_pid()") == backend
        assert_woken_once(agent, postgres, "data")
        grow_old()
        agent.freeze(postgres.uid)
        assert query(postgres.port, "select 40 + 2") == "42"
        assert [e["cause"] for e in ends_of_sleep(agent, postgres.uid)] == ["data", "connection"]
        assert ask_postgres("select pg_backend_pid()") == backend


def test_redis_wakes_for_an_old_connection_and_for_a_new_one(agent, pod, directory):
    p = pod()
    port = free_port()
    p.container(swap_max=0).run(
        ["redis-server", "--port", port, "--save", "", "--dir", directory],
        stdout=subprocess.DEVNULL,
    )
    wait_for("Redis listens", lambda: listens(port), seconds=60)
    with connect(port) as old, connect(port) as new:
        new.close()
        old.sendall(b"SET key value\r\n")
        assert old.recv(100) == b"+OK\r\n"
        grow_old()
        agent.freeze(p.uid)
        old.sendall(b"GET key\r\n")
        assert old.recv(100) == b"$5\r\nvalue\r\n"
        assert_woken_once(agent, p, "data")
        grow_old()
        agent.freeze(p.uid)
        answer = subprocess.run(
            ["redis-cli", "-p", str(port), "get", "key"], capture_output=True, text=True, timeout=60
        )
        assert answer.stdout == "value\n"


# ---- addresses, containers, groups ----


def test_a_datagram_wakes_and_is_answered(agent, pod):
    p = echo_pod(pod)
    agent.freeze(p.uid)
    ask_by_datagram(p.port)
    assert_woken_once(agent, p, "datagram")


@pytest.mark.parametrize("ask_it", [ask, ask_by_datagram], ids=["tcp", "udp"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_server_for_both_families(agent, pod, host, ask_it):
    p = echo_pod(pod, "::")
    agent.freeze(p.uid)
    ask_it(p.port, host)
    assert assert_woken_once(agent, p)["source"] == host


def test_a_packet_for_one_container_wakes_all_of_the_pod(agent, pod):
    p = pod()
    first, second = (start_echo(p.container(swap_max=0)) for _ in range(2))
    agent.freeze(p.uid)
    ask(second.port)
    assert_woken_once(agent, p)
    ask(first.port)


def test_a_packet_for_one_pod_wakes_its_group(agent, pod):
    asked, other, stranger = (echo_pod(pod) for _ in range(3))
    agent.freeze(asked.uid, group="team-a")
    agent.freeze(other.uid, group="team-a")
    agent.freeze(stranger.uid, group="team-b")
    ask(asked.port)
    assert_woken_once(agent, asked)
    assert agent.event(other.uid, "thawed")["cause"] == "group"
    wait_for("the other one runs", other.none_frozen)
    ask(other.port)
    assert stranger.all_frozen()


@contextlib.contextmanager
def namespace():
    """A pod's network: one end of a veth pair inside, the other one here."""
    name = f"torpor{os.getpid()}"
    inside, outside = "10.213.77.2", "10.213.77.1"
    commands = [
        f"ip netns add {name}",
        f"ip link add {name[-12:]} type veth peer name eth0 netns {name}",
        f"ip addr add {outside}/30 dev {name[-12:]}",
        f"ip link set {name[-12:]} up",
        f"ip -n {name} addr add {inside}/30 dev eth0",
        f"ip -n {name} link set eth0 up",
        f"ip -n {name} link set lo up",
    ]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        yield ["ip", "netns", "exec", name], inside
    finally:
        subprocess.run(["ip", "link", "del", name[-12:]], check=False)
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def far_pod(pod):
    """An echo server in a network namespace of its own."""
    with namespace() as (wrapper, address):
        p = pod()
        p.address = address
        p.port = start_echo(p.container(swap_max=0), "0.0.0.0", wrapper=wrapper).port
        yield p
        p.remove()


def test_a_pod_in_a_namespace_of_its_own(agent, far_pod):
    with connect(far_pod.port, far_pod.address) as old:
        exchange(old)
        grow_old()
        agent.freeze(far_pod.uid)
        exchange(old)
        assert assert_woken_once(agent, far_pod, "data")["source"] == "10.213.77.1"
    agent.freeze(far_pod.uid)
    ask_by_datagram(far_pod.port, far_pod.address)


def ping(address):
    """An echo request, and the wait for its reply."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as s:
        s.settimeout(60)
        s.sendto(struct.pack("!BBHHH", 8, 0, 0xF7FE, 0, 1), (address, 0))
        while s.recv(1000)[20] != 0:  # type 0: the reply
            pass


def test_a_port_scan_and_a_ping_do_not_wake(agent, far_pod, pod):
    agent.freeze(far_pod.uid)
    ping(far_pod.address)
    for port in set(range(1, 200)) - {far_pod.port}:
        with pytest.raises(ConnectionRefusedError):
            connect(port, far_pod.address)
    assert_still_frozen(agent, far_pod, pod)
    ask(far_pod.port, far_pod.address)


# ---- many ----


def wake_all(servers):
    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        list(clients.map(lambda p: ask(p.port), servers))


def sleeping_servers(agent, pod, n):
    servers = [echo_pod(pod, sandbox=False) for _ in range(n)]
    with concurrent.futures.ThreadPoolExecutor(4) as callers:
        list(callers.map(lambda p: agent.freeze(p.uid, reclaim="off"), servers))
    return servers


def test_many_servers_are_woken_under_load_each_once(agent, pod):
    servers = sleeping_servers(agent, pod, SERVERS)
    random.shuffle(servers)
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as load:
        wake_all(servers)
        load.kill()
    packets = 'freeze_agent_thaws_total{cause="packet"}'
    wait_for("all are woken", lambda: metric(agent, packets) == SERVERS)
    woken = [event["pod_uid"] for event in story(agent) if event["type"] != "frozen"]
    assert sorted(woken) == sorted(p.uid for p in servers)


def test_a_crowd_at_one_frozen_server_is_answered(agent, pod):
    p = echo_pod(pod)
    agent.freeze(p.uid)
    with concurrent.futures.ThreadPoolExecutor(50) as clients:
        list(clients.map(lambda _: ask(p.port), range(50)))
    assert_woken_once(agent, p)


# ---- the race ----


RACERS = [
    *[("connect", 0), ("connect", 20000), ("keep", 0), ("keep", 20000)],
    *[("busy", 0), ("busy", 3000), ("busy", 20000), ("datagram", 0)],
]


@pytest.mark.parametrize("mode,work_usec", RACERS, ids=[f"{m}-{w}us" for m, w in RACERS])
def test_no_request_is_lost_that_races_with_the_freeze(new_agent, pod, mode, work_usec):
    """A frozen pod with a request that nobody answers is the one thing that must never be."""
    agent = new_agent("--wake-limit", 0, "--log-level", "warning")
    p = echo_pod(pod, "127.0.0.1", work_usec)
    rounds = RACES // len(RACERS)
    result = subprocess.run(
        [torpor.BUILT_WORKLOADS / "racer", agent.socket, p.uid, mode, str(p.port), str(rounds)],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    print(f"{rounds} rounds: {figures}")
    assert figures["lost"] == 0


# ---- what does not wake ----


def keepalive_probes(old):
    for option, value in (("KEEPIDLE", 1), ("KEEPINTVL", 1)):
        old.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{option}"), value)
    before = segments_sent(old)
    old.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wait_for("two probes were sent", lambda: segments_sent(old) >= before + 2)


def end(old):
    old.close()


def reset(old):
    old.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    old.close()


@pytest.mark.parametrize("noise", [keepalive_probes, end, reset])
def test_noise_on_an_old_connection_does_not_wake(agent, pod, noise):
    p = echo_pod(pod)
    with connect(p.port) as old:
        exchange(old)
        grow_old()
        agent.freeze(p.uid)
        noise(old)
        assert_still_frozen(agent, p, pod)
    ask(p.port)


def test_ignored_sources_do_not_wake(new_agent, pod):
    agent = new_agent("--ignore-source", "127.0.9.0/24", "--ignore-source", "127.0.8.7")
    p = echo_pod(pod)
    agent.freeze(p.uid)
    with connect(p.port, source="127.0.9.200"), connect(p.port, source="127.0.8.7") as ignored:
        ignored.sendall(b"hello")
        assert_still_frozen(agent, p, pod)
        ask(p.port, source="127.0.8.8")
        assert ignored.recv(100) == b"hello"
    assert_woken_once(agent, p)


def test_probes_of_the_kubelet_do_not_wake(new_agent, pod):
    kubelet = torpor.Cgroup(torpor.TEST_ROOT / "system/kubelet").make()
    agent = new_agent("--kubelet-cgroup", "system/kubelet")
    p = echo_pod(pod)
    agent.freeze(p.uid)
    probe = torpor.Container(kubelet.path, "kubelet", nested=False).run(
        ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{p.port}; echo hello >&3; head -n 1 <&3"],
        stdout=subprocess.PIPE,
    )
    wait_for("the probe is there", lambda: waiting_connections(p.port))
    assert_still_frozen(agent, p, pod)
    ask(p.port)
    assert probe.stdout.read() == "hello\n"
    probe.wait()
    agent.stop()
    kubelet.remove()
    kubelet.path.parent.rmdir()


def waiting_connections(port):
    """Clients' requests that have arrived: their bytes wait for the server."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if local.endswith(f":{port:04X}") and state == "01" and not queues.endswith(":00000000"):
            return True
    return False


@contextlib.contextmanager
def called_by(pod):
    """A pod that has called us: the pod, and our end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        p = echo_pod(pod, "127.0.0.1", 0, listener.getsockname()[1])
        connection, _ = listener.accept()
        with connection:
            yield p, connection


def test_data_on_a_connection_of_the_pods_own_wakes_only_where_asked_for(agent, pod):
    with called_by(pod) as (p, connection):
        agent.freeze(p.uid, wake_on="request")
        connection.sendall(b"news")
        assert_still_frozen(agent, p, pod)
        agent.thaw(p.uid)
    with called_by(pod) as (p, connection):
        agent.freeze(p.uid, wake_on="data")
        connection.sendall(b"news")
        assert_woken_once(agent, p, "data")


def test_with_connect_only_a_new_connection_wakes(agent, pod):
    p = echo_pod(pod)
    with connect(p.port) as old:
        exchange(old)
        agent.freeze(p.uid, wake_on="connect")
        old.sendall(b"again")
        assert_still_frozen(agent, p, pod)
        ask(p.port)
        assert old.recv(100) == b"again"
    assert_woken_once(agent, p, "connection")


def test_with_none_nothing_wakes(agent, pod):
    p = echo_pod(pod)
    agent.freeze(p.uid, wake_on="none")
    with connect(p.port) as waiting, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        waiting.sendall(b"hello")
        datagrams.sendto(b"hello", ("127.0.0.1", p.port))
        assert_still_frozen(agent, p, pod)
        agent.thaw(p.uid)
        assert waiting.recv(100) == b"hello"


# ---- the agent goes and comes back ----


def send_connection(p, stack):
    stack.enter_context(connect(p.port)).sendall(b"hello")


def send_datagram(p, stack):
    s = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    s.sendto(b"hello", ("127.0.0.1", p.port))


@pytest.mark.parametrize("means", ["bpf", "poll"])
@pytest.mark.parametrize("send", [send_connection, send_datagram])
def test_what_came_while_the_agent_was_away_wakes(new_agent, pod, means, send):
    agent = new_agent("--trigger", means)
    asked, other = echo_pod(pod), echo_pod(pod)
    for p in (asked, other):
        agent.freeze(p.uid)
    agent.kill()
    with contextlib.ExitStack() as stack:
        send(asked, stack)
        agent.start()
        assert agent.event(asked.uid, "woken")
    wait_for("it runs", asked.none_frozen)
    assert_still_frozen(agent, other, pod)
    ask(other.port)
    assert_woken_once(agent, other)


def test_data_on_an_old_connection_while_the_agent_was_away_wakes(agent, pod):
    p = echo_pod(pod)
    with connect(p.port) as old:
        exchange(old)
        grow_old()
        agent.freeze(p.uid)
        agent.kill()
        old.sendall(b"again")
        agent.start()
        assert old.recv(100) == b"again"


# ---- without BPF ----


def trigger_means(agent):
    """The one that is in use, by the metric."""
    _, text = agent.get("/metrics")
    return re.findall(r'^freeze_agent_trigger\{.*"(\w+)"\} 1$', text, re.MULTILINE)


def cpu_seconds(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_share(process, seconds=5):
    before = cpu_seconds(process)
    time.sleep(seconds)  # what is measured
    return (cpu_seconds(process) - before) / seconds


def test_poll_wakes_and_costs_little(new_agent, pod):
    agent = new_agent("--trigger", "poll")
    assert trigger_means(agent) == ["poll"]
    servers = sleeping_servers(agent, pod, POLLED_SERVERS)
    print(f"CPU of the agent, {POLLED_SERVERS} pods polled: {cpu_share(agent.process):.1%}")
    latencies = []
    for p in random.sample(servers, 20):
        start = time.monotonic()
        ask(p.port)
        latencies.append((time.monotonic() - start) * 1e3)
        agent.event(p.uid, "woken")
    print(f"answered after {min(latencies):.0f} to {max(latencies):.0f} ms")
    assert max(latencies) < 5000
    for p in servers:
        agent.thaw(p.uid)


@pytest.mark.parametrize("change", ["old connection", "datagram"])
def test_poll_finds_what_is_in_no_accept_queue(new_agent, pod, change):
    agent = new_agent("--trigger", "poll")
    p = echo_pod(pod)
    with connect(p.port) as old:
        exchange(old)
        grow_old()
        agent.freeze(p.uid)
        exchange(old) if change == "old connection" else ask_by_datagram(p.port)
    assert_woken_once(agent, p)


def test_without_capabilities_it_polls_and_says_so_once(new_agent, pod):
    agent = new_agent()
    agent.stop()
    lost = "-bpf,-net_admin,-sys_admin"
    agent.start("setpriv", f"--bounding-set={lost}", f"--inh-caps={lost}")
    assert trigger_means(agent) == ["poll"]
    assert len([line for line in agent.log if "polled instead" in line["msg"]]) == 1
    p = echo_pod(pod)
    agent.freeze(p.uid)
    ask(p.port)
    assert_woken_once(agent, p)


# ---- limits, words, puts off ----


def test_a_pod_that_is_woken_too_often_is_not_frozen_again(new_agent, pod):
    agent = new_agent("--wake-limit", 3)
    p = echo_pod(pod)
    for _ in range(3):
        agent.freeze(p.uid)
        ask(p.port)
        wait_for("its record is gone", lambda: agent.records() == {})
    with pytest.raises(Problem) as problem:
        agent.freeze(p.uid)
    assert (problem.value.status, problem.value.code) == (422, "refused")
    assert problem.value.body["reasons"] == ["wake_limit"]
    assert p.none_frozen()
    ask(p.port)


def test_the_event_and_the_metrics_tell_of_the_wake(agent, pod):
    assert trigger_means(agent) == ["bpf"]
    p = echo_pod(pod)
    agent.freeze(p.uid, group="team-a")
    with connect(p.port, source="127.0.3.4") as connection:
        exchange(connection)
        source_port = connection.getsockname()[1]
    event = agent.event(p.uid, "woken")
    told = {key: event[key] for key in ("cause", "source", "source_port", "port", "group")}
    assert told == {
        "cause": "connection",
        "source": "127.0.3.4",
        "source_port": source_port,
        "port": p.port,
        "group": "team-a",
    }
    assert 0 <= event["latency_usec"] < 5_000_000
    assert metric(agent, 'freeze_agent_thaws_total{cause="packet"}') == 1
    assert metric(agent, "freeze_agent_wake_duration_seconds_count") == 1


@pytest.mark.memory
def test_a_reclaim_that_is_put_off_comes_later(agent, pod):
    p = pod()
    app = p.container(swap_max=0)
    torpor.hog(app, 32)
    answer = agent.freeze(p.uid, reclaim="background", reclaim_after=3)
    assert (answer["state"], answer["reclaim"]) == ("frozen", "waiting")
    assert (app.frozen(), app.swap_current()) == (True, 0)
    assert app.memory_current() > 32 * MB
    wait_for("the memory is in swap", lambda: app.swap_current() > 31 * MB)
    agent.thaw(p.uid)


@pytest.mark.memory
def test_a_pod_that_is_woken_before_its_reclaim_pays_nothing(agent, pod):
    p = echo_pod(pod)
    app = p.containers[0]
    torpor.hog(app, 32)
    agent.freeze(p.uid, reclaim="background", reclaim_after=60)
    ask(p.port)
    assert_woken_once(agent, p)
    assert app.swap_current() == 0
    assert app.memory_current() > 32 * MB
