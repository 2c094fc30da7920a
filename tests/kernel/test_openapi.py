"""docs/openapi.yaml against a running agent: neither may say what the other does not.

Every answer is checked against the schema of its route and status, and noted. The last test asks
whether all that the page promises was seen.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

import jsonschema
import pytest
import torpor
import yaml
from conftest import require
from torpor import wait_for

PAGE = yaml.safe_load((torpor.CHECKOUT / "docs/openapi.yaml").read_text())
NOBODY = 65534
TOKEN = "a-token-of-this-test"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
OPERATIONS = [(path, method) for path, item in PAGE["paths"].items() for method in item]
has_fuse = os.path.exists("/dev/fuse") or subprocess.run(
    ["modprobe", "-d", "/run/modules", "fuse"], capture_output=True, check=False
).returncode == 0

# (operation or None for all, status or None, what): why it is not seen.
EXCUSED = {
    (None, 500, "internal_error"): "needs an agent without memory",
    ("post /thaw", 500, "io_error"): "needs a kernel that refuses to thaw",
    ("post /status", 500, "io_error"): "needs a kernel that refuses to be read",
    ("get /metrics", 500, "io_error"): "needs an agent without memory",
    ("post /thaw", 503, "busy"): "needs an agent without memory",
    ("post /thaw", 503, "deadline"): "needs ten minutes and a kernel that refuses to thaw",
    ("post /thaw", 503, "unavailable"): "needs a thaw that takes as long as the agent's end",
    ("post /status", 503, "busy"): "needs an agent without memory",
    ("get /events", 503, "busy"): "needs an agent without memory",
    ("post /status", 409, "conflict"): "needs a container that goes between two system calls",
}
if not has_fuse:
    EXCUSED |= {
        ("post /freeze", 504, "freeze_timeout"): "needs FUSE",
        ("post /freeze", 503, "busy"): "needs FUSE",
        ("post /freeze", 503, "unavailable"): "needs FUSE",
    }
if not torpor.has_memory:
    EXCUSED[("get /events", 200, "EventReclaimed")] = "needs the memory controller"

SEEN = set()


# ---- the page ----


def resolve(node):
    while "$ref" in node:
        target = PAGE
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return node


def validator(schema):
    resolver = jsonschema.RefResolver("", PAGE)
    return jsonschema.Draft202012Validator(schema, resolver=resolver)


def name_of(reference):
    return reference["$ref"].rpartition("/")[2]


def choices(schema):
    """What the schema offers: the names of a oneOf, the codes of a problem, or just itself."""
    schema = resolve(schema)
    if "oneOf" in schema:
        return {name_of(choice) for choice in schema["oneOf"]}
    code = schema.get("properties", {}).get("code", {})
    return set(code.get("enum", [code["const"]] if "const" in code else [None]))


def chosen(schema, body):
    schema = resolve(schema)
    if "oneOf" in schema:
        (choice,) = (name_of(c) for c in schema["oneOf"] if validator(c).is_valid(body))
        return choice
    return body.get("code") if isinstance(body, dict) else None


def check(response, content_type, headers, body):
    """Validates one answer; returns which of the choices it was."""
    schema = response["content"][content_type]["schema"]
    validator(schema).validate(body)
    for name, header in response.get("headers", {}).items():
        validator(header["schema"]).validate(headers.get(name))
    return chosen(schema, body)


def check_answer(path, method, status, content_type, headers, body):
    responses = PAGE["paths"][path][method]["responses"]
    assert str(status) in responses, f"{method} {path}: {status} is not on the page: {body}"
    choice = check(resolve(responses[str(status)]), content_type, headers, body)
    SEEN.add((f"{method} {path}", status, choice))


def promised():
    for path, method in OPERATIONS:
        for status, response in PAGE["paths"][path][method]["responses"].items():
            for media in resolve(response)["content"].values():
                for choice in choices(media["schema"]):
                    yield f"{method} {path}", int(status), choice


def is_excused(operation, status, choice):
    return (operation, status, choice) in EXCUSED or (None, status, choice) in EXCUSED


# ---- calls ----


@contextlib.contextmanager
def user(uid):
    """Whoever connects meanwhile is that user to the kernel."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


