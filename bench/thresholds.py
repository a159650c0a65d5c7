"""What the ways of choosing thresholds are worth, and how long scores take: `python bench/thresholds.py`, half a minute
of one core; tables in bench/results.

All probabilities are synthetic.

- `luck`: thresholds chosen on 300 recordings with few positives, exact against smoothed, by what they are worth in the
  long run (known from the distributions).
- `decoding`: label sets drawn from the 6,877 rows of CPSC2018's label table (`ECG_DATA`), 690 recordings to choose on
  as in one of ten folds, 5,000 others to score, twenty repeats; thresholds class by class, moved together, and label
  sets decoded at once.
- `speed`: processor seconds."""
import os, time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm, t as student

from ecg_nbdev.calibration import fit_calibration
from ecg_nbdev.decoding import fit_decoder
from ecg_nbdev.evaluation import evaluate
from ecg_nbdev.uncertainty import bootstrap
from ecg_nbdev.labels import multi_hot, read_reference
from ecg_nbdev.metrics import auprc, auroc, class_table, exact_match, f_score, label_ranking
from ecg_nbdev.official import cpsc2018_f1, cpsc2018_matrix
from ecg_nbdev.predictions import Predictions
from ecg_nbdev.thresholds import (
    Thresholds, apply_thresholds, best_threshold, fit_thresholds, log_odds, smooth_threshold, threshold_rule)

OUT = Path(__file__).parent/'results'
FREQUENCY = [.13, .18, .1, .04, .25, .09, .1, .08, .03] # of the nine classes
def sigmoid(z): return 1/(1+np.exp(-z))

def normal(rng, n): return rng.normal(size=n)
def heavy(rng, n): return rng.standard_t(3, size=n)
DRAWS = { # log odds: (draw of negatives, their tail, distance of positives)
    'normal': (normal, norm.sf, 3),
    'heavy tails (t, 3 degrees)': (heavy, student(3).sf, 5),
    'weak (normal, distance 1.5)': (normal, norm.sf, 1.5)}


def luck_of(draw, tail, distance, positives, how, trials, n):
    "What exact and smoothed thresholds are worth in the long run, and the best possible."
    truth, good, negatives = np.arange(n) < positives, threshold_rule(how), n-positives
    def value(z):
        tp, fp = positives*tail(z-distance), negatives*tail(z)
        return good(tp, fp, positives-tp, negatives-fp)
    rng, found = np.random.default_rng(0), []
    for _ in range(trials):
        p = sigmoid(draw(rng, n)+distance*truth)
        found.append([value(log_odds(choose(truth, p, how))) for choose in (best_threshold, smooth_threshold)])
    exact, smooth = np.array(found).T
    return {'exact': exact.mean(), 'smoothed': smooth.mean(), 'gain': (smooth-exact).mean(),
            'half of 95 % interval': 1.96*(smooth-exact).std()/np.sqrt(trials),
            'best possible': value(np.linspace(-8, 14, 4000)).max()}


def luck(trials=400, n=300):
    rows = []
    for name, (draw, tail, distance) in DRAWS.items():
        for positives in (3, 9, 30, 100):
            for how in ('f1', 'fbeta=2', 'youden'):
                found = luck_of(draw, tail, distance, positives, how, trials, n)
                rows.append({'log odds': name, 'positives': positives, 'rule': how, **found})
    return pd.DataFrame(rows)


def made(sets, distance, rng, n, m):
    "`n` recordings to choose on and `m` to score, their label sets drawn from `sets`."
    truth = sets[rng.integers(len(sets), size=n+m)]
    separation = distance*np.array([1, 1.1, 1, 1.2, 1.1, .7, .8, .8, .7])
    prob = sigmoid(rng.normal(-3, 1.2, truth.shape)+rng.normal(0, .6, (n+m, 1))+separation*truth)
    return Predictions(np.arange(n+m), prob, truth, np.where(np.arange(n+m) < n, 'valid', 'test'))


def ways_to_decode(raw):
    "Name → predictions and the operating point chosen on them."
    honest = fit_calibration(raw)(raw)
    return {'0.5': (raw, Thresholds(np.full(9, .5), least=1)),
            'exact, class by class': (raw, fit_thresholds(raw, smooth=False, together=False, least=1)),
            'smoothed, class by class': (raw, fit_thresholds(raw, together=False, least=1)),
            'smoothed, moved together': (raw, fit_thresholds(raw, least=1)),
            'label sets, F1 as utility': (honest, fit_decoder(honest, 'f1')),
            'label sets, exact match as utility': (honest, fit_decoder(honest, 'exact'))}


def decoding(repeats=20, n=690, m=5000):
    sets = multi_hot(read_reference(Path(os.environ['ECG_DATA'])/'cpsc2018'/'REFERENCE.csv').values())
    rows = []
    for distance in (2.5, 3.5):
        for seed in range(repeats):
            raw = made(sets, distance, np.random.default_rng(seed), n, m)
            for name, (preds, at) in ways_to_decode(raw).items():
                q = preds.of('test')
                a, matrix = at.decode(q.prob), cpsc2018_matrix(q.truth, q.first, at.top(q.prob))
                rows.append({'distance': distance, 'way': name, 'macro F1': f_score(q.truth, a),
                             'micro F1': f_score(q.truth, a, 'micro'), 'exact match': exact_match(q.truth, a),
                             'CPSC2018 F1': np.nanmean(cpsc2018_f1(matrix)), 'labels per recording': a.sum(1).mean()})
    return pd.DataFrame(rows).groupby(['distance', 'way'], sort=False).mean().reset_index()


def to_time(n, rng):
    "Name → what is timed with `n` recordings."
    truth = np.eye(9, dtype=bool)[rng.choice(9, size=n, p=FREQUENCY)]
    prob = sigmoid(rng.normal(-3, 1, truth.shape)+3*truth)
    said = prob > .5
    scores = {'AUROC': lambda: auroc(truth, prob), 'average precision': lambda: auprc(truth, prob),
              'class table': lambda: class_table(truth, said),
              'CPSC2018 matrix': lambda: cpsc2018_matrix(truth, truth.argmax(1), prob.argmax(1)),
              'exact F1 thresholds': lambda: [best_threshold(t, p) for t, p in zip(truth.T, prob.T)],
              'smoothed F1 thresholds': lambda: [smooth_threshold(t, p) for t, p in zip(truth.T, prob.T)]}
    if n > 10_000: return scores
    preds = apply_thresholds(Predictions(np.arange(n), prob, truth, 'test'), Thresholds(np.full(9, .5)))
    return {**scores, 'label ranking (scikit-learn)': lambda: label_ranking(truth, prob),
            'every score (evaluate)': lambda: evaluate(preds),
            'six scores, 500 draws (bootstrap)': lambda: bootstrap(preds)}


def speed():
    rng, rows = np.random.default_rng(0), []
    for n in (6877, 1_000_000):
        for what, score in to_time(n, rng).items():
            start = time.process_time()
            score()
            rows.append({'what': what, 'recordings': n, 'seconds': time.process_time()-start})
    return pd.DataFrame(rows)


if __name__ == '__main__':
    if 'ECG_DATA' not in os.environ:
        raise SystemExit('ECG_DATA does not name the folder with cpsc2018/REFERENCE.csv: set it')
    OUT.mkdir(exist_ok=True)
    for name, measure in (('luck', luck), ('decoding', decoding), ('speed', speed)):
        table = measure()
        table.round(4).to_csv(OUT/f'thresholds_{name}.csv', index=False)
        print(f'\n{name}\n{table.round(3).to_string(index=False)}')
