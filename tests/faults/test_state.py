"""A state directory that cannot be written, and records that are not what the agent wrote."""

import contextlib
import json
import os
import re
import subprocess

import pytest
import torpor
from faults import checksum, in_state_directory, read_record
from torpor import MB, Layout, Problem, wait_for

RECORD_SIZE_MAX = 4 * MB

# The agent tries again what failed, after a while once in five seconds.
RETRY_SECONDS = 15


class ServingAgent(torpor.Agent):
    """An agent that serves, though its self-test may have failed: it still has to thaw."""

    def _is_ready(self):
        assert self.process.poll() is None, f"the agent ended: {self.log_file.read_text()}"
        with contextlib.suppress(OSError):
            self.ready = self.request("GET", "/readyz")[0] == 200
            return True
        return False


@pytest.fixture
def agent():
    """One whose state directory is a small file system of its own."""
    with contextlib.ExitStack() as stack:
        agent = ServingAgent()
        stack.callback(lambda: print(agent.final_log))
        agent.state.mkdir()
        mount(agent, "-t", "tmpfs", "-o", "size=64k,nr_inodes=32", "state")
        stack.callback(mount_is_gone, agent)
        stack.enter_context(agent)
        stack.callback(lambda: (agent.stop(), subprocess.run(["umount", agent.state], check=True)))
        yield agent


def mount(agent, *arguments):
    subprocess.run(["mount", *arguments, agent.state], check=True)


def mount_is_gone(agent):
    assert not os.path.ismount(agent.state)


@pytest.fixture
def app(pod):
    """A pod with a limit to lose."""
    p = pod(Layout(qos="burstable"))
    p.app(swap_max=0)
    p.app(swap_max=8 * MB)
    return p


def limits(pod):
    return [container.swap_max() for container in pod.containers] if torpor.has_memory else []


ORIGINALS = ["0", str(8 * MB)] if torpor.has_memory else []


def runs_as_before(pod):
    return pod.none_frozen() and limits(pod) == ORIGINALS


def nothing_was_asked(pod):
    return all(c.read("cgroup.freeze") == "0" for c in pod.containers) and runs_as_before(pod)


# ---- a directory that cannot be written ----


