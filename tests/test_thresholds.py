"""Thresholds: no grid beats the exact search, rare classes are not left to luck, decoding keeps its promises, and
nobody chooses on what is scored."""
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from ecg_nbdev.core import CLASSES, CohortError, ECGError
from ecg_nbdev.official import challenge_score
from ecg_nbdev.predictions import Predictions
from ecg_nbdev.thresholds import (
    Thresholds, best_threshold, challenge_thresholds, check_unseen, fit_thresholds, smooth_threshold, threshold_cuts,
    threshold_intervals)

tables = st.tuples(st.integers(1, 80), st.integers(0, 2**31), st.integers(1, 20))
probs = st.integers(0, 2**31).map(lambda seed: np.random.default_rng(seed).uniform(size=(20, 9))**2)


def made(n=200, seed=0, role='valid', k=9):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(size=(n, k)) < .2
    prob = 1/(1+np.exp(-(rng.normal(-2, 1, truth.shape)+3*truth)))
    return Predictions([f'R{i}' for i in range(n)], prob, truth, role, CLASSES[:k])


GOODNESS = {
    'f1': lambda tp, fp, fn, tn: 2*tp/(2*tp+fp+fn),
    'fbeta=2': lambda tp, fp, fn, tn: 5*tp/(5*tp+fp+4*fn),
    'youden': lambda tp, fp, fn, tn: tp/(tp+fn)-fp/max(fp+tn, 1),
    'cost=3': lambda tp, fp, fn, tn: -3*fn-fp,
    'sensitivity>=0.8': lambda tp, fp, fn, tn: tn if tp >= .8*(tp+fn)-1e-9 else -np.inf,
    'ppv>=0.6': lambda tp, fp, fn, tn: tp if tp >= .6*(tp+fp)-1e-9 else -np.inf}

@pytest.mark.parametrize('rule', GOODNESS)
@given(table=tables)
@settings(max_examples=60, deadline=None)
def test_no_grid_finds_a_better_threshold(rule, table):
    n, seed, levels = table
    rng = np.random.default_rng(seed)
    truth, prob = rng.uniform(size=n) < .4, rng.integers(levels+1, size=n)/levels
    if not truth.any(): return
    def goodness(t):
        said = prob >= t
        cells = (truth & said, ~truth & said, truth & ~said, ~truth & ~said)
        return GOODNESS[rule](*(cell.sum() for cell in cells))
    grid = np.linspace(-.01, 1.01, 103)
    assert goodness(best_threshold(truth, prob, rule)) >= max(map(goodness, grid))-1e-12


@given(tables)
@settings(max_examples=60, deadline=None)
def test_cuts_are_all_that_differ(table):
    n, seed, levels = table
    rng = np.random.default_rng(seed)
    truth, prob = rng.uniform(size=n) < .4, rng.integers(levels+1, size=n)/levels
    at, tp, fp = threshold_cuts(truth, prob)
    assert len(at) == len(np.unique(prob))+1 and (np.diff(at) < 0).all()
    for t, a, b in zip(at, tp, fp):
        assert t == 0 or ((prob >= t) & truth).sum() == a and ((prob >= t) & ~truth).sum() == b


def test_a_million_recordings_in_seconds():
    rng = np.random.default_rng(0)
    truth = rng.uniform(size=1_000_000) < .1
    prob = 1/(1+np.exp(-(rng.normal(-3, 1, truth.shape)+3*truth)))
    exact, smooth = best_threshold(truth, prob), smooth_threshold(truth, prob)
    def f1(t): return 2*(truth & (prob >= t)).sum()/(truth.sum()+(prob >= t).sum())
    assert f1(exact) >= f1(smooth) >= f1(exact)-1e-3


@pytest.mark.parametrize('positives', [1, 2, 4, 9])
def test_rare_classes_are_less_a_matter_of_luck(positives):
    spread = {}
    for f in (best_threshold, smooth_threshold):
        rng = np.random.default_rng(1)
        truth = np.arange(300) < positives
        found = [f(truth, 1/(1+np.exp(-(rng.normal(size=300)-2+3*truth)))) for _ in range(100)]
        assert all(0 < t < 1 for t in found)
        z = np.log(np.array(found)/(1-np.array(found)))
        spread[f] = np.abs(z-np.median(z)).mean()
    assert spread[smooth_threshold] < spread[best_threshold]


