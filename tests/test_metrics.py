"Scores against numbers that somebody else's program printed, and properties that must hold."
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from sklearn import metrics as sk

from ecg_nbdev.core import CLASSES, SNOMED, ECGError
from ecg_nbdev.labels import multi_hot, read_reference
from ecg_nbdev.metrics import (UndefinedScore, auprc, auroc, brier, class_table, exact_match, f_score, hamming_loss, label_ranking,
    reliability, sensitivity_at)
from ecg_nbdev.official import (challenge_score, challenge_weights, cpsc2018_f1, cpsc2018_matrix, cpsc2018_score, first_phase_scores)

ECG_DATA = os.environ.get('ECG_DATA')
needs_data = pytest.mark.skipif(not ECG_DATA, reason='ECG_DATA does not name the folder of real recordings')


@needs_data
@pytest.mark.parametrize('case', ['case-300a', 'case-500a'])
def test_cpsc2018_score_reproduces_every_printed_digit(case):
    folder = Path(ECG_DATA)/'cpsc2018-scoring'/case
    reference, answers = read_reference(folder/'reference.csv'), pd.read_csv(folder/'answers.csv')
    labels = [reference[r] for r in answers.Recording]
    first = [CLASSES.index(names[0]) for names in labels]
    score = cpsc2018_score(cpsc2018_matrix(multi_hot(labels), first, answers.Result.to_numpy()-1))
    printed = dict(re.findall(r'^(F\w+):\s*([\d.]+)', (folder/'expected_score.txt').read_text(), re.M))
    groups = {'F1': 'F1', 'Faf': 'F_AF', 'Fblock': 'F_Block', 'Fpc': 'F_PC', 'Fst': 'F_ST'}
    ours = {f'F1{i+1}': score[c] for i, c in enumerate(CLASSES)} | {k: score[name] for k, name in groups.items()}
    assert len(printed) == 14
    assert {k: f'{ours[k]:.3f}' for k in printed} == printed


@needs_data
def test_first_phase_scores_reproduce_the_official_evaluation():
    folder = Path(ECG_DATA)/'cpsc2018-scoring'/'physionet-baseline'
    labels = pd.read_csv(folder/'labels.csv', index_col='record').labels
    files = sorted((folder/'outputs').glob('*.csv'))
    names = tuple(files[0].read_text().splitlines()[1].split(','))
    rows = [f.read_text().splitlines() for f in files]
    answer = np.array([[int(v) for v in r[2].split(',')] for r in rows], bool)
    truth = multi_hot([re.sub('[,;]', ';', labels[f.stem]) for f in files], names)
    expected = pd.read_csv(folder/'expected.csv').iloc[0][['Fbeta-measure', 'Gbeta-measure']].to_numpy(float)
    assert first_phase_scores(truth, answer) == pytest.approx(expected, abs=1e-9)
    # a tenth class that nobody has and nobody answers scores 1
    both = [np.c_[Y, np.zeros(len(files), bool)] for Y in (truth, answer)]
    assert first_phase_scores(*both) == pytest.approx((9*expected+1)/10, abs=1e-9)


def challenge_by_the_book(truth, answer, weights, normal):
    "The organisers' steps: unscored classes go first, then record by record as the Challenge's paper defines it."
    scored = [k for k in range(len(weights)) if weights[:, k].any()]
    truth, answer, weights = truth[:, scored], answer[:, scored], weights[scored][:, scored]
    normal = scored.index(normal)
    def total(y):
        A = np.zeros(weights.shape)
        for x_i, y_i in zip(truth, y):
            for j in np.flatnonzero(x_i):
                for k in np.flatnonzero(y_i): A[j, k] += 1/max((x_i | y_i).sum(), 1)
        return (weights*A).sum()
    only_normal = np.zeros_like(truth)
    only_normal[:, normal] = True
    return (total(answer)-total(only_normal))/(total(truth)-total(only_normal))


@pytest.fixture(scope='module')
def weights_file(): return Path(ECG_DATA)/'physionet2020-evaluation'/'weights.csv'


@needs_data
def test_challenge_score_with_the_published_weights(weights_file):
    codes = pd.read_csv(weights_file, index_col=0).columns
    weights, normal = challenge_weights(weights_file, codes), list(codes).index('426783006')
    assert (weights == pd.read_csv(weights_file, index_col=0).to_numpy()).all()
    rng = np.random.default_rng(0)
    truth, answer = rng.uniform(size=(2, 300, len(weights))) < .08
    only_normal = np.zeros_like(truth)
    only_normal[:, normal] = True
    assert challenge_score(truth, truth, weights, normal) == pytest.approx(1)
    assert challenge_score(truth, only_normal, weights, normal) == pytest.approx(0)
    expected = challenge_by_the_book(truth, answer, weights, normal)
    assert challenge_score(truth, answer, weights, normal) == pytest.approx(expected)


