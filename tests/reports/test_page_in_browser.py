"""The page of a trained sweep in a real browser, offline, at the widths of a phone and of a desktop; and what the end of a
training uploads to MLflow.
"""

import shutil

import pytest

import ferhpo
from ferhpo.reports.report import sweep_report
from tests.conftest import TINY
from tests.reports.made_sweeps import made_sweep

pytestmark = pytest.mark.full
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BROWSER_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
VIEWS = {"phone": (390, 844), "desk": (1280, 900)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training that ends with its page, and whose learning rate makes the network predict one class only."""
    folder = tmp_path_factory.mktemp("page") / "mlruns"
    options = [option for option in TINY if not option.startswith("tracking")]
    result = ferhpo.train(
        "demo", [*options, f"output_dir={folder}", "name=once", "optim.lr=1.0", "tracking.models=none"]
    )
    return result, folder


def test_the_end_of_a_training_uploads_its_page_and_figures_to_mlflow(trained):
    from mlflow import MlflowClient

    result, folder = trained
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs(["1"])
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    (child,) = [run for run in runs if run is not parent]
    assert [file.path for file in client.list_artifacts(parent.info.run_id, "report")] == ["report/index.html"]
    assert {file.path for file in client.list_artifacts(child.info.run_id)} >= {"curves.png", "confusion.png"}
    page = (result.sweep.folder / "report" / "index.html").read_text()
    assert "Make the complete page with: ferhpo report once" in page


def test_a_collapsed_network_is_reported_everywhere(trained):
    from mlflow import MlflowClient

    result, folder = trained
    found = result.best.extra["most_answered"]
    assert found["share"] > 0.9, "with a learning rate of 1 the network is constant"
    (warning,) = [warning for warning in result.warnings if "collapsed" in warning]
    assert f"trial 0 predicts {found['class']}" in warning
    runs = MlflowClient(f"sqlite:///{folder}/mlflow.db").search_runs(["1"])
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    (child,) = [run for run in runs if run is not parent]
    assert child.data.tags["ferhpo.collapse"].startswith(found["class"])
    assert "Warning: 1 trial collapsed" in parent.data.tags["mlflow.note.content"]
    assert "Collapsed network" in sweep_report(result.sweep).read_text()


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=BROWSER_FLAGS)
        yield browser
        browser.close()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_screen_and_shows_every_image(trained, browser, tmp_path, view, scheme):
    width, height = VIEWS[view]
    made = made_sweep(
        tmp_path, ["COMPLETE", "PRUNED", "FAILED"] * 9, name="long_" * 12, reason="a_reason_without_spaces_" * 20
    )
    for path in (sweep_report(trained[0].sweep), sweep_report(made), ferhpo.report("once", 0, output_dir=trained[1])):
        context = browser.new_context(
            viewport={"width": width, "height": height}, offline=True, color_scheme=scheme
        )  # fmt: skip
        page, faults = context.new_page(), []
        page.on("console", lambda message, faults=faults: faults.append(message.text))
        page.on("pageerror", lambda error, faults=faults: faults.append(str(error)))
        page.on("request", lambda request, faults=faults: faults.extend(outside(request.url)))
        page.goto(path.as_uri())
        assert faults == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        images = page.evaluate("[...document.images].map(i => [i.complete && i.naturalWidth > 0, i.clientWidth])")
        assert images
        assert all(is_shown and shown_width > 100 for is_shown, shown_width in images)
        context.close()


def outside(url):
    return [] if url.startswith(("file:", "data:")) else [url]
