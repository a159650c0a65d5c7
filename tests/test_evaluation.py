"""Scores of saved predictions: draws equal loops, cheats are refused, calibration and decoding learn from validation
recordings alone, and no recording both chooses and reports."""
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import t as student
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from ecg_nbdev.calibration import (CALIBRATION_METHODS, Calibration, apply_curve, choose_curve, fit_calibration,
                                   fit_curve)
from ecg_nbdev.core import CLASSES, CohortError, ECGError
from ecg_nbdev.decoding import UTILITIES, SetDecoder, fit_decoder
from ecg_nbdev.evaluation import evaluate
from ecg_nbdev.uncertainty import SCORES, bootstrap, compare, corrected_t_test, drawn_scores, single_answer
from ecg_nbdev.metrics import UndefinedScore, exact_match, f_score, macro_auprc, macro_auroc
from ecg_nbdev.official import cpsc2018_matrix, cpsc2018_score
from ecg_nbdev.predictions import Predictions, average_predictions, load_predictions, pool_predictions, save_predictions
from ecg_nbdev.protocol import compare_folds, cross_validate, inner_splits
from ecg_nbdev.thresholds import Thresholds, apply_thresholds, fit_thresholds

pytestmark = pytest.mark.filterwarnings('ignore::ecg_nbdev.metrics.UndefinedScore')  # small samples lack a class


