"""The names of the emotions and their spellings in data sets.

Labels 0 to 6 mean the same in every data set of emotions: the seven of FER2013, in its order. Contempt is label 7 in
data sets that have it.
"""

import unicodedata

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
    """Return the one of EMOTIONS that a name means, ignoring case, or None."""
    lower = name.strip().lower()
    return lower if lower in EMOTIONS else _SPELLINGS.get(lower)


def spelled(name: str, names: tuple[str, ...]) -> str | None:
    """Return the one of `names` that equals `name`, else equals it ignoring case, else means the same emotion.

    Returns None if there is none, or more than one.
    names: in Unicode's form NFC; `name` may be in another
    """
    name = unicodedata.normalize("NFC", name)
    if name in names:
        return name
    same_letters = [other for other in names if other.lower() == name.strip().lower()]
    found = same_letters or [other for other in names if emotion_of(other) == emotion_of(name) is not None]
    return found[0] if len(found) == 1 else None
