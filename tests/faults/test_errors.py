"""Every system call of a freeze, of a thaw and of a start fails once, with each of the errors.

The agent answers with one of its documented answers, and the pod is frozen as a whole or runs as a
whole, at once or after the agent's own next try; after that a thaw restores everything."""

import collections
import errno
import itertools
import time

import pytest
from faults import (
    POINTS_MIN,
    SLOW,
    STEP,
    TracedAgent,
    Victim,
    bring_back,
    converge,
    freeze,
    half_thaw,
    naming,
    summary,
)

ERRORS = ["EIO", "ENOSPC", "EACCES", "ENOENT", "EAGAIN", "EINTR"]
# Where it is slow each point gets two of them, the next one the next two.
ERRORS_A_POINT = 2 if SLOW else len(ERRORS)

PROBLEMS = {
    404: {"pod_not_found"},
    409: {"conflict"},
    422: {"refused"},
    500: {"io_error"},
    503: {"busy"},
    504: {"freeze_timeout"},
}


def errors_of(n):
    start = n * ERRORS_A_POINT % len(ERRORS)
    return (ERRORS * 2)[start : start + ERRORS_A_POINT]


def order(n, name):
    return f"fail {n} {getattr(errno, name)}"


def is_believed(hit, name):
    """ENOENT is how a directory says that the record is gone, and there is nobody else to ask. The
    next start will find it."""
    return name == "ENOENT" and hit is not None and hit.call == "unlinkat"


def check_documented(status, answer):
    if status == 200:
        assert answer["state"] in ("frozen", "running"), answer
    else:
        assert answer.get("code") in PROBLEMS.get(status, ()), (status, answer)


def tell(what, points, results, started):
    summary.append(
        f"{what}: {points} calls failed, {results.total()} failures: "
        + ", ".join(f"{count} x {result}" for result, count in results.items())
        + f", in {time.monotonic() - started:.0f} s"
    )


# ---- freeze and thaw ----


def ask(agent, pod, operation):
    """The status, once what it promises is true; "died" when the agent did."""
    answered = agent.ask(f"/{operation}", pod)
    if not answered:
        return "died"
    check_documented(*answered)
    # Thaw always wins: whatever the answer is, the pod runs in the end.
    frozen = operation == "freeze" and answered[0] == 200
    state = converge(agent, pod, "frozen" if frozen else "running")
    return "died" if state == "died" else answered[0]


def ask_with(agent, pod, operation, n, name):
    """The same with a failure on the way."""
    try:
        with agent.armed(order(n, name)):
            return ask(agent, pod, operation)
    except AssertionError:
        if not is_believed(agent.hit, name):
            raise
        agent.restart()
        return "believed"


def fail_at(agent, pod, operation, n, name):
    """The result, or None when there is no such point."""
    pod.use_memory()
    if operation == "thaw":
        freeze(agent, pod)
    result = ask_with(agent, pod, operation, n, name)
    if not agent.is_there(pod):
        result = "died"
    with naming(f"{operation} with {name} at {n}, {agent.hit}"):
        converge(agent, pod)
        bring_back(agent, pod)
    return agent.hit and result


@pytest.mark.parametrize("operation", ["freeze", "thaw"])
def test_fail_every_call(operation):
    started, results, points = time.monotonic(), collections.Counter(), 0
    with Victim() as pod, TracedAgent() as agent:
        for n in itertools.count(1, STEP):
            outcomes = [fail_at(agent, pod, operation, n, name) for name in errors_of(n)]
            if None in outcomes:
                break
            points += 1
            results.update(outcomes)
    tell(operation, points, results, started)
    assert points >= POINTS_MIN / 2 / STEP  # not every call can fail


# ---- start ----


def start_with(agent, pod, n, name, found):
    """What became of the pod, or None when the start was through before."""
    freeze(agent, pod)
    agent.kill()
    if found == "half thawed":
        half_thaw(pod)
    agent.start(order(n, name))
    hit = agent.hit = agent.disarm()
    died = not agent.is_there(pod)
    with naming(f"start over a pod {found} with {name} at {n}, {hit}"):
        state = converge(agent, pod, "running" if found == "half thawed" else None)
        bring_back(agent, pod)
    if not agent.ready:  # its self-test failed: it thaws, and asks to be started again
        agent.restart()
    return hit and ("died" if died else state)


@pytest.mark.parametrize("found", ["frozen", "half thawed"])
def test_fail_every_call_of_a_start(found):
    started, results, points = time.monotonic(), collections.Counter(), 0
    with Victim() as pod, TracedAgent() as agent:
        # A start takes its time, above all where everything does: one error a point.
        for n in itertools.count(1, STEP * 2 if SLOW else STEP):
            result = start_with(agent, pod, n, ERRORS[n % len(ERRORS)], found)
            if not result:
                break
            points += 1
            results[result] += 1
    tell(f"start over a pod {found}", points, results, started)
    assert points >= POINTS_MIN / 2 / STEP
