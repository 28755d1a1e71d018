"""The commands and Python blocks of README.md and docs/, and what the tests change to run them on small data.

SUBSTITUTIONS and NOT_RUN are the only place where a command that is run differs from the one that is shown.
"""

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
WALKED = "docs/tutorial-fer2013.md"  # needs FER2013, a server and an hour; it was walked by hand
EXTENDING = "docs/extending.md"  # run by a test of its own, as the how-to pages are
PAGES = {
    name: path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if (name := path.relative_to(ROOT).as_posix()) != EXTENDING
}
REFERENCE = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "docs" / "reference").glob("*.md"))}
HOW_TO = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "docs" / "how-to").glob("*.md"))}
ALL = PAGES | REFERENCE | HOW_TO | {EXTENDING: ROOT / EXTENDING}  # how-to pages are run by tests of their own

# (pattern, replacement, why): applied to every command, Python block and file that a page shows, in this order.
SUBSTITUTIONS = (
    (r"/shared/", "", "the folder of the test is the shared folder"),
    (r" compute=cluster", "", "there is no Ray cluster"),
    (r"\bnum_trials=\d\d+", "num_trials=2", "time"),
    (r"num_trials: \d+", "num_trials: 2", "time"),
    (r"max_epochs: \d+", "max_epochs: 1", "time"),
    (r"num_train=\d+", "num_train=350", "time"),
    (r"trainer\.max_epochs=\d+", "trainer.max_epochs=1", "time"),
    (r"data\.train_subset=\d+", "data.train_subset=56", "the small fer2013.csv has 70 training images"),
    (r"data\.folds=\d+", "data.folds=2", "time"),
    (r"--top \d+ --seeds \d+", "--top 2 --seeds 2", "time"),
    (r"keep_epochs=\[[\d,]+\]", "keep_epochs=[1]", "there is one epoch"),
)
# (the start of a command, why): parsed, and not run.
NOT_RUN = (
    ("ferhpo ui", "it serves until it is interrupted"),
    ("ferhpo dashboard", "it serves until it is interrupted"),
    ("ferhpo serve", "it serves until it is interrupted"),
    ("ferhpo keys", "it would write into the user's folder; tests/test_signing.py runs it"),
    ("ferhpo predict models:", "nothing was promoted; tests/test_serving.py runs it"),
    ("ferhpo evaluate models:/ferhpo-demo@champion security", "nothing was promoted; tests/test_serving.py runs it"),
    ("ferhpo ensemble demo-confirm", "there is no confirmation; tests/test_ensemble.py runs it"),
    ("ferhpo promote demo", "what its gates say depends on two epochs; tests/test_promoting.py runs it"),
    ("ferhpo rollback demo", "nothing was promoted; tests/test_promoting.py runs it"),
)
# Pages that start in an empty folder; the others share one that has data, small recipes and the sweep `demo`.
ALONE = ("docs/tutorial.md",)
# Commands that end with another exit status than 0.
STATUS = {"ferhpo check demo optim.lrr=1 model=resent": 2}


@dataclass(frozen=True)
class Block:
    """A fenced or indented block of a page; `line` counts from 1, `before` is the sentence above it."""

    page: str
    line: int
    language: str
    text: str
    before: str = ""

    @property
    def is_python(self):
        return self.language == "python" or (not self.language and self.text.startswith(("from ", "import ")))

    @property
    def file(self):
        """The file that the page tells the reader to save a YAML block as."""
        found = re.search(r"[Ss]ave (?:this|it) as\s`([\w/]+\.yaml)`:$", self.before)
        return found[1] if found and self.language == "yaml" else None

    def commands(self):
        """The `ferhpo` commands, each with the output that is shown after it."""
        if self.is_python or self.language in ("yaml", "text"):
            return []
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        prompt = "$ " if any(line.startswith("$ ") for line in lines) else ""
        found = []
        for line in lines:
            if line.startswith(f"{prompt}ferhpo "):
                found.append([line.removeprefix(prompt).partition("  #")[0].strip(), []])
            elif found and prompt:
                found[-1][1].append(line)
        return [(command, "\n".join(output).strip()) for command, output in found]


@cache
def blocks(page):
    """The blocks of a page in their order."""
    lines = ALL[page].read_text().splitlines()
    found, number = [], 0
    while number < len(lines):
        line = lines[number]
        if opening := re.match(r"\s*```(\w*)", line):
            end = next(i for i in range(number + 1, len(lines)) if lines[i].strip() == "```")
            inside, language = lines[number + 1 : end], opening[1]
        elif line.startswith("    ") and (number == 0 or not lines[number - 1].strip()) and not in_list(lines, number):
            end = number
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            inside, language = [text[4:] for text in lines[number:end]], ""
        else:
            number += 1
            continue
        before = "\n".join(lines[max(number - 3, 0) : number]).strip()
        found.append(Block(page, number + 1, language, "\n".join(inside).strip("\n") + "\n", before))
        number = end + 1 if language or opening else end
    return found


def in_list(lines, number):
    """Whether an indented line continues an item of a list."""
    before = next((line for line in reversed(lines[:number]) if line.strip() and not line.startswith("    ")), "")
    return bool(re.match(r"\s*([-*]|\d+\.) ", before))


def all_commands(pages=ALL):
    return [(block, command) for page in pages for block in blocks(page) for command, _ in block.commands()]


def substituted(text):
    for pattern, replacement, _ in SUBSTITUTIONS:
        text = re.sub(pattern, replacement, text)
    return text


def arguments(command):
    """The arguments of a command, without the `ferhpo` before them."""
    return shlex.split(command)[1:]


def is_run(command):
    return not any(command.startswith(start) for start, _ in NOT_RUN)
