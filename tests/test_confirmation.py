"""Means, intervals, ranks and luck, against scipy and by hand; the result as JSON and as text."""

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from ferhpo.cli.tables import confirmation_tables
from ferhpo.config import Objective
from ferhpo.confirmation.result import ConfirmationFound, MeanTestScores, Registered
from ferhpo.confirmation.statistics import is_distinct, mean_of, mean_variants, median_trial, rank_candidates
from ferhpo.confirmation.text import candidates_csv, confirmation_note, sentences
from ferhpo.scoring.scores import Scores, ScoreVariants
from ferhpo.seeds import derive_seed, fresh_seeds
from ferhpo.storage.trial_record import TrialRecord

MAX, MIN = Objective(), Objective("val_loss", "min")


def test_mean_and_interval_are_scipys():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).normal(0.7, 0.02, 7).tolist()
    found = mean_of(values)
    low, high = stats.t.interval(0.95, 6, loc=np.mean(values), scale=stats.sem(values))
    assert (found.n, found.mean, found.deviation) == (7, pytest.approx(np.mean(values)), np.std(values, ddof=1))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_interval_by_hand():
    """0.1, 0.2, 0.3: deviation 0.1, and t(0.975, 2) is 4.3027 in any table."""
    found = mean_of([0.1, 0.2, 0.3])
    assert found.deviation == pytest.approx(0.1)
    assert found.high - found.mean == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def test_one_value_has_no_deviation_and_no_interval():
    found = mean_of([0.5])
    assert (found.n, found.mean, found.deviation, found.low, found.high) == (1, 0.5, None, None, None)


def test_an_interval_contains_the_true_mean_as_often_as_it_claims():
    """95 % of 1,000 intervals, each from 3 values, contain the true mean."""
    rng = np.random.default_rng(1)
    found = [mean_of(rng.normal(0.6, 0.05, 3).tolist()) for _ in range(1000)]
    assert np.mean([m.low < 0.6 < m.high for m in found]) == pytest.approx(0.95, abs=0.02)


def test_seeds_are_fresh_the_same_again_and_more_begin_with_the_fewer():
    used = [derive_seed(5, 1, "confirm"), derive_seed(5, 4, "confirm"), 12]
    seeds = fresh_seeds(6, 5, used)
    assert len(set(seeds)) == 6
    assert not set(seeds) & set(used)
    assert fresh_seeds(6, 5, used) == seeds
    assert fresh_seeds(2, 5, used) == seeds[:2]
    assert fresh_seeds(2, 6, used) != seeds[:2]


def trial(number, value, candidate=None, state="COMPLETE", clean=None, metric="val_acc"):
    row = {"epoch": 1, metric: value} | ({} if clean is None else {"val_acc_dedup": clean})
    sample = {"optim.lr": number} | ({} if candidate is None else {"confirm.candidate": candidate})
    return TrialRecord(number, state, sample, seed=number, epochs=[row], value=value, best_epoch=1)


def test_candidates_are_ranked_by_the_mean_not_by_the_best_seed():
    chosen = [trial(7, 0.80), trial(2, 0.79)]
    again = [trial(0, 0.90, 7), trial(1, 0.78, 2), trial(2, 0.50, 7), trial(3, 0.76, 2)]
    first, second = rank_candidates(chosen, again, MAX, comparable=True)
    assert (first.trial, first.rank, second.trial, second.rank) == (2, 1, 7, 2)
    assert first.score.mean == pytest.approx(0.77)
    assert second.score.values == (0.90, 0.50)
    assert (first.trials, second.trials) == ((1, 3), (0, 2))
    assert first.luck.mean == pytest.approx(0.02)
    assert second.luck.mean == pytest.approx(0.10)
    half = second.score.high - second.score.mean
    assert (second.luck.low, second.luck.high) == (pytest.approx(0.10 - half), pytest.approx(0.10 + half))


def test_luck_has_the_opposite_sign_if_less_is_better():
    chosen = [trial(0, 1.0, metric="val_loss"), trial(1, 1.1, metric="val_loss")]
    again = [trial(0, 1.3, 0, metric="val_loss"), trial(1, 1.05, 1, metric="val_loss")]
    first, second = rank_candidates(chosen, again, MIN, comparable=True)
    assert (first.trial, second.trial) == (1, 0)
    assert second.luck.mean == pytest.approx(0.3), "its value in the sweep was 0.3 too optimistic"


