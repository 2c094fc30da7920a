"""Measures of the freezer itself, on this machine's own kernel."""

import tempfile

import rig
from figures import figure


# ---- one pod ----


def rounds(n, state_on=rig.TMPFS):
    """(raw, agent): what freezes and thaws took, by turns, each with a pod of its own."""
    with rig.Agent(state_on=state_on) as agent, rig.Client(agent) as client:
        with rig.Subject() as baseline, rig.Subject() as subject:
            return rig.take_turns(client, baseline, subject, range(n))


THAW_TARGET = "median raw + 0.2, p99 < 2"


def thaw_is_fast(one):
    return one.difference <= 0.2 and one.ours.p99 < 2


def one_pod(quick):
    rig.say("one pod, by turns with raw system calls")
    group = "one pod of two containers, through the socket, against its system calls"
    raw, ours = rounds(10 if quick else 1500)
    yield figure(
        group, "thaw, until the answer", "ms", ours["thaw"], raw["thaw"],
        THAW_TARGET, thaw_is_fast,
    )
    yield figure(
        group, "thaw, until the app runs", "ms", ours["app"], raw["app"],
        THAW_TARGET, thaw_is_fast,
    )
    yield figure(
        group, 'freeze, until "frozen 1"', "ms", ours["freeze"], raw["freeze"],
        "median raw + 1", lambda one: one.difference <= 1,
    )
    rig.say("the same with the records on a disk")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as disk:
        raw, ours = rounds(3 if quick else 300, state_on=disk)
    yield figure(group, "freeze, records on a disk", "ms", ours["freeze"], raw["freeze"])
    yield figure(group, "thaw, records on a disk", "ms", ours["thaw"], raw["thaw"])
    yield figure(group, "the app runs, records on a disk", "ms", ours["app"], raw["app"])


# ---- many pods ----


def freeze_all(client, crowd):
    return [client.freeze(uid).msec for uid in crowd.uids]


def at_rest(agent, seconds):
    """Milliseconds of CPU in that time, while nobody asks."""
    before = agent.cpu_msec()
    rig.time.sleep(seconds)
    return agent.cpu_msec() - before


def restart(agent, times, cpu):
    """Milliseconds from exec to ready, and of the loop's CPU, with the records that are there."""
    agent.stop()
    times.append(agent.start_timed())
    cpu.append(agent.loop_cpu_msec())


def many_pods(quick):
    n, seconds, repeats = (20, 2, 2) if quick else (1000, 60, 7)
    group = f"{n} frozen pods of two containers"
    rig.say(f"{n} pods")
    with rig.Agent() as empty, rig.Agent() as agent, rig.Crowd(n) as crowd:
        rss_empty = empty.rss_mib()
        with rig.Client(agent) as client, rig.Subject() as subject:
            frozen = freeze_all(client, crowd)
            yield figure(group, "freeze of each of them", "ms", frozen)
            yield figure(
                group, "agent's memory, against none", "MiB", [agent.rss_mib()], [rss_empty],
                "< 12", lambda one: one.ours.median < 12,
            )
            rig.say(f"{seconds} s of rest")
            yield figure(
                group, f"agent's CPU in {seconds} s of rest", "ms", [at_rest(agent, seconds)],
                target="0", check=lambda one: one.ours.median < 1,
            )
            statuses = [client.post("/status", "{}") for _ in range(3 if quick else 30)]
            yield figure(group, "status of all", "ms", [s.msec for s in statuses])
            yield figure(group, "status of all", "KiB", [s.bytes / 1024 for s in statuses[:1]])
            with rig.Subject() as baseline:
                turns = range(5 if quick else 500)
                raw, ours = rig.take_turns(client, baseline, subject, turns)
            yield figure(
                group, "thaw of one more, until the answer", "ms", ours["thaw"], raw["thaw"],
                THAW_TARGET, thaw_is_fast,
            )
            yield figure(
                group, "thaw of one more, until the app runs", "ms", ours["app"], raw["app"],
                THAW_TARGET, thaw_is_fast,
            )
        rig.say("starts of the agent")
        none, none_cpu, times, cpu = [], [], [], []
        for _ in range(repeats):
            restart(empty, none, none_cpu)
            restart(agent, times, cpu)
        yield figure(
            group, "start until ready, against none", "ms", times, none,
            "< 300", lambda one: one.ours.median < 300,
        )
        # The part of it that a busy machine does not make longer.
        yield figure(group, "the loop's CPU in that, against none", "ms", cpu, none_cpu)
        crowd.check_frozen()


def figures(quick):
    yield from one_pod(quick)
    yield from many_pods(quick)
