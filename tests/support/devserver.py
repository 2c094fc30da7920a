"""The demo's app, a Vite dev server, in a container as the kubelet makes it; and who visits it."""

import dataclasses
import http.client
import re
import shutil
import subprocess
import time
from urllib.parse import urljoin

import torpor
from torpor import wait_for

PORT = 5173
COMMAND = ["node", "node_modules/.bin/vite"]

# Static imports only: import("…") may stand in a comment, and nothing here is loaded lazily.
IMPORT = re.compile(r"""(?:\bfrom|\bimport|\bsrc=)\s*["']((?:/|\./)[^"'\s]+)["']""")


def msec(since, until=None):
    return 1000 * ((until or time.monotonic()) - since)


# ---- the visitor ----


@dataclasses.dataclass
class Visit:
    files: int
    page_at: float  # when the page was there
    done_at: float  # when all of its modules were

    def since(self, began):
        """Milliseconds until the page, and until all of it."""
        return msec(began, self.page_at), msec(began, self.done_at)


def get(path, port=PORT):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers={"Accept": "text/html" if path == "/" else "*/*"})
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    if response.status != 200:
        raise RuntimeError(f"GET {path}: {response.status}")
    return text


def visit(port=PORT):
    """Loads the page and every module that a browser would."""
    seen, todo, page_at = {"/"}, ["/"], None
    while todo:
        path = todo.pop()
        found = {urljoin(path, name) for name in IMPORT.findall(get(path, port))}
        page_at = page_at or time.monotonic()
        todo += found - seen
        seen |= found
    return Visit(len(seen), page_at, time.monotonic())


def use(until, port=PORT):
    """Somebody reloads the page until that moment, at least once."""
    visit(port)
    while time.monotonic() < until:
        visit(port)


def wait_for_port(port=PORT):
    def answers():
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.connect()
            connection.close()
            return True
        except OSError:
            return False

    wait_for("the app listens", answers, seconds=60)


# ---- the app ----


class App:
    """The dev server in a container that may not swap. `directory` has its packages."""

    def __init__(self, directory, port=PORT, start=None):
        # A new container has no cache of an earlier one.
        shutil.rmtree(directory / "node_modules/.vite/deps", ignore_errors=True)
        self.port = port
        self.pod = torpor.Pod()
        self.container = self.pod.container(swap_max=0)
        self.began = time.monotonic()
        self.process = (start or run)(self.container, [*COMMAND, "--port", str(port)], directory)

    def first_visit(self):
        wait_for_port(self.port)
        return visit(self.port)


def run(container, command, directory):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return container.run(command, cwd=directory, **quiet)
