"Scores against numbers that somebody else's program printed, and properties that must hold."
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from sklearn import metrics as sk

from ecg_nbdev.core import CLASSES
from ecg_nbdev.labels import multi_hot, read_reference
from ecg_nbdev.metrics import (auroc, challenge_score, cpsc2018_matrix, cpsc2018_score, f_score, first_phase_areas, first_phase_scores)
from ecg_nbdev.thresholds import best_threshold

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


@needs_data
def test_challenge_score_with_the_published_weights():
    table = pd.read_csv(Path(ECG_DATA)/'physionet2020-evaluation'/'weights.csv', index_col=0)
    weights, normal = table.to_numpy(), [i for i, c in enumerate(table.columns) if '426783006' in str(c)][0]
    rng = np.random.default_rng(0)
    truth = rng.uniform(size=(300, len(weights))) < .08
    only_normal = np.zeros_like(truth); only_normal[:, normal] = True
    assert challenge_score(truth, truth, weights, normal) == pytest.approx(1)
    assert challenge_score(truth, only_normal, weights, normal) == pytest.approx(0)
    assert challenge_score(truth, rng.uniform(size=truth.shape) < .08, weights, normal) < 1


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


@given(tables, st.sampled_from(['macro', 'micro', 'weighted', 'samples']))
@settings(max_examples=100, deadline=None)
def test_f_score_equals_scikit_learn(case, average):
    n, k, seed, _ = case
    rng = np.random.default_rng(seed)
    truth, answer = rng.uniform(size=(2, n, max(k, 2))) < .3
    assert f_score(truth, answer, average) == pytest.approx(sk.f1_score(truth, answer, average=average, zero_division=0))


@given(st.integers(1, 80), st.integers(0, 2**31), st.integers(1, 20), st.sampled_from(['f1', 'fbeta=2', 'youden']))
@settings(max_examples=100, deadline=None)
def test_no_grid_finds_a_better_threshold(n, seed, levels, rule):
    rng = np.random.default_rng(seed)
    truth, prob = rng.uniform(size=n) < .4, rng.integers(levels+1, size=n)/levels
    if not truth.any(): return
    def goodness(t):
        said = prob >= t
        tp, fp, fn, tn = (truth & said).sum(), (~truth & said).sum(), (truth & ~said).sum(), (~truth & ~said).sum()
        if rule == 'youden': return tp/(tp+fn)-fp/max(fp+tn, 1)
        b = {'f1': 1, 'fbeta=2': 4}[rule]
        return (1+b)*tp/((1+b)*tp+fp+b*fn)
    found = goodness(best_threshold(truth, prob, rule))
    assert found >= max(goodness(t) for t in np.linspace(-.01, 1.01, 103))-1e-12


@given(st.integers(1, 40), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_the_official_matrix_counts_every_record_once(n, seed):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(size=(n, 9)) < .2
    first = rng.integers(9, size=n)
    truth[np.arange(n), first] = True
    matrix = cpsc2018_matrix(truth, first, rng.integers(9, size=n))
    assert matrix.sum() == n and (matrix.sum(1)-np.diag(matrix) <= np.bincount(first, minlength=9)).all()
