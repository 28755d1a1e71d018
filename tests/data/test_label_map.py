"""Renaming of classes: every spelling, every fault, and no change to classes that are not named."""

from functools import partial
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferhpo.data.labels.emotions import CLASS_NAMES, EMOTIONS, emotion_of, spelled
from ferhpo.data.labels.label_map import DROP, label_faults, mapped

SPELLINGS = {
    "Anger": "angry", "ANGRY": "angry", "disgusted": "disgust", "Fearful": "fear", "afraid": "fear",
    "Happiness": "happy", "sadness": "sad", "Surprised": "surprise", "neutral ": "neutral", "Contempt": "contempt",
}  # fmt: skip


@pytest.mark.parametrize(("written", "emotion"), SPELLINGS.items())
def test_spellings(written: str, emotion: str) -> None:
    assert emotion_of(written) == emotion
    assert spelled(written, EMOTIONS) == emotion
    assert spelled(emotion, ("x", written)) == written


def test_names_of_no_emotion() -> None:
    assert [emotion_of(name) for name in ("bored", "", "ang", "0", DROP)] == [None] * 5
    assert spelled("bored", EMOTIONS) is None
    assert spelled("Bored", ("bored", "glad")) == "bored"
    assert spelled("Bored", ("bored", "BORED")) is None
    assert spelled("BORED", ("bored", "BORED")) == "BORED"


@given(st.dictionaries(st.sampled_from(EMOTIONS), st.sampled_from((DROP, *EMOTIONS))))
def test_only_named_classes_change(labels: dict[str, str]) -> None:
    assert label_faults(labels, EMOTIONS, EMOTIONS) == []
    targets = mapped(labels, EMOTIONS, EMOTIONS)
    for name in EMOTIONS:
        expected = labels.get(name, name)
        assert targets[name] == (None if expected == DROP else expected)


@given(
    st.lists(st.text(min_size=1, max_size=6).map(partial(normalize, "NFC")), min_size=1, max_size=6, unique=True),
    st.data(),
)
def test_classes_of_any_name(names: list[str], data: st.DataObject) -> None:
    """A name in the mapping never changes a class of another name, however similar the two are."""
    given_names = tuple(names)
    chosen = data.draw(st.sampled_from(names))
    targets = mapped({chosen: "other"}, given_names, None)
    assert targets == {name: "other" if name == chosen else name for name in names}


def test_every_fault() -> None:
    labels = {"contemt": "drop", "anger": "happy", "angry": "sad", "fear": "dropp", "sad": None, "zzz": "drop"}
    assert label_faults(labels, EMOTIONS, CLASS_NAMES) == [
        "data.labels.contemt matches no class; did you mean contempt?",
        "data.labels.angry and data.labels.anger mean the same class; keep one",
        "data.labels.fear is dropp; it must be drop, angry, disgust, fear, happy, sad, surprise or neutral; "
        "did you mean drop?",
        "data.labels.sad is None; it must be drop or the name of a class",
        "data.labels.zzz matches no class; there are: angry, disgust, fear, happy, sad, surprise, neutral, contempt",
    ]
    assert label_faults("fer", EMOTIONS, None) == [
        "data.labels is fer; it must be a mapping from classes, e.g. data.labels={contempt: drop}"
    ]


def test_an_emotion_that_is_not_there_may_be_named() -> None:
    assert label_faults({"contempt": "drop"}, ("angry", "happy"), None) == []
    assert mapped({"contempt": "drop"}, ("angry", "happy"), None) == {"angry": "angry", "happy": "happy"}