class Tcp(http.client.HTTPConnection):
    def __init__(self, port, uid=0):
        super().__init__("127.0.0.1", port, timeout=60)
        self._uid = uid

    def connect(self):
        with user(self._uid):
            super().connect()


class Local(torpor._UnixConnection):
    def __init__(self, agent, uid=0):
        super().__init__(agent.socket, 120)
        self._uid = uid

    def connect(self):
        with user(self._uid):
            super().connect()


def call(connection, method, path, body=None, headers=None):
    """One request, its answer checked: (status, answer)."""
    with contextlib.closing(connection):
        text = json.dumps(body) if isinstance(body, dict) else body
        with contextlib.suppress(BrokenPipeError):  # refused before all of it was sent
            connection.request(method.upper(), path, text, headers or {})
        response = connection.getresponse()
        answer = response.read().decode()
    content_type = response.getheader("Content-Type").partition(";")[0]
    if content_type.endswith("json"):
        answer = json.loads(answer)
    route = path.partition("?")[0]
    # Another method than the route's is answered on the page of the route's own.
    (own,) = PAGE["paths"][route]
    check_answer(route, own, response.status, content_type, response.headers, answer)
    return response.status, answer


def post(agent, path, body, uid=0):
    return call(Local(agent, uid), "post", path, body)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def valid_body(path, method):
    if method == "get":
        return None
    return {} if path == "/status" else {"pod_uid": UNKNOWN}


# ---- the page by itself ----


