"""What the user writes means what the user means: paths, types, options of a space, Hydra's idioms, hostile files."""

import time
import unicodedata
from pathlib import Path

import pytest

from ferhpo import cli
from ferhpo.config import validate
from ferhpo.config.change import set_values
from ferhpo.config.compose import compose
from ferhpo.config.files import config_roots
from ferhpo.config.input.files import load_yaml, reference_faults
from ferhpo.config.input.overrides import expand, quote
from ferhpo.config.input.reader import parse
from ferhpo.config.input.types import convert
from ferhpo.config.rules import name_faults
from ferhpo.config.settings import job_cpus
from ferhpo.driver import ray_start
from ferhpo.errors import ConfigError, FerhpoError
from ferhpo.keys import get_path

STRANGE = (
    "a b.csv", "fer (1).csv", "a,b.csv", "a=b.csv", "Zoë/été.csv", "2024", "1e5", "true", "no", "[x]", "a'b", 'a"b', "a&b",
    "a;b", "#1.csv", "a:b", "100%", "a@b", "a*b?.csv", "a|b", "x!", " lead", "a^b", "a`b", "表情.csv", "{", "a{b}.csv", "-x",
    "$HOME", "a\\b\\", "a\\'b",
)  # fmt: skip


def faults(name, *overrides, config_dir=None):
    with pytest.raises(ConfigError) as caught:
        validate.check_composed(compose(name, overrides, config_dir))
    return list(caught.value.faults)


def refused(name, *overrides, config_dir=None):
    with pytest.raises(ConfigError) as caught:
        compose(name, overrides, config_dir)
    return list(caught.value.faults)


# Paths.


