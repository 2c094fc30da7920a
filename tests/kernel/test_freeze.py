"""Freeze and thaw, as a caller sees them and as the kernel's files show them."""

import contextlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import torpor
from conftest import require
from torpor import MB, Cgroup, Layout, NodeHog, Problem, wait_for


def originals(answer):
    return {c["id"]: c["swap_max_original"] for c in answer["containers"]}


def cpu_moves(cgroup, seconds=0.3):
    """Does the CPU time move while we look?"""
    before = cgroup.cpu_usec()
    time.sleep(seconds)
    return cgroup.cpu_usec() != before


@contextlib.contextmanager
def swap_off():
    """Takes the guest's swap away for a while."""
    devices = [line.split()[0] for line in Path("/proc/swaps").read_text().splitlines()[1:]]
    require(devices, "no swap here")
    subprocess.run(["swapoff", *devices], check=True)
    try:
        yield
    finally:
        subprocess.run(["swapon", *devices], check=True)


@contextlib.contextmanager
def small_swap(megabytes):
    """A swap file of that size instead of the guest's."""
    with swap_off(), tempfile.NamedTemporaryFile(dir="/dev/shm") as backing:
        subprocess.run(["truncate", "-s", f"{megabytes}M", backing.name], check=True)
        subprocess.run(["modprobe", "-d", "/run/modules", "loop"], check=True)
        loop = subprocess.run(
            ["losetup", "--find", "--show", backing.name],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        subprocess.run(["mkswap", loop], check=True, capture_output=True)
        subprocess.run(["swapon", loop], check=True)
        try:
            yield
        finally:
            subprocess.run(["swapoff", loop], check=True)
            subprocess.run(["losetup", "--detach", loop], check=True)


# ---- what it is for ----


@pytest.mark.memory
def test_a_node_process_goes_to_swap_and_comes_back(agent, pod):
    p = pod()
    app = p.container(swap_max=0)
    node = NodeHog(app, 100)
    checksum, pid = node.get("/sum"), node.get("/pid")
    assert node.get("/counter") == "1"
    before = app.memory_current()
    assert before > 100 * MB

    answer = agent.freeze(p.uid)

    assert answer["state"] == "frozen"
    assert answer["already"] is False
    assert answer["reclaim"] == "done"
    assert answer["memory"]["before"] >= 100 * MB
    assert answer["memory"]["current"] == pytest.approx(app.memory_current(), abs=MB)
    assert app.frozen()
    assert not cpu_moves(app)
    assert app.memory_current() < before * 5 / 100
    assert app.swap_current() > 100 * MB

    answer = agent.thaw(p.uid)

    assert answer["state"] == "running"
    assert app.swap_max() == "0"
    assert not app.frozen()
    assert (node.get("/sum"), node.get("/pid")) == (checksum, pid)
    assert node.get("/counter") == "2"


def test_a_frozen_pod_uses_no_cpu_and_answers_when_thawed(agent, pod):
    p = pod()
    node = NodeHog(p.container(), 1)
    agent.freeze(p.uid, wake_on="none")
    waiting = node.send("/counter")  # the kernel accepts it for the frozen process
    assert not cpu_moves(node.container)
    agent.thaw(p.uid)
    with contextlib.closing(waiting):
        assert waiting.getresponse().read() == b"1"


@pytest.mark.memory
def test_every_original_of_swap_max_is_restored(agent, pod):
    p = pod()
    limits = ["0", str(64 * MB), "max"]
    apps = [p.app(swap_max=limit) for limit in limits]

    answer = agent.freeze(p.uid)

    assert originals(answer) == {a.id: limit for a, limit in zip(apps, limits)}
    assert [a.swap_max() for a in apps] == ["max"] * 3
    assert p.all_frozen()
    agent.thaw(p.uid)
    assert [a.swap_max() for a in apps] == limits


@pytest.mark.memory
def test_the_sandbox_stays_awake_and_untouched(agent, pod):
    p = pod()
    p.app()
    p.sandbox.write("memory.swap.max", 4 * MB)
    answer = agent.freeze(p.uid)
    assert p.sandbox.id not in originals(answer)
    assert not p.sandbox.frozen()
    assert p.sandbox.read("memory.swap.max") == str(4 * MB)
    assert Cgroup(p.path).read("cgroup.freeze") == "0"


@pytest.mark.memory
@pytest.mark.parametrize("mode", ["wait", "background", "off"])
def test_reclaim_modes(agent, pod, mode):
    p = pod()
    app = p.container(swap_max=0)
    torpor.hog(app, 32)
    answer = agent.freeze(p.uid, reclaim=mode)
    assert answer["state"] == "frozen"
    if mode == "off":
        assert answer["reclaim"] == "none"
        assert app.memory_current() > 32 * MB
    else:
        wait_for("the memory is in swap", lambda: app.swap_current() > 31 * MB)
    if mode == "wait":
        assert answer["reclaim"] == "done"


# ---- asking twice ----


@pytest.mark.memory
def test_freezing_twice_changes_nothing(agent, pod):
    p = pod()
    app = p.app(swap_max=0)
    first = agent.freeze(p.uid)
    records = agent.records()

    second = agent.freeze(p.uid)

    assert (first["already"], second["already"]) == (False, True)
    assert second["containers"] == first["containers"]
    assert second["frozen_at"] == first["frozen_at"]
    assert agent.records() == records  # byte for byte
    agent.thaw(p.uid)
    assert app.swap_max() == "0"


def test_thawing_twice_succeeds(agent, pod):
    p = pod()
    app = p.app()
    agent.freeze(p.uid)
    assert agent.thaw(p.uid)["already"] is False
    assert agent.thaw(p.uid)["already"] is True
    assert not app.frozen()
    assert agent.records() == {}


@pytest.mark.memory
@pytest.mark.parametrize("kill", [False, True], ids=["stop", "kill"])
def test_a_restart_keeps_the_pod_frozen_and_its_originals(agent, pod, kill):
    p = pod()
    app = p.app(swap_max=0)
    first = agent.freeze(p.uid)
    records = agent.records()

    agent.restart(kill=kill)

    assert app.frozen()
    assert agent.records() == records
    second = agent.freeze(p.uid)
    assert second["already"] is True
    assert originals(second) == originals(first) == {app.id: "0"}
    agent.thaw(p.uid)
    assert app.swap_max() == "0"
    assert not app.frozen()


def test_many_rounds(agent, pod):
    p = pod()
    app = p.app(swap_max=0)
    for _ in range(20):
        agent.freeze(p.uid)
        assert app.frozen()
        agent.thaw(p.uid)
        assert not app.frozen()
    if torpor.has_memory:
        assert app.swap_max() == "0"
    assert agent.records() == {}


# ---- where pods live ----


@pytest.mark.parametrize("layout", torpor.LAYOUTS.values(), ids=torpor.LAYOUTS.keys())
def test_every_layout_is_found(agent, pod, layout):
    p = pod(layout)
    apps = [p.app(swap_max=0), p.app(swap_max=0)]
    answer = agent.freeze(p.uid)
    assert {c["cgroup"] for c in answer["containers"]} == {a.relative() for a in apps}
    assert {c["id"] for c in answer["containers"]} == {a.id for a in apps}
    assert p.all_frozen()
    assert not p.sandbox.frozen()
    agent.thaw(p.uid)
    assert p.none_frozen()


@pytest.mark.memory
def test_the_limit_of_a_nested_group_is_lifted_and_restored(agent, pod):
    """crun: the pages belong to the group below the container's, and the smallest limit counts."""
    p = pod(torpor.LAYOUTS["crun"])
    app = p.container(swap_max=0)
    app.leaf.write("memory.swap.max", 0)
    torpor.hog(app, 16)
    agent.freeze(p.uid)
    assert app.leaf.read("memory.swap.max") == "max"
    assert app.swap_current() > 15 * MB
    agent.thaw(p.uid)
    assert (app.swap_max(), app.leaf.read("memory.swap.max")) == ("0", "0")


@pytest.mark.parametrize("driver", ["systemd", "cgroupfs"])
def test_a_static_pod_is_found(agent, pod, driver):
    p = pod(Layout(driver), static=True)
    app = p.app()
    assert agent.freeze(p.uid)["pod_uid"] == p.uid
    assert app.frozen()
    agent.thaw(p.uid)


def test_a_pod_made_after_the_start_below_a_new_root_is_found(new_agent, pod):
    """The kubelet may start after the agent."""
    agent = new_agent()
    p = pod(torpor.LAYOUTS["kind"])
    p.app()
    assert agent.freeze(p.uid)["state"] == "frozen"
    agent.thaw(p.uid)


# ---- what is refused ----


def test_an_unknown_pod_is_404(agent, pod):
    pod()  # there is a kubelet's tree
    with pytest.raises(Problem) as problem:
        agent.freeze("00000000-0000-4000-8000-000000000000")
    assert (problem.value.status, problem.value.code) == (404, "pod_not_found")


@pytest.mark.parametrize("sandbox", [True, False], ids=["sandbox only", "no group"])
def test_an_empty_pod_is_refused(agent, pod, sandbox):
    p = pod(sandbox=sandbox)
    with pytest.raises(Problem) as problem:
        agent.freeze(p.uid)
    assert (problem.value.status, problem.value.code) == (422, "refused")
    assert problem.value.body["reasons"]
    assert agent.records() == {}


@pytest.mark.parametrize("where", ["container", "pod"])
def test_a_pod_that_somebody_else_froze_is_left_alone(agent, pod, where):
    p = pod()
    app = p.app(swap_max=0)
    (app if where == "container" else p).write("cgroup.freeze", 1)
    wait_for("frozen", app.frozen)

    with pytest.raises(Problem) as problem:
        agent.freeze(p.uid)

    assert (problem.value.status, problem.value.code) == (409, "conflict")
    assert agent.records() == {}
    with contextlib.suppress(Problem):
        agent.thaw(p.uid)
    assert app.frozen()
    if torpor.has_memory:
        assert app.swap_max() == "0"


def test_a_task_that_cannot_be_frozen_rolls_everything_back(new_agent, pod, tmp_path):
    subprocess.run(["modprobe", "-d", "/run/modules", "fuse"], check=False, capture_output=True)
    require(os.path.exists("/dev/fuse"), "no FUSE here")
    server = subprocess.Popen(
        [torpor.BUILT_WORKLOADS / "silentfs", tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        torpor.read_line(server.stdout, "silentfs")
        agent = new_agent("--freeze-timeout", "300ms")
        p = pod()
        sane = p.app(swap_max=0)
        stuck = p.app(["cat", tmp_path / "file"], swap_max=0)
        state = Path(f"/proc/{stuck.process.pid}/stat")
        wait_for("cat waits in the kernel", lambda: state.read_text().split()[2] == "D")

        with pytest.raises(Problem) as problem:
            agent.freeze(p.uid)

        assert (problem.value.status, problem.value.code) == (504, "freeze_timeout")
        assert [c.read("cgroup.freeze") for c in (sane, stuck)] == ["0", "0"]
        assert not sane.frozen()
        if torpor.has_memory:
            assert (sane.swap_max(), stuck.swap_max()) == ("0", "0")
        assert agent.records() == {}
        server.stdin.close()


# ---- things that happen in between ----


def test_a_container_that_goes_while_frozen(agent, pod):
    p = pod()
    gone, stays = p.app(swap_max=0), p.app(swap_max=0)
    agent.freeze(p.uid)
    gone.remove()
    agent.thaw(p.uid)
    assert not stays.frozen()
    if torpor.has_memory:
        assert stays.swap_max() == "0"
    assert agent.records() == {}


def test_a_container_made_anew_while_frozen_is_not_taken_for_the_old(agent, pod):
    """Same name, another group: it has another inode, and its limits are its own."""
    p = pod()
    app = p.app(swap_max=0)
    other = p.app()
    agent.freeze(p.uid)
    agent.kill()
    app.remove()
    again = app.make()
    again.process = again.run(["sleep", "infinity"])
    if torpor.has_memory:
        again.write("memory.swap.max", 8 * MB)
    agent.start()
    agent.thaw(p.uid)
    if torpor.has_memory:
        assert again.swap_max() == str(8 * MB)
    assert not other.frozen()
    assert agent.records() == {}


def test_a_pod_that_is_removed_while_frozen_is_forgotten(agent, pod):
    p = pod()
    p.app()
    agent.freeze(p.uid)
    p.remove()
    assert agent.event(p.uid, "gone")
    wait_for("the record is gone", lambda: agent.records() == {})
    assert agent.status()["pods"] == []


def test_a_pod_that_is_removed_while_the_agent_is_down_is_forgotten(agent, pod):
    p = pod()
    p.app()
    agent.freeze(p.uid)
    agent.kill()
    p.remove()
    agent.start()
    wait_for("the record is gone", lambda: agent.records() == {})


def test_a_fork_bomb_freezes_as_a_whole(agent, pod):
    p = pod()
    app = p.container(swap_max=0)
    require((app.path / "pids.max").exists(), "no pids controller here")
    app.write("pids.max", 30)
    app.run([torpor.BUILT_WORKLOADS / "forkbomb"])
    wait_for("the bomb has grown", lambda: len(app.pids()) > 10)
    for _ in range(3):
        agent.freeze(p.uid)
        assert app.frozen()
        assert not cpu_moves(app)
        agent.thaw(p.uid)
    assert not app.frozen()
    # User Mode Linux 6.12 dies of a fork that is killed halfway; nobody forks in a frozen group.
    app.write("cgroup.freeze", 1)
    wait_for("frozen", app.frozen)


def test_a_thaw_wins_over_a_running_reclaim(agent, pod):
    require(torpor.has_memory, "cgroup v2 has no memory controller here")
    p = pod()
    app = p.container(swap_max=0)
    process = torpor.hog(app, 256)
    checksum = process.checksum
    agent.freeze(p.uid, reclaim="background")
    wait_for("the reclaim is under way", lambda: app.swap_current() > MB)
    answer = agent.thaw(p.uid)
    assert not app.frozen()
    assert answer["state"] in ("running", "thawing")
    assert torpor.hog_again(process)[0] == checksum
    wait_for("the limit is back", lambda: app.swap_max() == "0")


# ---- too little swap is no failure ----


@pytest.mark.memory
def test_without_swap_it_is_frozen_and_says_why_no_more(agent, pod):
    with swap_off():
        p = pod()
        app = p.container(swap_max=0)
        torpor.hog(app, 32)
        answer = agent.freeze(p.uid)
        assert (answer["state"], answer["reclaim"]) == ("frozen", "stopped")
        assert answer["reason"] == "no_swap"
        assert app.frozen()
        agent.thaw(p.uid)
        assert app.swap_max() == "0"


@pytest.mark.memory
def test_full_swap_stops_the_reclaim(agent, pod):
    with small_swap(megabytes=24):
        p = pod()
        app = p.container(swap_max=0)
        process = torpor.hog(app, 64)
        answer = agent.freeze(p.uid)
        assert (answer["state"], answer["reclaim"]) == ("frozen", "stopped")
        assert answer["reason"] == "swap_full"
        assert app.memory_current() > 32 * MB
        agent.thaw(p.uid)
        assert torpor.hog_again(process)[0] == process.checksum
        p.remove()  # before its swap is taken away


@pytest.mark.memory
def test_an_ancestor_that_forbids_swap_is_named_and_not_changed(agent, pod):
    p = pod()
    app = p.container(swap_max=0)
    above = Cgroup(p.path.parent)
    above.write("memory.swap.max", 0)
    torpor.hog(app, 32)
    answer = agent.freeze(p.uid)
    assert (answer["state"], answer["reclaim"]) == ("frozen", "stopped")
    assert above.relative() in str(answer)
    assert above.read("memory.swap.max") == "0"
    agent.thaw(p.uid)
    assert app.swap_max() == "0"


# ---- leaving ----


@pytest.mark.memory
@pytest.mark.parametrize("running", [True, False], ids=["agent runs", "agent stopped"])
def test_thaw_all_thaws_restores_and_removes_the_records(agent, pod, running):
    pods = [pod(layout) for layout in (Layout(), Layout("systemd"))]
    apps = [p.app(swap_max=0) for p in pods]
    for p in pods:
        agent.freeze(p.uid)
    if not running:
        agent.stop()
    result = agent.run("--thaw-all")
    assert result.returncode == 0, result.stderr
    for app in apps:
        wait_for("thawed", lambda app=app: not app.frozen())
        wait_for("restored", lambda app=app: app.swap_max() == "0")
    wait_for("no record is left", lambda: agent.records() == {})


# ---- somebody else writes ----


@pytest.mark.memory
def test_a_limit_that_is_set_back_while_frozen_is_lifted_again(agent, pod):
    """As systemd's daemon-reload does."""
    p = pod()
    app = p.app(swap_max=0)
    agent.freeze(p.uid)
    app.write("memory.swap.max", 0)
    wait_for("the limit is lifted again", lambda: app.swap_max() == "max")
    assert agent.event(p.uid, "drift")
    assert app.frozen()
    agent.thaw(p.uid)
    assert app.swap_max() == "0"


def test_a_container_that_somebody_thaws_takes_the_pod_with_it(agent, pod):
    """All containers of a pod or none."""
    p = pod()
    apps = [p.app(swap_max=0), p.app(swap_max=0)]
    agent.freeze(p.uid)
    apps[0].write("cgroup.freeze", 0)
    assert agent.event(p.uid, "thawed")["cause"] == "drift"
    wait_for("the other is thawed", lambda: p.none_frozen())
    wait_for("the record is gone", lambda: agent.records() == {})
    if torpor.has_memory:
        assert [a.swap_max() for a in apps] == ["0", "0"]


def test_events_tell_the_story(agent, pod):
    p = pod()
    p.app()
    agent.freeze(p.uid, group="team-a")
    agent.thaw(p.uid)
    with contextlib.closing(agent.events()) as events:
        first = next(events)
        assert first["epoch"]
        told = []
        for event in events:
            assert event["pod_uid"] == p.uid
            assert event["group"] == "team-a"
            told.append(event["type"])
            if event["type"] == "thawed":
                break
    assert told[0] == "frozen"
    assert told[-1] == "thawed"
