"""The ladder's upper rungs on this machine's own kernel, with the smallest server there is."""

import contextlib
import subprocess

import rig
from figures import figure
from rig import torpor


class Server(torpor.Pod):
    """A pod with a server, and whoever asks it."""

    def __init__(self):
        super().__init__(sandbox=False)
        program = str(rig.TOOLS / "hello")
        self.process = self.container().run([program], stdout=subprocess.PIPE)
        self.port = int(torpor.read_line(self.process.stdout, "hello"))
        self.visitor = rig.Tool("visitor", self.port)

    def __exit__(self, *_):
        self.visitor.__exit__()
        super().__exit__(*_)
        torpor.reap()

    def first_response(self):
        return self.visitor.ask("1").msec

    def per_second(self, n):
        return n / (self.visitor.ask(str(n)).msec / 1e3)


def wakes(quick):
    """By turns: a request to a server that runs, and one to a server that is frozen."""
    running, woken = [], []
    with contextlib.ExitStack() as stack:
        agent = stack.enter_context(rig.Agent("--wake-limit", 0))
        client = stack.enter_context(rig.Client(agent))
        baseline, subject = (stack.enter_context(Server()) for _ in range(2))
        for _ in range(10 if quick else 500):
            running.append(baseline.first_response())
            client.freeze(subject.uid)
            woken.append(subject.first_response())
    return running, woken


def throughput(quick):
    """Requests per second by turns: without an agent, with one, and of a pod that was frozen."""
    rounds, n = (2, 200) if quick else (15, 5000)
    without, beside, thawed = [], [], []
    with contextlib.ExitStack() as stack:
        agent = stack.enter_context(rig.Agent())
        server, other = (stack.enter_context(Server()) for _ in range(2))
        agent.freeze(other.uid, reclaim="off")
        agent.thaw(other.uid)
        for _ in range(rounds):
            agent.stop()
            without.append(server.per_second(n))
            agent.start()
            beside.append(server.per_second(n))
            thawed.append(other.per_second(n))
    return without, beside, thawed


def as_fast(one):
    """The difference of the medians is within what the baseline itself varies by."""
    spread = max(one.baseline.values) - min(one.baseline.values)
    return abs(one.difference) <= spread / 2


def figures_of(quick):
    rig.say("first responses, by turns frozen and running")
    running, woken = wakes(quick)
    yield figure(
        "a small server, frozen and in RAM, against running", "first response", "ms", woken, running,
        "median + 1", lambda one: one.difference <= 1,
    )
    rig.say("requests per second")
    without, beside, thawed = throughput(quick)
    group = "requests per second of a small server, against no agent"
    for name, values in (("agent runs, never frozen", beside), ("frozen once, thawed", thawed)):
        yield figure(group, name, "1/s", values, without, "within the spread", as_fast)
