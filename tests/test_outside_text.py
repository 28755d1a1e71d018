"""Files and texts from outside: messages, commands to copy and notes in MLflow stay harmless; reading is bounded."""

import ast
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ferhpo import cli
from ferhpo.cli.screen.console import make_console, say, view_text
from ferhpo.cli.screen.grid import Grid, KeyValues
from ferhpo.config import files
from ferhpo.config.input.files import load_yaml
from ferhpo.disk import read_file
from ferhpo.errors import ConfigError, SweepError, TrackingError, printable
from ferhpo.storage.sweep import load_sweep
from ferhpo.text import csv_text, markdown
from ferhpo.tracking import TrackingSettings
from ferhpo.tracking.spool import Spool
from ferhpo.training import checkpoint
from tests.reports.made_sweeps import made_sweep

SOURCE = Path(cli.__file__).parents[1]


def prints(path):
    """The calls of print in a file, without those of JSON, which escapes everything."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            text = ast.unparse(node.args[0])
            if not text.startswith(("json.dumps(", "_MARK + json.dumps(", "typed(", "printable(")):
                yield f"{path.name}:{node.lineno} {text}"


def test_what_is_printed_goes_through_one_function():
    """Or is JSON. Names of folders, models and classes would otherwise reach the terminal as they are."""
    known = {"job['number']"}  # to the parent process
    found = [text for path in SOURCE.rglob("*.py") if "starters" not in path.parts for text in prints(path)]
    assert [text for text in found if text.split(" ", 1)[1] not in known] == []


def test_a_message_shows_what_is_not_printable(capsys):
    say("a\x9b31mRED\u202e\x7f\x1b[2J and `ferhpo ui`\nnext line")
    shown = capsys.readouterr().out
    assert shown == "a\\x9b31mRED\\u202e\\x7f\\x1b[2J and `ferhpo ui`\nnext line\n"


MARKUP = "[bold]a[/bold][link=http://evil.example/]b[/link][/x] :smile: \x1b]0;c"


def test_no_text_is_markup(capsys, monkeypatch):
    """In tables, in what `console.print` is given, and in headings."""
    monkeypatch.setenv("COLUMNS", "300")
    console = make_console()
    console.print(MARKUP)
    console.print(Grid([MARKUP, "x"], [[MARKUP, "1"]], left=[MARKUP], caption=MARKUP))
    console.print(KeyValues({MARKUP: MARKUP}))
    shown = capsys.readouterr().out
    assert shown.count(printable(MARKUP)) == 6
    assert "\x1b" not in shown


def test_consoles_are_made_in_one_place():
    found = [
        path
        for path in SOURCE.rglob("*.py")
        if re.search(r"(?<!\()\bConsole\(|\brich import print\b", path.read_text())
    ]
    assert found == [], "use make_console"


@pytest.mark.parametrize("name", ["ferhpo", "ferhpo.tracking", "ferhpo.steps", "ferhpo.data.io.cache"])
def test_a_log_shows_what_is_not_printable(name, caplog):
    logging.getLogger(name).warning("cannot upload %s: %d\n\tx", "a\x1b]0;b\x07", 3)
    assert caplog.messages == ["cannot upload a\\x1b]0;b\\x07: 3\n\tx"]


def test_the_command_escapes_logs_warnings_and_tracebacks_of_all_packages():
    code = """
import logging, warnings
from ferhpo.cli.entry import _escape_output
_escape_output()
logging.getLogger("mlflow.store").warning("log %s", "\\x1b[31m")
warnings.warn("warning \\x1b[31m")
raise RuntimeError("error \\x1b[31m")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    for what in ("log", "UserWarning: warning", "RuntimeError: error"):
        assert f"{what} \\x1b[31m" in done.stderr
    assert "\x1b" not in done.stderr


def test_csv_is_written_in_one_place():
    """Spreadsheets run formulas, and names of classes, layers and settings come from files."""
    write = re.compile(r"\bcsv\.(writer|DictWriter)\b|\bto_csv\(|\bsavetxt\(")
    assert [path.name for path in SOURCE.rglob("*.py") if write.search(path.read_text())] == ["text.py"]
    assert csv_text([["=a", "b"], ["+1+2", -1], [None, "-3"]]) == "'=a,b\n'+1+2,-1\n,-3\n"


def test_a_command_to_copy_is_quoted(tmp_path, monkeypatch):
    path = tmp_path / "o" / "$(touch HERE);x" / "mlflow.db"
    settings = TrackingSettings(output_dir=tmp_path / "o", uri=f"sqlite:///{path}")
    monkeypatch.setattr("ferhpo.cli.screen.console.running_ui", lambda settings: None)
    text = view_text("{server}/#/experiments/1", settings).plain
    assert f"mlflow server --backend-store-uri 'sqlite:///{path}'" in text


