"""What the networks score on real recordings, and the tables that the result pages read."""
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ecg_nbdev.calibration import fit_calibration
from ecg_nbdev.core import CLASSES, whole_file
from ecg_nbdev.decoding import fit_decoder
from ecg_nbdev.evaluation import evaluate
from ecg_nbdev.uncertainty import compare, draw_weights
from ecg_nbdev.metrics import auroc, calibration_error, calibration_floor, f_score
from ecg_nbdev.predictions import save_predictions
from ecg_nbdev.thresholds import fit_thresholds
from .networks import RUNS, SYSTEMS, predict

RESULTS = Path(__file__).resolve().parents[1]/'results'
SHIPS = 'tuned, one'
USES = { # way to answer → what fits its operating point, labels of a recording at least
    'everyday': (fit_thresholds, 0), 'forced': (fit_thresholds, 1),
    'label sets': (partial(fit_decoder, utility='exact'), 0)}


def write_table(frame, name):
    "Write a table to bench/results and print it."
    with whole_file(RESULTS/f'{name}.csv') as f: frame.to_csv(f, index=False, float_format='%.6g')
    print(f'\n{name}\n{frame.round(3).to_string()}', flush=True)


# ---- scores of one system

def choosing(preds):
    "Predictions that may choose thresholds and calibration."
    return replace(preds, role='valid', answer=None)

def nested(preds, folds, calibrate=True, fit=fit_thresholds, least=0):
    "Answers of at `least` so many labels, whose operating point (and calibration) was fitted on the other `folds`."
    answer, prob = np.zeros_like(preds.truth), preds.prob.copy()
    for fold in np.unique(folds):
        here = folds == fold
        others = choosing(preds.take(~here))
        if calibrate:
            calibration = fit_calibration(others)
            prob[here], others = calibration.apply(prob[here]), calibration(others)
        answer[here] = fit(others).decode(prob[here], least)
    return replace(preds, prob=prob, answer=answer, fold=folds) # probabilities of two folds have curves of their own

def sources_of(preds): return {name: name.split('/')[0] for name in preds.ids}

def auroc_score(preds, weight): return auroc(preds.truth, preds.prob, weight, preds.fold, preds.known)
def f1_score(preds, weight): return f_score(preds.truth, preds.answer, None, weight=weight, known=preds.known)

def interval(preds, score, n_boot=500):
    "The mean over the classes and each class, with bootstrap intervals, of `score(predictions, weights)`: (draws, K)."
    drawn = score(preds, draw_weights(len(preds), n_boot).astype(float))
    drawn = np.concatenate([np.nanmean(drawn, -1, keepdims=True), drawn], -1)
    low, high = (np.nanquantile(drawn[1:], q, axis=0) for q in (.025, .975))
    return pd.DataFrame({'value': drawn[0], 'low': low, 'high': high}, index=['mean', *preds.classes])

def labelled(preds): return preds.take(preds.truth.any(1))


# ---- tables

def ways(system, evaluation):
    "Every way of pooling, and the row of recordings with none of the nine."
    none = evaluation.none_of_the_classes
    row = {'way': 'pooled, none of the nine as negatives', 'recordings': len(evaluation)+none['recordings'],
           'score': 'macro_auroc', 'value': none['macro_auroc'], 'low': none['low'], 'high': none['high']}
    table = pd.concat([evaluation.three_ways, pd.DataFrame([row])], ignore_index=True)
    return table.assign(system=system, unknown_labels=evaluation.left_out['unknown labels'])

def by_class(system, preds):
    "AUROC and F1 of each class with intervals."
    scores = {'auroc': interval(preds, auroc_score), 'f1': interval(preds, f1_score)}
    return [table.iloc[1:].rename_axis('class').reset_index().assign(
        system=system, score=name, positives=preds.truth.sum(0), unknown=(~preds.known).sum(0))
        for name, table in scores.items()]

def enough(part, least=3):
    "Classes (K,) of which a data set has `least` recordings with and without."
    return (part.truth.sum(0) >= least) & ((part.known & ~part.truth).sum(0) >= least)

