"""`ferhpo promote` and `rollback`: gates, the audit log, promotions at once, what was moved by hand."""

import itertools
import json
import os
import shutil
import threading

import pytest
import yaml

import ferhpo
from ferhpo import cli
from ferhpo.errors import ConfigError, TrackingError
from ferhpo.promotion.gates import Gates
from ferhpo.promotion.promote import GatesError, gates_of
from ferhpo.promotion.purpose import purpose_fault
from ferhpo.storage.evaluation_log import read_all
from ferhpo.storage.sweep import load_sweep
from ferhpo.tracking import TrackingSettings, registry
from ferhpo.tracking.registered import aliases
from ferhpo.tracking.store import connect
from tests.conftest import TINY
from tests.test_evaluating import draw_faces

NAME = "faces"
PAIRS = int(os.environ.get("FERHPO_PAIRS", "10"))  # of promotions at once; 200 take minutes


@pytest.fixture(scope="module")
def trained(tmp_path_factory, empty_store):
    """Three trainings that are versions 1 to 3 of one model: `poor`, `good` and, on another data set, `other`."""
    folder = tmp_path_factory.mktemp("promoting")
    (folder / "mlruns").mkdir()
    shutil.copy(empty_store, folder / "mlruns" / "mlflow.db")
    for data, seed in (("faces", 0), ("others", 10)):
        for more, (split, per_class) in enumerate((("train", 12), ("val", 6), ("test", 12))):
            draw_faces(folder / data / split, seed + more, per_class)
    tiny = [text for text in TINY if not text.startswith(("data.", "model.width"))]
    options = [*tiny, "model.width_multiplier=0.1", f"output_dir={folder / 'mlruns'}"]
    options += ["data=image_folder", f"data.cache_dir={folder / 'cache'}", "trainer.batch_size=16"]
    options += [f"tracking.registered_model_name={NAME}", "augment=none"]
    faces = f"data.path={folder / 'faces'}"
    ferhpo.train("demo", [*options, "name=poor", faces, "trainer.max_epochs=1", "optim.lr=1e-5"])
    ferhpo.train("demo", [*options, "name=good", faces, "trainer.max_epochs=20", "optim.lr=0.01"])
    ferhpo.train(
        "demo", [*options, "name=other", f"data.path={folder / 'others'}", "trainer.max_epochs=20", "optim.lr=0.01"]
    )
    return folder / "mlruns"


@pytest.fixture
def store(trained, tmp_path):
    """A copy, whose aliases a test may move."""
    folder = tmp_path / "mlruns"
    shutil.copytree(trained, folder)
    return folder


def settings_of(folder):
    return TrackingSettings(output_dir=folder)


def names(folder, alias="champion"):
    return aliases.named(connect(settings_of(folder)), NAME, alias)


def promote(folder, sweep, **options):
    return ferhpo.promote(sweep, output_dir=folder, **options)


@pytest.mark.full
def test_the_first_version_becomes_champion_and_a_better_one_replaces_it(store):
    first = promote(store, "poor", gates="default", purpose="research")
    assert (first.version, first.previous, names(store)) == (1, None, 1)
    second = promote(store, "good")
    assert (second.version, second.previous, names(store)) == (2, 1, 2)
    (better,) = [each for each in second.gates if each.gate == "better_than_champion"]
    assert better.passed
    assert "against version 1, 95 % interval" in better.found
    text = connect(settings_of(store)).get_model_version(NAME, "2").description
    for part in (
        "# faces version 2",
        "## Intended use",
        "## Scores by class",
        "| surprise |",
        "## Calibration",
        "## Robustness",
        "## Limits",
        "Digest ",
        "better_than_champion: passed",
    ):
        assert part in text, part
    log = aliases.entries(settings_of(store), NAME, "champion")
    assert [(entry.action, entry.version, entry.previous) for entry in log] == [("promote", 2, 1), ("promote", 1, None)]
    assert log[1].about["purpose"] == "research"
    readings = read_all(load_sweep("good", store).folder)
    assert [reading["verb"] for reading in readings] == ["promote"]


@pytest.mark.full
@pytest.mark.parametrize("champion", [True, False])
def test_what_a_folder_says_of_its_data_is_no_proof(store, champion):
    """The digest of a copied sweep may be that of the champion's data, while its images are others."""
    if champion:
        promote(store, "poor", gates="none")
    meta = store / "good" / "sweep.json"
    content = json.loads(meta.read_text())
    content["data"]["digest"] = "0" * len(content["data"]["digest"])
    meta.write_text(json.dumps(content))
    with pytest.raises(GatesError, match=r"same_data: the data set, digest \w{12}, has changed since"):
        promote(store, "good")


