"""README.md and docs/: generated pages are current, links lead somewhere, and every command and Python block runs.

snippets.py has the few things that are changed to run them on small data.
"""

import contextlib
import importlib.util
import io
import re
import signal
from pathlib import Path

import mlflow
import numpy as np
import pyarrow
import pytest
import yaml
from PIL import Image
from pyarrow import parquet

import ferhpo
from ferhpo import cli
from ferhpo.cli.parser import make_parser
from ferhpo.config import GROUPS, ComputeSettings
from ferhpo.config.compose import compose
from ferhpo.config.files import group_files, sweep_files
from ferhpo.errors import ConfigError
from tests import snippets
from tests.snippets import (
    ALL,
    PAGES,
    REFERENCE,
    ROOT,
    SUBSTITUTIONS,
    WALKED,
    all_commands,
    arguments,
    blocks,
    substituted,
)
from tests.test_cli import VERBS

COMPOSED = ("sweep", "train", "plan", "check", "show")  # verbs whose arguments are a configuration
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def generator():
    spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "docs" / "generate_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generated():
    return generator().pages()


def test_the_reference_is_what_the_code_says(generated):
    assert {name.rpartition("/")[2] for name in REFERENCE} == set(generated)
    for name, path in REFERENCE.items():
        assert path.read_text() == generated[path.name], f"{name} is out of date; run `make docs`"


def test_the_reference_names_every_verb_option_and_function(generated):
    for verb in VERBS:
        assert f"## ferhpo {verb}\n" in generated["commands.md"]
    for group in GROUPS:
        for option in group_files(group):
            assert f"`{group}={option}`" in generated["configuration.md"]
    for name in ferhpo.__all__:
        assert f"## {name}\n" in generated["python.md"]


def test_the_index_names_every_page():
    index = PAGES["docs/index.md"].read_text()
    missing = [name for name in ALL if name.startswith("docs/") and name != "docs/index.md"]
    assert [name for name in missing if f"({name.removeprefix('docs/')})" not in index] == []


@pytest.mark.parametrize("page", ALL)
def test_links_and_pictures_exist(page):
    path = ALL[page]
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL))
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_sentences_name_a_verb(page):
    words = re.findall(r"`ferhpo ([a-z]+)", PAGES[page].read_text())
    assert set(words) <= set(VERBS)


def test_reliability_names_tests_that_exist():
    text, found = PAGES["docs/reliability.md"].read_text(), 0
    for cell in re.findall(r"\| ([^|]*) \|$", text, flags=re.MULTILINE):
        source = ""
        for file, name in re.findall(r"([\w/]+\.py)|::(test_\w+)", cell):
            source = (ROOT / "tests" / file).read_text() if file else source
            assert not name or f"def {name}" in source, name
            found += 1
    assert found > 50


