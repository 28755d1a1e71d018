"""The model card of a promoted version (Mitchell et al. 2019): how good it is, on what, and what it is not for.

It is the description of the version in the registry, in Markdown. Texts from data and configurations are escaped.
"""

from collections.abc import Sequence

from ferhpo.evaluation.robustness import Corrupted
from ferhpo.promotion.facts import SHOWN_SEVERITIES, Examined, robustness
from ferhpo.promotion.gates import Passed
from ferhpo.promotion.purpose import LAW
from ferhpo.scoring.scores import Scores
from ferhpo.scoring.statistics.paired import wilson
from ferhpo.text import markdown
from ferhpo.tracking.registry import Version

MOST_CHARACTERS = 20_000


def card(examined: Examined, version: Version, results: Sequence[Passed], forced: str) -> str:
    """Return the card of a version that passed gates, or was forced."""
    facts, data = examined.facts, examined.data
    parts = [
        f"# {markdown(version.name)} version {version.number}",
        "" if version.description.startswith("# ") else version.description,  # the card of an earlier promotion
        "## Intended use",
        _use(facts.purpose),
        "## Data",
        _data(examined),
        f"## Scores on {facts.num_images:,} {facts.scored_on} images",
        _scores(examined),
        "## Scores by class",
        _classes(examined),
        "## Seeds and luck",
        _seeds(facts.num_seeds),
        "## Calibration",
        _calibration(examined),
        *(["## Robustness", _robustness(corrupted)] if (corrupted := robustness(examined)) else []),
        "## Gates",
        _gates(results, forced),
        "## Limits",
        f"Trained and scored on faces of {markdown(data.source)}, cropped as there, {data.image_size} x "
        f"{data.image_size} pixels, {'gray' if data.channels == 1 else 'color'}. Labels are what annotators saw in a "
        "face, not what the person felt, and annotators often disagree. People, ages, skin colors, cameras and "
        "situations that are rare in the data are recognized less well; this card does not say how much less.",
    ]
    return "\n\n".join(part for part in parts if part)[:MOST_CHARACTERS]


def _use(purpose: str) -> str:
    stated = f"Stated purpose: {markdown(purpose)}." if purpose else "No purpose was stated when it was promoted."
    return (
        f"{stated} It must not be used to recognize emotions of people at work or in education, which {LAW} prohibits, "
        "except for medical or safety reasons. Whoever uses it on people must tell them (article 50(3)), and must "
        "treat their images as personal data."
    )


def _data(examined: Examined) -> str:
    data, counts = (
        examined.data,
        {name: int((examined.data.split == code).sum()) for code, name in enumerate(("train", "val", "test"))},
    )
    shown = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return (
        f"{markdown(data.source)}, {markdown(data.split_name)} split: {shown} images. Digest {data.digest}. Classes: "
        f"{markdown(', '.join(data.class_names))}."
    )


def _scores(examined: Examined) -> str:
    rows = ["| images | n | accuracy | 95 % interval | macro F1 | loss |", "|---|---|---|---|---|---|"]
    variants = examined.scores.scores
    for name, scores in (("all", variants.all), ("without those that are also in training", variants.dedup)):
        if scores is not None:
            rows.append(_score_row(name, scores))
    return "\n".join(rows)


def _score_row(name: str, scores: Scores) -> str:
    low, high = wilson(round(scores.acc * scores.n), scores.n)
    interval = f"{low:.4f} to {high:.4f}"
    return f"| {name} | {scores.n:,} | {scores.acc:.4f} | {interval} | {scores.macro_f1:.4f} | {scores.loss:.4f} |"


def _classes(examined: Examined) -> str:
    rows = ["| class | images | recall | 95 % interval | precision | F1 |", "|---|---|---|---|---|---|"]
    for each in examined.scores.classes:
        low, high = wilson(round(each.recall * each.n), each.n) if each.n else (0.0, 1.0)
        name = markdown(each.name)
        interval = f"{low:.2f} to {high:.2f}"
        rows.append(f"| {name} | {each.n:,} | {each.recall:.4f} | {interval} | {each.precision:.4f} | {each.f1:.4f} |")
    return "\n".join(rows)


def _seeds(num_seeds: int | None) -> str:
    if not num_seeds:
        return "Not confirmed on fresh seeds: part of its validation score may be luck."
    return f"Chosen by the mean of {num_seeds} trainings on fresh seeds; this is the network of the median one."


def _calibration(examined: Examined) -> str:
    found = examined.calibration
    text = (
        f"Expected calibration error {found.ece:.4f}; {found.ece_after:.4f} if the logits are divided by the "
        f"temperature {found.temperature:.3f}, which was fitted to validation images. The model itself does not divide "
        "them."
    )
    for each in found.abstention:
        text += (
            f" With a confidence of {each.confidence:.2f} or more it answers {100 * each.coverage:.0f} % of the "
            f"images, {100 * each.accuracy:.1f} % of them correctly."
        )
    return text


def _robustness(found: Sequence[Corrupted]) -> str:
    whole = next(each for each in found if each.severity == 0)
    low, high = wilson(round(whole.acc * whole.n), whole.n)
    values = {(each.corruption, each.severity): each.acc for each in found}
    shown = [severity for severity in SHOWN_SEVERITIES if any(key[1] == severity for key in values)]
    rows = [
        f"Accuracy on {whole.n:,} of these images; without corruption {whole.acc:.4f} (95 % interval {low:.4f} to "
        f"{high:.4f}).\n",
        f"| corruption | {' | '.join(f'severity {severity}' for severity in shown)} |",
        f"|---|{'---|' * len(shown)}",
    ]
    for name in dict.fromkeys(each.corruption for each in found if each.severity):
        cells = " | ".join(f"{values[name, severity]:.4f}" for severity in shown)
        rows.append(f"| {name.replace('_', ' ')} | {cells} |")
    return "\n".join(rows)


def _gates(results: Sequence[Passed], forced: str) -> str:
    rows = [f"- {each.gate}: {'passed' if each.passed else 'refused'}; {markdown(each.found)}" for each in results]
    if forced:
        rows.append(f"- moved in spite of the gates, because: {markdown(forced)}")
    return "\n".join(rows)
