"""`ferhpo predict` and `serve`: of trials and of registered versions, which are verified."""

import base64
import io
import json
import shutil
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ferhpo
from ferhpo import cli, signing
from ferhpo.cli import servers
from ferhpo.errors import DataError, TrackingError
from tests.servers import free_port, wait_until
from tests.test_promoting import NAME, promote, store, trained  # noqa: F401 - fixtures


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def faces(tmp_path):
    """A folder with three images of other sizes, gray and color, one of them in a folder of its own."""
    rng = np.random.default_rng(0)
    for name, shape in (("a.png", (48, 48)), ("b.PNG", (90, 61, 3)), ("more/c.png", (30, 30))):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(rng.integers(0, 256, shape, dtype=np.uint8)))
    return tmp_path / "images"


@pytest.mark.full
def test_files_and_folders_are_predicted(store, faces, capsys):  # noqa: F811
    expected = ferhpo.load_model("good", store)
    found = ferhpo.predict("good", [faces, faces / "a.png"], output_dir=store)
    assert [str(path) for path in found.index] == [
        str(faces / name) for name in ("a.png", "b.PNG", "more/c.png", "a.png")
    ]
    alone = expected.predict([(faces / "b.PNG").read_bytes()])
    np.testing.assert_allclose(found.iloc[[1]].to_numpy(), alone.to_numpy(), atol=1e-6)
    assert cli.main(["predict", "good/0", str(faces), "--json", "--output-dir", str(store)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row.pop("image") for row in rows] == [str(path) for path in found.index[:3]]
    assert sum(rows[0].values()) == pytest.approx(1, abs=1e-4)
    assert cli.main(["predict", "good/0", str(faces / "a.png"), "--output-dir", str(store)]) == 0
    table = capsys.readouterr().out.split()
    assert "answer" in table or any(word.startswith("answer=") for word in table)
    assert str(found.columns[found.iloc[0].to_numpy().argmax()]) in " ".join(table).replace("=", " ").split()


def test_without_an_image_there_is_nothing_to_predict(tmp_path, capsys):
    assert cli.main(["predict", "demo", "tracking.uri=http://127.0.0.1:9", "--output-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "predict: no image was named; name files of images, or folders\n"


def test_an_image_may_have_the_name_of_a_section(tmp_path, capsys, monkeypatch):
    given = []
    monkeypatch.setattr(
        ferhpo, "predict", lambda model, images, overrides, **_: given.extend([images, overrides]) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        cli.main(["predict", "demo", "tracking.png", "security.require_signature=true"])
    assert given == [["tracking.png"], ["security.require_signature=true"]]


def test_a_server_is_found_in_an_environment_that_is_not_activated(monkeypatch):
    """MLflow starts `uvicorn` by name; `.venv/bin/ferhpo serve` works in a new shell, too."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")

    class Started(Exception):  # noqa: N818
        pass

    def start(command, env, **options):
        assert shutil.which("uvicorn", path=env["PATH"]) == str(Path(sys.executable).with_name("uvicorn"))
        raise Started

    monkeypatch.setattr(servers.subprocess, "Popen", start)
    with pytest.raises(Started):
        servers._run_mlflow(["models", "serve"], 8000)


@pytest.mark.full
def test_images_that_cannot_be_read_are_named(store, faces, tmp_path):  # noqa: F811
    (faces / "x.png").write_text("no image")
    with pytest.raises(DataError, match=r"x\.png: it is not a readable PNG or JPEG file") as caught:
        ferhpo.predict("good", [faces], output_dir=store)
    assert len(caught.value.faults) == 1
    with pytest.raises(DataError, match=r"nothing\.png: it cannot be read"):
        ferhpo.predict("good", [tmp_path / "nothing.png"], output_dir=store)
    with (faces / "x.png").open("wb") as file:
        file.truncate(200_000_000)
    with pytest.raises(DataError, match=r"x\.png.* it cannot be read \("):  # it is a hole
        ferhpo.predict("good", [faces], output_dir=store)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the folder has no images"):
        ferhpo.predict("good", [tmp_path / "empty"], output_dir=store)
    assert cli.main(["predict", "good", "x.png", "data.path=x", "--output-dir", str(store)]) == 2


@pytest.mark.full
def test_a_promoted_version_is_signed_served_and_refused_after_a_flipped_bit(
    store,  # noqa: F811
    faces,
    tmp_path,
    monkeypatch,
    capsys,
    warm,
):
    pytest.importorskip("model_signing")
    monkeypatch.setenv("FERHPO_KEYS_DIR", str(tmp_path / "keys"))
    signing.create()
    promotion = promote(store, "good")
    assert promotion.notes == []
    name = f"models:/{NAME}@champion"
    found = ferhpo.predict(name, [faces], ["security.require_signature=true"], output_dir=store)
    np.testing.assert_allclose(
        found.to_numpy(), ferhpo.predict("good", [faces], output_dir=store).to_numpy(), atol=1e-5
    )
    for served in (name, "good/0"):
        port = free_port()
        process = warm.start(
            "serve", served, "--output-dir", str(store), "--port", str(port), log=tmp_path / f"log{port}"
        )
        files = [base64.b64encode(path.read_bytes()).decode() for path in sorted(faces.rglob("*")) if path.is_file()]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"inputs": files}).encode(),
            {"Content-Type": "application/json"},
        )

        def answer(request=request):
            try:
                return json.load(urllib.request.urlopen(request, timeout=30))
            except (urllib.error.URLError, ConnectionError):
                return None

        try:
            wait_until(lambda answer=answer: answer() is not None, seconds=120)
            rows = answer()["predictions"]
            assert list(rows[0]) == list(found.columns)
            np.testing.assert_allclose([list(row.values()) for row in rows], found.to_numpy(), atol=1e-5)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    weights = next(
        path for path in store.rglob("artifacts/model/network.safetensors")
        if (path.parents[2] / "model.sig").exists()
    )  # fmt: skip
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(TrackingError, match="is refused: its files are not those that the key own signed"):
        ferhpo.predict(name, [faces], output_dir=store)
    capsys.readouterr()
    for verb in ("evaluate", "serve"):
        assert cli.main([verb, name, "--output-dir", str(store)]) == 2
        assert "is refused: its files are not those that the key own signed" in capsys.readouterr().err