@given(tables, st.sampled_from(['f1', 'youden', 'cost=5']))
@settings(max_examples=60, deadline=None)
def test_smoothed_thresholds_stand_anything(table, rule):
    n, seed, levels = table
    rng = np.random.default_rng(seed)
    truth, prob = rng.uniform(size=n) < .4, rng.integers(levels+1, size=n)/levels
    assert 0 <= smooth_threshold(truth, prob, rule) <= 1


def test_challenge_thresholds_against_all_combinations():
    preds = made(25, k=3)
    weights = np.array([[1, .2, 0], [.4, 1, .6], [0, .3, 1]])
    def score(th): return challenge_score(preds.truth, preds.prob >= th, weights)
    every = [np.r_[2., preds.prob[:, k]] for k in range(3)]
    best = max(score(th) for th in itertools.product(*every))
    starts = [challenge_thresholds(preds.truth, preds.prob, weights, np.full(3, s)) for s in (.05, .3, .7)]
    assert max(map(score, starts)) >= best-.02
    for th in starts:  # no single threshold improves it
        for k in range(3):
            assert max(score(np.where(np.arange(3) == k, v, th)) for v in every[k]) <= score(th)+1e-9


def test_the_challenge_leaves_thresholds_of_unscored_classes_alone():
    preds, start = made(200, k=4), np.full(4, .5)
    weights = np.zeros((4, 4))
    weights[:3, :3] = np.eye(3)*.8+.2
    chosen = challenge_thresholds(preds.truth, preds.prob, weights, start)
    assert chosen[3] == .5 and (chosen[:3] != .5).any()
    scored = challenge_thresholds(preds.truth[:, :3], preds.prob[:, :3], weights[:3, :3], start[:3])
    assert (chosen[:3] == scored).all()
    assert (challenge_thresholds(preds.truth, preds.prob, np.zeros((4, 4)), start) == start).all()


@given(probs, st.booleans(), st.integers(0, 2), st.integers(0, 2))
@settings(max_examples=100, deadline=None)
def test_decoding_keeps_its_promises(prob, alone, least, more):
    at = Thresholds(np.linspace(.2, .6, 9), least=least, most=least+more+(least+more == 0), alone=('Normal',)*alone)
    answer = at.decode(prob)
    n = answer.sum(1)
    assert (n <= at.most).all() and (n >= (min(least, 1) if alone else least)).all()
    if alone: assert (n[answer[:, 0]] == 1).all()
    else:
        beyond = prob >= at.values
        fits = (beyond.sum(1) >= least) & (beyond.sum(1) <= at.most)
        assert (answer == beyond)[fits].all()
    top = at.top(prob)
    assert answer[np.arange(20), top][n > 0].all()


@given(probs)
@settings(max_examples=100, deadline=None)
def test_decoding_takes_a_label_away_only_for_normal_or_for_three_surer_ones(prob):
    at = Thresholds(np.linspace(.2, .6, 9))
    answer, margin = at.decode(prob), at.margin(prob)
    taken = (prob >= at.values) & ~answer
    for r, k in np.argwhere(taken):
        if k == 0: assert margin[r, 1:].max() >= margin[r, 0]
        elif answer[r, 0]: assert margin[r, 0] >= margin[r].max()
        else: assert (margin[r][answer[r]] >= margin[r, k]).all() and answer[r].sum() == 3


def test_a_rule_against_misses_finds_more_where_normal_has_its_own():
    "PAC and PVC are hard to tell from Normal: a low threshold of Normal takes them away when labels are decoded."
    rng, n = np.random.default_rng(0), 3000
    truth = np.eye(9, dtype=bool)[rng.choice(9, size=n, p=[.3]+[.0875]*8)]
    z = rng.normal(-3, 1, truth.shape)+3*truth
    z[:, 0] += np.where(truth[:, 5] | truth[:, 6], 2.5, 0)
    preds = Predictions(np.arange(n), 1/(1+np.exp(-z)), truth, np.where(np.arange(n) < 1000, 'valid', 'test'))
    test = preds.of('test')
    def found(how, decode=True):
        at = fit_thresholds(preds, how, together=False)
        said = at.decode(test.prob) if decode else test.prob >= at.values
        return ((said & test.truth).sum(0)/test.truth.sum(0))[1:].mean()
    assert found('fbeta=2', decode=False) > found('f1', decode=False)
    assert found(['fbeta=0.5']+['fbeta=2']*8) > max(found('fbeta=2'), found('f1'))+.02