@pytest.mark.parametrize("path", STRANGE)
@pytest.mark.parametrize(
    "key", ["data.path", "output_dir", "tracking.uri", "data.merge.sfew.ferplus_path", "data.cache_dir"]
)
def test_a_path_is_taken_for_what_it_is(path, key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "\\" in path:  # a backslash may also escape a character for Hydra
        (tmp_path / path).touch()
    assert parse(f"{key}={path}").value() == path
    assert parse(f"{key}={quote(path)}").value() == path


def test_what_is_no_path_keeps_its_meaning():
    assert parse("data.path=null").value() is None
    assert parse("data.path='a b'").value() == "a b"
    assert parse("data.path=${oc.env:HOME}").value() == "${oc.env:HOME}"
    assert parse(r"data.path=a\(1\).csv").value() == "a(1).csv"
    assert parse("model.weights=none").value() == "none"
    assert parse("model.weights=/a/my weights (1).pth").value() == "/a/my weights (1).pth"
    assert parse("name=007").value() == "007"
    assert parse("data.path=choice(a,b)").is_sweep_override()


@pytest.mark.parametrize("key", ["data.main.path", "data.main.clean", "model.weights", "output_dir", "tracking.uri"])
def test_a_tilde_is_the_home_folder_in_every_path(key, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    config = {
        "data": {"main": {"path": "", "clean": ""}},
        "model": {"weights": ""},
        "output_dir": "",
        "tracking": {"uri": ""},
    }
    assert set_values(config, [f"{key}=~/faces (1)"]) == []
    assert get_path(config, key) == "/home/ann/faces (1)"
    assert expand("sqlite:///~/mlflow.db") == "sqlite:////home/ann/mlflow.db"
    assert expand("~nobody-has-this-name/x") == "~nobody-has-this-name/x"


def test_every_verb_reads_paths_alike(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = "my faces (2), Zoë=1"
    for verb in (
        ["check", "demo", "data=image_folder"],
        ["data", "image_folder"],
        ["plan", "demo", "data=image_folder"],
    ):
        key = "path" if verb[0] == "data" else "data.path"
        assert cli.main([*verb, f"{key}=~/{folder}"]) == (0 if verb[0] == "check" else 2)
        out, err = capsys.readouterr()
        assert verb[0] == "check" or f"data.path is {tmp_path / folder}" in err, (out, err)
    assert cli.main(["runs", "x", "--output-dir=~/runs (1)"]) == 2
    assert f"{tmp_path / 'runs (1)'}" in capsys.readouterr().err


# Types.


@pytest.mark.parametrize(
    ("value", "hint", "meant"),
    [
        ("no", bool, False), ("Yes", bool, True), ("off", bool, False), (0, bool, False), ("no", str | bool, False),
        ("auto", str | bool, "auto"), (64.0, int, 64), ("64", int, 64), ("1e-4", float, 1e-4), (1, float, 1),
        ("none", int | None, None), ("none", str | None, "none"), (32, str, "32"), ([1.0, 2], int | list[int], [1, 2]),
        ([0.9, "0.99"], tuple[float, float], [0.9, 0.99]), (float("inf"), float, float("inf")), ("???", int, "???"),
    ],
)  # fmt: skip
def test_a_value_is_converted_if_it_can_mean_only_one(value, hint, meant):
    found = convert(value, hint)
    assert (found, type(found)) == (meant, type(meant))


@pytest.mark.parametrize(
    ("value", "hint", "rule"),
    [
        ("maybe", bool, "it must be true or false"), (2, bool, "it must be true or false"),
        (2.5, int, "it must be a whole number"), (True, int, "it must be a whole number"),
        ("x", float, "it must be a number"), (True, str, "it must be a text"), (None, int, "it must be a whole number"),
        ("x", float | None, "it must be a number, or null"), ([1, "x"], list[int], "its entry 1 is x, which must be a whole"),
        ([0.9], tuple[float, float], "it must be a list of 2 values"), (3, dict[str, int], "it must be a section"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(value, hint, rule):
    with pytest.raises(ValueError, match=rule):
        convert(value, hint)


def test_no_means_no_in_the_configuration_and_in_the_space():
    space = "space.model.stem_norm={choices: [yes, no]}"
    composed = compose("demo", ["model.stem_norm=no", space, "compute.isolate_trials=off", "tracking.report=no"])
    validate.check_composed(composed)
    config = composed.config
    assert config["model"]["stem_norm"] is False
    assert config["space"]["model"]["stem_norm"]["choices"] == [True, False]
    assert config["compute"]["isolate_trials"] is False
    assert config["tracking"]["report"] is False


def test_types_are_those_of_the_signature():
    found = faults(
        "demo", "model.stem_norm=maybe", "model.num_blocks=2.5", "optim.lr=fast", "optim.betas=[0.9]", "num_trials=2.5"
    )
    assert found == [
        "num_trials is 2.5; it must be a whole number of 1 or more",
        "model.stem_norm is maybe; it must be true or false",
        "model.num_blocks is 2.5; it must be a whole number",
        "optim.lr is fast; it must be a number",
        "optim.betas is [0.9]; it must be a list of 2 values",
    ]


def test_bounds_have_the_type_of_what_they_draw():
    spaces = ["space.model.stem_norm={low: 0, high: 1}", "space.model.num_blocks={low: 1.5, high: 3}"]
    assert faults("demo", *spaces)[:2] == [
        "space.model.num_blocks.low is 1.5, but model.num_blocks is a whole number; write a whole number",
        "space.model.stem_norm.low is 0, but model.stem_norm is true or false; write choices: [true, false]",
    ]
    composed = compose("demo", ["space.optim.weight_decay={low: 0, high: 1, log: false}"])
    (warning,) = validate.check_composed(composed)
    assert warning == (
        "space.optim.weight_decay draws only 0 and 1, because both bounds are integers; write low: 0.0, high: 1.0 to draw "
        "any number between them, or step: 1 to keep it so"
    )


def test_an_override_of_an_existing_sweep_has_the_type_too():
    config = {"model": {"_target_": "ferhpo.models.cnn.CNN", "stem_norm": True}, "compute": {"max_retries": 1}}
    assert set_values(config, ["model.stem_norm=no", "compute.max_retries=2.0"]) == []
    assert (config["model"]["stem_norm"], config["compute"]["max_retries"]) == (False, 2)
    assert set_values(config, ["model.stem_norm=x"]) == ["model.stem_norm is x; it must be true or false"]


# Options of a space.


def test_a_shared_draw_reaches_every_option_that_has_the_key():
    space = "space.optim={options: [sgd, adam], lr: {low: 0.002, high: 0.02}, momentum: {low: 0.8, high: 0.9}}"
    composed = compose("demo", [space, "space.optim.sgd.lr.high=0.2"])
    warnings = validate.check_composed(composed)
    assert warnings == [
        "space.optim.momentum is not drawn for adam, which has no momentum; add when: {optim: sgd} if that is meant"
    ]
    bounds = {(draw.path, draw.option): (draw.low, draw.high) for draw in composed.space().draws}
    assert bounds["optim.lr", "sgd"] == (0.002, 0.2)
    assert bounds["optim.lr", "adam"] == (0.002, 0.02)
    assert bounds["optim.momentum", "sgd"] == (0.8, 0.9)
    assert ("optim.momentum", "adam") not in bounds
    assert composed.with_slices()["space"]["optim"]["adam"]["lr"]["high"] == 0.02


def test_a_shared_draw_in_a_file_reaches_every_option(tmp_path):
    (tmp_path / "own.yaml").write_text(
        "defaults: [config, _self_]\nspace:\n  optim:\n    options: [sgd, adam, rmsprop]\n    lr: {choices: [0.1, 0.01]}\n"
        "    momentum: {low: 0.1, high: 0.2, when: {optim: sgd}}\n    adam: {weight_decay: null}\n"
    )
    composed = compose(str(tmp_path / "own.yaml"))
    assert validate.check_composed(composed) == []
    draws = {(draw.path, draw.option): draw for draw in composed.space().draws}
    for option in ("sgd", "adam", "rmsprop"):
        assert draws["optim.lr", option].choices == (0.1, 0.01)
    assert ("optim.momentum", "rmsprop") not in draws
    assert ("optim.weight_decay", "adam") not in draws
    assert ("optim.weight_decay", "sgd") in draws


def test_a_fault_names_the_option(capsys):
    space = "space.optim={options: [sgd, adam], lr: {low: 0.1, high: 0.05}, adam: {lr: {low: 0.01}}}"
    assert faults("demo", space) == ["space.optim.lr.low is 0.1, above space.optim.lr.high 0.05; swap them (optim=sgd)"]
    assert faults("demo", "space.optim={options: [sgd, adam], lrr: {low: 0.1, high: 0.5}}") == [
        "space.optim.lrr matches no key; optim has: dampening, lr, momentum, nesterov, weight_decay; did you mean lr? (optim=sgd)"
    ]
    assert cli.main(["show", "demo", "space.optim.options=[sgd, adam]"]) == 0
    out = capsys.readouterr().out
    assert "space.optim.sgd.lr.low" in out
    assert "space.optim.adam.lr.low" in out


def test_choices_replace_bounds_and_bounds_replace_choices():
    composed = compose(
        "demo", ["space.optim.lr={choices: [0.1, 0.01]}", "space.model.conv_dropout={low: 0.1, high: 0.4, log: true}"]
    )
    assert validate.check_composed(composed) == []
    assert composed.config["space"]["optim"]["lr"] == {"choices": [0.1, 0.01]}
    assert composed.config["space"]["model"]["conv_dropout"] == {"low": 0.1, "high": 0.4, "log": True}


def test_a_misspelled_value_of_when_is_blamed_on_when():
    assert faults("demo", "space.optim.lr.when={optim: adm}") == [
        "space.optim.lr.when requires optim to be adm; did you mean adam?"
    ]


# What users of Hydra write.


ANSWERS = (
    ("optim.lr=0.1,0.01", "use 'space.optim.lr={choices: [0.1, 0.01]}'"),
    ("optim.lr=choice(0.1,0.01)", "use 'space.optim.lr={choices: [0.1, 0.01]}'"),
    ("model.num_blocks=range(1,5)", "use 'space.model.num_blocks={low: 1, high: 4}'"),
    ("model.num_blocks=range(0,9,4)", "use 'space.model.num_blocks={low: 0, high: 8, step: 4}'"),
    ("optim.lr=interval(0,1)", "use 'space.optim.lr={low: 0.0, high: 1.0}'"),
    ("optim.lr=tag(log,interval(0.001,1))", "use 'space.optim.lr={low: 0.001, high: 1.0, log: true}'"),
    ("optim=adam,sgd", "use 'space.optim={options: [adam, sgd]}'"),
    ("optim=glob(adam*)", "use 'space.optim={options: [adam, adamw]}'"),
    ("data.path=choice(a,b)", "data settings cannot be searched"),
    ("seed=1,2", "ferhpo confirm"),
    ("+experiment=demo", "ferhpo sweep demo"),
    ("hydra.run.dir=/x", "set output_dir=DIR"),
    ("hydra/launcher=joblib", "set compute=local"),
    ("sampler=bayes", "did you mean tpe?"),
    ("sampler=random_search", "did you mean random?"),
    ("sampler=asha", "which is an option of scheduler; write scheduler=asha"),
    ("sampler=bohb", "sampler=tpe scheduler=hyperband"),
    ("optim=Adam", "did you mean adam?"),
    ("foo", "is not KEY=VALUE"),
    ("optim.lr=[1, 2", "a bracket is not closed"),
    ("a=" + "[" * 60, "nested brackets"),
    ("a=" + "x" * 30_000, "has 30,002 characters"),
)


def test_the_answer_is_what_does_it_in_ferhpo():
    """Every fault of the overrides comes at once, in their order."""
    found = refused("demo", *(override for override, _ in ANSWERS))
    assert len(found) == len(ANSWERS)
    for fault, (override, answer) in zip(found, ANSWERS, strict=True):
        assert answer in fault, override
        assert not any(word in fault for word in ("Hydra'", "OmegaConf", "Exception", "full_key", "mismatched input"))


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("optim.lr=${nope}", "optim.lr refers to ${nope}, which matches no key"),
        ("optim.lr=${nope:1}", "the resolver nope, which does not exist"),
    ],
)
def test_a_reference_that_leads_nowhere_is_told(override, answer):
    (found,) = refused("demo", override)
    assert answer in found


@pytest.mark.parametrize("flag", ["-m", "--multirun", "--cfg=job", "--config-name=demo", "--config-path=/x", "--info"])
def test_a_flag_of_hydra_is_answered(flag, capsys):
    assert cli.main(["sweep", "demo", flag]) == 2
    assert "is an option of Hydra, which ferhpo does not have; " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("defaults: [confg, _self_]", "defaults contains confg, which does not exist; did you mean config?"),
        ("defaults: [config, override optm: adam, _self_]", "unknown group 'optm'; did you mean optim?"),
        ("defaults: [config, override optimizer: adam, _self_]", "unknown group 'optimizer'; did you mean optim?"),
        ("defaults: [config, override optim: adm, _self_]", "defaults contains override optim: adm; did you mean adam?"),
        ("defaults: [config, optim: sgd, _self_]", "but config has chosen optim already; write override optim: sgd"),
        ("defaults: [override optim: sgd, config]", "defaults contains override optim: sgd before config; move it behind that"),
        ("num_trials: 3", "it has no defaults list; start the file with `defaults: [config, _self_]`"),
        ("", "it has no defaults list"),
        ("defaults: [optim/sgd, config]", "defaults contains optim/sgd; write override optim: sgd"),
        ("defaults: config", "defaults is 'config'; it must be a list, e.g. [config, _self_]"),
        ("defaults: [[config]]", "an entry is a name, or one GROUP: OPTION"),
        ("- a\n- b", "it is a list; a configuration is a section with keys"),
        ("defaults: [config, _self_]\noptim:\n  lr: ${trainer.max_epoch}", "optim.lr refers to ${trainer.max_epoch}, which matches no key"),
        ("defaults: [config, _self_]\noptim:\n  lr: ${optim.lr}", "refer to each other in a circle"),
        ("defaults: [config, _self_]\noptim:\n  lr: ${oc.env:FERHPO_NOPE_}", "the environment variable FERHPO_NOPE_, which is not set"),
        ("defaults: [config, _self_]\noptim:\n  lr: ${optim.lr", "has a reference that is neither ${key} nor"),
        ("a: [1, 2", "it is not valid YAML: line 1, column"),
        ("a: \x00", "it is not valid YAML"),
    ],
)  # fmt: skip
def test_a_fault_of_a_file_is_told_in_words_of_ferhpo(text, fault, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    found = refused(str(file))
    assert any(fault in one for one in found), found
    assert not any(word in str(found) for word in ("Hydra", "OmegaConf", "Exception", "full_key", "object_type"))


def test_a_missing_value_is_asked_for(tmp_path):
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "mine.yaml").write_text("_target_: torch.optim.Adam\nlr: ???\n")
    found = faults("demo", "optim=mine", config_dir=tmp_path)
    assert found == ["optim.lr is not set; add optim.lr=..."]


def test_a_sweep_may_be_the_path_of_its_file(tmp_path, monkeypatch):
    folder = tmp_path / "my sweeps (1), Zoë's"
    (folder / "optim").mkdir(parents=True)
    (folder / "optim" / "mine.yaml").write_text("_target_: torch.optim.Adam\nlr: 0.25\n")
    (folder / "own.yaml").write_text("defaults: [demo, override optim: mine, _self_]\n")
    monkeypatch.chdir(tmp_path)
    composed = compose(f"{folder.name}/own.yaml")
    assert (composed.name, composed.config["optim"]["lr"]) == ("own", 0.25)
    assert compose("demo.yaml").name == "demo"
    assert refused("x/demo.yaml") == ["x/demo.yaml is not a file; did you mean the sweep demo?"]
    assert refused("own.yml") == ["own.yml ends in .yml; ferhpo reads files that end in .yaml; rename it"]


def test_the_configuration_of_another_program_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("defaults:\n  - db: mysql\n  - _self_\nname: theirs\n")
    monkeypatch.chdir(tmp_path)
    assert compose("demo").config["num_trials"]
    assert tmp_path / "conf" not in config_roots()
    assert tmp_path / "conf" in config_roots(Path("conf"))


# Files and names that would harm.


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (LAUGHS, "with its aliases (*name) written out, it has more than 100,000 values"),
        ("a: &a [*a]", "the alias *a, which contains itself"),
        ("a: " + "[" * 5000, "nested more than 50 levels deep"),
        ("a: " + "{b: " * 5000, "nested more than 50 levels deep"),
        ("".join(" " * level + "a:\n" for level in range(200)), "nested more than 50 levels deep"),
        ("a: " + "x" * 210_000, "larger than 200,000 bytes"),
    ],
    ids=["aliases", "itself", "lists", "mappings", "indents", "bytes"],
)  # fmt: skip
def test_a_file_that_expands_is_refused_at_once(text, fault, tmp_path):
    (tmp_path / "bomb.yaml").write_text(text)
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "bomb.yaml").write_text(text)
    begin = time.perf_counter()
    for found in (refused("bomb", config_dir=tmp_path), refused("demo", "optim=bomb", config_dir=tmp_path)):
        assert any(fault in one for one in found), found
    assert time.perf_counter() - begin < 20
    with pytest.raises(ConfigError, match=r"bomb\.yaml"):
        load_yaml(tmp_path / "bomb.yaml")


