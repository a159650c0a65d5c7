"Scores against numbers that somebody else's program printed, and properties that must hold."
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from sklearn import metrics as sk

from ecg_nbdev.core import CLASSES, ECGError
from ecg_nbdev.labels import multi_hot, read_reference
from ecg_nbdev.metrics import UndefinedScore, auprc, auroc, challenge_score, challenge_weights, class_table, cpsc2018_f1, cpsc2018_matrix, cpsc2018_score, exact_match, f_score, first_phase_areas, first_phase_scores, hamming_loss, label_ranking, reliability, sensitivity_at

ECG_DATA = os.environ.get('ECG_DATA')
needs_data = pytest.mark.skipif(not ECG_DATA, reason='ECG_DATA does not name the folder of real recordings')


@needs_data
@pytest.mark.parametrize('case', ['case-300a', 'case-500a'])
def test_cpsc2018_score_reproduces_every_printed_digit(case):
    folder = Path(ECG_DATA)/'cpsc2018-scoring'/case
    reference, answers = read_reference(folder/'reference.csv'), pd.read_csv(folder/'answers.csv')
    labels = [reference[r] for r in answers.Recording]
    score = cpsc2018_score(cpsc2018_matrix(multi_hot(labels), [CLASSES.index(names[0]) for names in labels], answers.Result.to_numpy()-1))
    printed = dict(re.findall(r'^(F\w+):\s*([\d.]+)', (folder/'expected_score.txt').read_text(), re.M))
    ours = {f'F1{i+1}': score[c] for i, c in enumerate(CLASSES)} | {'F1': score['F1'], 'Faf': score['F_AF'], 'Fblock': score['F_Block'], 'Fpc': score['F_PC'], 'Fst': score['F_ST']}
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
    prob = np.array([[float(v) for v in r[3].split(',')] for r in rows])
    truth = multi_hot([re.sub('[,;]', ';', labels[f.stem]) for f in files], names)
    expected = pd.read_csv(folder/'expected.csv').iloc[0]
    f2, g2 = first_phase_scores(truth, answer)
    assert f2 == pytest.approx(expected['Fbeta-measure'], abs=1e-9) and g2 == pytest.approx(expected['Gbeta-measure'], abs=1e-9)
    areas = [a.mean() for a in first_phase_areas(truth, prob)]
    assert areas == pytest.approx([expected['AUROC'], expected['AUPRC']], abs=1e-9)


def challenge_by_the_book(truth, answer, weights, normal):
    "The score, record by record, as the challenge's paper defines it."
    def total(y):
        A = np.zeros(weights.shape)
        for x_i, y_i in zip(truth, y):
            for j in np.flatnonzero(x_i):
                for k in np.flatnonzero(y_i): A[j, k] += 1/max((x_i | y_i).sum(), 1)
        return (weights*A).sum()
    only_normal = np.zeros_like(truth); only_normal[:, normal] = True
    return (total(answer)-total(only_normal))/(total(truth)-total(only_normal))


@needs_data
def test_challenge_score_with_the_published_weights():
    path = Path(ECG_DATA)/'physionet2020-evaluation'/'weights.csv'
    codes = pd.read_csv(path, index_col=0).columns
    weights, normal = challenge_weights(path, codes), list(codes).index('426783006')
    assert (weights == pd.read_csv(path, index_col=0).to_numpy()).all()
    rng = np.random.default_rng(0)
    truth = rng.uniform(size=(300, len(weights))) < .08
    only_normal = np.zeros_like(truth); only_normal[:, normal] = True
    answer = rng.uniform(size=truth.shape) < .08
    assert challenge_score(truth, truth, weights, normal) == pytest.approx(1)
    assert challenge_score(truth, only_normal, weights, normal) == pytest.approx(0)
    assert challenge_score(truth, answer, weights, normal) == pytest.approx(challenge_by_the_book(truth, answer, weights, normal))


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


@given(tables)
@settings(max_examples=100, deadline=None)
def test_weights_mean_how_often_a_record_counts(case):
    n, k, seed, levels = case
    rng = np.random.default_rng(seed)
    truth, prob, first = rng.uniform(size=(n, k)) < .5, rng.integers(levels, size=(n, k))/levels, rng.integers(k, size=n)
    answer, answered = prob > .4, rng.integers(k, size=n)
    rows = rng.integers(n, size=(3, n))
    weight = np.array([np.bincount(r, minlength=n) for r in rows])
    for score in (lambda r, w: auroc(truth[r], prob[r], w), lambda r, w: auprc(truth[r], prob[r], w), lambda r, w: f_score(truth[r], answer[r], None, weight=w),
                  lambda r, w: f_score(truth[r], answer[r], 'micro', weight=w), lambda r, w: f_score(truth[r], answer[r], 'weighted', weight=w),
                  lambda r, w: exact_match(truth[r], answer[r], w), lambda r, w: cpsc2018_f1(cpsc2018_matrix(truth[r], first[r], answered[r], w))):
        np.testing.assert_allclose(score(slice(None), weight), [score(r, None) for r in rows], atol=1e-12)


