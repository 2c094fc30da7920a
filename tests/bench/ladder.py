#!/usr/bin/python3
"""ladder: what an app costs at rest, and what its next visitor waits for, on each rung.

One Vite dev server in a guest, put to rest and visited by turns in every way there is; then a small
server on this machine's own kernel. Prints tables and writes build/bench/ladder.json. Never fails
for a figure. Needs root, user-mode-linux, node, and crun for the peer.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

sys.dont_write_bytecode = True

import bench  # noqa: E402
import figures  # noqa: E402
import ladder_native  # noqa: E402
import rig  # noqa: E402
from rig import torpor  # noqa: E402

import devserver  # noqa: E402  (on the path since rig)

FILE = bench.RESULTS / "ladder.json"
ROUNDS = 5
COLD_PORT = 5174
# What an app touches in the first 3 s after a wake is what the next begins with.
RECORDED_SEC = 5
REST_SEC = 1
CRUN = ["crun", "--cgroup-manager=cgroupfs", "--root", "/run/crun"]


# ---- the app as a container of crun ----


def spec(container, command, directory):
    """The least that crun needs: this root, this network, and a cgroup."""
    return {
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": command,
            "env": [f"{name}={os.environ[name]}" for name in ("PATH", "HOME") if name in os.environ],
            "cwd": str(directory),
        },
        "root": {"path": "rootfs"},
        "mounts": [],
        "linux": {
            "namespaces": [{"type": "mount"}],
            "cgroupsPath": f"/{container.path.relative_to(torpor.CGROUP_ROOT)}",
        },
    }


def crun(*arguments, **options):
    subprocess.run([*CRUN, *arguments], check=True, timeout=60, stdin=subprocess.DEVNULL, **options)


def start_in_crun(container, command, directory):
    bundle = Path("/run/bundle")
    (bundle / "rootfs").mkdir(parents=True)
    subprocess.run(["mount", "--rbind", "/", str(bundle / "rootfs")], check=True)
    (bundle / "config.json").write_text(json.dumps(spec(container, command, directory)))
    with open(bundle / "log", "w") as log:
        crun("run", "--no-pivot", "--bundle", str(bundle), "-d", container.id, stdout=log)


def cold_directory(source):
    """The same files, with a cache of their own: a cold start is not to find the warm app's."""
    directory = Path("/run/cold")
    directory.mkdir()
    (source / "node_modules/.vite").mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", str(source), str(directory)], check=True)
    cache = str(directory / "node_modules/.vite")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", cache], check=True)
    return directory


# ---- the rungs ----


@dataclasses.dataclass
class World:
    """The app that is put to rest, an agent of each kind, and where a cold start begins."""

    app: devserver.App
    lazy: rig.Agent
    recorded: rig.Agent
    cold: Path


@dataclasses.dataclass(frozen=True)
class Rung:
    """`enter` puts the app to rest; without `leave` it is the request that wakes it."""

    key: str
    label: str
    enter: Callable = lambda world: None
    leave: Callable = None


def freeze_with(name, reclaim):
    def enter(world):
        """Again when the last visit was not quite over: what is left of it wakes the app."""
        agent, uid = getattr(world, name), world.app.pod.uid

        def stays_frozen():
            with contextlib.suppress(torpor.Problem):
                status = agent.freeze(uid, reclaim=reclaim)
                if status["trigger"] == "bpf" and world.app.container.frozen():
                    return True
            rig.say(f"woken at once: {agent.log[-1]['msg']}")
            return False

        torpor.wait_for("the app is frozen", stays_frozen, seconds=60)

    return enter


def pause(world):
    crun("pause", world.app.container.id)


def resume(world):
    crun("resume", world.app.container.id)


RUNGS = [
    Rung("running", "running"),
    Rung("resident", "frozen, in RAM", freeze_with("recorded", "off")),
    Rung("crun", "crun pause, resume (peer)", pause, resume),
    Rung("lazy", "frozen, in swap, --prefetch off", freeze_with("lazy", "wait")),
    Rung("prefetched", "frozen, in swap, prefetched", freeze_with("recorded", "wait")),
]
COLD = "cold start"
CRIU = (
    "CRIU 3.17 does not start on this kernel, which has no huge pages"
    ' (memfd_create("", MFD_HUGETLB): Function not implemented)'
)


# ---- a round ----


def at_rest(container):
    before, began = container.cpu_usec(), time.monotonic()
    time.sleep(REST_SEC)
    spent = container.cpu_usec() - before
    return {
        "ram_mb": container.memory_current() / torpor.MB,
        "swap_mb": container.swap_current() / torpor.MB,
        "cpu_percent": spent / 1e4 / (time.monotonic() - began),
    }


def sample(first, complete, rest):
    return {"first": first, "complete": complete, **rest}


def climb(world, rung):
    rung.enter(world)
    asleep = world.app.container.frozen()
    rest = at_rest(world.app.container)
    assert world.app.container.frozen() == asleep
    began = time.monotonic()
    if rung.leave:
        rung.leave(world)
    first, complete = devserver.visit().since(began)
    assert not world.app.container.frozen()
    # Everything is back in memory before the next, and what was touched is noted.
    devserver.use(until=began + RECORDED_SEC)
    return sample(first, complete, rest)