def left_out(source, tuned, simulated):
    "Each data set by a network that was tuned on the others, and by the one that was not tuned at all."
    rows, preds = [], {'tuned on the others': tuned, 'simulated': simulated}
    for name in np.unique(source):
        for system, all_of_them in preds.items():
            part = replace(all_of_them.take(source == name), fold=None)
            which = enough(part)
            if not which.any(): continue
            q = replace(part, prob=part.prob[:, which], truth=part.truth[:, which], known=part.known[:, which],
                        classes=tuple(np.array(CLASSES)[which]), first=None)
            rows.append({'source': name, 'system': system, 'recordings': len(q), 'classes': int(which.sum()),
                         **interval(q, auroc_score).loc['mean']})
    return pd.DataFrame(rows)

def by_use(said):
    """Ways to answer: a threshold a class, with a label forced, and by label sets; `difference` is to everyday answers.

    `said` has what network, calibration and operating point come from → predictions, groups that are left out together."""
    rows, names = [], ('macro_f1', 'exact_match')
    for chosen_on, (preds, held) in said.items():
        answered = {use: nested(preds, held, fit=fit, least=least) for use, (fit, least) in USES.items()}
        for use, some in answered.items():
            evaluation = evaluate(some, sources=sources_of(some))
            gaps = compare(some, answered['everyday'], names)[['difference', 'low', 'high']]
            gaps = gaps.rename(columns={'low': 'difference_low', 'high': 'difference_high'})
            values = evaluation.intervals.loc[list(names)].join(gaps).rename_axis('score').reset_index()
            none = evaluation.none_of_the_classes
            rows.append(values.assign(chosen_on=chosen_on, use=use, recordings=len(evaluation),
                                      unanswered=evaluation.unanswered, none_of_the_nine=none['recordings'],
                                      of_these_answered=none['answered'],
                                      of_these_answered_not_normal=none['answered_not_normal']))
    return pd.concat(rows)

def std_by_sex(networks, preds):
    "How often a Normal recording is answered STD, by sex."
    sex, normal = networks.store.index.sex.to_numpy(), preds.truth[:, CLASSES.index('Normal')]
    said = preds.answer[:, CLASSES.index('STD')]
    return pd.DataFrame([{'sex': s, 'normal recordings': int((normal & (sex == s)).sum()),
                          'answered STD': int((normal & said & (sex == s)).sum()),
                          'probability of STD, 90 % quantile': np.quantile(
                              preds.prob[normal & (sex == s), CLASSES.index('STD')], .9)} for s in ('F', 'M')])

def calibration_row(name, preds):
    "How true the probabilities are, and how true those of a perfect model would look: means over the classes."
    errors = [calibration_error(t, p) for t, p in preds.columns()]
    floors = [calibration_floor(p) for _, p in preds.columns()]
    f1 = np.nanmean(f_score(preds.truth, preds.answer, None, known=preds.known))
    return {'probabilities': name, 'calibration_error': np.mean(errors), 'floor': np.mean(floors), 'macro_f1': f1,
            'n_records': len(preds)}

def scores(networks):
    "Scores of every system, their differences, classes, data sets left out, calibration."
    raw = {s: predict(networks, s) for s in SYSTEMS}
    answered = {s: nested(p, networks.folds) for s, p in raw.items()}
    for s, p in answered.items(): save_predictions(p, RUNS/f'predictions-{s.replace(", ", "-")}.parquet')
    evaluations = {s: evaluate(p, sources=sources_of(p)) for s, p in answered.items()}
    write_table(pd.concat([ways(s, e) for s, e in evaluations.items()]), 'real_scores')
    pairs = [('simulated, one', 'simulated, three'), (SHIPS, 'simulated, one')]
    gaps = [compare(answered[a], answered[b]).reset_index().assign(system=a, than=b) for a, b in pairs]
    write_table(pd.concat(gaps), 'real_differences')
    of_class = [t for s in ('simulated, one', SHIPS) for t in by_class(s, labelled(answered[s]))]
    write_table(pd.concat(of_class), 'real_by_class')
    source = networks.store.index.source.to_numpy()
    elsewhere = predict(networks, SHIPS, held=source)
    write_table(left_out(source, elsewhere, raw['simulated, one']), 'real_sources')
    said = {'other folds': (raw[SHIPS], networks.folds), 'other data sets': (elsewhere, source)}
    write_table(by_use(said), 'real_uses')
    write_table(std_by_sex(networks, answered[SHIPS]), 'real_sex')
    rows = [calibration_row('as they come', nested(raw[SHIPS], networks.folds, calibrate=False)),
            calibration_row('calibrated', answered[SHIPS])]
    write_table(pd.DataFrame(rows), 'real_calibration')