def made(n=300, seed=0, roles=('valid', 'test')):
    rng = np.random.default_rng(seed)
    truth = np.eye(9, dtype=bool)[rng.choice(9, size=n, p=[.13, .18, .1, .04, .25, .09, .1, .08, .03])]
    truth[np.arange(n), rng.integers(1, 9, size=n)] |= (rng.uniform(size=n) < .1) & ~truth[:, 0]
    prob = 1/(1+np.exp(-(rng.normal(-3, 1.5, truth.shape)+3*truth)))
    role = np.array(roles)[np.arange(n)*len(roles)//n]
    return Predictions([f'R{i}' for i in range(n)], prob, truth, role, provenance={'data': 'synthetic'})

def answered(**kw):
    preds = made(**kw)
    at = fit_thresholds(preds)
    return apply_thresholds(preds, at), at


# ---- scores

def test_evaluate_says_what_the_metrics_say_and_json_can_hold_it():
    preds, at = answered()
    part = preds.of('test')
    evaluation = evaluate(preds, at, n_skipped=3, weights=np.eye(9), n_boot=20)
    scores = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    t, p, a = part.truth, part.prob, part.answer
    official = cpsc2018_score(cpsc2018_matrix(t, part.first, single_answer(part, at)))
    expected = {
        'macro_auroc': macro_auroc(t, p), 'macro_auprc': macro_auprc(t, p), 'macro_f1': f_score(t, a),
        'micro_f1': f_score(t, a, 'micro'), 'exact_match': exact_match(t, a), 'cpsc2018_f1': official['F1'],
        **{f'cpsc2018_{g}': official[g] for g in ('F_AF', 'F_Block', 'F_PC', 'F_ST')}}
    assert {k: scores[k] for k in expected} == pytest.approx(expected)
    assert (scores['n_records'], scores['n_skipped'], scores['n_without_class'], scores['role']) == (150, 3, 0, 'test')
    assert [r['class'] for r in scores['per_class']] == list(CLASSES)
    columns = {'threshold', 'precision', 'recall', 'f1', 'support', 'auroc', 'auprc', 'calibration_error'}
    assert columns <= set(scores['per_class'][0])
    assert 'challenge' in scores
    for name, interval in scores['intervals'].items():
        low, high = interval.values()
        assert low <= scores[name] <= high, name


def test_what_an_evaluation_holds_is_computed_once():
    preds, at = answered()
    evaluation = evaluate(preds, at, sources={i: i[:2] for i in preds.ids}, n_boot=20)
    assert evaluation.table is evaluation.table and evaluation.intervals is evaluation.intervals
    assert evaluation.by_source is evaluation.by_source and evaluation.by_source.recordings.sum() == 150
    assert evaluation.intervals.equals(bootstrap(preds, n_boot=20, thresholds=at))
    assert 'macro average' in evaluation._repr_html_() and '150 recordings' in repr(evaluation)
    with pytest.raises(ECGError, match='150 recordings have no source'): evaluate(preds, at, sources={})


def test_an_evaluation_answers_where_nobody_has():
    preds, at = answered()
    assert evaluate(replace(preds, answer=None), at).scores == pytest.approx(evaluate(preds, at).scores)
    with pytest.raises(ECGError, match='no answers yet'): evaluate(replace(preds, answer=None))
    with pytest.raises(ECGError, match='not given by these thresholds'):
        evaluate(preds, replace(at, values=at.values/2))


def test_each_source_is_scored_as_if_it_were_alone():
    preds, at = answered()
    sources = {i: 'odd' if int(i[1:]) % 2 else 'even' for i in preds.ids}
    rows = evaluate(preds, at, sources=sources).by_source.set_index('source')
    odd = evaluate(preds.take(np.arange(300) % 2 == 1), at)
    for name in SCORES: assert rows.loc['odd', name] == pytest.approx(odd[name]), name


def test_what_is_undefined_is_null_and_named():
    preds, at = answered()
    others = preds.truth & (np.arange(9) != 3)
    none = replace(preds, truth=others | (np.arange(9) == 0) & ~others.any(1)[:, None])
    with pytest.warns(UndefinedScore, match='LBBB'): evaluation = evaluate(none, at, n_boot=0)
    scores = evaluation.to_dict()
    row = scores['per_class'][3]
    assert scores['undefined'] == ['LBBB']
    assert row['f1'] is row['auroc'] is row['recall'] is None and row['support'] == 0
    assert scores['macro_f1'] == pytest.approx(np.mean([r['f1'] for r in scores['per_class'] if r['class'] != 'LBBB']))
    assert np.isnan(evaluation.table.loc['LBBB', 'f1'])


def test_recordings_without_a_class_are_counted_not_scored():
    preds, at = answered()
    some = replace(preds, truth=preds.truth & (np.arange(300) % 3 > 0)[:, None], first=None)
    scores = evaluate(some, at, n_boot=5).to_dict()
    assert (scores['n_records'], scores['n_without_class']) == (100, 50)
    kept = some.take(some.truth.any(1))
    none = scores.pop('none_of_the_classes')
    assert none['recordings'] == 50 and none['answered'] == some.take(~some.truth.any(1)).of('test').answer.any(1).sum()
    alone = evaluate(kept, at, n_boot=5).to_dict()
    assert alone.pop('none_of_the_classes')['recordings'] == 0
    assert {**alone, 'n_without_class': 50} == scores
    with pytest.raises(ECGError, match='nothing to score'):
        evaluate(replace(preds, truth=np.zeros_like(preds.truth)), at)


def test_single_answer_is_one_of_those_given():
    preds, at = answered()
    named = preds.answer.any(1)
    assert not named.all()
    for point in (None, at, fit_decoder(preds)): assert preds.answer[named, single_answer(preds, point)[named]].all()
    assert (single_answer(preds, at)[~named] == at.top(preds.prob[~named])).all()


@pytest.mark.parametrize('name', SCORES)
def test_draws_equal_the_loop_over_drawn_recordings(name):
    preds, at = answered(n=120)
    part = preds.of('test')
    rng = np.random.default_rng(0)
    rows = [rng.integers(60, size=60) for _ in range(5)]
    weights = np.array([np.bincount(r, minlength=60) for r in rows], float)
    drawn = drawn_scores(part, weights, [name], single_answer(part, at))[name]
    for value, r in zip(drawn, rows):
        copies = replace(part, **{k: getattr(part, k)[r] for k in ('prob', 'truth', 'answer', 'first')}, key=None)
        alone = evaluate(replace(copies, provenance={'data': 'drawn'}, key=None), replace(at, chosen_on=()))
        assert value == pytest.approx(alone[name])


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    inside = 0
    for seed in range(60):
        preds, at = answered(n=400, seed=seed)
        row = bootstrap(preds, ['micro_f1'], n_boot=200, thresholds=at).iloc[0]
        many = made(n=4000, seed=1000+seed, roles=('test',))
        inside += row.low <= f_score(many.truth, at.decode(many.prob), 'micro') <= row.high
    assert 51 <= inside <= 60


def test_compare_pairs_recordings_by_name():
    preds, at = answered()
    shuffled = preds.take(np.random.default_rng(0).permutation(300))
    assert (compare(preds, shuffled, n_boot=20).difference == 0).all()
    noise = apply_thresholds(replace(preds, prob=1-preds.prob), at)
    table = compare(preds, noise, n_boot=50, thresholds=(at, at))
    assert (table.low > 0).all() and table.difference.to_numpy() == pytest.approx((table.a-table.b).to_numpy())
    with pytest.raises(ECGError, match='1 are in one only'): compare(preds, preds.take(np.arange(299)))
    with pytest.raises(ECGError, match='different labels'): compare(preds, replace(preds, truth=~preds.truth))


def test_corrected_t_test_by_the_book():
    d = np.array([.02, .01, .03, .00, .015, .02, .01, .025, .005, .015])
    ours = corrected_t_test(d, 1/9)
    t = d.mean()/np.sqrt((1/10+1/9)*d.var(ddof=1))
    assert ours['p'] == pytest.approx(2*student.sf(t, 9)) and ours['low'] < ours['mean'] < ours['high']
    assert corrected_t_test(np.zeros(5), .25) == {'mean': 0, 'low': 0, 'high': 0, 'p': 1}


# ---- cheats

def test_cheats_are_refused():
    preds, at = answered()
    everything = replace(preds, role='test')
    scores = (lambda: evaluate(everything, at), lambda: apply_thresholds(everything, at),
              lambda: bootstrap(everything, thresholds=at),
              lambda: compare(everything, everything, thresholds=(at, None)))
    for score in scores:
        with pytest.raises(CohortError, match='150 of 300 test recordings, R0 the first'): score()
    chosen_on_test = fit_thresholds(replace(preds.of('test'), role='valid'))
    for score in (lambda: apply_thresholds(preds, chosen_on_test), lambda: evaluate(preds, chosen_on_test)):
        with pytest.raises(CohortError, match='150 of 150'): score()
    decoder = fit_decoder(replace(preds.of('test'), role='valid'))
    with pytest.raises(CohortError, match='150 of 150'): apply_thresholds(preds, decoder)
    with pytest.raises(ECGError, match='no test recordings'): evaluate(replace(preds, role='valid'), at)
    # one may look at validation scores; they say what they are
    assert evaluate(preds, at, 'valid').to_dict()['role'] == 'valid'


def test_the_lock_survives_files(tmp_path):
    preds, at = answered()
    again = load_predictions(save_predictions(replace(preds, role='test'), tmp_path/'p.parquet'))
    point = Thresholds.from_dict(json.loads(json.dumps(at.to_dict())))
    with pytest.raises(CohortError, match='150 of 300'): evaluate(again, point)


def test_an_ensemble_remembers_who_trained():
    preds = made()
    members = [replace(preds, role=np.array(['test', 'valid', 'train'])[(np.arange(300)-f) % 3]) for f in range(3)]
    assert set(average_predictions(members).role) == {'train'}
    assert set(average_predictions(members[:1]*2).role) == {'train', 'valid', 'test'}
    with pytest.raises(ECGError, match='no test recordings'):
        evaluate(apply_thresholds(average_predictions(members), Thresholds(np.full(9, .5))))


# ---- calibration

@given(st.integers(0, 2**31), st.integers(5, 200), st.sampled_from(CALIBRATION_METHODS))
@settings(max_examples=60, deadline=None)
def test_curves_rise_and_stay_probabilities(seed, n, method):
    rng = np.random.default_rng(seed)
    prob, truth = np.round(rng.uniform(size=n), 2), rng.uniform(size=n) < .3
    if not 0 < truth.sum() < n: return
    curve = json.loads(json.dumps(fit_curve(truth, prob, method)))
    out = apply_curve(curve, np.linspace(0, 1, 50))
    assert ((out >= 0) & (out <= 1)).all() and (np.diff(out) >= -1e-9).all()


def test_platt_and_isotonic_equal_scikit_learn():
    rng = np.random.default_rng(0)
    z = rng.normal(-1, 2, 2000)
    truth, prob = rng.uniform(size=2000) < 1/(1+np.exp(-(.5*z+.7))), 1/(1+np.exp(-z))
    target = np.where(truth, (truth.sum()+1)/(truth.sum()+2), 1/((~truth).sum()+2))
    # Platt's soft targets as two weighted rows each
    both = LogisticRegression(C=1e6, tol=1e-8).fit(np.r_[z, z][:, None], np.r_[np.ones(2000), np.zeros(2000)],
                                                   sample_weight=np.r_[target, 1-target])
    slope_intercept = [both.coef_[0, 0], both.intercept_[0]]
    assert fit_curve(truth, prob, 'platt')['parameters'] == pytest.approx(slope_intercept, abs=1e-3)
    isotonic = IsotonicRegression(y_min=0, y_max=1, out_of_bounds='clip').fit(prob, truth)
    new = rng.uniform(size=500)
    assert apply_curve(fit_curve(truth, prob, 'isotonic'), new) == pytest.approx(isotonic.predict(new))


def test_few_positives_choose_no_flexible_curve():
    rng = np.random.default_rng(0)
    chosen = []
    for positives in (3, 9, 2000):
        truth = np.arange(4000) < positives
        prob = 1/(1+np.exp(-(2*rng.normal(-1, 1, 4000)+3*truth)))
        chosen.append(choose_curve(truth, prob)[0]['method'])
    assert chosen[0] == 'none' and chosen[1] != 'isotonic' and chosen[2] != 'none'


def test_calibration_learns_from_validation_recordings_alone():
    preds = made()
    is_test = (preds.role == 'test')[:, None]
    other = replace(preds, prob=np.where(is_test, 1-preds.prob, preds.prob),
                    truth=np.where(is_test, ~preds.truth, preds.truth))
    assert fit_calibration(other).to_dict() == fit_calibration(preds).to_dict()
    calibration = Calibration.from_dict(json.loads(json.dumps(fit_calibration(preds).to_dict())))
    assert (calibration(preds).prob == fit_calibration(preds)(preds).prob).all()
    assert calibration(apply_thresholds(preds, fit_thresholds(preds))).answer is None
    with pytest.raises(ECGError, match='no validation recordings'): fit_calibration(preds.of('test'))
    with pytest.raises(ECGError, match='give one per class'): Calibration(({'method': 'none'},))


# ---- decoding

def expected_utility(answer_, sets, weights, utility):
    "What an answer is worth on average over the true sets, whose probabilities are `weights`."
    if utility == 'exact': return sum(w*(answer_ == s).all() for w, s in zip(weights, sets))
    return sum(w*2*(answer_ & s).sum()/(answer_.sum()+s.sum()) for w, s in zip(weights, sets))


@given(st.integers(0, 2**31), st.sampled_from(sorted(UTILITIES)))
@settings(max_examples=30, deadline=None)
def test_the_decoder_answers_the_set_of_highest_expected_utility(seed, utility):
    rng = np.random.default_rng(seed)
    sets = np.unique(rng.uniform(size=(12, 4)) < .4, axis=0)
    sets = sets[sets.any(1)]
    frequency = rng.dirichlet(np.ones(len(sets)))
    decoder = SetDecoder(sets, frequency, frequency@sets*.98+.01, CLASSES[:4], utility=utility)
    prob = rng.uniform(size=(10, 4))
    posterior = decoder.posterior(prob)
    assert posterior.sum(1) == pytest.approx(np.ones(10))
    for answer_, weights in zip(decoder.decode(prob), posterior):
        values = [expected_utility(s, sets, weights, utility) for s in sets]
        assert expected_utility(answer_, sets, weights, utility) == pytest.approx(max(values))


def test_posterior_by_bayes_rule():
    sets, frequency = np.array([[1, 0], [0, 1], [1, 1]], bool), np.array([.5, .3, .2])
    decoder = SetDecoder(sets, frequency, frequency@sets, ('a', 'b'))
    evidence = np.array([4., .5])  # likelihood ratios of the two classes
    odds = decoder.prevalence/(1-decoder.prevalence)*evidence
    by_hand = frequency*np.where(sets, evidence, 1).prod(1)
    assert decoder.posterior((odds/(1+odds))[None])[0] == pytest.approx(by_hand/by_hand.sum())


# ---- protocol

@given(st.integers(3, 8), st.integers(1, 6), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_no_recording_trains_chooses_and_reports(k, inner, seed):
    folds = np.random.default_rng(seed).permutation(np.arange(40) % k)
    for outer in range(k):
        if inner > k-2:
            with pytest.raises(CohortError, match='at least one trains'): inner_splits(folds, outer, inner)
            continue
        splits = inner_splits(folds, outer, inner)
        report = set(np.flatnonzero(folds == outer))
        assert len(splits) == inner and len({frozenset(v) for _, v in splits}) == inner
        for train, valid in splits:
            assert len(train) and not set(train) & set(valid) and not (set(train) | set(valid)) & report


def spying(log, truth):
    def fit_predict(train, valid, test, seed):
        log.append((set(train), set(valid), set(test), seed))
        rng = np.random.default_rng((seed, len(log)))
        return tuple(np.clip(.5*truth[rows]+rng.uniform(size=(len(rows), 9))*.6, 0, 1) for rows in (valid, test))
    return fit_predict


def test_cross_validation_reports_each_recording_once_and_hides_it_before(tmp_path):
    preds, log = made(n=200), []
    folds = np.arange(200) % 5
    data, saved = (preds.ids, preds.truth, folds), {'folder': tmp_path, 'provenance': {'data': 'synthetic'}}
    cv = cross_validate(spying(log, preds.truth), *data, inner=2, seeds=(0, 1), **saved)
    assert len(log) == 5*2*2
    for train, valid, test, _ in log: assert not train & valid and not (train | valid) & test
    assert sorted(cv.pooled.ids) == sorted(preds.ids)
    assert (cv.pooled.truth == preds.truth[[int(i[1:]) for i in cv.pooled.ids]]).all()
    for part, at in zip(cv.parts, cv.points):
        assert len(at.chosen_on) == 80 and not set(at.chosen_on) & set(part.of('test').key)
        assert at.values == pytest.approx(fit_thresholds(part).values)
    # an interrupted run goes on where it stopped
    (tmp_path/'fold-3.parquet').unlink()
    trained = len(log)
    again = cross_validate(spying(log, preds.truth), *data, inner=2, seeds=(0, 1), **saved)
    assert len(log)-trained == 4 and (again.by_fold().drop(index=3) == cv.by_fold().drop(index=3)).all().all()
    with pytest.raises(ECGError, match='fold-0.parquet: holds predictions of another run'):
        cross_validate(None, *data, **saved)


def test_calibrated_and_joint_decoding_in_the_protocol():
    preds = made(n=300)
    folds = np.arange(300) % 4
    cv = cross_validate(spying([], preds.truth), preds.ids, preds.truth, folds, calibrate='platt', choose=fit_decoder)
    assert all(isinstance(at, SetDecoder) for at in cv.points)
    assert set(cv.table(n_boot=20).columns) == {'mean of folds', 'sd of folds', 'pooled', 'low', 'high'}
    assert all(p.provenance['calibration'] == ['platt']*9 for p in cv.parts)


def test_bad_input_is_one_line():
    preds = made(n=30)
    with pytest.raises(CohortError, match='give one of each per recording'):
        cross_validate(None, preds.ids[:5], preds.truth, np.arange(30) % 3)
    with pytest.raises(CohortError, match='there is no fold 7'): inner_splits(np.arange(30) % 3, 7)
    with pytest.raises(ECGError, match='different classes'):
        pool_predictions([preds, Predictions(['a'], [[.5]], [[True]], 'test', ('AF',))])
    with pytest.raises(ECGError, match='no utility'): fit_decoder(preds, 'money')
    a, b = (cross_validate(spying([], preds.truth), preds.ids, preds.truth, (np.arange(30)+s) % 3) for s in (0, 1))
    with pytest.raises(ECGError, match='different folds'): compare_folds(a, replace(b, parts=b.parts[::-1]))


# --- unknown labels, several data sets

def test_three_ways_of_reading_several_data_sets():
    preds, at = answered()
    test = preds.of('test').ids
    sources = {i: 'cpsc2018' if n % 2 else 'other' for n, i in enumerate(test)}
    shift = np.where([sources.get(i) == 'other' for i in preds.ids], 3, 0)  # one hospital's probabilities are higher
    prob = 1/(1+np.exp(-(np.log(preds.prob/(1-preds.prob))+shift[:, None])))
    shifted = replace(preds, prob=np.clip(prob, 0, 1), answer=None)
    scored = evaluate(shifted, at, sources=sources, n_boot=20)
    table = scored.three_ways.set_index(['way', 'score'])
    value = table.value.xs('macro_auroc', level='score')
    assert value['within data sets'] > value['pooled'] == scored['macro_auroc']
    part = shifted.take([sources.get(i) == 'cpsc2018' for i in preds.ids])
    for name in SCORES: assert table.value['CPSC2018', name] == pytest.approx(evaluate(part, at, n_boot=0)[name])
    assert (table.low <= table.high).all()
    assert evaluate(shifted, at, n_boot=0).three_ways.empty


def test_what_is_answered_where_the_truth_is_unknown_changes_nothing():
    preds, at = answered()
    rng = np.random.default_rng(5)
    known = rng.uniform(size=preds.truth.shape) > .1
    some = replace(preds, truth=preds.truth & known, known=known, first=None)
    noise = (~known) & (preds.role == 'test')[:, None]
    other = replace(some, prob=np.where(noise, rng.uniform(size=known.shape), preds.prob),
                    answer=np.where(noise, rng.uniform(size=known.shape) < .5, preds.answer))
    weights = np.eye(9)
    weights[7] = 0
    a, b = (evaluate(q, n_boot=20, weights=weights) for q in (some, other))
    assert a.scores == pytest.approx(b.scores, nan_ok=True)
    pd.testing.assert_frame_equal(a.per_class, b.per_class)
    pd.testing.assert_frame_equal(a.table, b.table)
    pd.testing.assert_frame_equal(a.intervals, b.intervals)
    assert a.table.unknown['micro average'] == a.to_dict()['n_unknown'] == (~a.part.known).sum() > 0
