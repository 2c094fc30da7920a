"""Callers that are wrong, slow, many, or up to no good.

Each gets the answer that docs/openapi.yaml promises, or is cut off. Whatever they do, nothing
changes in any cgroup or in the state directory, the agent's memory stays bounded, and the next
caller is served.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest
import torpor
from conftest import require
from torpor import MB, Cgroup, wait_for

TOKEN = "a-token-of-this-test"
NOBODY = 65534
UNKNOWN = "00000000-0000-4000-8000-000000000000"
IDLE_SECONDS = 10  # CONNECTION_IDLE_SEC
MEMORY_MAX = 24 * MB  # what a test may add to the agent's peak


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# ---- the agent under attack ----


def memory_of(process, field):
    with open(f"/proc/{process.pid}/status") as file:
        (line,) = (line for line in file if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def snapshot(agent):
    """Everything that a caller might have changed."""
    groups = {}
    for group in Cgroup(torpor.TEST_ROOT).groups():
        files = ("cgroup.freeze", "cgroup.events", "cgroup.procs", "memory.swap.max")
        texts = {f: group.read(f) for f in files if (group.path / f).exists()}
        groups[str(group.path)] = texts
    records = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in agent.state.iterdir()}
    return groups, records


class Node:
    """An agent, a frozen pod, a running one; two ways in."""

    def __init__(self, agent, port, frozen, running):
        self.agent, self.port = agent, port
        self.frozen, self.running = frozen, running

    def connect(self, way, seconds=30):
        if way == "tcp":
            return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(seconds)
        s.connect(str(self.agent.socket))
        return s


@pytest.fixture
def node(new_agent, pod, tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    port = free_port()
    agent = new_agent("--listen", f"127.0.0.1:{port}", "--token-file", tmp_path / "token")
    frozen, running = pod(), pod()
    frozen.app(swap_max=0)
    running.app(swap_max=0)
    agent.freeze(frozen.uid)
    before = snapshot(agent)
    memory = memory_of(agent.process, "VmRSS")

    yield Node(agent, port, frozen, running)

    assert agent.process.poll() is None, "the agent has ended"
    began = time.monotonic()
    assert agent.get("/healthz")[0] == 200
    assert time.monotonic() - began < 1
    wait_for("the agent is idle again", lambda: agent.status()["pods"])
    assert snapshot(agent) == before
    assert memory_of(agent.process, "VmHWM") - memory < MEMORY_MAX


@pytest.fixture(params=["unix", "tcp"])
def way(request):
    return request.param


# ---- raw requests ----


def request(method, path, body=b"", *headers, length=None, host="Host: node"):
    lines = [f"{method} {path} HTTP/1.1", host, f"Authorization: Bearer {TOKEN}", *headers]
    if body or length is not None:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def send(s, data):
    """As much as it takes: who is refused may find the door closed."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        s.sendall(data)


def answers(s):
    """(status, body) of each answer until the connection ends or goes silent."""
    with contextlib.suppress(ConnectionResetError), s.makefile("rb") as stream:
        while line := stream.readline():
            status, size = int(line.split()[1]), 0
            while (header := stream.readline().strip()) != b"":
                name, _, value = header.partition(b": ")
                if name.lower() == b"content-length":
                    size = int(value)
            body = stream.read(size)
            yield status, json.loads(body) if body[:1] == b"{" else body


def ask(node, way, data):
    """The first answer to these bytes, or None when there was none."""
    with node.connect(way) as s:
        send(s, data)
        return next(answers(s), None)


def ask_json(node, way, path, body):
    return ask(node, way, request("POST", path, json.dumps(body).encode()))


def is_bad_request(answer):
    return answer is not None and answer[0] == 400 and answer[1]["code"] == "bad_request"


# ---- what is in a body ----

REAL = "8d3f2a54-6b1e-4c57-9a0f-5d7e1c2b3a49"
UIDS = [
    "",
    "..",
    "../..",
    "/",
    "/etc/passwd",
    "../" * 10 + "etc/passwd",
    REAL + "/..",
    REAL + "/../../..",
    "../" + REAL,
    REAL + "\0",
    "\0" + REAL,
    REAL[:-1] + "\n",
    REAL.upper(),
    REAL.replace("-", "_"),
    REAL.replace("-", "/"),
    "%2e%2e%2f" + REAL,
    "{" + REAL + "}",
    "kubepods",
    "." * 36,
    "-" * 36,
    "é" * 32,
    "\U0001f9ca" * 9,
    "a" * 3000,
    0,
    -1,
    1e300,
    True,
    None,
    [],
    [REAL],
    {},
    {"pod_uid": REAL},
]