@given(tables)
@settings(max_examples=100, deadline=None)
def test_label_ranking_equals_scikit_learn(case):
    n, k, seed, levels = case
    rng = np.random.default_rng(seed)
    truth, prob = rng.uniform(size=(n, k+1)) < .4, rng.integers(levels, size=(n, k+1))/levels
    ours = label_ranking(truth, prob)
    assert ours['average_precision'] == pytest.approx(sk.label_ranking_average_precision_score(truth, prob))
    assert ours['loss'] == pytest.approx(sk.label_ranking_loss(truth, prob)) and ours['coverage'] == pytest.approx(sk.coverage_error(truth, prob))


@given(tables, st.sampled_from([0, .5, .9, 1]))
@settings(max_examples=100, deadline=None)
def test_no_point_of_the_curve_is_more_sensitive(case, specificity):
    n, _, seed, levels = case
    rng = np.random.default_rng(seed)
    truth, prob = rng.uniform(size=n) < .4, rng.integers(levels, size=n)/levels
    if truth.all() or not truth.any(): assert np.isnan(sensitivity_at(truth, prob, specificity)); return
    fpr, tpr, _ = sk.roc_curve(truth, prob, drop_intermediate=False)
    assert sensitivity_at(truth, prob, specificity) == pytest.approx(tpr[fpr <= 1-specificity+1e-12].max())


@pytest.mark.filterwarnings('error')
def test_a_class_without_records_is_undefined_and_said_so():
    truth, prob = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], bool), np.array([[.9, .2, .8], [.1, .7, .1], [.4, .6, .1]])
    for score in (lambda: f_score(truth, prob > .5), lambda: cpsc2018_score(cpsc2018_matrix(truth, [0, 1, 0], [0, 1, 1]), ('a', 'b', 'c'))):
        with pytest.warns(UndefinedScore, match='left out of the mean'): score()
    with pytest.warns(UndefinedScore): assert f_score(truth, prob > .5) == pytest.approx(2/3)  # (2/3 + 2/3)/2: the third class, answered once, has no F1
    assert class_table(truth, prob > .5, classes=('a', 'b', 'c')).isna().sum(axis=1).tolist() == [0, 0, 3]
    assert np.isnan(auroc(truth, prob)).tolist() == [False, False, True]


def test_reliability_counts_every_answer():
    rng = np.random.default_rng(0)
    prob = rng.uniform(size=5000)
    table = reliability(rng.uniform(size=5000) < prob, np.r_[prob[:-1], 1.])
    assert table.n.sum() == 5000 and len(table) == 10 and (table.low <= table.seen).all() and (table.seen <= table.high).all()
    assert ((table.low <= table.said) & (table.said <= table.high)).sum() >= 8  # calibrated by construction


@pytest.mark.filterwarnings('ignore::ecg_nbdev.metrics.UndefinedScore')
@given(tables, st.sampled_from(['macro', 'micro', 'weighted', 'samples']))
@settings(max_examples=100, deadline=None)
def test_f_score_equals_scikit_learn(case, average):
    n, k, seed, _ = case
    rng = np.random.default_rng(seed)
    truth, answer = rng.uniform(size=(2, n, max(k, 2))) < .3
    carried = np.flatnonzero(truth.any(0)) if average == 'macro' else None  # F1 of a class that nobody carries is undefined here
    if carried is not None and not len(carried): assert np.isnan(f_score(truth, answer)); return
    ours = f_score(truth, answer, average)
    if average == 'weighted' and not truth.any(): assert np.isnan(ours); return
    assert ours == pytest.approx(sk.f1_score(truth, answer, labels=carried, average=average, zero_division=0))
    assert exact_match(truth, answer) == pytest.approx(sk.accuracy_score(truth, answer)) and hamming_loss(truth, answer) == pytest.approx(sk.hamming_loss(truth, answer))


@given(st.integers(1, 40), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_the_official_matrix_counts_every_record_once(n, seed):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(size=(n, 9)) < .2
    first = rng.integers(9, size=n)
    truth[np.arange(n), first] = True
    matrix = cpsc2018_matrix(truth, first, rng.integers(9, size=n))
    assert matrix.sum() == n and (matrix.sum(1)-np.diag(matrix) <= np.bincount(first, minlength=9)).all()
