"""Figures: what was measured, against what, and how it is told."""

import dataclasses
import statistics


def percentile(values, share):
    """The smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


@dataclasses.dataclass
class Series:
    """Measurements of one thing, in the unit of its figure."""

    values: list

    @property
    def median(self):
        return statistics.median(self.values)

    @property
    def p99(self):
        return percentile(self.values, 99)

    def as_dict(self):
        return {
            "n": len(self.values),
            "median": self.median,
            "p99": self.p99,
            "min": min(self.values),
            "max": max(self.values),
        }


@dataclasses.dataclass
class Figure:
    """One line of the table. `met` is None where there is no target."""

    group: str
    name: str
    unit: str
    ours: Series
    baseline: Series = None
    target: str = ""
    met: bool = None

    @property
    def ratio(self):
        return self.ours.median / self.baseline.median if self.baseline else None

    @property
    def difference(self):
        return self.ours.median - self.baseline.median if self.baseline else None

    def as_dict(self):
        return {
            "group": self.group,
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours.as_dict(),
            "baseline": self.baseline.as_dict() if self.baseline else None,
            "ratio": self.ratio,
            "difference": self.difference,
            "target": self.target,
            "met": self.met,
        }


def figure(group, name, unit, ours, baseline=None, target="", check=None):
    """`check` gets the figure and says whether it meets the target."""
    one = Figure(group, name, unit, Series(ours), Series(baseline) if baseline else None, target)
    one.met = check(one) if check else None
    return one


# ---- the table ----


def _number(value):
    if value is None:
        return ""
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:.{digits}f}"


def _p99(series):
    return _number(series["p99"]) if series and series["n"] > 1 else ""


def _row(data, noisy):
    ours, baseline = data["ours"], data["baseline"]
    return [
        data["name"],
        data["unit"],
        str(ours["n"]),
        _number(baseline and baseline["median"]),
        _p99(baseline),
        _number(ours["median"]),
        _p99(ours),
        _number(data["difference"]),
        f"{data['ratio']:.2f}" if baseline else "",
        data["target"],
        {True: "met", False: "missed?" if noisy else "MISSED", None: ""}[data["met"]],
    ]


HEAD = ["", "unit", "n", "against", "p99", "agent", "p99", "more", "ratio", "target", ""]


def table(figures, noisy):
    """Text of figures as dicts, with a heading for each group. On a noisy machine a target that was
    missed may have been missed because of that."""
    rows = [_row(data, noisy) for data in figures]
    widths = [max(map(len, column)) for column in zip(HEAD, *rows)]
    lines, group = [], None
    for data, row in zip(figures, rows):
        if data["group"] != group:
            group = data["group"]
            lines += ["", group, _line(HEAD, widths)]
        lines.append(_line(row, widths))
    return "\n".join(lines)


def _line(cells, widths):
    texts = (0, 1, 9, 10)  # the others are numbers
    padded = [
        cell.ljust(width) if i in texts else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths))
    ]
    return "  " + "  ".join(padded).rstrip()