def test_architecture_names_folders_and_files_that_exist():
    text = PAGES["docs/architecture.md"].read_text()
    package = ROOT / "src" / "ferhpo"
    paths = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    tree = text[text.index("src/ferhpo/\n") : text.index("conf/  sweeps/")]
    folders = re.findall(r"^  (\w+)/", tree, flags=re.MULTILINE)
    assert set(folders) == {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    for folder, part in zip(folders, re.split(r"^  \w+/", tree, flags=re.MULTILINE)[1:], strict=True):
        files = {path.name for path in (package / folder).glob("*.py")} - {"__init__.py", "__main__.py"}
        told = set(re.findall(r"\w+\.py", part.partition("errors.py  states")[0]))
        assert files == told, folder
    for path in re.findall(r"\b(\w+/[\w/]+\.py)", text[text.index("conf/  sweeps/") :]):
        assert path in paths or path.startswith("tests/"), path


def test_no_entry_of_the_tables_is_left_over():
    commands = [command for _, command in all_commands(PAGES)]
    texts = [*commands, *(b.text for page in PAGES for b in blocks(page) if b.is_python or b.file)]
    for pattern, _, reason in SUBSTITUTIONS:
        assert reason
        assert any(re.search(pattern, text) for text in texts), f"no page needs the substitution {pattern}"
    for start, reason in snippets.NOT_RUN:
        assert reason
        assert any(command.startswith(start) for command in commands), f"no page shows {start}"
    assert set(snippets.STATUS) <= set(commands)
    assert set(snippets.ALONE) <= set(PAGES)


@pytest.fixture
def with_own_files(tmp_path, monkeypatch):
    """A folder with the YAML files that pages tell users to write."""
    write_own_files(tmp_path)
    monkeypatch.chdir(tmp_path)


def write_own_files(folder, page=None):
    for block in (block for name in ([page] if page else PAGES) for block in blocks(name) if block.file):
        (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
        (folder / block.file).write_text(substituted(block.text))


FULL = [pytest.param(page, marks=pytest.mark.full) for page in [*PAGES, *REFERENCE] if page != "README.md"]


@pytest.mark.usefixtures("with_own_files")
@pytest.mark.parametrize("page", ["README.md", *FULL])
def test_every_command_parses_and_composes(page):
    for block, command in all_commands([page]):
        place = f"{page}:{block.line}: {command}"
        try:
            args, left = make_parser().parse_known_args(arguments(command))
        except SystemExit:
            pytest.fail(f"{place} does not parse")
        assert not any(text.startswith("-") for text in left), place
        if hasattr(args, "overrides"):
            args.overrides += left  # as entry.py does
        if args.verb == "data":
            args.name, args.overrides = None, [f"data={args.name}", *(f"data.{text}" for text in args.overrides)]
        if args.verb in (*COMPOSED, "data") and not getattr(args, "resume", False) and command not in snippets.STATUS:
            try:
                compose(args.name, args.overrides)
            except ConfigError as error:
                pytest.fail(f"{place}: {error}")


# Running them


def small_recipes(folder):
    """Write sweeps/ with every named sweep made small: the current folder's hide ferhpo's own."""
    settings = {
        "trainer": {"max_epochs": 1, "batch_size": 32},
        "compute": {"num_cpus": 2, "num_gpus": 0, "gpus_per_trial": 0},
        "tracking": {"report": False},
    }
    folder.mkdir()
    for name, path in sweep_files().items():
        config = compose(name).config
        small = yaml.safe_load(path.read_text())
        model, data, trainer = config["model"], config["data"], config["trainer"]
        merge(small, settings)
        if "width_multiplier" in model:
            merge(small, {"model": {"width_multiplier": 0.05}})
        if "stem" in model:
            merge(small, {"model": {"stem": "original"}})
        if "num_train" in data:
            merge(small, {"data": {"num_train": 140, "num_val": 70, "num_test": 70}})
        if trainer["frozen_epochs"]:
            merge(small, {"trainer": {"frozen_epochs": 1}})
        if config["num_trials"] is not None and name != "demo":
            small["num_trials"] = min(config["num_trials"], 2)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(small, sort_keys=False))


def merge(target, settings):
    for key, value in settings.items():
        if isinstance(value, dict):
            target[key] = {} if target.get(key) is None else target[key]
            merge(target[key], value)
        else:
            target[key] = value


def small_data(folder):
    """Every data set that pages name, of noise: fer2013.csv and its folders, CK+, SFEW, AffectNet, a folder of faces."""
    rng = np.random.default_rng(0)
    rows = ["emotion,pixels,Usage"]
    names = []
    for usage, count in (("Training", 70), ("PublicTest", 14), ("PrivateTest", 14)):
        for number in range(count):
            pixels = rng.integers(0, 90, 48 * 48) + 20 * (number % 7)
            rows.append(f"{number % 7},{' '.join(map(str, pixels))},{usage}")
            split = "train" if usage == "Training" else "test"
            names.append(f"fer2013/{split}/{EMOTIONS[number % 7]}/{usage}_{number}.png")
    (folder / "fer2013.csv").write_text("\n".join(rows) + "\n")
    votes = [f"{row.rpartition(',')[2]},fer{number:07}.png,0,9,0,0,0,0,0,0,1,0" for number, row in enumerate(rows[1:])]
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    (folder / "ferplus.csv").write_text("\n".join([header, *votes]) + "\n")
    (folder / "AffectNet").mkdir()
    doubts = [f"train/{n % 8}/{n}.png,{n % 8},{n % 8 if n % 5 else 'none'}" for n in range(56)]
    (folder / "AffectNet" / "labels.csv").write_text("\n".join(["file,label,pseudo_label", *doubts]) + "\n")
    ckplus = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
    names += [f"CK48/{ckplus[n % 7]}/S{n // 4:03}_001_{n:08}.png" for n in range(56)]
    names += [f"AffectNet/train/{n % 8}/{n}.png" for n in range(56)]
    names += [
        f"SFEW/{split}/{name.title()}/Film_{n}.png" for split in ("Train", "Val") for n in range(3) for name in EMOTIONS
    ]
    names += [f"faces/{name}/{n}.png" for name in EMOTIONS for n in range(20)]
    rows = [f"faces/{EMOTIONS[n % 7]}/{n // 7}.png,{EMOTIONS[n % 7]},s{n % 9}" for n in range(140)]
    (folder / "faces.csv").write_text("\n".join(["file,expression,subject", *rows]) + "\n")
    names += [f"images/faces/{name}/{n}.png" for name in EMOTIONS for n in range(20)]
    (folder / "hub" / "data").mkdir(parents=True)
    images = []
    for number in range(70):
        file = io.BytesIO()
        Image.new("L", (48, 48), 3 * number).save(file, "PNG")
        images.append({"bytes": file.getvalue(), "path": f"{number}.png"})
    table = pyarrow.table({"image": images, "label": [EMOTIONS[n % 7] for n in range(70)]})
    parquet.write_table(table, folder / "hub" / "data" / "train-00000-of-00001.parquet")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 48), np.uint8)).save(folder / name)