def start_cold(world):
    app = devserver.App(world.cold, COLD_PORT)
    try:
        first, complete = app.first_visit().since(app.began)
    finally:
        app.pod.remove()
        torpor.reap()
    return sample(first, complete, {"ram_mb": 0, "swap_mb": 0, "cpu_percent": 0})


def one_round(world):
    """The cold start first: the app before it has all its files in the page cache."""
    return {"cold": start_cold(world), **{rung.key: climb(world, rung) for rung in RUNGS}}


@contextlib.contextmanager
def make_world():
    source = Path(os.environ["LADDER_APP"])
    with contextlib.ExitStack() as stack:
        lazy, recorded = (
            stack.enter_context(rig.Agent("--prefetch", mode, "--wake-limit", 0))
            for mode in ("off", "recorded")
        )
        app = devserver.App(source, start=start_in_crun)
        stack.callback(app.pod.remove)
        app.first_visit()
        yield World(app, lazy, recorded, cold_directory(source))


def measure(rounds):
    """The samples of each rung. The round before the first counts for nothing: it fills the page
    cache, and it is the wake that the agent learns from."""
    samples = {}
    with make_world() as world:
        for number in range(rounds + 1):
            rig.say(f"round {number} of {rounds}")
            for key, one in one_round(world).items():
                samples.setdefault(key, []).append(one)
    return {key: values[1:] for key, values in samples.items()}


def summary(key, label, samples):
    columns = {name: [one[name] for one in samples] for name in samples[0]}
    return {
        "key": key,
        "label": label,
        **{name: figures.Series(values).as_dict() for name, values in columns.items()},
    }


def inside(rounds):
    """This is the guest."""
    torpor.TEST_ROOT = torpor.CGROUP_ROOT
    samples = measure(rounds)
    labels = {**{rung.key: rung.label for rung in RUNGS}, "cold": COLD}
    return {
        "machine": bench.machine(),
        "rounds": rounds,
        "rungs": [summary(key, label, samples[key]) for key, label in labels.items()],
        "missing": {"checkpoint and restore": CRIU},
        "targets": targets({key: figures.Series([s["first"] for s in v]).median
                            for key, v in samples.items()}),
    }


def targets(first):
    def one(what, ratio, at_least):
        return {"what": what, "ratio": ratio, "target": at_least, "met": ratio >= at_least}

    return [
        one("first response, lazy / prefetched", first["lazy"] / first["prefetched"], 2),
        one("first response, cold start / prefetched", first["cold"] / first["prefetched"], 20),
    ]


# ---- the host's side ----


def run_guest(rounds):
    bench.RESULTS.mkdir(parents=True, exist_ok=True)
    file = bench.RESULTS / "ladder-guest.json"
    app = subprocess.run(
        [bench.HERE.parent / "support/app.sh"], check=True, text=True, stdout=subprocess.PIPE
    ).stdout.strip()
    busy = rig.cpu_share()
    subprocess.run(
        [
            *[str(bench.HERE.parent / "kernel/guest"), "--memory", "2048", "--swap", "2048"],
            *["--timeout", "900", "--results", str(bench.RESULTS), "--"],
            *["env", f"LADDER_APP={app}", "/usr/bin/python3", str(bench.HERE / "ladder.py")],
            *["--rounds", str(rounds), "--inside", str(file)],
        ],
        check=True,
    )
    part = json.loads(file.read_text())
    file.unlink()
    return {**part, "busy": max(busy, rig.cpu_share())}


def run_native(quick):
    busy = rig.cpu_share()
    with rig.test_root():
        results = [one.as_dict() for one in ladder_native.figures_of(quick)]
    return {"machine": bench.machine(), "busy": max(busy, rig.cpu_share()), "figures": results}


def cells(rung):
    return [
        rung["label"],
        f"{rung['first']['median']:.0f} ms",
        f"{rung['complete']['median']:.0f} ms",
        f"{rung['ram_mb']['median']:.1f} MB",
        f"{rung['swap_mb']['median']:.0f} MB",
        f"{rung['cpu_percent']['median']:.1f} %",
    ]


HEAD = ["", "first response", "whole page", "RAM at rest", "swap", "CPU at rest"]


def table(part):
    rows = [HEAD, *map(cells, part["rungs"])]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    )


def report_guest(part):
    print(f"\nKernel {part['machine']['kernel']}, one processor, medians of {part['rounds']} rounds")
    print(table(part))
    for what, why in part["missing"].items():
        print(f"  {what}: not measured, {why}")
    for one in part["targets"]:
        met = "met" if one["met"] else "MISSED"
        print(f"  {one['what']}: {one['ratio']:.1f} x, target {one['target']} x: {met}")
    print(bench.noise(part["busy"]), flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="does it work at all?")
    parser.add_argument("--only", choices=["native", "guest"], help="keep what there is of the other")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--inside", type=Path, help="this is the guest: write its figures there")
    return parser.parse_args()


def main():
    options = parse()
    if options.inside:
        bench.write(options.inside, inside(options.rounds))
        return
    parts = json.loads(FILE.read_text()) if options.only and FILE.exists() else {}
    if options.only != "guest":
        parts["native"] = run_native(options.quick)
        bench.write(FILE, parts)
        bench.report(parts["native"])
    if options.only != "native":
        parts["guest"] = run_guest(1 if options.quick else options.rounds)
        bench.write(FILE, parts)
        report_guest(parts["guest"])
    print(f"\nWritten to {FILE}")


if __name__ == "__main__":
    main()