def test_python_to_copy_is_quoted(monkeypatch, capsys):
    from ferhpo.promotion.promote import Promotion

    address = "sqlite:////x'); import os; os.system('id'); ('/mlflow.db"
    monkeypatch.setattr("ferhpo.promote", lambda *_, **__: Promotion("ferhpo-demo", "champion", 1, None))
    monkeypatch.setattr("ferhpo.promotion.promote.store_of", lambda *_: address)
    assert cli.main(["promote", "demo"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "set_tracking_uri" in line]
    call = ast.parse(line.strip()).body
    assert len(call) == 1
    assert ast.literal_eval(call[0].value.args[0]) == address


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("![x](http://a/b.png)", "!\\[x\\](http://a/b.png)"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a|b `c` \\ d & e", "a\\|b \\`c\\` \\\\ d &amp; e"),
        ("one\n# two", "one\\\\n# two"),
        ("model.dense_units", "model.dense_units"),
    ],
)
def test_markdown(text, shown):
    assert markdown(text) == shown


def test_descriptions_of_models_are_markdown_of_ferhpo_only():
    from ferhpo.publish.models import describe

    exported = {"preprocess": {"image_size": 48, "channels": 1}, "class_names": ["<b>", "![x](y)"]}
    text = describe(exported, "a`b; rm -r x", "a name")
    assert "<b>" not in text
    assert "![x]" not in text
    assert "`ferhpo promote 'ab; rm -r x'` sets the alias" in text


@pytest.fixture
def sweep(tmp_path):
    return made_sweep(tmp_path, [])


@pytest.mark.parametrize("name", ["spool.jsonl", "spool.shipped.json", "confirm.json", "study.jsonl", "trials/x"])
@pytest.mark.timeout(30)
def test_a_pipe_in_a_sweeps_folder_is_refused(sweep, name):
    path = sweep.folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(SweepError, match=r"cannot be read \(it is not a regular file\); restore it from a copy"):
        load_sweep(sweep.folder)


@pytest.mark.parametrize("name", ["sweep.json", "study.jsonl", "best.ckpt"])
@pytest.mark.timeout(30)
def test_an_endless_hole_in_a_sweeps_folder_is_refused(sweep, name):
    with (sweep.folder / name).open("ab") as file:
        file.truncate(40_000_000_000)
    with pytest.raises(SweepError, match=r"it says that it has 40\.0 GB, of which nearly all are empty"):
        load_sweep(sweep.folder)


def test_a_damaged_confirmation_is_named(sweep):
    from ferhpo.confirmation.result import read_result

    path = sweep.folder / "confirm.json"
    for content in ("{}", "[]", "{", "null", '{"sweep": 1}', "[" * 100_000):
        path.write_text(content)
        with pytest.raises(SweepError, match=r"confirm\.json is damaged \("):
            read_result(sweep.folder)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"versions": []}, r"versions is \[\]; it must be an object"),
        ({"versions": {"torch": 2}}, "versions.torch is 2"),
        ({"data": 5}, "data is 5; it must be an object"),
        ({"data": {"digest": {}}}, r"data.digest is \{\}"),
        ({"git": "x"}, "git is 'x'; it must be an object"),
        ({"node": None}, "node is None"),
        ({"code": {"a.py": 1}}, "code.a.py is 1"),
        ({"earlier": {}}, r"earlier is \{\}; it must be a list"),
        ({"created": 5}, "created is 5"),
    ],
)
def test_odd_types_in_sweep_json_are_named(sweep, changes, fault):
    path = sweep.folder / "sweep.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(SweepError, match=rf"sweep\.json is damaged \({fault}"):
        load_sweep(sweep.folder)


RECORD = {"seq": 1, "time_ms": 1}
FOLD = {"op": "fold", "number": 0, "fold": 0, "epochs": [{"epoch": 1, "val_acc": 0.5}], "once": {}, "path": None}


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({"op": "metrics", "step": 1}, "values is missing"),
        ({"op": "metrics", "step": 1, "values": {"a": "x"}}, "values.a is 'x'"),
        ({"op": "metrics", "step": 1, "values": {}, "number": "7/../8"}, "number is '7/../8'"),
        ({"op": "metrics", "step": 1, "values": {}, "number": 0, "epoch": []}, "epoch is []"),
        ({"op": "dataset", "dataset": {"x": 1}, "context": "training"}, "dataset.name is missing"),
        ({"op": "tags", "tags": [1]}, "tags is [1]; it must be an object"),
        ({"op": "close", "tags": {}, "state": []}, "state is []"),
        ({"op": "text", "text": 5, "file": "a"}, "text is 5"),
        ({**FOLD, "epochs": [{"epoch": float("inf")}]}, "epochs[0].epoch is inf"),
        ({**FOLD, "epochs": 3}, "epochs is 3; it must be a list"),
        ({"op": "later", "time_ms": None}, "time_ms is None"),
        ([], "it is []; it must be an object"),
    ],
)
def test_odd_types_in_a_spool_are_named(tmp_path, record, fault):
    spool = Spool(tmp_path)
    good = [{**RECORD, **FOLD}, {**RECORD, "op": "close", "tags": {}, "state": "COMPLETE"}, {**RECORD, "op": "later"}]
    spool.path.write_text("".join(json.dumps(each) + "\n" for each in good))
    assert spool.read(0, 10)[0] == good
    spool.path.write_text(json.dumps({**RECORD, **record} if isinstance(record, dict) else record) + "\n")
    with pytest.raises(TrackingError) as caught:
        spool.read(0, 10)
    spool.close()
    assert f"the line at byte 0 is damaged ({fault}); delete this line and run `ferhpo sync`" in str(caught.value)


