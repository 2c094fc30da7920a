"""What demo.sh shows, in the guest: an app running, frozen, thawed, frozen again and woken by a
request, and started cold beside it."""

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import devserver  # noqa: E402
import torpor  # noqa: E402
from devserver import PORT, msec, use, visit  # noqa: E402
from torpor import MB, wait_for  # noqa: E402

SOCKET = "/run/freeze-agent/agent.sock"
# What an app touches in the first 3 s after a wake is what the next begins with.
RECORDED = 5
COLOUR = bool(os.environ.get("DEMO_COLOUR"))


# ---- what is printed ----


def styled(code, text):
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def say(text=""):
    print(text, flush=True)


def heading(text):
    say()
    say(styled("1", text))


def table(head, rows):
    """The first column to the left, figures to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells):
        first, *others = (
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths))
        )
        return f"  │ {' │ '.join([first, *others])} │"

    def rule(left, middle, right):
        return f"  {left}{middle.join('─' * (width + 2) for width in widths)}{right}"

    say(rule("┌", "┬", "┐"))
    say(line(head))
    say(rule("├", "┼", "┤"))
    for row in rows:
        say(line(row))
    say(rule("└", "┴", "┘"))


def curl(call, uid):
    """Runs the command that it prints: (answer, when it began)."""
    body = f'{{"pod_uid": "{uid}"}}'
    command = ["curl", "-s", "--unix-socket", SOCKET, "-d", body, f"http://node/{call}"]
    say("  " + styled("36", f"$ {shlex.join(command)}"))
    began = time.monotonic()
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout, began


def shell(command):
    """Runs the line that it prints: (what it printed, when it began)."""
    say("  " + styled("36", f"$ {command}"))
    began = time.monotonic()
    run = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(run, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return done.stdout, began


def show(answer):
    jq = subprocess.run(
        ["jq", "-C" if COLOUR else "-M", "."], input=answer, capture_output=True, text=True, check=True
    )
    indented(jq.stdout)


def indented(text):
    for line in text.splitlines():
        say(f"  {line}")


# ---- the app ----


class App(devserver.App):
    def __init__(self):
        super().__init__(Path(os.environ["DEMO_APP"]))

    def row(self, state, used):
        """RAM, swap, and CPU time over a second, of an app that is in use or left alone."""
        before, began = self.container.cpu_usec(), time.monotonic()
        if used:
            use(until=began + 1)
        time.sleep(max(0, 1 - msec(began) / 1000))
        cpu = (self.container.cpu_usec() - before) / 1e6 / (time.monotonic() - began)
        return [
            state,
            f"{self.container.memory_current() / MB:.1f} MB",
            f"{self.container.swap_current() / MB:.1f} MB",
            f"{100 * cpu:.0f} %" if cpu else "0",
            self.container.swap_max(),
        ]


def start_agent():
    log = open("/tmp/freeze-agent.log", "w")
    subprocess.Popen([torpor.FREEZE_AGENT], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    wait_for("the agent listens", Path(SOCKET).exists)


def thaw_and_visit(app):
    answer, began = curl("thaw", app.pod.uid)
    visited = visit()
    show(answer)
    return visited.since(began)


def wake(app):
    """One request to the frozen app, and nobody but the kernel to tell the agent of it."""
    answer, _ = shell(
        f"curl -s -w '%{{http_code}} after %{{time_total}} s\\n' http://127.0.0.1:{PORT}/"
    )
    page_at = time.monotonic()
    rest = visit()
    indented(answer)
    # Starting curl takes longer than the wake when nothing of it is in memory.
    began = page_at - float(answer.split()[-2])
    said, _ = shell(
        f"grep -m 1 '\"woken\"' <(curl -sN -m 20 --unix-socket {SOCKET} 'http://node/events?since=0')"
    )
    show(said)
    event = json.loads(said)
    assert event["pod_uid"] == app.pod.uid and event["port"] == PORT
    say(f"  latency_usec: from the packet until the app was thawed, {event['latency_usec'] / 1000:.1f} ms")
    return msec(began, page_at), msec(began, rest.done_at)


def freeze_again(app):
    body = f'{{"pod_uid": "{app.pod.uid}"}}'
    answer, _ = shell(
        f"curl -s --unix-socket {SOCKET} -d '{body}' http://node/freeze"
        " | jq -c '{state, wake_on, trigger, memory}'"
    )
    indented(answer)
    assert app.container.frozen()


HEAD = ["", "RAM", "swap", "CPU", "memory.swap.max"]


def demo():
    say(f"A node: Linux {platform.release()}, cgroup v2, real swap; freeze-agent and one pod on it.")
    start_agent()

    heading("1. Somebody works on the app: a Vite dev server, page and modules loaded")
    app = App()
    files = app.first_visit().files
    say(f"  process {app.process.pid}, {files} files served")
    rows = [app.row("running", used=True)]
    table(HEAD, rows)
    say("  CPU: over a second, with somebody reloading the page unless it is frozen")

    heading("2. Nobody looks any more: freeze")
    answer, _ = curl("freeze", app.pod.uid)
    show(answer)
    rows.append(app.row("frozen", used=False))
    table(HEAD, rows)

    heading("3. Somebody is back: thaw, and load the page and every module at once")
    began = time.monotonic()
    thawed = thaw_and_visit(app)
    assert app.process.poll() is None
    rows.append(app.row("thawed", used=True))
    table(HEAD, rows)
    say(f"  still process {app.process.pid}")
    use(until=began + RECORDED)

    heading("4. Idle once more: freeze. Then somebody opens the page, and nobody calls thaw")
    freeze_again(app)
    woken = wake(app)
    assert app.process.poll() is None
    say(f"  still process {app.process.pid}")

    heading("5. What it would have been otherwise: the same app, started cold")
    app.pod.remove()
    again = App()
    cold = again.first_visit().since(again.began)
    compare(woken, thawed, cold)
    say()
    freed = f"{rows[0][1]} of RAM became {rows[1][1]}"
    say(styled("1", f"  Frozen, {freed}; back {cold[1] / woken[1]:.1f} times as fast as a cold start."))
    return again


def compare(woken, thawed, cold):
    def row(what, i):
        times = [f"{figures[i]:.0f} ms" for figures in (thawed, woken, cold)]
        return [what, *times, f"{cold[i] / woken[i]:.1f} x"]

    table(
        ["", "thaw", "woken", "cold start", "woken is faster"],
        [row("first response", 0), row("page and all modules", 1)],
    )
    say("  From the command to thaw (with curl's start), from the request that wakes, or from the process's")
    say("  start. The wake is the second: by then the agent knows what the first touched, and fetches that")
    say("  first. Cold here means: files in the page cache, no image to pull, nothing to schedule. Page")
    say("  faults and system calls are slow in this guest: the ratio says more than the milliseconds.")


def keep(app):
    heading("A shell on the node; exit ends it. The app runs again. Things to try:")
    os.environ.update(uid=app.pod.uid, group=str(app.container.path), agent=SOCKET)
    call = """curl -s --unix-socket $agent -d '{"pod_uid": "'$uid'"}' http://node/"""
    for line in [
        f"{call}freeze | jq",
        "grep . $group/cgroup.events $group/memory.{current,swap.current,swap.max}",
        f"{call}thaw | jq",
        f"curl -s http://127.0.0.1:{PORT}/  # freeze it again first: a request wakes it, too",
        "curl -s --unix-socket $agent http://node/metrics | grep -v '^#'",
        "cat /tmp/freeze-agent.log",
    ]:
        say("  " + styled("36", line))
    say()
    os.chdir("/root")
    os.execvp("bash", ["bash", "-i"])


if __name__ == "__main__":
    torpor.TEST_ROOT = torpor.CGROUP_ROOT  # the whole guest is ours
    kept = demo()
    if os.environ.get("DEMO_KEEP"):
        keep(kept)