@needs_data
@pytest.mark.parametrize('seed', range(5))
def test_classes_that_are_not_scored_do_not_count(weights_file, seed):
    rng = np.random.default_rng(seed)
    codes = rng.permutation([*pd.read_csv(weights_file, index_col=0).columns, '429622005', '164931005', '164884008'])
    weights, normal = challenge_weights(weights_file, codes), list(codes).index('426783006')
    assert (~weights.any(0)).sum() == 3
    truth, answer = rng.uniform(size=(2, 200, len(codes))) < .1
    expected = challenge_by_the_book(truth, answer, weights, normal)
    assert challenge_score(truth, answer, weights, normal) == pytest.approx(expected)
    anything = np.where(weights.any(0), answer, rng.uniform(size=answer.shape) < .5)
    assert challenge_score(truth, anything, weights, normal) == pytest.approx(expected)


@needs_data
def test_an_unscored_label_on_every_recording_costs_nothing(weights_file):
    truth = multi_hot(read_reference(Path(ECG_DATA)/'cpsc2018'/'REFERENCE.csv').values())
    weights = challenge_weights(weights_file, SNOMED.values())
    more = truth | (np.arange(9) == CLASSES.index('STD'))
    assert challenge_score(truth, more, weights) == pytest.approx(1)


def test_weights_of_2021_join_codes_that_count_as_one(tmp_path):
    (tmp_path/'weights.csv').write_text(',1,2|3\n1,1,0.5\n2|3,0.5,1\n')
    assert challenge_weights(tmp_path/'weights.csv', [3, 1, 9]).tolist() == [[1, .5, 0], [.5, 1, 0], [0, 0, 0]]
    (tmp_path/'weights.csv').write_text('record,labels\nA1,AF\n')
    for path in (tmp_path/'weights.csv', tmp_path/'none.csv'):
        with pytest.raises(ECGError, match='weights.csv of the challenge'): challenge_weights(path, [1])


tables = st.tuples(st.integers(2, 60), st.integers(1, 6), st.integers(0, 2**31), st.integers(1, 20))


@given(tables)
@settings(max_examples=100, deadline=None)
def test_auroc_equals_scikit_learn_ties_included(case):
    n, k, seed, levels = case
    rng = np.random.default_rng(seed)
    truth, prob = rng.uniform(size=(n, k)) < .3, rng.integers(levels, size=(n, k))/levels
    for value, t, p in zip(auroc(truth, prob), truth.T, prob.T):
        if t.all() or not t.any(): assert np.isnan(value)
        else: assert value == pytest.approx(sk.roc_auc_score(t, p))
    for value, t, p in zip(auprc(truth, prob), truth.T, prob.T):
        if not t.any(): assert np.isnan(value)
        else: assert value == pytest.approx(sk.average_precision_score(t, p))


def test_no_recordings_have_no_area():
    truth, prob = np.zeros((0, 3), bool), np.zeros((0, 3))
    for area in (auroc, auprc):
        assert np.isnan(area(truth, prob)).tolist() == [True]*3
        assert np.isnan(area(truth, prob, np.ones((2, 0)))).tolist() == [[True]*3]*2
    assert np.isnan(auroc(truth, prob, fold=np.zeros(0, int))).all()
    assert np.isnan(sensitivity_at(truth[:, 0], prob[:, 0]))


@given(tables)
@settings(max_examples=100, deadline=None)
def test_weights_mean_how_often_a_record_counts(case):
    n, k, seed, levels = case
    rng = np.random.default_rng(seed)
    truth, prob = rng.uniform(size=(n, k)) < .5, rng.integers(levels, size=(n, k))/levels
    first = rng.integers(k, size=n)
    answer, answered = prob > .4, rng.integers(k, size=n)
    rows = rng.integers(n, size=(3, n))
    weight = np.array([np.bincount(r, minlength=n) for r in rows])
    scores = (
        lambda r, w: auroc(truth[r], prob[r], w),
        lambda r, w: auprc(truth[r], prob[r], w),
        lambda r, w: f_score(truth[r], answer[r], None, weight=w),
        lambda r, w: f_score(truth[r], answer[r], 'micro', weight=w),
        lambda r, w: f_score(truth[r], answer[r], 'weighted', weight=w),
        lambda r, w: exact_match(truth[r], answer[r], w),
        lambda r, w: cpsc2018_f1(cpsc2018_matrix(truth[r], first[r], answered[r], w)))
    for score in scores:
        np.testing.assert_allclose(score(slice(None), weight), [score(r, None) for r in rows], atol=1e-12)


