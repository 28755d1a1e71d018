"""The page: every sweep has one, it is self-contained, and text from users is escaped."""

import ast
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import ferhpo
from ferhpo import cli
from ferhpo.errors import SweepError
from ferhpo.reports import page, report
from ferhpo.reports.panel import Panel, write_table
from ferhpo.reports.report import OF_A_SWEEP, OF_A_TRIAL, OF_DATA, sweep_report, trial_report
from ferhpo.reports.sweep.leaderboard import sweep_note
from ferhpo.text import join, plural
from tests.reports.made_sweeps import CONDITIONAL_SPACE, LIST_SPACE, made_sweep

REPORTS = Path(report.__file__).parent
GONE = "data=fer2013", "data.path=/nowhere/fer2013.csv"
VOID = {"meta", "link", "img", "wbr", "br"}


class Reader(HTMLParser):
    """Read a page; its tags must close in order, and its links must have anchors."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.words = [], set(), [], [], []
        self.feed(text)
        assert self.open == []
        assert {link.removeprefix("#") for link in self.links} <= self.ids

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.open += [] if tag in VOID else [tag]
        self.ids |= {attrs["id"]} if "id" in attrs else set()
        self.links += [attrs["href"]] if tag == "a" else []
        self.sources += [attrs["src"]] if "src" in attrs else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def read(path):
    """Return a page as a Reader, after checks that hold for every page."""
    text = path.read_text()
    reader = Reader(text)
    assert all(source.startswith("data:image/") for source in reader.sources)
    assert "<script" not in text
    assert not re.search(r"(src|href)=[\"']?(https?:|/)", text)
    return reader


SWEEPS = {
    "no trials": ([], None),
    "only failed": (["FAILED", "INFEASIBLE", "FAILED"], None),
    "only running": (["RUNNING"], None),
}
MORE_SWEEPS = {
    "all states": (["COMPLETE", "PRUNED", "DIVERGED", "COMPLETE", "INFEASIBLE", "RUNNING", "FAILED"], None),
    "one trial": (["COMPLETE"], None),
    "conditional and repeated": (["COMPLETE", "PRUNED", "COMPLETE", "COMPLETE"], CONDITIONAL_SPACE),
    "lists to choose from": (["COMPLETE", "COMPLETE", "COMPLETE"], LIST_SPACE),
    "a training": (["COMPLETE"], {}),
    "enough for everything": (["COMPLETE", "PRUNED", "COMPLETE"] * 8, None),
    "a thousand": (["COMPLETE", "PRUNED", "PRUNED", "FAILED"] * 250, None),
}


@pytest.mark.parametrize("case", [*SWEEPS, *(pytest.param(case, marks=pytest.mark.full) for case in MORE_SWEEPS)])
def test_any_sweep_gives_a_page(tmp_path, case):
    states, space = (SWEEPS | MORE_SWEEPS)[case]
    sweep = made_sweep(tmp_path, states, space, overrides=GONE)
    path = sweep_report(sweep)
    assert path == sweep.folder / "report" / "index.html"
    words = " ".join(read(path).words)
    assert plural(len(states), "trial") in words
    assert "data.path is /nowhere/fer2013.csv" in words, "the page says what is missing"
    assert not list(path.parent.glob(".report-*"))
    assert path.stat().st_size < 3_000_000


def test_a_quick_page_is_made_also_without_checkpoints(tmp_path):
    path = sweep_report(made_sweep(tmp_path, ["COMPLETE"], {}, overrides=GONE), is_quick=True)
    words = " ".join(read(path).words)
    assert "best.ckpt does not exist" in words
    assert "Make the complete page with: ferhpo report made" in words


def test_text_from_users_is_escaped(tmp_path):
    evil = "<script>alert('x')</script>&\"<img src=x>"
    sweep = made_sweep(tmp_path, ["FAILED"], reason=evil, overrides=GONE)
    sweep.config["data"]["path"] = f"/nowhere/{evil}"
    words = "".join(read(sweep_report(sweep)).words)
    assert words.count(evil) >= 2


def test_the_page_of_a_trial_is_about_it_alone(tmp_path):
    sweep = made_sweep(tmp_path, ["COMPLETE", "DIVERGED"], reason="val_loss is nan at epoch 3", overrides=GONE)
    path = trial_report(sweep, 1)
    assert path == sweep.folder / "report" / "trial-1" / "index.html"
    words = " ".join(read(path).words)
    assert "Diverged after 3 epochs." in words
    assert "val_loss is nan at epoch 3" in words
    assert "best.ckpt does not exist" in words
    with pytest.raises(SweepError, match=r"^--trial is 7; sweep made has no such trial; it has trials 0 to 1$"):
        trial_report(sweep, 7)


def test_the_verb_prints_the_path(tmp_path, capsys):
    made_sweep(tmp_path, ["INFEASIBLE"], reason="out of memory", overrides=GONE)
    out = tmp_path / "page.html"
    assert cli.main(["report", "made", "--output-dir", str(tmp_path), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert "out of memory" in " ".join(read(out).words)
    assert not (tmp_path / "made" / "report").exists(), "--out leaves the sweep's folder unchanged"
    assert ferhpo.report("made", trial=0, output_dir=tmp_path).exists()


def test_every_panel_is_on_a_page():
    """Every module with a function `panel` is in one of the lists; otherwise it would never be shown."""
    listed = {*OF_A_SWEEP, *OF_A_TRIAL, *OF_DATA}
    with_panel = {
        f"{path.parent.name}.{path.stem}"
        for path in REPORTS.glob("*/*.py")
        if any(isinstance(node, ast.FunctionDef) and node.name == "panel" for node in ast.parse(path.read_text()).body)
    }
    assert with_panel == listed


def test_a_long_table_is_cut_and_says_so(tmp_path):
    table = write_table(tmp_path / "long.csv", [{"number": number} for number in range(page.MOST_ROWS + 5)])
    text = page.render(page.Page("t", [], [], [page.Part("p", [Panel("long", "", tables=(table,))])]))
    assert text.count("<tr>") == page.MOST_ROWS + 1
    assert "5 more rows are in long.csv in the report folder." in text


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        (["1234567", "12", ""], ["1,234,567", "12", ""]),
        (["0.3", "0.26666667"], ["0.3000", "0.2667"]),
        (["0.0001096", "0.0023344"], ["0.0001096", "0.002334"]),
        (["0.1", "0.4"], ["0.1", "0.4"]),
        (["64 32", "<b>"], ["64 32", "&lt;b&gt;"]),
        (["12 %", "nan"], ["12 %", "nan"]),
    ],
)
def test_cells_are_formatted_for_reading(column, shown):
    assert page._cells(column) == shown


def test_sentences():
    assert [join(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert plural(1, "trial") == "1 trial"
    assert plural(1200, "trial") == "1,200 trials"


@pytest.mark.full
def test_the_page_says_which_overrides_the_sweep_was_run_with(tmp_path):
    """A reduced run of a recipe cannot be taken for the recipe."""
    sweep = made_sweep(tmp_path, ["COMPLETE", "RUNNING"])
    given = ["data.train_subset=2000", "name=made", "compute.num_cpus=2", "trainer.max_epochs=4"]
    sweep.meta["overrides"] = given
    page = sweep_report(sweep).read_text()
    assert f"<dd>{' '.join(given)}</dd>" in page
    changes = "This is not demo as its file defines it: it was run with data.train_subset=2000 trainer.max_epochs=4."
    assert f"<p>{changes}</p>" in page
    assert changes in sweep_note(sweep, sweep.leaderboard(), {})
    assert changes in trial_report(sweep, 0).read_text()
    assert "(1 complete, 1 interrupted)" in page
    sweep.meta["overrides"] = ["data.path=/x.csv", "+tracking.uri=none"]
    assert "as its file defines it" not in sweep_report(sweep).read_text()


@pytest.mark.full
def test_a_sweep_of_an_earlier_version_names_the_keys_that_were_overridden(tmp_path):
    sweep = made_sweep(tmp_path, ["COMPLETE"], overrides=["optim.weight_decay=0.5"])
    assert "overrides" not in sweep.meta
    assert "it was run with optim.weight_decay=0.5." in sweep_report(sweep).read_text()


@pytest.mark.full
def test_the_numbers_of_trials_lead_to_their_pages_and_runs(tmp_path):
    sweep = made_sweep(tmp_path, ["COMPLETE", "COMPLETE", "PRUNED"])
    best = sweep.best().number
    other = 1 - best
    position = {
        "store": sweep.tracking.shown_uri, "experiment": "ferhpo", "experiment_id": "3", "sweep_id": "s",
        "runs": {"": "parent", str(other): "abc", "1/fold0": "x"},
    }  # fmt: skip
    (sweep.folder / "spool.shipped.json").write_text(json.dumps(position))
    trial_report(sweep, other)
    page = sweep_report(sweep).read_text()
    assert f'<a href="trial-{other}/index.html">{other}</a>' in page
    assert f'<a href="#part-1">{best}</a>' in page
    assert '<a href="http://127.0.0.1:5000/#/experiments/3/runs/abc">run</a>' in page
    assert page.count("<a href=") - page.count('<a href="#part') - page.count('<a href="#facts') == 2
    assert "<td>2</td>" in page or '<td class="number">2</td>' in page