def test_a_candidate_that_lost_a_seed_ranks_behind():
    chosen = [trial(0, 0.9), trial(1, 0.5)]
    again = [trial(0, 0.9, 0), trial(1, 0.5, 1), trial(2, 0.2, 0, state="DIVERGED"), trial(3, 0.4, 1)]
    first, second = rank_candidates(chosen, again, MAX, comparable=True)
    assert (first.trial, second.trial, second.without) == (1, 0, ("DIVERGED",))
    assert second.score.values == (0.9,)
    (only,) = rank_candidates(chosen[:1], [trial(0, 0.1, 0, state="FAILED")], MAX, comparable=True)
    assert (only.score, only.luck, only.dedup) == (None, None, None)


def test_values_that_are_not_comparable_have_no_luck_and_dedup_has_its_mean():
    again = [trial(0, 0.9, 0, clean=0.8), trial(1, 0.7, 0, clean=0.5)]
    (only,) = rank_candidates([trial(0, 0.5)], again, MAX, comparable=False)
    assert only.luck is None
    assert only.dedup.mean == pytest.approx(0.65)


@pytest.mark.parametrize(("values", "middle"), [([0.3], 0.3), ([0.1, 0.9], 0.1), ([0.9, 0.1, 0.4], 0.4)])
def test_the_median_trial_is_the_worse_of_two(values, middle):
    trials = [trial(number, value) for number, value in enumerate(values)]
    assert median_trial(trials, MAX).value == middle
    flipped = [trial(number, -value, metric="val_loss") for number, value in enumerate(values)]
    assert median_trial(flipped, MIN).value == -middle


def test_intervals_that_overlap_are_not_distinct():
    def candidates(*means):
        again = [trial(n, mean + d, c) for c, mean in enumerate(means) for n, d in enumerate((-0.01, 0.0, 0.01))]
        return rank_candidates([trial(c, 0.5) for c in range(len(means))], again, MAX, comparable=True)

    assert is_distinct(candidates(0.9, 0.5))
    assert not is_distinct(candidates(0.52, 0.5))
    assert not is_distinct(candidates(0.9))


def scores(n, acc):
    return Scores(n, acc, acc / 2, 1 - acc)


def test_means_of_score_variants():
    found = mean_variants([ScoreVariants(scores(4, a), scores(3, a / 2)) for a in (0.5, 0.7)])
    assert (found.all.n, found.dedup.n) == (4, 3)
    assert found.all.acc.mean == pytest.approx(0.6)
    assert found.dedup.acc.values == (0.25, 0.35)
    assert mean_variants([ScoreVariants(scores(4, 1.0), None)]).dedup is None


def found_of(chosen, again, changed=()):
    """The content of confirm.json, without test images and registry."""
    candidates = rank_candidates(chosen, again, MAX, comparable=not changed)
    winner = next(candidate for candidate in candidates if candidate.trial == chosen[0].number)
    return ConfirmationFound(
        sweep="demo",
        sweep_id="0",
        sweep_run="",
        experiment_id="",
        confirmation="demo-confirm",
        objective="val_acc",
        mode="max",
        level=0.95,
        seeds=(1, 2),
        changed=tuple(changed),
        split_name="published",
        data="made",
        data_digest="d",
        candidates=tuple(candidates),
        is_distinct=is_distinct(candidates),
        chosen=candidates[0].trial if candidates[0].score else None,
        winner=winner.trial,
        luck=winner.luck,
        no_test="there are none",
    )


def with_test(found):
    """The same with test scores and a registered network."""
    one_view = mean_variants([ScoreVariants(scores(4, a), scores(3, a / 2)) for a in (0.5, 0.7)])
    ten_crop = mean_variants([ScoreVariants(scores(4, a), None) for a in (0.5, 0.7)])
    registered = Registered("ferhpo-demo", 2, trial=1, seed=5, value=0.78)
    return replace(found, test=MeanTestScores(one_view, ten_crop), no_test="", registered=registered)


KEYS = [
    "sweep", "sweep_id", "sweep_run", "experiment_id", "confirmation", "objective", "mode", "level", "seeds", "changed",
    "split_name", "data", "data_digest", "candidates", "told_apart", "chosen", "winner", "luck", "test", "no_test",
    "registered",
]  # fmt: skip