def fill_blocks(agent):
    """The last byte is taken; a new file can be made and not be written."""
    with open(agent.state / "filler", "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)


def fill_inodes(agent):
    with contextlib.suppress(OSError):
        for i in range(64):
            (agent.state / f"filler{i}").touch()


def empty(agent):
    for path in agent.state.glob("filler*"):
        path.unlink()


def make_read_only(agent):
    mount(agent, "-o", "remount,ro")


def make_writable(agent):
    mount(agent, "-o", "remount,rw")


OBSTACLES = {
    "no space": (fill_blocks, empty, "ENOSPC"),
    "no inodes": (fill_inodes, empty, "ENOSPC"),
    "read-only": (make_read_only, make_writable, "EROFS"),
}

obstacles = pytest.mark.parametrize("obstacle", OBSTACLES)


@obstacles
def test_without_a_record_nothing_is_frozen(agent, app, obstacle):
    hinder, clear, name = OBSTACLES[obstacle]
    hinder(agent)
    before = in_state_directory(agent)
    with pytest.raises(Problem) as problem:
        agent.freeze(app.uid)
    assert (problem.value.status, problem.value.code) == (500, "io_error")
    assert problem.value.body["errno"] == name
    assert nothing_was_asked(app)
    assert in_state_directory(agent) == before  # no half of a record
    assert metric(agent, "freeze_agent_store_errors_total") >= 1
    clear(agent)
    wait_for("the agent has cleaned up", lambda: agent.status() == {"pods": []}, RETRY_SECONDS)
    agent.freeze(app.uid)
    assert app.all_frozen()
    agent.thaw(app.uid)
    assert runs_as_before(app)


@obstacles
@pytest.mark.parametrize("restart", [False, True], ids=["same agent", "new agent"])
def test_what_is_frozen_can_be_thawed(agent, app, obstacle, restart):
    hinder, clear, _ = OBSTACLES[obstacle]
    agent.freeze(app.uid)
    hinder(agent)
    if restart:
        agent.restart(kill=True)
        assert not agent.ready  # nothing can be frozen, and it says so
        assert app.all_frozen()
    for _ in range(2):  # also while the record cannot be removed
        assert agent.thaw(app.uid)["state"] == "running"
        assert runs_as_before(app)
    clear(agent)
    wait_for("the record is gone", lambda: in_state_directory(agent) == [], RETRY_SECONDS)
    assert agent.thaw(app.uid)["already"] is True


def test_thaw_all_works_on_a_read_only_directory(agent, app):
    agent.freeze(app.uid)
    agent.stop()
    make_read_only(agent)
    result = agent.run("--thaw-all")
    assert result.returncode != 0  # the record is still there
    assert runs_as_before(app)
    make_writable(agent)
    agent.start()
    wait_for("the record is gone", lambda: in_state_directory(agent) == [])
    assert runs_as_before(app)


# ---- records that are not what the agent wrote ----


def signed(record):
    line = json.dumps(record, separators=(",", ":")).encode()
    return signed_line(line)


def signed_line(line):
    return line + b"\n%016x\n" % checksum(line)


def changed(**values):
    """A record that is whole, with other content."""

    def damage(path):
        path.write_bytes(signed({**read_record(path), **values}))

    return damage


def changed_container(**values):
    def damage(path):
        record = read_record(path)
        record["containers"][0].update(values)
        path.write_bytes(signed(record))

    return damage


def cut(where):
    """Only so much of it is left. `where` is a fraction of the JSON, or an offset from its end."""

    def damage(path):
        text = path.read_bytes()
        line = text.index(b"\n")
        end = line + where if isinstance(where, int) else int(line * where)
        path.write_bytes(text[:end])

    return damage


def flipped(where, bit=1):
    """One bit is another one; offsets are from the end of the JSON."""

    def damage(path):
        text = bytearray(path.read_bytes())
        text[text.index(b"\n") + where if isinstance(where, int) else int(len(text) * where)] ^= bit
        path.write_bytes(bytes(text))

    return damage


def replaced_by(content):
    return lambda path: path.write_bytes(content)


def appended(content):
    return lambda path: path.write_bytes(path.read_bytes() + content)


def directory(path):
    path.unlink()
    path.mkdir()


def link(path):
    """To a record that is whole: who made the link is not who wrote the record."""
    path.rename(path.with_suffix(".whole"))
    path.symlink_to(path.with_suffix(".whole").name)


def fifo(path):
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    # every class of length: nothing, a part of the JSON, of the line end, of the checksum
    "empty": cut(0.0),
    "one byte": cut(0.001),
    "half of the JSON": cut(0.5),
    "JSON without its brace": cut(-1),
    "JSON alone": cut(0),
    "no checksum": cut(1),
    "half of the checksum": cut(9),
    "no last newline": cut(17),
    "more than a record": appended(b"x"),
    "twice": lambda path: path.write_bytes(path.read_bytes() * 2),
    # a bit here and there
    "first bit": flipped(0.0),
    "bit in the JSON": flipped(0.3),
    "bit in the brace": flipped(-1, 2),
    "bit in the newline": flipped(0),
    "bit in the checksum": flipped(5),
    "bit in the last newline": flipped(17, 4),
    # whole, and nonsense
    "zeros": replaced_by(b"\0" * 4096),
    "no JSON": replaced_by(signed_line(b"hello")),
    "other JSON": replaced_by(signed_line(b"[]")),
    "no version": replaced_by(signed_line(b"{}")),
    "no containers": changed(containers=[]),
    "containers of another type": changed(containers="all"),
    "another pod": changed(pod_uid="00000000-0000-0000-0000-000000000000"),
    "no pod": changed(pod_uid="../../etc"),
    "a path upwards": changed_container(cgroup="../../.."),
    "an absolute path": changed_container(cgroup="/sys"),
    "no groups": changed_container(groups=[]),
    "a limit that is none": changed_container(
        groups=[{"path": "", "inode": 1, "swap_max": "1\n2"}]
    ),
    # no file of a record's kind
    "directory": directory,
    "symlink": link,
    "fifo": fifo,
    "too large": replaced_by(b"x" * (RECORD_SIZE_MAX + 1)),
    "large": replaced_by(b"x" * RECORD_SIZE_MAX),
}


def metric(agent, name):
    status, text = agent.get("/metrics")
    assert status == 200
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])


def reconciled(agent):
    """What became of the records: {result: number}, without the zeros."""
    _, text = agent.get("/metrics")
    found = re.findall(r'^freeze_agent_reconciled_total\{result="(\w+)"\} (\d+)$', text, re.M)
    return {result: int(number) for result, number in found if int(number)}


def logged(agent, pod, level):
    """Since the last start."""
    lines = [line for line in agent.log if line.get("pod") == pod.uid and line["level"] == level]
    return " ".join(line["msg"] for line in lines)


def start_over(agent, pod, damage):
    """A new agent that finds a damaged record of the pod that the old one froze."""
    agent.freeze(pod.uid)
    agent.kill()
    agent.log_file.write_text("")
    damage(agent.state / f"{pod.uid}.json")
    agent.start()


@pytest.fixture
def plain_agent():
    with contextlib.ExitStack() as stack:
        agent = torpor.Agent()
        stack.callback(lambda: print(agent.final_log))
        yield stack.enter_context(agent)


