"""deploy/freeze-agent.service: the agent needs no capability and no system call that it forbids."""

import re
import shutil
import socket
import subprocess

import pytest
import torpor
from conftest import require

UNIT = torpor.CHECKOUT / "deploy/freeze-agent.service"
LISTENER = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    listener.accept()
"""


def values(key):
    return [v.split() for v in re.findall(rf"^{key}=(.*)", UNIT.read_text(), re.M)]


def filter_set(name):
    text = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    ).stdout
    members = set()
    for line in text.splitlines()[1:]:
        word = line.strip().partition(" ")[0]
        if word.startswith("@"):
            members |= filter_set(word)
        elif word and not word.startswith("#"):
            members.add(word)
    return members


def allowed_calls():
    """What SystemCallFilter= comes to, read from top to bottom as systemd does."""
    allowed = set()
    for words in values("SystemCallFilter"):
        forbid = words[0].startswith("~")
        for word in words:
            word = word.removeprefix("~")
            calls = filter_set(word) if word.startswith("@") else {word}
            allowed = allowed - calls if forbid else allowed | calls
    return allowed | filter_set("@default")


@pytest.fixture
def confined():
    """Runs as the unit says, as far as that goes without systemd; returns the wrapper."""
    (names,) = values("CapabilityBoundingSet")
    bounding = ",".join(["-all", *("+" + n.removeprefix("CAP_").lower() for n in names)])
    return ["setpriv", f"--bounding-set={bounding}", "--inh-caps=-all", "--no-new-privs"]


def work(agent, pod):
    """A bit of everything."""
    p = pod()
    app = p.app(["/usr/bin/python3", "-c", LISTENER], swap_max=0, stdout=subprocess.PIPE)
    port = int(torpor.read_line(app.process.stdout, "the listener"))
    assert agent.freeze(p.uid)["state"] == "frozen"
    agent.restart(kill=True)
    assert app.frozen()
    assert agent.thaw(p.uid)["already"] is False
    agent.freeze(p.uid)
    with socket.create_connection(("127.0.0.1", port), timeout=20):
        agent.event(p.uid, "woken")
    agent.get("/metrics")
    assert not [line for line in agent.log if line["level"] == "error"]


class ConfinedAgent(torpor.Agent):
    wrapper = ()

    def start(self):
        return super().start(*self.wrapper)


def test_the_capabilities_suffice(pod, confined):
    agent = ConfinedAgent()
    agent.wrapper = confined
    with agent:
        means = agent.get("/metrics")[1]
        with torpor.Agent() as free:
            line = re.compile(r"^freeze_agent_trigger.*", re.M)
            assert line.findall(means) == line.findall(free.get("/metrics")[1])
        work(agent, pod)


def test_the_system_calls_suffice(pod, confined, tmp_path):
    require(shutil.which("strace") and shutil.which("systemd-analyze"), "needs strace and systemd")
    trace = tmp_path / "trace"
    agent = ConfinedAgent()
    agent.wrapper = ["strace", "-D", "-f", "-qq", "-A", "-o", trace, *confined]
    with agent:
        work(agent, pod)
    used = set(re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)[( ]", trace.read_text(), re.M))
    # What comes before the agent itself, in setpriv, is not of the unit.
    used -= {"capset", "setresuid", "setresgid", "setgroups"}
    assert len(used) > 30
    assert sorted(used - allowed_calls()) == []