@given(probs)
@settings(max_examples=30, deadline=None)
def test_an_operating_point_survives_json(prob):
    at = fit_thresholds(made(), most=2)
    again = Thresholds.from_dict(json.loads(json.dumps(at.to_dict())))
    assert (again.decode(prob) == at.decode(prob)).all() and again.to_dict() == at.to_dict()


def test_only_validation_recordings_choose():
    preds = made(300)
    mixed = replace(preds, role=np.repeat(['train', 'valid', 'test'], 100))
    rng = np.random.default_rng(0)
    chooses = (mixed.role == 'valid')[:, None]
    other = replace(mixed, prob=np.where(chooses, mixed.prob, rng.uniform(size=mixed.prob.shape)),
                    truth=np.where(chooses, mixed.truth, ~mixed.truth))
    for how in ('f1', 'youden', 'expected-f1', 'challenge', [f'cost={miss}' for miss in range(1, 10)]):
        a, b = (fit_thresholds(p, how, weights=np.eye(9)) for p in (mixed, other))
        assert (a.values == b.values).all()
    for role in ('train', 'test'):
        with pytest.raises(ECGError, match='no validation recordings'): fit_thresholds(replace(preds, role=role))


def test_cheating_is_noticed_whatever_the_role_says():
    preds = made()
    at = fit_thresholds(preds)
    cheat = replace(preds, role='test')
    with pytest.raises(CohortError, match='200 of 200 test recordings, R0 the first, have chosen'):
        check_unseen(cheat, at)
    with pytest.raises(CohortError, match='1 of 1'): check_unseen(cheat.take([7]), Thresholds.from_dict(at.to_dict()))
    renamed = replace(cheat, ids=[f'X{i}' for i in range(200)])  # the key stays with the recording
    with pytest.raises(CohortError): check_unseen(renamed, at)
    check_unseen(replace(cheat, provenance={'data': 'elsewhere'}, key=None), at)  # R0 of another set is another R0


def test_bad_input_is_one_line():
    preds = made()
    for how in ('best', 'f1=', 'fbeta=x', 'sensitivity', ''):
        with pytest.raises(ECGError, match='no threshold rule'): fit_thresholds(preds, how)
    with pytest.raises(ECGError, match='give one, or one per class'): fit_thresholds(preds, ['f1', 'youden'])
    with pytest.raises(ECGError, match='needs weights'): fit_thresholds(preds, 'challenge')
    with pytest.raises(ECGError, match='give one per class'): Thresholds([.5, .5])


def test_intervals_are_wider_where_positives_are_few():
    preds = made(400)
    rare = replace(preds, truth=preds.truth & ((np.arange(9) > 0) | (np.cumsum(preds.truth[:, [0]], 0) <= 9)))
    table = threshold_intervals(rare, n_boot=60)
    width = (lambda p: np.log(p/(1-p)))(table[['low', 'high']]).diff(axis=1).high
    assert (table.low <= table.high).all() and width.iloc[0] > width.iloc[1:].median()
    assert table.equals(threshold_intervals(rare, n_boot=60))


def test_own_classes_are_chosen_for_everyday_answers():
    "Nobody forces a label of one's own classes: thresholds are as with `least=0`, and what they were chosen for is said."
    rng = np.random.default_rng(0)
    truth = rng.uniform(size=(400, 1)) < .2
    prob = 1/(1+np.exp(-(rng.normal(-2, 1.2, truth.shape)+2*truth)))
    at, free = (fit_thresholds(Predictions(np.arange(400), prob, truth, 'valid', ('mine',)), least=n) for n in (None, 0))
    assert at.values == free.values and 'force' not in at.about['chosen_for']
    nine = np.eye(9, dtype=bool)[rng.integers(9, size=400)]
    said = fit_thresholds(Predictions(np.arange(400), np.where(nine, .8, .1), nine, 'valid')).about['chosen_for']
    assert 'force' in said
