#!/usr/bin/python3
"""bench: what freezing and thawing cost, against a baseline in the same run.

Prints a table and writes build/bench/agent.json. Never fails for a figure: a machine that is busy
is no bug. Needs root, and user-mode-linux for the measures that need swap.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True

import figures  # noqa: E402
import guest  # noqa: E402
import host  # noqa: E402
import rig  # noqa: E402

HERE = Path(__file__).resolve().parent
RESULTS = rig.torpor.BUILD / "bench"
FILE = RESULTS / "agent.json"
NOISY = 0.1  # of the machine, used by others


# ---- what is measured, and where ----


def machine():
    return {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "cpu": cpu_model(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "version": (HERE.parents[1] / "VERSION").read_text().strip(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def cpu_model():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def measure(place, quick):
    """The figures of one module as dicts, with how busy the machine was between them."""
    busy, results = [rig.cpu_share()], []
    with rig.test_root():
        for one in place.figures(quick):
            results.append(one.as_dict())
            busy.append(rig.cpu_share(0.1 if quick else 0.3))
    return {"machine": machine(), "busy": max(busy), "figures": results}


def measure_in_guest(quick):
    """Runs this program in a guest, and reads what it wrote."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / "guest.json"
    command = [
        *[str(HERE.parent / "kernel/guest"), "--memory", "2048", "--swap", "1024"],
        *["--timeout", "240", "--results", str(RESULTS), "--"],
        *["/usr/bin/python3", str(HERE / "bench.py"), "--inside", str(file)],
        *(["--quick"] if quick else []),
    ]
    busy = rig.cpu_share()
    subprocess.run(command, check=True)
    part = json.loads(file.read_text())
    file.unlink()
    # What the guest shares the machine with it cannot see.
    part["busy"] = max(part["busy"], busy, rig.cpu_share())
    return part


# ---- what is told ----


def noise(busy):
    if busy < NOISY:
        return ""
    return f"\nNoisy: others used up to {busy:.0%} of this machine between the measures."


def report(part):
    kernel, cpus = part["machine"]["kernel"], part["machine"]["cpus"]
    print(f"\nKernel {kernel}, {cpus} cpus", end="")
    table = figures.table(part["figures"], part["busy"] >= NOISY)
    print(table, noise(part["busy"]), sep="\n", flush=True)


def write(file, parts):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(parts, indent=2) + "\n")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="does it work at all?")
    parser.add_argument("--only", choices=["host", "guest"], help="leave the other out")
    parser.add_argument("--inside", type=Path, help="this is the guest: write its figures there")
    return parser.parse_args()


def main():
    options = parse()
    if options.inside:
        write(options.inside, measure(guest, options.quick))
        return
    places = {"host": lambda quick: measure(host, quick), "guest": measure_in_guest}
    parts = {}
    for name in [options.only] if options.only else places:
        print(f"{name}:", flush=True)
        parts[name] = places[name](options.quick)
        write(FILE, parts)  # a guest that dies does not take the host's figures with it
    for part in parts.values():
        report(part)
    print(f"\nWritten to {FILE}")


if __name__ == "__main__":
    main()
