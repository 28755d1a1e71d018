"""The names of the emotions, and the spellings that data sets have for them.

Labels 0 to 6 mean the same in every data set of emotions here: FER2013's seven in its order. Contempt comes after them,
where a data set has it.
"""

CLASS_NAMES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
EMOTIONS = (*CLASS_NAMES, "contempt")

_SPELLINGS = {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "scared": "fear",
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "neutrality": "neutral",
    "contemptuous": "contempt",
}


def emotion_of(name: str) -> str | None:
    """The one of EMOTIONS that a name means, whatever its case; None where it means none."""
    lower = name.strip().lower()
    return lower if lower in EMOTIONS else _SPELLINGS.get(lower)


def spelled(name: str, names: tuple[str, ...]) -> str | None:
    """The one of `names` that is written like `name`, or else but for its case, or else means the same emotion.

    None where there is none, or several.
    """
    if name in names:
        return name
    alike = [other for other in names if other.lower() == name.strip().lower()]
    found = alike or [other for other in names if emotion_of(other) == emotion_of(name) is not None]
    return found[0] if len(found) == 1 else None