def test_references_that_double_are_refused():
    config = {"a0": "x" * 10} | {f"a{n}": f"${{a{n - 1}}}${{a{n - 1}}}" for n in range(1, 60)}
    assert any("with its references" in fault for fault in reference_faults(config))
    nested = {"a0": {"x": 1}} | {f"a{n}": {"x": f"${{a{n - 1}}}", "y": f"${{a{n - 1}}}"} for n in range(1, 60)}
    assert list(reference_faults(nested))
    assert list(reference_faults({"a": "${b}", "b": "${a}", "c": "${a}"})) == []


def levels(num, first, value):
    return {"a0": first} | {f"a{n}": value(f"a{n - 1}") for n in range(1, num)}


@pytest.mark.parametrize(
    "made",
    [
        lambda num: {"x": {"y": levels(num, "x" * 10, lambda name: f"${{.{name}}}" * 10)}},
        lambda num: {"x": levels(num, {"k": "x" * 10}, lambda name: {"k": f"${{..{name}.k}}" * 10})},
        lambda num: levels(num, ["x" * 10], lambda name: [f"${{{name}[+0]}}" * 10]),
        lambda num: levels(num, "x" * 10, lambda name: f"${{ {name} }}" * 10),
        lambda num: (
            {f"t{n}": f"${{.a{n}}}" for n in range(num)}
            | levels(num, {"k": "x" * 10}, lambda name: {"k": f"${{t{name[1:]}.k}}" * 10})
        ),
        lambda num: {"a": "${oc.env:LONG_}" * 10 * num},
    ],
    ids=["beside", "above", "index", "spaces", "through", "environment"],
)
def test_references_are_measured_as_omegaconf_reads_them(made, monkeypatch):
    from omegaconf import OmegaConf

    monkeypatch.setenv("LONG_", "x" * 20_000)
    assert list(reference_faults(made(2))) == []
    assert "x" * 100 in str(OmegaConf.to_container(OmegaConf.create(made(2)), resolve=True))
    assert any("it has more than 1,000,000 characters" in fault for fault in reference_faults(made(7)))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("a" * 300, "with 300 bytes; it must have at most 200"), ("mlflow.db", "is a file of the MLflow store"),
        ("mlflow.db-wal", "is a file of the MLflow store"), ("artifacts", "is a file of the MLflow store"),
        ("mine.db", "is a file of the MLflow store"), ("-x", "must not start with '-'"), (".x", "may contain letters"),
        ("..", "may contain letters"), ("a/b", "may contain letters"), ("a\x1b[31m", r"name is 'a\x1b[31m'"),
        ("a\nb", r"name is 'a\nb'"), (unicodedata.normalize("NFD", "café"), "Unicode's form NFC"),
    ],
)  # fmt: skip
def test_a_strange_name_is_refused(name, fault):
    (found,) = name_faults(name, "mlruns", {"uri": "sqlite:///mlruns/mine.db"})
    assert fault in found
    assert found.isprintable()


@pytest.mark.parametrize("name", ["demo", "été_2", "a.b-c", "表情", "2024", "a" * 200])
def test_an_ordinary_name_is_taken(name):
    assert list(name_faults(name, "mlruns", {})) == []


# The machine.


def test_the_cores_are_those_of_the_job(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    assert job_cpus(tmp_path) == 8
    for text, cores in (("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1)):
        (tmp_path / "cpu.max").write_text(text)
        assert job_cpus(tmp_path) == cores


def test_a_long_temporary_folder_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp/" + "x" * 93)
    with pytest.raises(FerhpoError, match=r"TMPDIR is /tmp/x+, with 98 bytes; .*set RAY_TMPDIR to a short folder"):
        ray_start._check_temporary_folder()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    ray_start._check_temporary_folder()


def test_proxies_do_not_come_between_processes_of_this_machine(monkeypatch):
    from ferhpo.cli import entry

    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.delenv("NO_PROXY", raising=False)
    entry._keep_proxies_off_this_machine()
    import os

    assert os.environ["no_proxy"] == "example.org,localhost,127.0.0.1,::1"