@pytest.fixture(scope="module")
def place(tmp_path_factory, warm):
    """A folder with small data and recipes, one Ray for all, and the sweep `demo`, whose model is the champion."""
    folder = tmp_path_factory.mktemp("docs")
    small_data(folder)
    small_recipes(folder / "sweeps")
    before, handler = mlflow.get_tracking_uri(), signal.getsignal(signal.SIGTERM)
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERHPO_CACHE_DIR", str(folder / "cache"))
        from ferhpo.driver import ray_cluster

        ray_cluster.start_ray(ComputeSettings(num_cpus=2, num_gpus=0))
        try:
            ferhpo.sweep("demo", ["scheduler=none"])
            ferhpo.promote("demo", gates="none")
            yield folder
        finally:
            ray_cluster.stop_ray()
    mlflow.set_tracking_uri(before)
    signal.signal(signal.SIGTERM, handler)


def run(command):
    """Run a command as it is shown but for the substitutions; its exit status and output."""
    given = arguments(substituted(command))
    if given[0] in ("sweep", "train", "confirm") and not {"--resume", "--new"} & set(given):
        given.append("--new")  # another page may have used the name
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            status = cli.main(given)
        except SystemExit as stop:
            status = stop.code
    return status, output.getvalue()


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", [page for page in PAGES if page != WALKED])
def test_every_snippet_of_a_page_runs(page, place, tmp_path, monkeypatch):
    if page in snippets.ALONE:
        monkeypatch.chdir(tmp_path)
    write_own_files(Path.cwd(), page)
    for block in blocks(page):
        if block.is_python:
            exec(compile(substituted(block.text), f"{page}:{block.line}", "exec"), {})
        for command, shown in block.commands():
            if not snippets.is_run(command):
                continue
            status, output = run(command)
            assert status == snippets.STATUS.get(command, 0), f"{page}:{block.line}: {command}\n{output}"
            if command.startswith("ferhpo check") and shown:
                assert output.strip() == shown