@pytest.mark.parametrize("shape", [(3, 5), (2, 2), (3,), None])
def test_odd_confusion_matrices_in_a_checkpoint_are_named(tmp_path, shape):
    keys = [key for key in checkpoint.BEST_KEYS if key != "preprocess"]
    content = {"format": 1, "epoch": 1, "metrics": {}, "network": {}, "class_names": ["a", "b", "c"]}
    torch.save({**content, "confusion": torch.zeros(3, 3).long()}, tmp_path / "best.ckpt")
    checkpoint.read(tmp_path / "best.ckpt", keys)
    torch.save({**content, "confusion": torch.zeros(shape).long() if shape else [[1] * 3] * 3}, tmp_path / "best.ckpt")
    with pytest.raises(checkpoint.DamagedError, match="its confusion"):
        checkpoint.read(tmp_path / "best.ckpt", keys)


def test_reading_is_bounded(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert read_file(path, 100) == b"x" * 100
    with pytest.raises(OSError, match="it is larger than 0 MB"):
        read_file(path, 99)
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="it is not a regular file"):
            read_file(special, 100)


@pytest.mark.timeout(60)
def test_pipes_and_holes_of_the_current_folder_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("conf", "sweeps"):
        Path(folder).mkdir()
    os.mkfifo("conf/config.yaml")
    with Path("sweeps/big.yaml").open("wb") as file:
        file.truncate(3_000_000_000)
    names = files.descriptions("sweeps")
    assert names["big"] == ""
    assert names["demo"]
    os.mkfifo("sweeps/config.yaml")
    assert "big" not in files.descriptions("sweeps")
    with pytest.raises(ConfigError):
        load_yaml(Path("sweeps/big.yaml"))


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "9" * 5000, "1:" * 2000 + "1"])
def test_a_number_of_thousands_of_digits_is_refused(tmp_path, number):
    file = tmp_path / "s.yaml"
    file.write_text(f"num_trials: {number}\n")
    with pytest.raises(ConfigError, match=r"line 1 has a number of more than 100 digits"):
        load_yaml(file)
    file.write_text(f"digest: {'deadbeef' * 8}\n")
    assert load_yaml(file)["digest"] == "deadbeef" * 8


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["model.num_blocks=300000", "model.pool=none"], "model.num_blocks is 300000; it must be at most 1,000"),
        (
            ["model=resnet", "model.blocks_per_stage=1000"],
            "blocks_per_stage adds up to 4,000; it must be at most 1,0",
        ),
        (["model=vit", "model.num_blocks=5000"], "num_blocks is 5000; it must be at most 1,000"),
        (["num_trials=99999999999999"], "num_trials is 99999999999999; it must be at most 1,000,000,000"),
        (
            [
                "sampler=grid",
                "num_trials=null",
                "~space.optim",
                "+space.model.dense_units={low: 1, high: 1e9, step: 1}",
            ],
            "a grid may have at most 1,000,000; use another sampler",
        ),
    ],
)
@pytest.mark.timeout(120)
def test_what_would_take_for_ever_is_a_fault(overrides, fault):
    import ferhpo

    with pytest.raises(ConfigError) as caught:
        ferhpo.check("demo", overrides)
    assert fault in str(caught.value)
