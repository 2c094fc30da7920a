#!/usr/bin/python3
"""ladder_docs FILE: draws docs/ladder.svg and fills the README's table, from ladder.py's figures."""

import json
import math
import re
import sys
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PICTURE = ROOT / "docs/ladder.svg"

LEFT, RIGHT, WIDTH = 232, 96, 820
TOP, ROW, BAR = 92, 50, 15

# A picture in a page cannot see the page's colours, but it knows the reader's preference.
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 17px; font-weight: 600 }
  .small { font-size: 11.5px; fill: #59636e }
  .first { fill: #0969da } .complete { fill: #8fbff5 } .grid { stroke: #d1d9e0 }
  .ground { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .small { fill: #9198a1 }
    .first { fill: #4493f8 } .complete { fill: #28527f } .grid { stroke: #3d444d }
    .ground { fill: #0d1117 }
  }
"""


def duration(msec):
    return f"{msec:.0f} ms" if msec < 1000 else f"{msec / 1000:.1f} s"


# ---- the picture ----


class Scale:
    """Milliseconds to pixels, by powers of ten."""

    def __init__(self, values):
        self.low = math.floor(math.log10(min(values)))
        self.high = math.log10(max(values)) + 0.05

    def x(self, msec):
        share = (math.log10(msec) - self.low) / (self.high - self.low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def decades(self):
        return [10**n for n in range(self.low, math.floor(self.high) + 1)]


def text(x, y, words, style="", anchor="start"):
    place = f'x="{x:.0f}" y="{y:.0f}" class="{style}" text-anchor="{anchor}"'
    return f"<text {place}>{escape(words)}</text>"


def bar(scale, y, kind, series):
    width = scale.x(series["median"]) - LEFT
    return [
        f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2" class="{kind}"/>',
        text(LEFT + width + 6, y + BAR - 3, duration(series["median"]), "small"),
    ]


def rest_of(rung):
    return f"at rest {rung['ram_mb']['median']:.0f} MB of RAM"


def draw_rung(scale, y, rung):
    return [
        text(LEFT - 10, y + 12, rung["label"], anchor="end"),
        text(LEFT - 10, y + 28, rest_of(rung), "small", "end"),
        *bar(scale, y, "first", rung["first"]),
        *bar(scale, y + BAR + 2, "complete", rung["complete"]),
    ]


def grid(scale, bottom):
    for value in scale.decades():
        x = scale.x(value)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{bottom}" class="grid"/>'
        yield text(x, bottom + 15, duration(value), "small", "middle")


def legend(y):
    x = LEFT
    for kind, words in (("first", "first response"), ("complete", "page with all of its modules")):
        yield f'<rect x="{x}" y="{y - 11}" width="12" height="12" rx="2" class="{kind}"/>'
        yield text(x + 18, y, words, "small")
        x += 130


SUBTITLE = "A Vite development server. Shorter is better; every gridline is ten times the last."


def draw(part, cpu):
    rungs = part["rungs"]
    scale = Scale([r[name]["median"] for r in rungs for name in ("first", "complete")])
    bottom = TOP + ROW * len(rungs)
    height = bottom + 80
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>The ladder: what the next visitor waits for</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" class="ground"/>',
        text(20, 32, "What the next visitor waits for, by how the app was put to rest", "title"),
        text(20, 52, SUBTITLE, "small"),
        *legend(74),
        *grid(scale, bottom),
    ]
    for i, rung in enumerate(rungs):
        lines += draw_rung(scale, TOP + ROW * i, rung)
    for i, line in enumerate(captions(part, cpu)):
        lines.append(text(20, bottom + 38 + 16 * i, line, "small"))
    return "\n".join([*lines, "</svg>", ""])


def captions(part, cpu):
    return [
        f"{where(part, cpu)}.",
        "Page faults and system calls are slow there: compare the bars with each other.",
        "Cold start is the process alone: no scheduling, no image pull, files in the page cache.",
    ]


def where(part, cpu):
    """The guest cannot tell what processor it has. Others make every time longer."""
    shared = ", beside other work" if part["busy"] >= 0.1 else ""
    return (
        f"Linux {part['machine']['kernel']} (User Mode Linux) on one {cpu} processor{shared},"
        f" medians of {part['rounds']} rounds"
    )


# ---- the table ----


def table(part, cpu):
    yield "| | first response | page with all modules | RAM at rest | swap | CPU at rest |"
    yield "|---|--:|--:|--:|--:|--:|"
    for rung in part["rungs"]:
        times = [duration(rung[name]["median"]) for name in ("first", "complete")]
        yield (
            f"| {rung['label']} | {' | '.join(times)} | {rung['ram_mb']['median']:.1f} MB"
            f" | {rung['swap_mb']['median']:.0f} MB | {rung['cpu_percent']['median']:.1f} % |"
        )
    yield ""
    yield f"{where(part, cpu)}. Page faults and system calls are slow there: ratios say more."
    yield ""
    for one in part["targets"]:
        met = "met" if one["met"] else "missed"
        yield f"- {one['what']}: {one['ratio']:.1f}, target at least {one['target']}: {met}"


def native(part):
    yield ""
    yield (
        f"On this machine's own kernel ({part['machine']['kernel'].partition('-')[0]},"
        f" {part['machine']['cpus']} processors, beside other work), a server of a few lines in C:"
    )
    yield ""
    yield "| | n | against: median, p99 | with the agent: median, p99 | target | |"
    yield "|---|--:|--:|--:|---|---|"
    for one in part["figures"]:
        ours, base = one["ours"], one["baseline"]
        pair = [number(s["median"]) + ", " + number(s["p99"]) for s in (base, ours)]
        met = "met" if one["met"] else "missed"
        yield (
            f"| {one['group']}: {one['name']}, {one['unit']} | {ours['n']} | {pair[0]} | {pair[1]}"
            f" | {one['target']} | {met} |"
        )


def number(value):
    return f"{value:.2f}" if value < 1000 else f"{value:.0f}"


def fill(readme, lines):
    block = "\n".join(["<!-- ladder: from make bench-ladder-docs -->", *lines, "<!-- /ladder -->"])
    filled, n = re.subn(r"<!-- ladder: .*?<!-- /ladder -->", lambda _: block, readme, flags=re.DOTALL)
    if n != 1:
        raise SystemExit("ladder_docs: README.md has no place for the table")
    return filled


def main():
    parts = json.loads(Path(sys.argv[1]).read_text())
    cpu = parts["native"]["machine"]["cpu"]
    PICTURE.write_text(draw(parts["guest"], cpu))
    lines = [*table(parts["guest"], cpu), *native(parts["native"])]
    README.write_text(fill(README.read_text(), lines))


if __name__ == "__main__":
    main()
