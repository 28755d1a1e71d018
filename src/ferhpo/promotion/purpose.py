"""What a model is for, and what it must not be for.

Emotion recognition at work and in education is prohibited in the European Union, except for medical and safety reasons
(Regulation (EU) 2024/1689, article 5(1)(f), in force since 2 February 2025).
"""

import re

from ferhpo.errors import ConfigError

# Beginnings of words, and whole words
PROHIBITED = {
    "work": (
        "employee", "employer", "employment", "hiring",
        "recruit", "interview", "applicant", "staff", "colleague", "worker", "workplace",
        "workforce", "office", "call center", "human resources", "job ", "jobs ", "work ", "team meeting",
        "productivity",
    ),
    "education": (
        "educat", "school", "classroom", "student", "pupil", "teach", "exam ", "exams ", "universit", "college ",
        "lecture", "lesson", "e-learning", "kindergarten", "in class ", "homework", "proctor",
    ),
}  # fmt: skip
# In which the words above mean something else
HARMLESS = ("research work", "work of art")
EXCEPTIONS = ("medical", "safety")
LAW = "the EU AI Act, article 5(1)(f), in force since 2 February 2025"


def purpose_fault(purpose: str) -> str:
    """Return why a model must not be promoted for a purpose; empty if it may be."""
    text = f" {' '.join(re.findall(r'[a-z-]+', purpose.lower()))} "
    if any(f" {word} " in text for word in EXCEPTIONS):
        return ""
    for words in HARMLESS:
        text = text.replace(f" {words} ", " ").replace(f" {words}s ", " ")
    for area, named in PROHIBITED.items():
        if found := next((word for word in named if f" {word}" in text), None):
            return (
                f"--purpose is {purpose!r:.80} ({found.strip()}); recognizing emotions in {area} is prohibited by "
                f"{LAW}, except for medical or safety reasons; if it is one of these, say so, e.g. medical: ..."
            )
    return ""


def check_purpose(purpose: str) -> None:
    """Raise ConfigError for a purpose that is prohibited, or too long for a tag."""
    if len(purpose) > 500:
        raise ConfigError("promote", [f"--purpose has {len(purpose)} characters; it must have at most 500"])
    if fault := purpose_fault(purpose):
        raise ConfigError("promote", [fault])
