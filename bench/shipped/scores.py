"""What the ensembles score on real recordings, and the tables that the result pages read."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ecg_nbdev.calibration import fit_calibration
from ecg_nbdev.core import CLASSES, whole_file
from ecg_nbdev.evaluation import bootstrap, compare, draw_weights
from ecg_nbdev.metrics import auroc, calibration_error, f_score
from ecg_nbdev.predictions import Predictions, save_predictions
from ecg_nbdev.thresholds import fit_thresholds
from .networks import COUNTS, RUNS, SEEDS, SYSTEMS, predict

RESULTS = Path(__file__).resolve().parents[1]/'results'


def write_table(frame, name):
    "Write a table to bench/results and print it."
    with whole_file(RESULTS/f'{name}.csv') as f: frame.to_csv(f, index=False, float_format='%.6g')
    print(f'\n{name}\n{frame.round(3).to_string()}', flush=True)


# ---- scores of one system

def choosing(preds):
    "Predictions that may choose thresholds and calibration."
    return replace(preds, role='valid', answer=None)

def nested(preds, calibrate=False):
    "Answers whose thresholds (and calibration) were chosen on the other folds."
    answer, prob = np.zeros_like(preds.truth), preds.prob.copy()
    for fold in np.unique(preds.fold):
        here = preds.fold == fold
        others = choosing(preds.take(~here))
        if calibrate:
            calibration = fit_calibration(others)
            prob[here], others = calibration.apply(prob[here]), calibration(others)
        answer[here] = fit_thresholds(others).decode(prob[here])
    return replace(preds, prob=prob, answer=answer)

def auroc_score(preds, weight): return auroc(preds.truth, preds.prob, weight, preds.fold)
def f1_score(preds, weight): return f_score(preds.truth, preds.answer, None, weight=weight)

def interval(preds, score, n_boot=500):
    "The mean over the classes and each class, with bootstrap intervals, of `score(predictions, weights)`: (draws, K)."
    drawn = score(preds, draw_weights(len(preds), n_boot))
    drawn = np.concatenate([np.nanmean(drawn, -1, keepdims=True), drawn], -1)
    low, high = (np.nanquantile(drawn[1:], q, axis=0) for q in (.025, .975))
    return pd.DataFrame({'value': drawn[0], 'low': low, 'high': high}, index=['mean', *preds.classes])

def macro_auroc_row(preds): return interval(preds, auroc_score).loc['mean'].to_dict()


# ---- tables

def curve_row(networks, system, count, seeds):
    "Macro AUROC of one ensemble."
    preds = predict(networks, system, count, seeds)
    return {'system': system, 'real_seen': networks.real_seen(system, count), 'seeds': ' '.join(map(str, seeds)),
            **macro_auroc_row(preds), 'n_records': len(preds)}

def curves(networks):
    "Macro AUROC by the number of real recordings seen: each seed, and the three as one."
    points = [('a', None), *((s, count) for s in SYSTEMS[1:] for count in COUNTS)]
    seeds = [SEEDS, *((s,) for s in SEEDS)]
    write_table(pd.DataFrame([curve_row(networks, *point, s) for point in points for s in seeds]), 'real_curve')


def by_class(system, preds):
    "AUROC and F1 of each class with intervals."
    scores = {'auroc': interval(preds, auroc_score), 'f1': interval(preds, f1_score)}
    return [table.iloc[1:].rename_axis('class').reset_index().assign(
        system=system, score=name, positives=preds.truth.sum(0)) for name, table in scores.items()]

def some_classes(preds, which):
    "Some of the classes, compared across folds: the folds of a small data set are too small to compare within."
    return Predictions(preds.ids, preds.prob[:, which], preds.truth[:, which], 'test', tuple(np.array(CLASSES)[which]))

def by_source(preds):
    "Macro AUROC within each data set, over the classes that at least three of its recordings have and three lack."
    source, rows = np.array([i.split('/')[0] for i in preds.ids]), []
    for name in pd.unique(source):
        part = preds.take(source == name)
        known = (part.truth.sum(0) >= 3) & ((~part.truth).sum(0) >= 3)
        if not known.any(): continue
        rows.append({'source': name, 'n_records': len(part), 'classes': int(known.sum()),
                     **macro_auroc_row(some_classes(part, known))})
    return pd.DataFrame(rows)

def calibration_row(name, preds):
    "How true the probabilities of answered predictions are, means over the classes."
    errors = [calibration_error(t, p) for t, p in zip(preds.truth.T, preds.prob.T)]
    return {'probabilities': name, 'brier': ((preds.prob-preds.truth)**2).mean(), 'calibration_error': np.mean(errors),
            'macro_f1': np.mean(f_score(preds.truth, preds.answer, None)), 'n_records': len(preds)}

def scores(networks):
    "Scores with all real recordings, differences to simulation alone, classes, data sets, calibration."
    systems = {s: nested(predict(networks, s)) for s in SYSTEMS}
    for s, p in systems.items(): save_predictions(p, RUNS/f'predictions-{s}.parquet')
    tables = {
        'scores': [bootstrap(p).reset_index().assign(system=s, n_records=len(p)) for s, p in systems.items()],
        'differences': [compare(systems[s], systems['a']).reset_index().assign(system=s) for s in SYSTEMS[1:]],
        'by_class': [table for s, p in systems.items() for table in by_class(s, p)]}
    for name, parts in tables.items(): write_table(pd.concat(parts), f'real_{name}')
    raw = systems['c']
    write_table(by_source(raw), 'real_sources')
    rows = [calibration_row('as they come', raw), calibration_row('calibrated', nested(raw, True))]
    write_table(pd.DataFrame(rows), 'real_calibration')
