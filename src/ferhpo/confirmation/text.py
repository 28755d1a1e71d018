"""What a confirmation found, as text, made of confirm.json: sentences, a table of its candidates, a note for MLflow."""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

Found = Mapping[str, Any]


def spread(mean: Mapping[str, Any] | None) -> str:
    """A mean with its standard deviation, as "0.8120 ± 0.0042"."""
    if mean is None:
        return "none"
    return f"{mean['mean']:.4f}" + ("" if mean["deviation"] is None else f" ± {mean['deviation']:.4f}")


def interval(mean: Mapping[str, Any] | None) -> str:
    """The interval of a mean, as "0.8016 to 0.8224"; empty where one value has none."""
    return "" if mean is None or mean["low"] is None else f"{mean['low']:.4f} to {mean['high']:.4f}"


def sentences(found: Found) -> Iterator[str]:
    """What was found, in words: the choice, the luck, the test images, the registry."""
    candidates, metric = found["candidates"], found["objective"]
    first = candidates[0]
    if found["chosen"] is None:
        yield f"Nothing is chosen: no training of a candidate came to an end with a {metric}."
        return
    others = "" if found["chosen"] == found["winner"] else f"; by the sweep's own values it was trial {found['winner']}"
    yield f"Trial {found['chosen']} is chosen by its mean {metric}, {spread(first['score'])}{others}."
    if len(candidates) > 1 and not found["told_apart"]:
        second = candidates[1]["trial"]
        yield f"Its interval is not clear of that of trial {second}: these seeds do not tell the two apart."
    yield from _luck(found)
    lost = [c for c in candidates if c["without"]]
    for candidate in lost:
        states = ", ".join(state.lower() for state in candidate["without"])
        yield f"Trial {candidate['trial']} lost {len(candidate['without'])} of its seeds ({states}) and ranks behind."
    if found["test"] is None:
        yield f"No test images were read: {found['no_test']}."
    if found["registered"]:
        registered = found["registered"]
        num_seeds = first["score"]["n"]
        yield (
            f"{registered['name']} version {registered['version']} is the network of seed {registered['seed']}, the "
            f"middle one of {num_seeds} by {metric} ({registered['value']:.4f})."
        )


def _luck(found: Found) -> Iterator[str]:
    luck, metric = found["luck"], found["objective"]
    winner = next(c for c in found["candidates"] if c["trial"] == found["winner"])
    if found["changed"]:
        yield f"How much was luck is not computed: the retraining had {', '.join(found['changed'])}."
    elif luck is None:
        yield f"How much was luck is not known: the sweep's best, trial {found['winner']}, gave no value again."
    else:
        level, seeds = f"{100 * found['level']:.0f} %", f"{luck['n']} seed{'s' * (luck['n'] > 1)}"
        known = luck["low"] is not None
        sure = f"{level} interval {interval(luck)}, {seeds}" if known else f"{seeds}, so no interval"
        none = "; the interval holds 0, so it may have been none" if known and luck["low"] <= 0 <= luck["high"] else ""
        yield (
            f"Luck {luck['mean']:+.4f} ({sure}): the sweep's best, trial {found['winner']}, had {metric} "
            f"{winner['sweep_value']:.4f} there and {winner['score']['mean']:.4f} on fresh seeds{none}."
        )


def test_rows(found: Found) -> Iterator[tuple[str, int, str, str, str]]:
    """(line, images, acc, macro F1, loss) of each line of the test scores: means over the chosen trial's networks."""
    for way, words in (("one_view", ""), ("ten_crop", ", ten-crop")):
        for line, name in (("published", "as published"), ("clean", "without overlap")):
            scores = ((found["test"] or {}).get(way) or {}).get(line)
            if scores:
                yield (f"{name}{words}", scores["n"], *(spread(scores[key]) for key in ("acc", "macro_f1", "loss")))


def candidates_csv(found: Found) -> str:
    """The candidates as CSV, best first, one column for each sampled hyperparameter."""
    names = list(dict.fromkeys(path for candidate in found["candidates"] for path in candidate["sample"]))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    numbers = ["n", "mean", "deviation", "low", "high"]
    writer.writerow(["rank", "trial", "sweep_value", *numbers, "val_acc_dedup", "luck", "lost_seeds", *names])
    for candidate in found["candidates"]:
        score, clean, luck = (candidate[key] or {} for key in ("score", "clean", "luck"))
        row = [candidate["rank"], candidate["trial"], candidate["sweep_value"], *(score.get(key) for key in numbers)]
        row += [clean.get("mean"), luck.get("mean"), len(candidate["without"])]
        writer.writerow([*row, *(candidate["sample"].get(name) for name in names)])
    return out.getvalue()


def confirmation_note(found: Found) -> str:
    """What was found, in markdown."""
    level = f"{100 * found['level']:.0f} % interval"
    place = f"#/experiments/{found['experiment_id']}/runs/{found['sweep_run']}" if found["sweep_run"] else ""
    sweep = f"[{found['sweep']}]({place})" if place else found["sweep"]
    lines = [
        f"**{found['confirmation']}** confirms sweep **{sweep}**: its best {len(found['candidates'])} on "
        f"{len(found['seeds'])} fresh seeds.",
        "",
        *(f"- {sentence}" for sentence in sentences(found)),
        "",
        f"| rank | trial | in the sweep | {found['objective']} | {level} | seeds | without overlap |",
        "|---|---|---|---|---|---|---|",
    ]
    for c in found["candidates"]:
        n = c["score"]["n"] if c["score"] else 0
        cells = (c["rank"], c["trial"], f"{c['sweep_value']:.4f}", spread(c["score"]), interval(c["score"]), n)
        lines.append(f"| {' | '.join(map(str, cells))} | {spread(c['clean'])} |")
    rows = list(test_rows(found))
    if rows:
        lines += ["", f"Test images ({found['split_name']}), read once:", "", "| line | n | acc | macro F1 | loss |"]
        lines += ["|---|---|---|---|---|", *(f"| {' | '.join(map(str, row))} |" for row in rows)]
    return "\n".join(lines)