def ranked_by_hand(truth, prob):
    "Average precision, loss and coverage of one recording's labels, ties read as the worse order."
    present = np.flatnonzero(truth)
    place = {k: (prob >= prob[k]).sum() for k in present}
    coverage = max(place.values(), default=0)
    if not 0 < len(present) < len(truth): return 1, 0, coverage
    precision = np.mean([(truth & (prob >= prob[k])).sum()/place[k] for k in present])
    wrong = [prob[j] >= prob[k] for k in present for j in np.flatnonzero(~truth)]
    return precision, np.mean(wrong), coverage


@given(tables)
@settings(max_examples=100, deadline=None)
def test_scores_of_scikit_learn_are_what_the_definitions_say(case):
    n, k, seed, levels = case
    rng = np.random.default_rng(seed)
    truth, prob = rng.uniform(size=(n, k)) < .4, rng.integers(levels, size=(n, k))/levels
    expected = np.mean([ranked_by_hand(t, p) for t, p in zip(truth, prob)], axis=0)
    assert list(label_ranking(truth, prob).values()) == pytest.approx(expected, abs=1e-12)
    assert hamming_loss(truth, prob > .4) == pytest.approx((truth != (prob > .4)).mean(), abs=1e-12)
    assert brier(truth, prob) == pytest.approx([np.mean((p-t)**2) for t, p in zip(truth.T, prob.T)], abs=1e-12)


@given(tables, st.sampled_from([0, .5, .9, 1]))
@settings(max_examples=100, deadline=None)
def test_no_point_of_the_curve_is_more_sensitive(case, specificity):
    n, _, seed, levels = case
    rng = np.random.default_rng(seed)
    truth, prob = rng.uniform(size=n) < .4, rng.integers(levels, size=n)/levels
    if truth.all() or not truth.any():
        assert np.isnan(sensitivity_at(truth, prob, specificity))
        return
    fpr, tpr, _ = sk.roc_curve(truth, prob, drop_intermediate=False)
    assert sensitivity_at(truth, prob, specificity) == pytest.approx(tpr[fpr <= 1-specificity+1e-12].max())


@pytest.mark.filterwarnings('error')
def test_a_class_without_records_is_undefined_and_said_so():
    truth = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], bool)
    prob = np.array([[.9, .2, .8], [.1, .7, .1], [.4, .6, .1]])
    matrix = cpsc2018_matrix(truth, [0, 1, 0], [0, 1, 1])
    for score in (lambda: f_score(truth, prob > .5), lambda: cpsc2018_score(matrix, ('a', 'b', 'c'))):
        with pytest.warns(UndefinedScore, match='left out of the mean'): score()
    # (2/3 + 2/3)/2: the third class, answered once, has no F1
    with pytest.warns(UndefinedScore): assert f_score(truth, prob > .5) == pytest.approx(2/3)
    assert class_table(truth, prob > .5, classes=('a', 'b', 'c')).isna().sum(axis=1).tolist() == [0, 0, 3]
    assert np.isnan(auroc(truth, prob)).tolist() == [False, False, True]


def test_reliability_counts_every_answer():
    rng = np.random.default_rng(0)
    prob = rng.uniform(size=5000)
    table = reliability(rng.uniform(size=5000) < prob, np.r_[prob[:-1], 1.])
    assert table.n.sum() == 5000 and len(table) == 10
    assert (table.low <= table.seen).all() and (table.seen <= table.high).all()
    assert ((table.low <= table.said) & (table.said <= table.high)).sum() >= 8  # calibrated by construction


@pytest.mark.filterwarnings('ignore::ecg_nbdev.metrics.UndefinedScore')
@given(tables, st.sampled_from(['macro', 'micro', 'weighted', 'samples']))
@settings(max_examples=100, deadline=None)
def test_f_score_equals_scikit_learn(case, average):
    n, k, seed, _ = case
    rng = np.random.default_rng(seed)
    truth, answer = rng.uniform(size=(2, n, max(k, 2))) < .3
    labelled = None
    if average == 'macro': labelled = np.flatnonzero(truth.any(0))  # F1 of a class without positives is undefined here
    if labelled is not None and not len(labelled):
        assert np.isnan(f_score(truth, answer))
        return
    ours = f_score(truth, answer, average)
    if average == 'weighted' and not truth.any():
        assert np.isnan(ours)
        return
    assert ours == pytest.approx(sk.f1_score(truth, answer, labels=labelled, average=average, zero_division=0))
    assert exact_match(truth, answer) == pytest.approx(sk.accuracy_score(truth, answer))


@given(st.integers(1, 40), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_the_official_matrix_counts_every_record_once(n, seed):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(size=(n, 9)) < .2
    first = rng.integers(9, size=n)
    truth[np.arange(n), first] = True
    matrix = cpsc2018_matrix(truth, first, rng.integers(9, size=n))
    assert matrix.sum() == n and (matrix.sum(1)-np.diag(matrix) <= np.bincount(first, minlength=9)).all()