def test_uids_that_are_none(node, way):
    for uid in UIDS:
        for path in ("/freeze", "/thaw", "/status"):
            assert is_bad_request(ask_json(node, way, path, {"pod_uid": uid})), f"{path} {uid!r}"


def test_a_uid_of_a_megabyte(node, way):
    for path in ("/freeze", "/thaw", "/status"):
        status, problem = ask_json(node, way, path, {"pod_uid": "a" * MB})
        assert (status, problem["code"]) == (413, "payload_too_large")


BODIES = [
    b"pod_uid",
    b"{",
    b'{"pod_uid"',
    b"[]",
    b'"' + REAL.encode() + b'"',
    b"null",
    b"NaN",
    b"0",
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}x",
    b'{"pod_uid": "' + b"\xff" * 36 + b'"}',
    b'{"pod_uid": "\\ud800"}',
    b'{"pod_uid": "%s", "pod_uid": "%s"}' % (REAL.encode(), REAL.encode()),
    b'{"pod_uid": "%s"} {}' % REAL.encode(),
    b'{"pod_uid": "%s",}' % REAL.encode(),
    b'{"pod_uid": "%s", "generation": 1e999}' % REAL.encode(),
    b'{"pod_uid": "%s", "generation": 18446744073709551616}' % REAL.encode(),
    b'{"pod_uid": "%s", "generation": -0}x' % REAL.encode(),
    b'{"pod_uid": "%s", "__proto__": {}}' % REAL.encode(),
    b"[" * 4000,
    b'{"a":' * 800,
    b'{"pod_uid": %s1%s}' % (b"[" * 1900, b"]" * 1900),
    b"\0" * 4096,
]


def test_bodies_that_are_no_request(node, way):
    for body in BODIES:
        for path in ("/freeze", "/thaw", "/status"):
            answer = ask(node, way, request("POST", path, body))
            assert is_bad_request(answer), f"{path} {body[:60]}: {answer}"


def test_fields_that_are_missing_or_unknown(node, way):
    for path, body in [
        ("/freeze", {}),
        ("/freeze", {"group": "g"}),
        ("/freeze", {"pod_uid": REAL, "path": "/sys/fs/cgroup"}),
        ("/freeze", {"pod_uid": REAL, "Pod_uid": REAL}),
        ("/thaw", {}),
        ("/thaw", {"pod_uid": REAL, "group": "g"}),
        ("/thaw", {"group": "../../x y"}),
        ("/status", {"pod": REAL}),
    ]:
        assert is_bad_request(ask_json(node, way, path, body)), f"{path} {body}"


def test_bodies_that_are_too_large(node, way):
    """Ten megabytes, nested ten thousand deep, or just announced: refused before it is read."""
    for body in (b" " * (10 * MB), b"[" * 10000, b'{"a":' * 10000):
        began = time.monotonic()
        status, problem = ask(node, way, request("POST", "/freeze", body))
        assert (status, problem["code"]) == (413, "payload_too_large")
        assert time.monotonic() - began < 2
    for length in ("4097", "18446744073709551616", "9" * 100):
        status, _ = ask(node, way, request("POST", "/freeze", b"{}", length=length))
        assert status == 413


def test_a_body_that_never_ends(node, way):
    """In chunks, so that nobody knows before: cut off, or refused, and soon."""
    with node.connect(way) as s:
        head = request("POST", "/freeze", b"", "Transfer-Encoding: chunked")
        s.sendall(head)
        chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
        began, sent = time.monotonic(), 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - began < 5:
                s.sendall(chunk)
                sent += len(chunk)
        assert sent < 4 * MB
        assert all(status == 413 for status, _ in answers(s))


# ---- what is in a head ----