@pytest.mark.full
def test_a_worse_one_is_refused_with_every_reason(store, tmp_path, capsys, monkeypatch):
    promote(store, "good")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ferhpo.d" / "gates").mkdir(parents=True)
    mine = {"min_acc": 0.99, "min_seeds": 3, "max_parameters": 1, "purpose": True}
    (tmp_path / "ferhpo.d" / "gates" / "mine.yaml").write_text(yaml.safe_dump(mine))
    command = ["promote", "poor", "--output-dir", str(store), "--gates", "mine"]
    assert cli.main(command) == 4
    output = capsys.readouterr()
    shown = output.err
    assert output.out.split()[:3] == ["gate", "found", "asked"], "the table has every gate, also those that passed"
    assert "no_collapse" in output.out
    for gate in ("min_acc", "better_than_champion", "max_parameters", "min_seeds", "purpose"):
        assert f"  {gate}: " in shown, gate
    assert "5 gates refuse it" in shown or "6 gates refuse it" in shown
    assert names(store) == 2
    assert cli.main([*command, "--json"]) == 4
    assert len(json.loads(capsys.readouterr().out)["faults"]) >= 5
    assert cli.main([*command, "--force", "the demo needs it"]) == 0
    assert "because: the demo needs it" in capsys.readouterr().out
    assert names(store) == 1
    assert aliases.entries(settings_of(store), NAME)[0].about["forced"] == "the demo needs it"


@pytest.mark.full
def test_the_version_that_the_alias_names_is_compared_with_nothing(store):
    """Promoted again, e.g. with another purpose: it cannot be better than itself."""
    first = promote(store, "good", purpose="research")
    again = promote(store, "good", purpose="a photo booth")
    assert (again.version, again.previous) == (first.version, first.version)
    (better,) = [each for each in again.gates if each.gate == "better_than_champion"]
    assert (better.passed, better.found) == (True, "no other version is the champion")
    card = connect(settings_of(store)).get_model_version(NAME, str(first.version)).description
    assert "a photo booth" in card


@pytest.mark.full
def test_a_model_of_other_data_is_refused(store):
    promote(store, "poor")
    with pytest.raises(GatesError, match="same_data: digest"):
        promote(store, "other")


@pytest.mark.full
def test_rollback_goes_back_one_promotion_at_a_time(store, capsys):
    with pytest.raises(TrackingError, match="names no version"):
        ferhpo.rollback("poor", output_dir=store)
    promote(store, "poor")
    with pytest.raises(TrackingError, match="has no version that champion named before version 1"):
        ferhpo.rollback("poor", output_dir=store)
    promote(store, "good")
    assert cli.main(["rollback", "good", "--output-dir", str(store), "--reason", "too sure"]) == 0
    assert "is now version 1 (previously version 2)" in capsys.readouterr().out
    assert names(store) == 1
    last = aliases.entries(settings_of(store), NAME)[0]
    assert (last.action, last.about) == ("rollback", {"reason": "too sure"})


@pytest.mark.full
def test_an_alias_that_was_moved_by_hand_is_named(store):
    promote(store, "poor")
    assert aliases.moved_by_hand(settings_of(store), NAME) == []
    connect(settings_of(store)).set_registered_model_alias(NAME, "champion", "3")
    (text,) = aliases.moved_by_hand(settings_of(store), NAME)
    assert "faces@champion names version 3, but ferhpo moved it to version 1 last" in text
    facts = ferhpo.doctor(str(store))
    assert any("names version 3" in str(value) for value in facts["aliases"].values())


def test_what_was_compared_with_another_champion_moves_nothing(store):
    settings = settings_of(store)
    aliases.move(settings, NAME, "champion", 1, None)
    with pytest.raises(TrackingError, match=r"names version 1 by now by .*, and not no version"):
        aliases.move(settings, NAME, "champion", 2, None)
    assert names(store) == 1
    aliases.move(settings, NAME, "champion", 2, 1)
    assert names(store) == 2


def test_of_two_promotions_at_once_one_wins_and_the_other_learns_it(store):
    settings = settings_of(store)
    aliases.move(settings, NAME, "champion", 3, None)
    for _ in range(PAIRS):
        before = names(store)
        outcomes = {}

        def run(version, before=before, outcomes=outcomes):
            try:
                outcomes[version] = aliases.move(settings_of(store), NAME, "champion", version, before).version
            except TrackingError as error:
                outcomes[version] = str(error)

        others = [version for version in (1, 2, 3) if version != before]
        threads = [threading.Thread(target=run, args=(version,)) for version in others]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [version for version, outcome in outcomes.items() if outcome == version]
        assert winners == [names(store)]
        (loser,) = [outcome for version, outcome in outcomes.items() if version not in winners]
        assert "nothing was moved; promote again" in loser
    log = aliases.entries(settings, NAME, "champion")
    assert len(log) == PAIRS + 1
    for later, earlier in itertools.pairwise(log):
        assert later.previous == earlier.version


