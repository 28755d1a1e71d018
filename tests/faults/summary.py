"""Read, write and summarize the log of rounds, which has a JSON line per round."""

import json
from collections import Counter
from pathlib import Path

from tests.faults.checks import COUNTED


def read(path):
    """Return the last line of each round in a log, by number."""
    lines = Path(path).read_text().splitlines() if path and Path(path).exists() else []
    rounds = [json.loads(line) for line in lines]
    return {row["number"]: row for row in rounds}


def append(path, row):
    """Add a round to a log."""
    if path:
        with Path(path).open("a") as file:
            file.write(json.dumps(row) + "\n")


def lines(rows):
    """Summarize rounds in a few lines of text."""
    rows = list(rows)
    kills = Counter(fault["what"] for row in rows for fault in row["faults"] if fault["came"])
    kinds = Counter(row["kind"] for row in rows)
    counts = {key: sum(row["counts"][key] for row in rows if row["counts"]) for key in COUNTED}
    failed = [row["number"] for row in rows if not row["passed"]]
    return [
        f"{len(rows)} rounds ({', '.join(f'{count} {kind}' for kind, count in kinds.items())}), "
        f"{sum(row['num_ended'] for row in rows)} trials, {sum(len(row['statuses']) for row in rows)} drivers, "
        f"{sum(row['num_reports'] for row in rows)} reports",
        f"faults: {', '.join(f'{count} {what}' for what, count in sorted(kills.items()))}",
        ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in counts.items()),
        f"failed rounds: {failed or 'none'}",
    ]
