"""No file of somebody else's, and no name in a data set, changes how a figure is made."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from ferhpo.reports.style import figure
from ferhpo.reports.trial import confusion

HOSTILE = "text.usetex: True\naxes.facecolor: red\nbackend: module://evil\nsavefig.format: pdf\n"
DRAW = """
import json, sys
from pathlib import Path
import {first}
from ferhpo.reports.style import figure
with figure(Path(sys.argv[1])) as drawn:
    axes = drawn.add_subplot()
    axes.set_title("one $word$")
    axes.set_xscale("log")
    axes.plot([1e-5, 1], [0, 1])
import matplotlib
print(matplotlib.rcParams["text.usetex"], matplotlib.rcParams["axes.facecolor"], Path.cwd())
"""
FIRST = ("ferhpo.reports.style", "ferhpo.reports.network.sheet", "ferhpo.reports.sweep.parallel", "ferhpo.reports.live")


def run(folder: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, timeout=150
    )


@pytest.fixture
def hostile(tmp_path):
    """A folder with a matplotlibrc and the module that it names."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    (folder / "matplotlibrc").write_text(HOSTILE)
    (folder / "evil.py").write_text("raise SystemExit('the module was imported')")
    return folder


@pytest.fixture
def usual(tmp_path):
    """The figure as a folder without matplotlibrc gives it."""
    (tmp_path / "usual").mkdir()
    done = run(tmp_path / "usual", "-c", DRAW.format(first=FIRST[0]), str(tmp_path / "usual.png"))
    assert done.returncode == 0, done.stderr
    return (tmp_path / "usual.png").read_bytes()


@pytest.mark.parametrize("first", FIRST)
def test_a_matplotlibrc_of_the_current_folder_is_ignored(hostile, usual, tmp_path, first):
    done = run(hostile, "-c", DRAW.format(first=first), str(tmp_path / "a.png"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "white", str(hostile)], "the folder is the same as before"
    assert (tmp_path / "a.png").read_bytes() == usual


def test_matplotlib_of_the_users_own_code_does_not_matter_either(hostile, usual, tmp_path):
    """It was imported before ferhpo's reports, and read the file."""
    (hostile / "matplotlibrc").write_text(HOSTILE.replace("backend: module://evil\n", ""))
    done = run(hostile, "-c", DRAW.format(first="matplotlib"), str(tmp_path / "a.png"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").read_bytes() == usual


@pytest.mark.parametrize("variable", ["MPLCONFIGDIR", "MATPLOTLIBRC"])
def test_the_users_own_settings_do_not_change_a_figure(hostile, usual, tmp_path, variable):
    (tmp_path / "work").mkdir()
    done = run(
        tmp_path / "work", "-c", DRAW.format(first=FIRST[0]), str(tmp_path / "a.png"), **{variable: str(hostile)}
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").read_bytes() == usual


def test_the_processes_that_draw_trials_ignore_it_too(hostile, tmp_path):
    for kind in (os.mkfifo, lambda path: path.write_text(HOSTILE)):
        (hostile / "matplotlibrc").unlink(missing_ok=True)
        kind(hostile / "matplotlibrc")
        code = (
            "from ferhpo.reports.draw_trials import draw;"
            "names = ('train_acc', 'val_acc', 'train_loss', 'val_loss');"
            "rows = [dict(epoch=epoch, **dict.fromkeys(names, 0.5)) for epoch in range(3)];"
            f"job = dict(folder={str(tmp_path / 'out')!r}, number=3, epochs=rows, best_epoch=1, kept="
            "dict(class_names=['$\\\\foo$', 'b'], confusion=[[1, 2], [3, 4]]));"
            "print(list(draw([job], 1)))"
        )
        done = run(hostile, "-c", code)
        assert done.stdout == "[3]\n", done.stderr


@pytest.mark.parametrize("first", ["ferhpo.trial.run"])
def test_a_pipe_of_that_name_is_not_waited_for(hostile, first):
    """torchmetrics, and by it Lightning, import matplotlib."""
    (hostile / "matplotlibrc").unlink()
    os.mkfifo(hostile / "matplotlibrc")
    done = run(hostile, "-c", f"import {first}; import torchmetrics, matplotlib; print(matplotlib.__name__)")
    assert done.stdout == "matplotlib\n", done.stderr


@pytest.mark.parametrize("name", ["$\\foo$", "$x$ $", "$\\frac{1}$", "a_$^{2}$"])
def test_a_name_in_a_figure_is_not_a_formula(tmp_path, name):
    confusion.draw(tmp_path / "a.png", np.array([[1, 2], [3, 4]]), [name, "b"], ["images"])
    with figure(tmp_path / "b.svg") as drawn:
        axes = drawn.add_subplot()
        axes.plot([1], [1], label=name)
        axes.set(title=name, xlabel=name)
        axes.set_xticks([1], [name])
        axes.annotate(name, (1, 1))
        drawn.legend()
        shown = [text.get_text() for text in drawn.findobj(matplotlib.text.Text) if text.get_text() == name]
        assert len(shown) >= 5
        assert not any(text.get_parse_math() for text in drawn.findobj(matplotlib.text.Text))
    assert (tmp_path / "b.svg").stat().st_size > 1000


def test_a_log_axis_has_plain_numbers(tmp_path):
    with figure(tmp_path / "a.png") as drawn:
        axes = drawn.add_subplot()
        axes.set_xscale("log")
        axes.plot([1e-5, 10], [0, 1])
    texts = [text.get_text() for text in axes.get_xticklabels()]
    assert {"1e-5", "0.001", "1", "10"} <= set(texts)
    assert not any("$" in text for text in texts)
