"""`ferhpo dashboard`: Optuna's dashboard on the journal of a sweep, for reading only."""

import json
import urllib.error
import urllib.request

import pytest

from ferhpo import cli
from ferhpo.errors import StorageError, SweepError
from ferhpo.storage.study.journal import JOURNAL, read_only_storage
from tests.reports.made_sweeps import made_sweep
from tests.servers import free_port, wait_until


@pytest.fixture
def sweep(tmp_path):
    return made_sweep(tmp_path, ["COMPLETE"] * 3 + ["PRUNED"])


def test_nothing_is_written(sweep):
    storage = read_only_storage(sweep.folder / JOURNAL)
    before = (sweep.folder / JOURNAL).read_bytes()
    (study,) = storage.get_all_studies()
    for write in (
        lambda: storage.delete_study(study._study_id),
        lambda: storage.set_study_user_attr(study._study_id, "note", "x"),
        lambda: storage.create_new_trial(study._study_id),
    ):
        with pytest.raises(StorageError, match="open for reading only"):
            write()
    assert (sweep.folder / JOURNAL).read_bytes() == before


def test_without_a_journal_there_is_nothing_to_show(sweep):
    (sweep.folder / JOURNAL).unlink()
    with pytest.raises(SweepError, match="the sweep has no trials yet"):
        read_only_storage(sweep.folder / JOURNAL)


@pytest.mark.full
def test_it_serves_the_trials_and_deletes_nothing(sweep, warm):
    pytest.importorskip("optuna_dashboard")
    port = free_port()
    log = sweep.folder.parent / "log"
    process = warm.start("dashboard", "made", "--output-dir", str(sweep.folder.parent), "--port", str(port), log=log)
    address = f"http://127.0.0.1:{port}/api/studies"
    before = (sweep.folder / JOURNAL).read_bytes()

    def answer():
        try:
            return json.load(urllib.request.urlopen(address, timeout=5))
        except (urllib.error.URLError, ConnectionError):
            return None

    try:
        wait_until(lambda: answer() is not None, seconds=60)
        (study,) = answer()["study_summaries"]
        found = json.load(urllib.request.urlopen(f"{address}/{study['study_id']}", timeout=10))
        assert len(found["trials"]) == 4
        request = urllib.request.Request(f"{address}/{study['study_id']}", method="DELETE")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=10)
        assert (sweep.folder / JOURNAL).read_bytes() == before
        for path in ("csv", "/csv", "%63sv"):  # whose texts could be formulas
            with pytest.raises(urllib.error.HTTPError, match="404") as refused:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}/{study['study_id']}", timeout=10)
            assert b"ferhpo runs NAME --csv" in refused.value.read()
    finally:
        process.kill()
        process.wait()


def test_a_sweep_that_is_not_there_is_named(tmp_path, capsys):
    assert cli.main(["dashboard", "nothing", "--output-dir", str(tmp_path)]) == 2
    assert "there is no sweep nothing" in capsys.readouterr().err
