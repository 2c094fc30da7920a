"""kill -9 right after every system call of a freeze, of a thaw and of a start, then a new start.

The table is generated: the process dies after its first call, then after its second, and so on until
the operation is through before its end comes."""

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
    is_frozen,
    is_running,
    leftover_groups,
    naming,
    summary,
)
from torpor import wait_for


def do_nothing(agent, pod):
    """It runs already."""


# A start takes its time, above all where everything does.
START_STEP = STEP * 4 if SLOW else STEP

OPERATIONS = {"freeze": (do_nothing, is_frozen), "thaw": (freeze, is_running)}


def die_at(agent, pod, operation, n):
    """The Hit, or None when the operation was through before its n-th call."""
    prepare, is_done = OPERATIONS[operation]
    pod.use_memory()
    prepare(agent, pod)
    with agent.armed(f"kill {n}"):
        agent.ask(f"/{operation}", pod)
        wait_for("the end of either", lambda: agent.died() or is_done(agent, pod))
    return agent.hit


def tell(what, states, started):
    summary.append(
        f"{what}: killed at {len(states)} points, {STEP} calls apart, then found "
        f"{states.count('running')} times running, {states.count('frozen')} times frozen, "
        f"in {time.monotonic() - started:.0f} s"
    )


@pytest.mark.parametrize("operation", OPERATIONS)
def test_kill_after_every_call(operation):
    started, states = time.monotonic(), []
    with Victim() as pod, TracedAgent() as agent:
        for n in itertools.count(1, STEP):
            hit = die_at(agent, pod, operation, n)
            if not hit:
                break
            agent.start_again()
            with naming(f"{operation} killed at {n}, {hit}"):
                states.append(converge(agent, pod))
                bring_back(agent, pod)
    tell(operation, states, started)
    assert len(states) >= POINTS_MIN / STEP


@pytest.mark.parametrize("found", ["frozen", "half thawed"])
def test_kill_after_every_call_of_a_start(found):
    """From the lock of the state directory on: the next start finds what this one would have found,
    and nothing is in its way."""
    started, states = time.monotonic(), []
    with Victim() as pod, TracedAgent() as agent:
        for n in itertools.count(1, START_STEP):
            freeze(agent, pod)
            agent.kill()
            if found == "half thawed":
                half_thaw(pod)
            agent.start(f"kill {n}")
            agent.hit = agent.disarm()
            if not agent.hit:
                break
            agent.start_again()
            with naming(f"start killed at {n}, {agent.hit}"):
                states.append(converge(agent, pod, "frozen" if found == "frozen" else "running"))
                assert leftover_groups() == []
                bring_back(agent, pod)
    tell(f"start over a pod {found}", states, started)
    assert len(states) >= POINTS_MIN / 2 / STEP