def test_the_schemas_are_schemas():
    def walk(node):
        if isinstance(node, dict):
            if "schema" in node:
                jsonschema.Draft202012Validator.check_schema(node["schema"])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(PAGE["paths"])
    walk(PAGE["components"]["responses"])
    for schema in PAGE["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


OPEN = {"StatusFields", "Problem", "Readiness", "EventOfStream", "EventOfPod"}  # bases of others


def test_no_schema_lets_unknown_members_through():
    """An object's schema is closed, or is one of the bases that closed ones extend."""

    def walk(name, node):
        if isinstance(node, list):
            for value in node:
                walk(name, value)
        if not isinstance(node, dict):
            return
        is_object = node.get("type") == "object" or ("$ref" in node and "properties" in node)
        if is_object and name not in OPEN:
            closed = node.get("additionalProperties", node.get("unevaluatedProperties"))
            assert closed is False, f"{name}: {node}"
        for key, value in node.items():
            # Parts of a base are looked at for themselves.
            walk(f"{name}.{key}" if name in OPEN else name, value)

    for name, schema in PAGE["components"]["schemas"].items():
        walk(name, schema)
    for name, response in PAGE["components"]["responses"].items():
        walk(name, response)
    for path, method in OPERATIONS:
        for status, response in PAGE["paths"][path][method]["responses"].items():
            if "$ref" not in response:
                for media in response["content"].values():
                    schema = media["schema"]
                    if "$ref" in schema and "properties" not in schema:
                        assert name_of(schema) not in OPEN, f"{method} {path} {status}"
                    walk(f"{method} {path} {status}", schema)


def test_the_routes_and_fields_are_those_of_the_source():
    source = (torpor.CHECKOUT / "src/agent/api.c").read_text()
    routes = re.findall(r'\{ HTTP_(GET|POST), "(/\w+)", HTTP_ACCESS_\w+,?([^}]*)\}', source)
    assert {(path, method.lower()) for method, path, _ in routes} == set(OPERATIONS)
    for method, path, rest in routes:
        table = re.search(r"FIELDS_OF\((\w+)\)", rest)
        text = re.search(rf"{table[1]}\[\] = \{{(.*?)\n\}};", source, re.S)[1] if table else ""
        operation = PAGE["paths"][path][method.lower()]
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        fields = resolve(body["schema"])["properties"].keys() if body else set()
        parameters = {p["name"] for p in operation.get("parameters", [])}
        assert set(re.findall(r'\.name = "(\w+)"', text)) == set(fields) | parameters, path


def test_the_version_is_ours():
    assert PAGE["info"]["version"] == (torpor.CHECKOUT / "VERSION").read_text().strip()


# ---- what a caller may send ----

UID = "8d3f2a54-6b1e-4c57-9a0f-5d7e1c2b3a49"
BODIES = {
    "/freeze": [
        {"pod_uid": UID},
        {"pod_uid": "0123456789abcdef0123456789abcdef"},
        {"pod_uid": UID, "reclaim": "off", "wake_on": "none", "group": "a/b.c_-E", "generation": 0},
        {"pod_uid": UID, "reclaim": "background", "generation": 2**53, "group": "g" * 128},
        *({"pod_uid": UID, "wake_on": w} for w in ["request", "connect", "data", "none"]),
        *({"pod_uid": UID, "reclaim": "background", "reclaim_after": n} for n in [0, 7, 604801]),
        *({"pod_uid": UID, "reclaim": r, "reclaim_after": 7} for r in ["wait", "off"]),
        {"pod_uid": UID, "reclaim": "background", "reclaim_after": 604800},
        {"pod_uid": UID, "reclaim_after": 0},
        {"pod_uid": UID, "reclaim_after": 5},
        *({"pod_uid": u} for u in ["", "x", UID.upper(), UID[:-1], UID + "0"]),
        *({"pod_uid": u} for u in [None, 1, True, [UID], {"uid": UID}]),
        *({"pod_uid": u} for u in [UID.replace("-", "_"), "../" + UID, UID + "\0"]),
        *({"pod_uid": UID, "generation": g} for g in [-1, 2**53 + 1, 1.5, "1", None, True]),
        *({"pod_uid": UID, "group": g} for g in ["", "g" * 129, "a b", "ä", 1, None, "a\nb"]),
        *({"pod_uid": UID, "reclaim": r} for r in ["", "WAIT", 0, True, False, None]),
        *({"pod_uid": UID, "wake_on": w} for w in ["", "packet", 1, None]),
        {},
        {"generation": 1},
        {"pod_uid": UID, "force": True},
        {"pod_uid": UID, "Reclaim": "off"},
    ],
    "/thaw": [
        {"pod_uid": UID},
        {"group": "nobody-is-in-it"},
        {"group": "nobody-is-in-it", "generation": 3},
        {"pod_uid": UID, "group": "g"},
        {},
        {"generation": 3},
        {"pod_uid": UID, "reclaim": "off"},
        {"group": ""},
        {"pod_uid": ""},
    ],
    "/status": [{}, {"pod_uid": UID}, {"pod_uid": "x"}, {"pod_uid": None}, {"group": "g"}],
}


def test_the_agent_takes_what_the_page_allows_and_nothing_else(agent):
    for path, bodies in BODIES.items():
        content = PAGE["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        schema = validator(content["schema"])
        for body in bodies:
            status, answer = post(agent, path, body)
            assert schema.is_valid(body) == (status != 400), f"{path} {body}: {answer}"


def test_since_is_as_on_the_page(agent):
    (parameter,) = PAGE["paths"]["/events"]["get"]["parameters"]
    schema = validator(parameter["schema"])
    for value in ["0", "1", str(2**53), str(2**53 + 1), "-1", "1.5", "", "x", "0x1", "1e3"]:
        number = int(value) if re.fullmatch("-?[0-9]+", value) else value
        if not schema.is_valid(number):
            assert call(Local(agent), "get", f"/events?since={value}")[0] == 400
        else:
            with contextlib.closing(agent.events(since=value)) as events:
                check_event(next(events))


def test_a_node_without_kubelet_knows_no_pod(agent):
    for path, method in OPERATIONS:
        if method == "post" and path != "/status":
            assert post(agent, path, {"pod_uid": UNKNOWN})[0] == 404
    assert post(agent, "/status", {"pod_uid": UNKNOWN})[0] == 404


# ---- refusals of every route ----


def test_refusals_that_every_route_has(agent):
    for path, method in OPERATIONS:
        body = valid_body(path, method)
        assert call(Local(agent), method, f"{path}?colour=red", body)[0] == 400
        assert call(Local(agent), "delete", path)[0] == 405
        assert call(Local(agent), "get" if method == "post" else "post", path)[0] == 405
        many = {f"X-{i}": "x" for i in range(80)}
        assert call(Local(agent), method, path, body, many)[0] == 431
        if method == "post":
            assert call(Local(agent), method, path, "")[0] == 400
            assert call(Local(agent), method, path, "[]")[0] == 400
            assert call(Local(agent), method, path, " " * 4097)[0] == 413
            xml = {"Content-Type": "text/xml"}
            assert call(Local(agent), method, path, body, xml)[0] == 415


def test_head_is_answered_like_get_without_a_body(agent):
    for path in ("/healthz", "/readyz", "/metrics"):
        for method in ("GET", "HEAD"):
            with contextlib.closing(Local(agent)) as connection:
                connection.request(method, path)
                response = connection.getresponse()
                assert response.status == 200
                assert bool(response.read()) == (method == "GET")


def test_a_path_that_is_not_on_the_page(agent):
    for path in ["/", "/freeze/", "/v1/freeze", "//freeze", "/%66reeze", "/FREEZE", "/events/1"]:
        with contextlib.closing(Local(agent)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            body = json.loads(response.read())
        assert response.status == 404
        page = PAGE["components"]["responses"]["NoSuchPath"]
        assert check(page, "application/problem+json", response.headers, body) == "not_found"


def test_who_may_call(new_agent, tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    port, open_port = free_port(), free_port()
    agent = new_agent("--listen", f"127.0.0.1:{port}", "--token-file", token_file)
    anonymous = new_agent("--listen", f"127.0.0.1:{open_port}", "--allow-anonymous-loopback")
    agent.directory.chmod(0o711)
    agent.socket.chmod(0o666)
    for path, method in OPERATIONS:
        public = PAGE["paths"][path][method].get("security") == [{}]
        body = valid_body(path, method)
        wrong = {"Authorization": "Bearer wrong-token-of-this-test"}
        right = {"Authorization": f"Bearer {TOKEN}"}
        if public:
            assert call(Tcp(port), method, path, body)[0] == 200
            assert call(Local(agent, NOBODY), method, path, body)[0] == 200
            continue
        assert call(Tcp(port), method, path, body)[0] == 401
        assert call(Tcp(port), method, path, body, wrong)[0] == 401
        assert call(Local(agent, NOBODY), method, path, body)[0] == 403
        if path != "/events":
            assert call(Tcp(port), method, path, body, right)[0] in (200, 404)
            expected = 403 if path in ("/freeze", "/thaw") else 200
            assert call(Tcp(open_port, NOBODY), method, path, body)[0] == expected


# ---- one pod ----


def test_the_states_of_a_pod(agent, pod):
    p = pod()
    p.app(swap_max=0)
    _, running = post(agent, "/status", {"pod_uid": p.uid})
    assert (running["state"], running["foreign"]) == ("running", False)
    _, first = post(agent, "/freeze", {"pod_uid": p.uid, "group": "team-a", "generation": 7})
    assert (first["state"], first["already"], first["group"]) == ("frozen", False, "team-a")
    _, second = post(agent, "/freeze", {"pod_uid": p.uid})
    assert second["already"] is True
    _, frozen = post(agent, "/status", {"pod_uid": p.uid})
    assert "foreign" not in frozen
    _, every = post(agent, "/status", {})
    assert [s["pod_uid"] for s in every["pods"]] == [p.uid]
    status, stale = post(agent, "/freeze", {"pod_uid": p.uid, "generation": 6})
    assert (status, stale["code"]) == (409, "stale_generation")
    _, thawed = post(agent, "/thaw", {"pod_uid": p.uid})
    assert (thawed["state"], thawed["already"]) == ("running", False)
    _, again = post(agent, "/thaw", {"pod_uid": p.uid})
    assert again["already"] is True
    assert post(agent, "/status", {})[1] == {"pods": []}


@pytest.mark.memory
def test_reclaim_that_is_put_off(agent, pod):
    p = pod()
    p.app(swap_max=0)
    body = {"pod_uid": p.uid, "reclaim": "background", "reclaim_after": 3600}
    assert post(agent, "/freeze", body)[1]["reclaim"] == "waiting"
    assert post(agent, "/thaw", {"pod_uid": p.uid})[1]["state"] == "running"


@pytest.mark.parametrize("reclaim", ["wait", "background", "off"])
def test_the_ways_to_reclaim(agent, pod, reclaim):
    p = pod()
    p.app(swap_max=0)
    _, answer = post(agent, "/freeze", {"pod_uid": p.uid, "reclaim": reclaim})
    if reclaim == "off":
        assert answer["reclaim"] == "none"
    elif not torpor.has_memory:
        assert (answer["reclaim"], answer["reason"]) == ("stopped", "no_memory_controller")
    post(agent, "/thaw", {"pod_uid": p.uid})


def test_a_group(agent, pod):
    pods = [pod() for _ in range(3)]
    for p, group in zip(pods, ["a", "a", "b"]):
        p.app()
        post(agent, "/freeze", {"pod_uid": p.uid, "group": group})
    _, answer = post(agent, "/thaw", {"group": "a"})
    assert {s["pod_uid"] for s in answer["pods"]} == {pods[0].uid, pods[1].uid}
    assert answer["already"] is False
    assert post(agent, "/thaw", {"group": "a"})[1] == {"pods": [], "already": True}
    assert pods[2].all_frozen()
    post(agent, "/thaw", {"group": "b"})


def test_a_pod_that_somebody_else_froze(agent, pod):
    p = pod()
    app = p.app()
    app.write("cgroup.freeze", 1)
    wait_for("frozen", app.frozen)
    _, status = post(agent, "/status", {"pod_uid": p.uid})
    assert (status["state"], status["foreign"]) == ("frozen", True)
    for path in ("/freeze", "/thaw"):
        status, answer = post(agent, path, {"pod_uid": p.uid})
        assert (status, answer["code"]) == (409, "conflict")


def test_pods_that_are_refused(new_agent, pod):
    agent = new_agent()
    empty = pod()
    status, answer = post(agent, "/freeze", {"pod_uid": empty.uid})
    assert (status, answer["reasons"]) == (422, ["no_containers"])
    assert post(agent, "/status", {"pod_uid": empty.uid})[1]["containers"] == []

    crowd = pod()
    container = crowd.app()
    for i in range(128):  # and its own
        (container.path / str(i)).mkdir()
    status, answer = post(agent, "/freeze", {"pod_uid": crowd.uid})
    assert (status, answer["reasons"]) == (422, ["too_many_cgroups"])
    for path in ("/status", "/thaw"):
        assert post(agent, path, {"pod_uid": crowd.uid})[0] == 422

    own = pod()
    home = Path("/proc/self/cgroup").read_text().splitlines()[-1].partition("::")[2]
    own.container().write("cgroup.procs", agent.process.pid)
    status, answer = post(agent, "/freeze", {"pod_uid": own.uid})
    assert (status, answer["reasons"]) == (422, ["own_pod"])
    status, answer = post(agent, "/status", {"pod_uid": own.uid})
    assert (status, answer["reasons"]) == (422, ["own_pod"])
    group = torpor.Cgroup(torpor.CGROUP_ROOT / home.lstrip("/"))
    group.write("cgroup.procs", agent.process.pid)


def test_a_record_that_cannot_be_written(agent, pod):
    p = pod()
    app = p.app()
    shutil.rmtree(agent.state)
    status, answer = post(agent, "/freeze", {"pod_uid": p.uid})
    assert (status, answer["code"], answer["errno"]) == (500, "io_error", "ENOENT")
    assert not app.frozen()


# ---- pods that will not freeze ----


@pytest.fixture
def stuck(pod, tmp_path):
    """A pod with a process that waits in the kernel for a file system that does not answer."""
    require(has_fuse, "no FUSE here")
    server = subprocess.Popen(
        [torpor.BUILT_WORKLOADS / "silentfs", tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        torpor.read_line(server.stdout, "silentfs")
        p = pod()
        app = p.app(["cat", tmp_path / "file"])
        stat = Path(f"/proc/{app.process.pid}/stat")
        wait_for("cat waits in the kernel", lambda: stat.read_text().split()[2] == "D")
        yield p
        server.stdin.close()


def test_a_freeze_that_takes_too_long(new_agent, stuck):
    agent = new_agent("--freeze-timeout", "100ms")
    status, answer = post(agent, "/freeze", {"pod_uid": stuck.uid})
    assert (status, answer["code"]) == (504, "freeze_timeout")


def test_freezes_that_wait(new_agent, stuck):
    """One too many is told so; a thaw is answered all the same; the others hear of it."""
    agent = new_agent("--freeze-timeout", "30s")
    answers = []

    def freeze():
        answers.append(post(agent, "/freeze", {"pod_uid": stuck.uid}))

    threads = [threading.Thread(target=freeze) for _ in range(33)]
    for thread in threads:
        thread.start()
    wait_for("one is refused", lambda: answers)
    assert (answers[0][0], answers[0][1]["code"]) == (503, "busy")
    assert post(agent, "/status", {"pod_uid": stuck.uid})[1]["state"] == "freezing"
    assert post(agent, "/thaw", {"pod_uid": stuck.uid})[0] == 200
    for thread in threads:
        thread.join()
    assert {(s, a["code"]) for s, a in answers[1:]} == {(409, "conflict")}


def test_a_freeze_when_the_agent_ends(new_agent, stuck):
    agent = new_agent("--freeze-timeout", "30s")
    answers = []

    def freeze():
        answers.append(post(agent, "/freeze", {"pod_uid": stuck.uid}))

    thread = threading.Thread(target=freeze)
    thread.start()
    wait_for("it waits", lambda: agent.status()["pods"])
    agent.process.send_signal(signal.SIGTERM)
    thread.join()
    assert (answers[0][0], answers[0][1]["code"]) == (503, "unavailable")
    agent.restart()  # rolls back


# ---- events ----


def check_event(event):
    schema = PAGE["paths"]["/events"]["get"]["responses"]["200"]["content"]["application/x-ndjson"]
    validator(schema["schema"]).validate(event)
    SEEN.add(("get /events", 200, chosen(schema["schema"], event)))
    return event


def read_until(agent, kind, since=0, seconds=20):
    """Every line up to the first of that type, each checked."""
    with contextlib.closing(agent.events(since, seconds)) as events:
        for event in events:
            yield check_event(event)
            if event["type"] == kind:
                return


def test_the_events_of_a_pod(agent, pod):
    p, other = pod(), pod()
    p.app(swap_max=0)
    apps = [other.app(), other.app()]
    agent.freeze(p.uid)
    agent.thaw(p.uid)
    agent.freeze(other.uid, group="team-a")
    apps[0].write("cgroup.freeze", 0)
    wait_for("the rest follows", lambda: agent.records() == {})
    agent.freeze(p.uid)
    p.remove()
    told = list(read_until(agent, "gone"))
    assert told[0]["type"] == "hello"
    kinds = [event["type"] for event in told[1:] if event["type"] != "reclaimed"]
    assert kinds == ["frozen", "thawed", "frozen", "drift", "thawed", "frozen", "gone"]
    assert [e["cause"] for e in told if e["type"] == "thawed"] == ["request", "drift"]
    assert [e["seq"] for e in told[1:]] == list(range(1, len(told)))


LISTENER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    listener.accept()
"""


def test_a_packet_wakes_a_group(new_agent, pod):
    agent = new_agent("--wake-limit", "1")
    p, other = pod(), pod()
    app = p.app(["/usr/bin/python3", "-c", LISTENER], stdout=subprocess.PIPE)
    other.app()
    port = int(torpor.read_line(app.process.stdout, "the listener"))
    agent.freeze(other.uid, group="team-a")
    agent.freeze(p.uid, group="team-a")
    with socket.create_connection(("127.0.0.1", port), timeout=20):
        told = list(read_until(agent, "woken"))
        assert (told[-1]["cause"], told[-1]["port"]) == ("connection", port)
        told = list(read_until(agent, "thawed"))
        assert (told[-1]["cause"], told[-1]["pod_uid"]) == ("group", other.uid)
    status, answer = post(agent, "/freeze", {"pod_uid": p.uid})
    assert (status, answer["reasons"]) == (422, ["wake_limit"])


def test_events_that_are_no_longer_kept(agent, pod):
    p = pod()
    p.app()
    while agent.thaw(p.uid) and agent.freeze(p.uid, reclaim="off"):
        with contextlib.closing(agent.events()) as events:
            if next(events)["seq"] == 0 and next(events)["type"] == "lost":
                break
        for _ in range(300):
            agent.thaw(p.uid)
            agent.freeze(p.uid, reclaim="off")
    told = list(read_until(agent, "frozen"))
    assert [e["type"] for e in told[:2]] == ["hello", "lost"]
    assert told[2]["seq"] == told[1]["missed"] + 1 == told[1]["seq"] + 1
    agent.thaw(p.uid)


def test_too_many_streams_and_a_heartbeat_when_nothing_happens(agent):
    with contextlib.ExitStack() as stack:
        streams = []
        for _ in range(64):
            connection = stack.enter_context(contextlib.closing(Local(agent)))
            connection.request("GET", "/events")
            streams.append(connection.getresponse())
        assert {stream.status for stream in streams} == {200}
        assert call(Local(agent), "get", "/events")[0] == 503
        assert post(agent, "/status", {})[0] == 503
        told = [check_event(json.loads(streams[0].readline())) for _ in range(2)]
        assert [e["type"] for e in told] == ["hello", "heartbeat"]
    # That a reader has gone is noticed at the next line for it.
    wait_for("there is room", lambda: call(Local(agent), "post", "/status", {})[0] == 200, 40)


# ---- the node ----


def test_health(agent):
    for path in ("/healthz", "/readyz", "/metrics"):
        assert call(Local(agent), "get", path)[0] == 200


class UnreadyAgent(torpor.Agent):
    def _is_ready(self):
        with contextlib.suppress(OSError):
            return self.request("GET", "/readyz")[0] == 503


READ_ONLY = 'mount -t tmpfs -o ro tmpfs "$1" && shift && exec "$@"'


def test_a_node_that_cannot_keep_records_is_not_ready():
    agent = UnreadyAgent()
    agent.state.mkdir()
    try:
        agent.start("unshare", "--mount", "sh", "-c", READ_ONLY, "sh", agent.state)
        status, answer = call(Local(agent), "get", "/readyz")
    finally:
        agent.__exit__()
    assert status == 503
    assert [c["name"] for c in answer["checks"] if c["verdict"] == "failure"] == ["state"]


def test_the_metrics_are_those_of_the_operations_page(agent):
    _, text = call(Local(agent), "get", "/metrics")
    told = set(re.findall(r"^# TYPE (freeze_agent_\w+)", text, re.M))
    page = (torpor.CHECKOUT / "docs/operations.md").read_text()
    assert told == set(re.findall(r"^\| `(freeze_agent_\w+)", page, re.M))
    values = set(re.findall(r'\{\w+="([a-z_.]+|[245]xx)"', text))
    missing = {value for value in values if f"`{value}`" not in page}
    assert not missing, "label values that the page does not explain"


# ---- the last word ----


def test_everything_on_the_page_was_seen(request):
    here = {item.originalname for item in request.session.items if item.module is request.module}
    if here != {name for name in vars(request.module) if name.startswith("test_")}:
        pytest.skip("only a part of this file was run")
    expected = set(promised())
    missing = sorted(str(p) for p in expected - SEEN if not is_excused(*p))
    assert not missing, "on the page and never seen"
    assert SEEN <= expected
    excuses_used = {p for p in expected if is_excused(*p)}
    wrong = sorted(str(p) for p in excuses_used & SEEN)
    assert not wrong, "excused, and yet seen: take the excuse away"
