"""Signatures: keys, folders, and registered versions in a real store; predictions of files."""

import random
import stat

import pytest

from ferhpo import cli, signing
from ferhpo.errors import SigningError, TrackingError
from ferhpo.signing.keys import fingerprint_of, own_key
from ferhpo.tracking.fetch import download, fetch_export, load
from ferhpo.tracking.registered.signed import SIGNATURE, SIGNED_TAG, code_fault, digest_fault, sign_version
from ferhpo.tracking.registry import find, register
from ferhpo.tracking.store import connect
from tests.test_registry import recorded  # noqa: F401 - a fixture

pytest.importorskip("model_signing")


@pytest.fixture
def keys(tmp_path, monkeypatch):
    """An own key, and a folder for others' keys."""
    monkeypatch.setenv("FERHPO_KEYS_DIR", str(tmp_path / "keys"))
    return signing.create()


def other_key(tmp_path, monkeypatch, name="other"):
    """A key of somebody else: the files of the private and the public half."""
    with monkeypatch.context() as patch:
        patch.setenv("FERHPO_KEYS_DIR", str(tmp_path / name))
        key = signing.create(name)
        return own_key(), key.path


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "artifacts" / "model").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "artifacts" / "model" / "network.safetensors").write_bytes(random.Random(0).randbytes(3000))
    (folder / ".gitignore").write_text("*\n")
    return folder


def test_a_private_key_is_the_users_alone(keys, tmp_path, capsys):
    private = own_key()
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert fingerprint_of(private) == keys.fingerprint
    assert [key.name for key in signing.trusted()] == ["own"]
    before = private.read_bytes()
    assert cli.main(["keys", "create"]) == 2
    assert "there is a key in" in capsys.readouterr().err
    assert private.read_bytes() == before
    assert cli.main(["keys", "trust", str(private)]) == 2
    assert "is a private key; pass on" in capsys.readouterr().err
    private.chmod(0o640)
    with pytest.raises(SigningError, match="may be read by other users; run: chmod 600"):
        own_key()