@pytest.mark.full
def test_of_two_promotions_at_once_on_a_server_no_more_than_one_wins(store, tmp_path):
    """Of processes of their own, as on two machines; nothing but a tag on the server is their lock."""
    import subprocess
    import sys

    from tests.servers import Server, running

    server = Server(tmp_path)
    with running(server):
        settings = TrackingSettings(output_dir=tmp_path / "runs", uri=server.url)
        client = connect(settings)
        client.create_registered_model(NAME)
        run = client.create_run("0")
        for _ in range(3):
            client.create_model_version(NAME, f"{run.info.artifact_uri}/model", run_id=run.info.run_id)
        aliases.move(settings, NAME, "champion", 3, None)
        script = (
            "import sys\n"
            "from pathlib import Path\n"
            "from ferhpo.errors import TrackingError\n"
            "from ferhpo.tracking import TrackingSettings\n"
            "from ferhpo.tracking.registered import aliases\n"
            f"settings = TrackingSettings(output_dir=Path({str(tmp_path / 'runs')!r}), uri={server.url!r})\n"
            "for line in sys.stdin:\n"
            "    version, before = map(int, line.split())\n"
            "    try:\n"
            f"        found = aliases.move(settings, {NAME!r}, 'champion', version, before).version\n"
            "    except TrackingError as error:\n"
            "        found = str(error)\n"
            "    print(found, flush=True)\n"
        )
        workers = [
            subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        wins = 0
        for _ in range(PAIRS):
            before = aliases.named(client, NAME, "champion")
            others = [version for version in (1, 2, 3) if version != before]
            for worker, version in zip(workers, others, strict=True):
                worker.stdin.write(f"{version} {before}\n")
                worker.stdin.flush()
            outcomes = [worker.stdout.readline().strip() for worker in workers]
            won = [version for version, outcome in zip(others, outcomes, strict=True) if outcome == str(version)]
            assert len(won) <= 1
            assert aliases.named(client, NAME, "champion") == (won[0] if won else before)
            assert all("promote again" in outcome for outcome in outcomes if not outcome.isdecimal()), outcomes
            wins += len(won)
        for worker in workers:
            worker.stdin.close()
            worker.wait(30)
        log = aliases.entries(settings, NAME, "champion")
        assert len(log) == wins + 1
        for later, earlier in itertools.pairwise(log):
            assert later.previous == earlier.version
        assert wins


@pytest.mark.parametrize(
    ("purpose", "is_refused"),
    [
        ("work", True), ("education", True), ("monitoring employees", True), ("Exam supervision at a university", True),
        ("job interviews", True), ("research", False), ("", False), ("medical: pain of students", False),
        ("see how attentive pupils are in class", True), ("the mood of our staff", True), ("call center agents", True),
        ("teachers see who is bored", True), ("research work", False), ("artwork that reacts to faces", False),
        ("a framework for games", False),
        ("research in classification", False), ("to employ in games", False), ("works of art", False), ("driver drowsiness, safety at work", False), ("a photo booth", False), ("network analysis", False),
    ],
)  # fmt: skip
def test_prohibited_purposes(purpose, is_refused):
    assert bool(purpose_fault(purpose)) == is_refused


def test_a_prohibited_purpose_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ConfigError, match=r"article 5\(1\)\(f\)"):
        ferhpo.promote("nothing", output_dir=tmp_path, purpose="work")


@pytest.mark.parametrize("folder", ["conf", "sweeps"])
def test_files_of_anyone_are_no_gates(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place, value in ((folder, 0.1), ("ferhpo.d", 0.2)):
        (tmp_path / place / "gates").mkdir(parents=True)
        (tmp_path / place / "gates" / "mine.yaml").write_text(f"min_acc: {value}\n")
        (tmp_path / place / "gates" / "default.yaml").write_text(f"min_acc: {value}\n")
    assert gates_of("mine").min_acc == gates_of("default").min_acc == 0.2
    shutil.rmtree(tmp_path / "ferhpo.d")
    assert gates_of("default") == Gates()
    with pytest.raises(ConfigError, match="--gates is mine, which does not exist"):
        gates_of("mine")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"when": 3}', '{"when": "x", "alias": null}'])
def test_a_tag_of_somebody_else_is_no_entry(store, text):
    settings = settings_of(store)
    aliases.move(settings, NAME, "champion", 1, None)
    connect(settings).set_registered_model_tag(NAME, f"{aliases.AUDIT}.champion.2000", text)
    assert [entry.version for entry in aliases.entries(settings, NAME, "champion")] == [1]


def test_unknown_gates_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="did you mean strict"):
        ferhpo.promote("nothing", output_dir=tmp_path, gates="strickt")


def test_versions_of_the_fixture(trained):
    assert [version.number for version in registry.versions(settings_of(trained), NAME)] == [3, 2, 1]