HEADS = [
    (b"GET /../../etc/passwd HTTP/1.1\r\nHost: n\r\n\r\n", {404}),
    (b"GET /freeze%00 HTTP/1.1\r\nHost: n\r\n\r\n", {404}),
    (b"GET //status HTTP/1.1\r\nHost: n\r\n\r\n", {404}),
    (b"GET /status/../freeze HTTP/1.1\r\nHost: n\r\n\r\n", {404}),
    (b"GET http://node/healthz HTTP/1.1\r\nHost: n\r\n\r\n", {400, 404}),
    (b"OPTIONS * HTTP/1.1\r\nHost: n\r\n\r\n", {400, 404, 405}),
    (b"GET /freeze HTTP/1.1\r\nHost: n\r\n\r\n", {405}),
    (b"PUT /freeze HTTP/1.1\r\nHost: n\r\nContent-Length: 2\r\n\r\n{}", {405}),
    (b"post /freeze HTTP/1.1\r\nHost: n\r\nContent-Length: 2\r\n\r\n{}", {405}),
    (b"FROB /freeze HTTP/1.1\r\nHost: n\r\n\r\n", {405}),
    (b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: n\r\n\r\n", {400, 404, 405}),
    (b"TRACE /status HTTP/1.1\r\nHost: n\r\n\r\n", {405}),
    (b"GET /healthz HTTP/1.1\r\n\r\n", {400}),
    (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", {400}),
    (b"GET /healthz HTTP/3.7\r\nHost: n\r\n\r\n", {400, 505, None}),
    (b"GET /healthz\r\n\r\n", {400, 505, None}),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 404, 405, 505, None}),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n", {400, None}),
    (b"\0" * 64 + b"\r\n\r\n", {400, None}),
    (b"GET /healthz HTTP/1.1\r\nHost : n\r\n\r\n", {400}),
    # libmicrohttpd 0.9 ends the value there, 1.0 refuses it.
    (b"GET /healthz HTTP/1.1\r\nHost: n\r\nX: a\0b\r\n\r\n", {200, 400}),
    (b"GET /healthz HTTP/1.1\r\nHost: n\r\nX: a\x01b\r\n\r\n", {400}),
    (b"GET /healthz HTTP/1.1\r\nHost: n\r\nContent-Length: 3\r\n\r\nabc", {400}),
    (b"POST /freeze HTTP/1.1\r\nHost: n\r\nContent-Length: +2\r\n\r\n{}", {400}),
    (b"POST /freeze HTTP/1.1\r\nHost: n\r\nContent-Length: 0x2\r\n\r\n{}", {400}),
    (b"POST /freeze HTTP/1.1\r\nHost: n\r\nContent-Length: -1\r\n\r\n{}", {400}),
    (b"POST / HTTP/1.1\r\nHost: n\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\n{}", {400}),
    (
        b"POST /freeze HTTP/1.1\r\nHost: n\r\nContent-Length: 2\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        {400},
    ),
    (b"POST /freeze HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: gzip\r\n\r\n{}", {400}),
    (b"POST /freeze HTTP/1.0\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
]


def test_heads_that_are_none(node, way):
    for data, expected in HEADS:
        answer = ask(node, way, data)
        assert (answer and answer[0]) in expected, f"{data[:80]}: {answer}"


def test_a_second_request_hidden_in_the_first(node, way):
    """Whoever reads another end of the first request than we do would smuggle one past a proxy."""
    body = json.dumps({"pod_uid": node.running.uid}).encode()
    hidden = request("POST", "/freeze", body)
    for data in (
        request("GET", "/healthz", hidden),
        request("POST", "/status", b"{}" + hidden, "Transfer-Encoding: chunked", length=2),
        request("POST", "/status", b"0\r\n\r\n" + hidden, "Transfer-Encoding: identity"),
        request("POST", "/status", b"{}", "Content-Length : 0") + hidden,
    ):
        with node.connect(way) as s:
            send(s, data)
            assert [status for status, _ in answers(s)] == [400], data[:60]


def test_a_page_in_a_browser_cannot_send_without_asking(node, way):
    body = json.dumps({"pod_uid": node.running.uid}).encode()
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        headers = (f"Content-Type: {content_type}", "Origin: https://example.org")
        assert ask(node, way, request("POST", "/freeze", body, *headers))[0] == 415
    assert ask(node, way, request("POST", "/freeze", body, "Origin: null"))[0] == 415


def test_floods_of_headers(node, way):
    for headers in (
        [f"X-{i}: x" for i in range(100)],
        [f"X-{i}: x" for i in range(1000)],
        [f"X-{i}: {'x' * 50}" for i in range(20000)],
        [f"X: {'x' * 9000}"],
        [f"X: {'x' * MB}"],
        [f"{'X' * MB}: x"],
        [f"Authorization: Bearer {'x' * MB}"],
    ):
        answer = ask(node, way, request("GET", "/metrics", b"", *headers))
        # One that does not fit its buffer libmicrohttpd answers itself, or not at all.
        assert (answer and answer[0]) in (431, 413, 400, None)
    assert ask(node, way, request("GET", "/" + "x" * 7000))[0] == 404
    assert (ask(node, way, request("GET", "/" + "x" * MB)) or [None])[0] in (414, 431, None)


# ---- who calls ----


def test_tokens_that_are_not_known(node):
    for authorization in [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        [f"Bearer {TOKEN[:-1]}"],
        [f"Bearer {TOKEN}x"],
        [f"Bearer {TOKEN.upper()}"],
        [f"Bearer {'x' * len(TOKEN)}"],
        [f"Bearer {TOKEN} {TOKEN}"],
        [f"Bearer\t{TOKEN}"],
        [f"Basic {TOKEN}"],
        [f"Token {TOKEN}"],
        [TOKEN],
        ["Bearer *"],
        [f"Bearer {'x' * 5000}"],
    ]:
        for method, path in [("POST", "/freeze"), ("POST", "/status"), ("GET", "/metrics")]:
            body = b'{"pod_uid": "%s"}' % node.running.uid.encode() if method == "POST" else b""
            lines = [f"{method} {path} HTTP/1.1", "Host: n", f"Content-Length: {len(body)}"]
            lines += [f"Authorization: {a}" for a in authorization]
            data = "\r\n".join([*lines, "", ""]).encode() + body
            status, problem = ask(node, "tcp", data)
            assert (status, problem["code"]) == (401, "unauthorized"), authorization
    twice = request("GET", "/metrics", b"", "Authorization: Bearer something-else-it-is")
    assert is_bad_request(ask(node, "tcp", twice))


def curl_as(uid, *arguments):
    """(HTTP status, or 0 when there was no connection; answer)"""
    command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    command += ["curl", "-s", "--max-time", "20", "-w", "\n%{http_code}", *map(str, arguments)]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    body, _, status = text.rpartition("\n")
    return int(status), body


@pytest.fixture
def open_port(new_agent, pod):
    """(agent, port, pod): anonymous on loopback."""
    port = free_port()
    agent = new_agent("--listen", f"127.0.0.1:{port}", "--allow-anonymous-loopback")
    p = pod()
    p.app()
    yield agent, port, p
    assert p.none_frozen()
    assert agent.records() == {}


def test_anonymous_on_loopback_anybody_reads_and_only_root_writes(open_port):
    agent, port, p = open_port
    url, body = f"http://127.0.0.1:{port}", f'{{"pod_uid": "{p.uid}"}}'
    for uid in (0, NOBODY):
        assert curl_as(uid, f"{url}/metrics")[0] == 200
        assert curl_as(uid, f"{url}/status", "-d", body)[0] == 200
    for path in ("/freeze", "/thaw"):
        status, answer = curl_as(NOBODY, url + path, "-d", body)
        assert (status, json.loads(answer)["code"]) == (403, "forbidden")
        token = f"Authorization: Bearer {TOKEN}"
        assert curl_as(NOBODY, url + path, "-d", body, "-H", token)[0] == 401
    assert curl_as(0, f"{url}/freeze", "-d", body)[0] == 200
    assert curl_as(0, f"{url}/thaw", "-d", body)[0] == 200


def test_whoever_closes_the_connection_at_once_is_not_taken_for_root(open_port):
    """The kernel says uid 0 of a socket that nobody has open any more."""
    agent, port, p = open_port
    body = json.dumps({"pod_uid": p.uid}).encode()
    for i in range(10):
        agent.process.send_signal(signal.SIGSTOP)
        os.seteuid(NOBODY)
        try:
            s = socket.create_connection(("127.0.0.1", port))
        finally:
            os.seteuid(0)
        s.sendall(request("POST", "/freeze", body).replace(b"Authorization", b"X"))
        if i % 2:
            s.shutdown(socket.SHUT_WR)
        s.close()
        agent.process.send_signal(signal.SIGCONT)
        assert agent.get("/healthz")[0] == 200
    time.sleep(0.2)  # for what must not happen there is no event to wait for
    assert agent.records() == {}
    assert 'freeze_agent_freezes_total{result="ok"} 0' in agent.get("/metrics")[1]


def test_the_unix_socket_is_roots(agent, pod):
    p = pod()
    p.app()
    body = json.dumps({"pod_uid": p.uid})
    arguments = ["--unix-socket", agent.socket, "http://n/freeze", "-d", body]
    agent.directory.chmod(0o711)
    assert curl_as(NOBODY, *arguments)[0] == 0
    agent.socket.chmod(0o666)  # even so
    for path in ("freeze", "thaw", "status"):
        arguments[2] = f"http://n/{path}"
        assert curl_as(NOBODY, *arguments)[0] == 403
    assert p.none_frozen()


def call_with(node, token):
    data = f"GET /metrics HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer {token}\r\n\r\n"
    return ask(node, "tcp", data.encode())[0]


def test_the_token_file_may_change(node, tmp_path):
    token_file, new, other = tmp_path / "token", "another-token-of-it", "third-token-of-this"
    assert call_with(node, TOKEN) == 200

    (tmp_path / "next").write_text(f"# comment\n{new}\n\n{other}\n")
    (tmp_path / "next").rename(token_file)
    assert [call_with(node, t) for t in (TOKEN, new, other)] == [401, 200, 200]

    for text in ("", "\n\n# nobody\n", "short\n", f"{new}\n" * 17, "x" * 5000 + "\n"):
        token_file.write_text(text)
        assert [call_with(node, t) for t in (TOKEN, new, "", "short")] == [401] * 4, text[:20]
        token_file.unlink()
        token_file.write_text(new)
        assert call_with(node, new) == 200

    token_file.unlink()
    assert call_with(node, new) == 401
    token_file.mkdir()
    assert call_with(node, new) == 401


# ---- many and slow ----


def served_within(node, seconds):
    for way in ("unix", "tcp"):
        began = time.monotonic()
        assert ask(node, way, request("POST", "/status", b"{}"))[0] == 200
        assert time.monotonic() - began < seconds


@contextlib.contextmanager
def many_files(n):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    require(hard == resource.RLIM_INFINITY or hard >= n, "too few files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, n), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_two_thousand_connections_that_say_nothing(node, way):
    with many_files(4096), contextlib.ExitStack() as stack:
        for i in range(2000):
            s = stack.enter_context(node.connect(way))
            if i % 3 == 1:
                send(s, b"POST /freeze HT")
            elif i % 3 == 2:
                send(s, request("POST", "/freeze", b"{", length=100))
            if i % 500 == 499:
                served_within(node, 2)
        served_within(node, 2)


def test_slow_callers_are_cut_off_and_hold_up_nobody(node, way):
    """However diligently they trickle: a request has to be there in ten seconds."""
    body = json.dumps({"pod_uid": node.running.uid}).encode()
    head = request("POST", "/freeze", b"", "X: " + "x" * 200, length=len(body))
    slow = {
        "silent": b"",
        "head": head,
        "body": head + body,
        "half": head + body[:10],
    }
    at_once = {"silent": 0, "head": 1, "body": len(head), "half": len(head) + 10}
    with contextlib.ExitStack() as stack:
        sockets = {name: stack.enter_context(node.connect(way)) for name in slow}
        for name, s in sockets.items():
            send(s, slow[name][: at_once[name]])
        began = time.monotonic()
        ended, step = {}, 0
        while len(ended) < len(slow) and time.monotonic() - began < 2 * IDLE_SECONDS:
            for name in slow.keys() - ended.keys():
                at = at_once[name] + step
                # One byte short of the whole, so that it never is there.
                send(sockets[name], slow[name][at : min(at + 1, len(slow[name]) - 1)])
                sockets[name].settimeout(0.01)
                with contextlib.suppress(TimeoutError, ConnectionResetError):
                    assert sockets[name].recv(100) == b""
                    ended[name] = time.monotonic() - began
            served_within(node, 1)
            step += 1
            time.sleep(0.25)  # the pace of a slow caller
        assert ended.keys() == slow.keys()
        assert all(seconds < IDLE_SECONDS + 3 for seconds in ended.values()), ended


def test_a_reader_of_events_that_does_not_read(node, way):
    """Thousands of events later it has cost nothing, and is told what it missed."""
    agent, uid = node.agent, node.running.uid
    with node.connect(way) as s:
        send(s, request("GET", "/events?since=0"))
        for _ in range(1500 if way == "unix" else 100):  # TCP's buffers would hold them all
            agent.freeze(uid, reclaim="off")
            agent.thaw(uid)
        agent.freeze(uid, reclaim="off", group="the-end")
        agent.thaw(uid)
        seqs, missed = [], 0
        with contextlib.suppress(ConnectionResetError), s.makefile("rb") as stream:
            for line in stream:
                if not line.startswith(b"{"):
                    continue
                event = json.loads(line)
                missed += event.get("missed", 0)
                if "pod_uid" in event:
                    seqs.append(event["seq"])
                if event.get("group") == "the-end" and event["type"] == "thawed":
                    break
            else:
                return  # it was too slow for too long, and cut off
    assert missed > 0 or way == "tcp"
    assert seqs == sorted(set(seqs))
    assert len(seqs) + missed == seqs[-1]


def test_a_thousand_requests_in_one_go(node, way):
    """Pipelined: all are answered, in their order, and others are served in between."""
    status = json.dumps({"pod_uid": node.frozen.uid}).encode()
    calls = [
        (request("GET", "/healthz"), 200),
        (request("POST", "/status", status), 200),
        (request("POST", "/status", json.dumps({"pod_uid": UNKNOWN}).encode()), 404),
        (request("POST", "/thaw", b'{"group": "nobody"}'), 200),
        (request("POST", "/status", b'{"pod_uid": "x"}'), 400),
    ] * 200
    with node.connect(way) as s:
        data = b"".join(data for data, _ in calls)
        writer = threading.Thread(target=send, args=(s, data))  # answers fill the buffers meanwhile
        writer.start()
        served_within(node, 1)
        told = answers(s)
        got = [next(told)[0] for _ in calls]
        writer.join()
    assert got == [expected for _, expected in calls]


def test_connections_that_come_and_go(node, way):
    for i in range(500):
        with node.connect(way) as s:
            send(s, request("POST", "/status", b"{}")[: i % 150])
            if i % 7 == 0 and way == "tcp":
                linger = b"\1\0\0\0\0\0\0\0"  # close resets
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    served_within(node, 1)


def test_callers_that_leave_before_they_are_answered(node, way):
    """A freeze that was asked for is carried out all the same; the next caller sees it."""
    agent, uid = node.agent, node.running.uid
    body = json.dumps({"pod_uid": uid}).encode()
    for _ in range(50):
        for path in ("/freeze", "/thaw"):
            with node.connect(way) as s:
                send(s, request("POST", path, body))
    agent.thaw(uid)
    wait_for("only one is frozen", lambda: agent.records().keys() == {node.frozen.uid})


def test_tls_is_not_spoken(node):
    with pytest.raises((ssl.SSLError, OSError)):
        context = ssl._create_unverified_context()
        with node.connect("tcp") as s, context.wrap_socket(s, server_hostname="node"):
            pass


# ---- what it does not start with ----


def start_refused(*flags, environment=None):
    """Runs the agent to its end: (exit status, what it said)."""
    command = [torpor.FREEZE_AGENT, "--log-format", "text", *map(str, flags)]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    return run.returncode, run.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--listen", "0.0.0.0:9696"], ["--listen 0.0.0.0:9696", "--token-file"]),
        (["--listen", ":9696"], ["--listen :9696", "--token-file"]),
        (["--listen", "[::]:9696"], ["--token-file"]),
        (["--listen", "127.0.0.1:9696"], ["--token-file", "--allow-anonymous-loopback"]),
        (
            ["--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0", "--allow-anonymous-loopback"],
            ["--listen 0.0.0.0:0", "--token-file"],
        ),
        (["--listen", "0.0.0.0:0", "--allow-anonymous-loopback"], ["--listen 0.0.0.0:0"]),
        (["--listen", "example.org:80", "--allow-anonymous-loopback"], ["example.org:80"]),
        (["--token-file", "/nonexistent"], ["token file /nonexistent"]),
        (["--token-file", "/dev/null"], ["token file /dev/null"]),
        (["--token-file", "/"], ["token file /"]),
        (["--cgroup-root", "/tmp"], ["/tmp"]),
        (["--state-dir", "/dev/null/x"], ["/dev/null"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_starts_that_are_refused(flags, words, tmp_path):
    own = ["--socket", tmp_path / "s", "--state-dir", tmp_path / "state"]
    own += ["--cgroup-root", torpor.CGROUP_ROOT]
    status, said = start_refused(*own, *flags)
    assert status == 1, said
    assert all(word in said for word in words), said
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("text", ["", "\n", "# nobody\n", "too-short\n", "x" * 4096, "y" * 70000])
def test_a_token_file_that_will_not_do_is_refused_at_the_start(text, tmp_path):
    (tmp_path / "token").write_text(text)
    own = ["--socket", tmp_path / "s", "--state-dir", tmp_path / "state"]
    own += ["--cgroup-root", torpor.CGROUP_ROOT]
    listen = ["--listen", "127.0.0.1:0", "--token-file", tmp_path / "token"]
    status, said = start_refused(*own, *listen)
    assert (status, "token" in said) == (1, True), said


def test_a_token_file_and_anonymous_loopback_do_not_open_other_addresses(tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    own = ["--socket", tmp_path / "s", "--state-dir", tmp_path / "state"]
    both = ["--token-file", tmp_path / "token", "--allow-anonymous-loopback"]
    status, said = start_refused(*own, *both, "--listen", "0.0.0.0:0")
    assert (status, "--allow-anonymous-loopback" in said) == (1, True), said


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["--frobnicate"], "--frobnicate"),
        (["--listn=127.0.0.1:1"], "--listn"),
        (["-l"], "-l"),
        (["freeze"], "freeze"),
        (["--freeze-timeout", "5"], "--freeze-timeout"),
        (["--freeze-timeout", "9ms"], "--freeze-timeout"),
        (["--freeze-timeout", "61s"], "--freeze-timeout"),
        (["--freeze-timeout", "-1s"], "--freeze-timeout"),
        (["--freeze-timeout", "99999999999999999999s"], "--freeze-timeout"),
        (["--freeze-timeout"], "--freeze-timeout"),
        (["--reclaim-chunk", "0"], "--reclaim-chunk"),
        (["--reclaim-chunk", "2G"], "--reclaim-chunk"),
        (["--reclaim-chunk", "16Q"], "--reclaim-chunk"),
        (["--workers", "0"], "--workers"),
        (["--workers", "65"], "--workers"),
        (["--workers", "two"], "--workers"),
        (["--log-level", "loud"], "--log-level"),
        (["--log-format", "xml"], "--log-format"),
        (["--thaw-all=yes"], "--thaw-all"),
        (["--state-dir"], "--state-dir"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_bad_setting_is_refused_by_name(flags, name):
    status, said = start_refused(*flags)
    assert status == 2, said
    assert name in said, said


def test_a_bad_variable_is_refused_by_name():
    for name, value in [("WORKERS", "many"), ("FREEZE_TIMEOUT", "soon"), ("CHECK", "maybe")]:
        status, said = start_refused(environment={f"FREEZE_AGENT_{name}": value})
        assert (status, f"FREEZE_AGENT_{name}" in said) == (2, True), said


def test_a_second_agent_on_the_same_records_is_refused(agent):
    run = agent.run("--socket", agent.directory / "other.sock")
    assert run.returncode == 1
    assert "another agent" in run.stderr
    assert agent.get("/healthz")[0] == 200


def test_a_second_agent_on_the_same_socket_is_refused(agent):
    run = agent.run("--state-dir", agent.directory / "other")
    assert run.returncode == 1
    assert str(agent.socket) in run.stderr
    assert agent.get("/healthz")[0] == 200