def test_the_result_comes_back_from_json_with_the_keys_of_every_version():
    again = [trial(0, 0.70, 7, clean=0.6), trial(1, 0.78, 2), trial(2, 0.5, 7, state="FAILED"), trial(3, 0.76, 2)]
    for found in (found_of([trial(7, 0.80), trial(2, 0.79)], again), with_test(found_of([trial(7, 0.8)], again[:1]))):
        values = json.loads(json.dumps(found.to_json()))
        assert list(values) == KEYS
        assert values == found.to_json()
        assert ConfirmationFound.from_json(values) == found


def test_a_confirm_json_of_an_earlier_version_is_read():
    again = [trial(0, 0.70, 7, clean=0.6), trial(1, 0.78, 7, clean=0.7)]
    found = with_test(found_of([trial(7, 0.80)], again))
    old = found.to_json()
    for candidate in old["candidates"]:
        candidate["clean"] = candidate.pop("dedup")
    for variants in old["test"].values():
        variants["published"], variants["clean"] = variants.pop("all"), variants.pop("dedup")
    assert ConfirmationFound.from_json(old) == found


def shown(found):
    console = Console(width=120)
    with console.capture() as capture:
        for part in confirmation_tables(found):
            console.print(part)
    return capture.get()


def test_the_result_in_sentences():
    chosen = [trial(7, 0.80), trial(2, 0.79)]
    again = [trial(0, 0.70, 7), trial(1, 0.78, 2), trial(2, 0.50, 7), trial(3, 0.76, 2)]
    found = found_of(chosen, again)
    assert list(sentences(found)) == [
        "Trial 2 is selected by its mean val_acc, 0.7700 ± 0.0141; the sweep itself ranked trial 7 first.",
        "The seeds do not separate it from trial 7: their intervals overlap.",
        "Luck +0.2000 (95 % interval -1.0706 to 1.4706, 2 seeds): the sweep's best trial, 7, had val_acc 0.8000 in the "
        "sweep and 0.6000 on fresh seeds; the interval contains 0, so there may have been no luck.",
        "Test images were not evaluated: there are none.",
    ]
    heading, first, second = candidates_csv(found).splitlines()
    assert heading.startswith("rank,trial,sweep_value,n,mean,deviation,low,high,val_acc_dedup,luck,lost_seeds,optim.lr")
    assert (first.split(",")[:4], second.split(",")[:4]) == (["1", "2", "0.79", "2"], ["2", "7", "0.8", "2"])
    assert "| 1 | 2 | 0.7900 | 0.7700 ± 0.0141 |" in confirmation_note(found)
    assert "0.7700 ± 0.0141" in shown(found)


def test_test_scores_are_shown_by_variant():
    found = with_test(found_of([trial(7, 0.80)], [trial(0, 0.70, 7), trial(1, 0.78, 7)]))
    assert list(sentences(found))[-1] == (
        "ferhpo-demo version 2 is the network of seed 5, the median of 2 by val_acc (0.7800)."
    )
    for text in (shown(found), confirmation_note(found)):
        assert "evaluated once" in text
        assert [
            name for name in ("all images", "dedup", "all images, ten-crop", "dedup, ten-crop") if name in text
        ] == [
            "all images",
            "dedup",
            "all images, ten-crop",
        ]
        assert "0.6000 ± 0.1414" in text


def test_a_confirmation_without_any_value_selects_nothing():
    found = found_of([trial(7, 0.80)], [trial(0, 0.1, 7, state="FAILED"), trial(1, 0.1, 7, state="DIVERGED")])
    assert list(sentences(found)) == ["No trial is selected: no candidate finished a training with a val_acc."]
    assert "No trial is selected" in shown(found)
    assert "No trial is selected" in confirmation_note(found)
    assert candidates_csv(found).count("\n") == 2


def test_lost_seeds_and_other_settings_are_reported():
    again = [trial(0, 0.7, 7), trial(1, 0.1, 7, state="DIVERGED")]
    found = found_of([trial(7, 0.80)], again, changed=["trainer.max_epochs=60 (2 in the sweep)"])
    assert list(sentences(found)) == [
        "Trial 7 is selected by its mean val_acc, 0.7000.",
        "Luck is not computed: the retraining used trainer.max_epochs=60 (2 in the sweep).",
        "Trial 7 lost 1 of its seeds (diverged); it ranks below candidates that lost fewer.",
        "Test images were not evaluated: there are none.",
    ]