@pytest.mark.parametrize(
    "arguments",
    [
        ["trust"], ["create", "x.pub"], ["list", "--name", "x"], ["trust", "nothing.pub"], ["trust", "text.pub"],
        ["trust", "rsa.pub"], ["create", "--name", "../x"],
    ],
)  # fmt: skip
def test_wrong_use_is_answered_in_a_sentence(tmp_path, monkeypatch, capsys, arguments):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    monkeypatch.setenv("FERHPO_KEYS_DIR", str(tmp_path / "keys"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pub").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    public = rsa.generate_private_key(65537, 2048).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "rsa.pub").write_bytes(public.public_bytes(serialization.Encoding.PEM, form))
    assert cli.main(["keys", *arguments]) == 2
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    assert len(output.err.splitlines()) == 1
    assert not (tmp_path / "keys").exists()


def test_what_was_signed_is_verified(keys, model):
    assert signing.verify(model, signing.sign(model, own_key())) == keys.fingerprint


def test_each_of_a_thousand_flipped_bits_is_refused(keys, model):
    """In any file of the folder, and in the signature itself."""
    signature = signing.sign(model, own_key())
    files = [path for path in sorted(model.rglob("*")) if path.is_file()]
    rng = random.Random(1)
    for _ in range(1000):
        path = rng.choice([*files, None])
        content = bytearray(signature if path is None else path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        if path is None:
            with pytest.raises(SigningError):
                signing.verify(model, bytes(content))
            continue
        before = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(SigningError, match="its files are not those that the key own signed"):
            signing.verify(model, signature)
        path.write_bytes(before)
    assert signing.verify(model, signature) == keys.fingerprint


def test_bits_that_base64_leaves_out_are_refused(keys, model):
    signature = signing.sign(model, own_key())
    for place in [i for i in range(1, len(signature)) if signature[i : i + 1] == b"=" and signature[i - 1 : i] != b"="]:
        for bit in range(4):
            content = bytearray(signature)
            content[place - 1] ^= 1 << bit
            with pytest.raises(SigningError):
                signing.verify(model, bytes(content))


@pytest.mark.parametrize("change", ["more", "less", "moved", "link", "git"])
def test_other_files_are_refused(keys, model, tmp_path, change):
    signature = signing.sign(model, own_key())
    weights = model / "artifacts" / "model" / "network.safetensors"
    if change == "more":
        (model / "more.py").write_text("")
    elif change == "less":
        weights.unlink()
    elif change == "moved":
        weights.rename(model / "network.safetensors")
    elif change == "link":
        weights.rename(tmp_path / "weights")
        weights.symlink_to(tmp_path / "weights")
    else:
        (model / ".git").mkdir()
        (model / ".git" / "config").write_text("")
    with pytest.raises(SigningError):
        signing.verify(model, signature)


def test_an_unknown_key_is_refused_until_it_is_trusted(keys, model, tmp_path, monkeypatch, capsys):
    private, public = other_key(tmp_path, monkeypatch)
    signature = signing.sign(model, private)
    with pytest.raises(SigningError, match=r"which is not trusted here; .* run `ferhpo keys trust FILE\.pub`"):
        signing.verify(model, signature)
    assert cli.main(["keys", "trust", str(public)]) == 0
    assert signing.verify(model, signature) == fingerprint_of(private)
    assert cli.main(["keys", "list", "--json"]) == 0
    assert '"name": "own", "fingerprint": "' in capsys.readouterr().out


@pytest.fixture
def signed(recorded, keys):  # noqa: F811 - the fixture
    """A version that is signed: the settings, the version, its folder in the store."""
    settings, _, models, _ = recorded
    name = f"signed{random.randrange(10**9)}"
    number = register(settings, models[0], name, {})
    assert sign_version(settings, find(settings, name, str(number))) == ""
    folder = next((settings.output_dir / "artifacts").rglob(f"{models[0]}/artifacts"))
    yield settings, find(settings, name, str(number)), folder
    (folder / SIGNATURE).unlink(missing_ok=True)


def test_a_signed_version_is_loaded(signed, keys, tmp_path):
    settings, version, folder = signed
    assert version.tags[SIGNED_TAG] == keys.fingerprint
    warnings = []
    load(settings, version, is_signature_required=True, warnings=warnings)
    assert warnings == []
    found = fetch_export(settings, version, tmp_path / "out", True)
    assert (found / "model.json").exists()
    before = (folder / SIGNATURE).read_bytes()
    assert sign_version(settings, version) == ""  # a second promotion
    assert (folder / SIGNATURE).read_bytes() == before


def test_a_flipped_bit_in_any_file_of_a_signed_version_is_refused(signed):
    settings, version, folder = signed
    rng = random.Random(2)
    for path in [path for path in sorted(folder.rglob("*")) if path.is_file()]:
        before = path.read_bytes()
        content = bytearray(before)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        with pytest.raises(TrackingError, match=f"{version.name} version 1 is refused: "):
            load(settings, version)
        path.write_bytes(before)
    load(settings, version)


def test_a_signature_that_was_taken_away_or_replaced_is_refused(signed, tmp_path, monkeypatch):
    settings, version, folder = signed
    signature = (folder / SIGNATURE).read_bytes()
    (folder / SIGNATURE).unlink()
    with pytest.raises(TrackingError, match=r"has no model\.sig any more, so its files were changed"):
        load(settings, version)
    private, public = other_key(tmp_path, monkeypatch)
    signing.trust(public)
    whole = download_all(folder, tmp_path / "whole")
    (folder / SIGNATURE).write_bytes(signing.sign(whole, private))
    with pytest.raises(TrackingError, match="and now with another one"):
        load(settings, version)
    (folder / SIGNATURE).write_bytes(signature)
    load(settings, version)


def download_all(folder, out):
    import shutil

    return shutil.copytree(folder, out, ignore=shutil.ignore_patterns(SIGNATURE))


def test_a_version_without_a_signature_warns_or_is_refused(recorded, tmp_path, monkeypatch):  # noqa: F811
    settings, _, models, _ = recorded
    monkeypatch.setenv("FERHPO_KEYS_DIR", str(tmp_path / "keys"))
    register(settings, models[1], "unsigned", {})
    version = find(settings, "unsigned", "1")
    assert "ferhpo keys create" in sign_version(settings, version)
    warnings = []
    load(settings, version, warnings=warnings)
    assert warnings == ["unsigned version 1 is not signed, so only its digests were compared"]
    with pytest.raises(TrackingError, match=r"is not signed, and security\.require_signature is true"):
        load(settings, version, is_signature_required=True)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("model.py", "import", "import os\nimport"),
        ("artifacts/export0/model.py", "import", "import os\nimport"),
        ("MLmodel", "model_code_path: ", "model_code_path: other/x.py #"),
        ("MLmodel", "code: null", "code: code"),
        ("MLmodel", "mlflow.pyfunc.loaders.code_model", "mlflow.sklearn"),
        ("requirements.txt", "torch", "evil-package==1.0\ntorch"),
        ("requirements.txt", "torch", "torch @ file:///tmp/x\ntorch"),
        ("conda.yaml", "conda-forge", "evil"),
        ("python_env.yaml", "- wheel", "- evil"),
    ],
)
def test_code_that_ferhpo_did_not_generate_is_not_signed(recorded, tmp_path, file, old, new):  # noqa: F811
    settings, _, models, _ = recorded
    register(settings, models[0], "code", {})
    folder = download_all(next((settings.output_dir / "artifacts").rglob(f"{models[0]}/artifacts")), tmp_path / "copy")
    assert code_fault(folder) == ""
    content = (folder / file).read_text()
    assert old in content
    (folder / file).write_text(content.replace(old, new, 1))
    assert code_fault(folder) != ""


@pytest.mark.parametrize("kind", ["bytecode", "data", "env", "decoy", "swapped"])
def test_what_a_strangers_store_adds_is_not_signed(recorded, tmp_path, kind):  # noqa: F811
    """Each of these would be run, installed or loaded by whoever trusts the signature."""
    settings, _, models, _ = recorded
    folders = [next((settings.output_dir / "artifacts").rglob(f"{each}/artifacts")) for each in models]
    folder = download_all(folders[0], tmp_path / "copy")
    number = register(settings, models[0], "added", {})
    version = find(settings, "added", str(number))
    assert (digest_fault(version, folder), code_fault(folder)) == ("", "")
    text = (folder / "MLmodel").read_text()
    if kind == "bytecode":
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"")
    elif kind == "data":
        (folder / "MLmodel").write_text(text.replace("    code: null\n", "    code: null\n    data: evil\n"))
    elif kind == "env":
        (folder / "MLmodel").write_text(text.replace("python_env.yaml", "evil_env.yaml"))
    elif kind == "decoy":
        download_all(folders[1] / "artifacts" / "export1", folder / "artifacts" / "a")
    else:
        for name in ("model.json", "network.safetensors"):
            source = folders[1] / "artifacts" / "export1" / name
            (folder / "artifacts" / "export0" / name).write_bytes(source.read_bytes())
    assert digest_fault(version, folder) or code_fault(folder)
    assert bool(digest_fault(version, folder)) == (kind == "swapped")


def test_a_model_whose_code_was_changed_is_promoted_unsigned(recorded, keys):  # noqa: F811
    settings, _, models, _ = recorded
    register(settings, models[1], "changed", {})
    code = next((settings.output_dir / "artifacts").rglob(f"{models[1]}/artifacts")) / "model.py"
    before = code.read_text()
    code.write_text(before + "\nprint('hello')\n")
    try:
        assert "its model.py is not the code" in sign_version(settings, find(settings, "changed", "1"))
        assert SIGNED_TAG not in connect(settings).get_model_version("changed", "1").tags
    finally:
        code.write_text(before)


def test_downloads_are_verified(signed, tmp_path):
    settings, version, folder = signed
    download(settings, version.name, 1, tmp_path / "out", True)
    assert not (tmp_path / "out" / SIGNATURE).exists()
    (folder / "more.py").write_text("")
    try:
        with pytest.raises(TrackingError, match="Extra files"):
            download(settings, version.name, 1, tmp_path / "out2")
    finally:
        (folder / "more.py").unlink()