def check_freezes_again(agent, pod):
    agent.freeze(pod.uid)
    assert pod.all_frozen()
    agent.thaw(pod.uid)
    assert pod.none_frozen()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_set_aside_and_the_pod_runs(plain_agent, app, damage):
    agent = plain_agent
    start_over(agent, app, DAMAGES[damage])
    assert reconciled(agent) == {"corrupt": 1}
    assert "kept as" in logged(agent, app, "error")
    assert app.none_frozen()
    aside = agent.state / f"{app.uid}.json.unreadable"
    assert aside.is_symlink() or aside.exists()
    assert f"{app.uid}.json" not in in_state_directory(agent)
    assert limits(app) == ["max"] * len(ORIGINALS)  # nobody knows better
    check_freezes_again(agent, app)


def test_a_record_of_another_version_is_set_aside_and_the_pod_runs(plain_agent, app):
    agent = plain_agent
    start_over(agent, app, changed(version=2))
    assert reconciled(agent) == {"other_version": 1}
    assert "version 2" in logged(agent, app, "error")
    assert app.none_frozen()
    assert in_state_directory(agent) == [f"{app.uid}.json.unreadable"]
    check_freezes_again(agent, app)


def test_a_record_of_another_boot_is_dropped(plain_agent, app):
    agent = plain_agent
    start_over(agent, app, changed(boot_id="00000000-0000-0000-0000-000000000000"))
    assert reconciled(agent) == {"other_boot": 1}
    assert "rebooted" in logged(agent, app, "info")
    assert in_state_directory(agent) == []
    assert app.all_frozen()  # by somebody else, as far as this boot's records know
    with pytest.raises(Problem) as problem:
        agent.thaw(app.uid)
    assert problem.value.code == "conflict"


def test_the_largest_record_is_read(plain_agent, app):
    def pad(path):
        line = path.read_bytes().split(b"\n")[0]
        path.write_bytes(signed_line(line.ljust(RECORD_SIZE_MAX - 18)))
        assert path.stat().st_size == RECORD_SIZE_MAX

    agent = plain_agent
    start_over(agent, app, pad)
    assert reconciled(agent) == {"adopted": 1}
    assert app.all_frozen()
    agent.thaw(app.uid)
    assert runs_as_before(app)


def made_anew(container):
    """The runtime has made a group of the same name for a new container."""
    container.remove()
    container.leaf.make()
    if torpor.has_memory:
        container.write("memory.swap.max", 4 * MB)
    container.process = container.run(["sleep", "infinity"])


def test_a_pod_that_was_made_anew_is_left_alone(plain_agent, app):
    agent = plain_agent
    start_over(agent, app, lambda path: [made_anew(container) for container in app.containers])
    assert reconciled(agent) == {"gone": 1}
    assert "no container is left" in logged(agent, app, "info")
    assert in_state_directory(agent) == []
    assert app.none_frozen()
    assert limits(app) == [str(4 * MB)] * len(ORIGINALS)
    torpor.reap()


def test_a_container_that_was_made_anew_brings_the_pod_back(plain_agent, app):
    agent = plain_agent
    start_over(agent, app, lambda path: made_anew(app.containers[0]))
    assert reconciled(agent) == {"rolled_back": 1}
    wait_for("the record is gone", lambda: in_state_directory(agent) == [])
    assert app.none_frozen()
    assert limits(app)[1:] == ORIGINALS[1:]
    assert limits(app)[:1] == [str(4 * MB)] * bool(ORIGINALS)  # the new one has no original of ours
    torpor.reap()


def test_a_pod_that_went_away_is_dropped(plain_agent, app):
    agent = plain_agent
    start_over(agent, app, lambda path: app.remove())
    assert reconciled(agent) == {"gone": 1}
    assert in_state_directory(agent) == []
    torpor.reap()


def test_one_bad_record_keeps_no_other_from_being_adopted(plain_agent, pod):
    agent = plain_agent
    pods = [pod() for _ in range(3)]
    for p in pods:
        p.app()
        agent.freeze(p.uid)
    agent.kill()
    cut(0.5)(agent.state / f"{pods[1].uid}.json")
    agent.start()
    assert reconciled(agent) == {"adopted": 2, "corrupt": 1}
    assert [p.all_frozen() for p in pods] == [True, False, True]
    for p in pods:
        agent.thaw(p.uid)
        assert p.none_frozen()


def test_what_is_no_record_is_left_alone_and_temporaries_are_removed(plain_agent, app):
    agent = plain_agent
    others = ["README", "x.json", f"{app.uid}.json.unreadable", f"{app.uid}.txt"]

    def litter(path):
        for name in [*others, f".tmp-{app.uid}.json", ".tmp-"]:
            (agent.state / name).write_text("x")

    start_over(agent, app, litter)
    assert reconciled(agent) == {"adopted": 1}
    assert in_state_directory(agent) == sorted([*others, f"{app.uid}.json"])
    agent.thaw(app.uid)
    assert in_state_directory(agent) == sorted(others)
    assert runs_as_before(app)
