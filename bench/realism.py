"""How simulated recordings differ from real ones: `ECG_DATA=FOLDER python bench/realism.py [--csv] [--n 2]`, 20 s.

For every real recording labelled with some of the nine, `n` are simulated with the same labels, age and sex. Both are
measured alike (amplitudes of the median beat, intervals, noise, spectrum); medians per group go side by side, and
classifiers say how well the two kinds can be told apart: the forest of nbs/explore/simulated_and_real.ipynb and a
stricter one that sees twice as much.
"""
import argparse, warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.signal import butter, find_peaks, sosfiltfilt, welch
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from ecg_nbdev.core import CLASSES, LEADS
from ecg_nbdev.sim.synth import simulate
from real import data_folder, read_row, real_table

OUT, FS = Path(__file__).parent/'results'/'realism.csv', 500
BEFORE, AFTER = 200, 275 # samples around an R peak
BANDS = ((.5, 2), (2, 5), (5, 10), (10, 15), (15, 25), (25, 40), (40, 48), (48, 52), (52, 58), (58, 62), (62, 90),
         (90, 140), (140, 220)) # Hz

def _sos(*args, **kwargs): return butter(*args, fs=FS, output='sos', **kwargs)

FILTERS = {'QRS': _sos(2, [8, 25], btype='band'), 'wander': _sos(2, .4), 'noise': _sos(2, 30, btype='high'),
           'steady': _sos(2, .5, btype='high'), 'beat': _sos(2, [.7, 40], btype='band')}

def filtered(x, name): return sosfiltfilt(FILTERS[name], x)


# ---- measures of a recording

def r_peaks(x):
    "Samples of the R peaks of `x` (12, n) mV."
    slope = np.sqrt((np.gradient(filtered(x, 'QRS'), axis=1)**2).sum(0))
    slope = np.convolve(slope, np.ones(40)/40, 'same')
    return find_peaks(slope, height=.35*np.percentile(slope, 98), distance=125)[0]

def beats_of(x, peaks):
    "The beats (k, 12, n) mV around the R peaks, each from its own baseline before the QRS."
    beats = np.stack([x[:, p-BEFORE:p+AFTER] for p in peaks])
    return beats-np.median(beats[:, :, BEFORE-40:BEFORE-30], axis=2, keepdims=True)

def waves(beat):
    "R, S, ST and T per lead (12,) of the median beat (12, n), mV, and the size of what comes before it."
    qrs, t, p = beat[:, BEFORE-35:BEFORE+40], beat[:, BEFORE+70:BEFORE+210], beat[:, BEFORE-120:BEFORE-40]
    return {'R': qrs.max(1), 'S': qrs.min(1), 'ST': beat[:, BEFORE+50], 'T': t[np.arange(12), np.abs(t).argmax(1)],
            'P': np.ptp(p, axis=1)}

def times(beat):
    "QRS duration and the time from the top of P to the QRS, ms, from the size of all leads' slopes."
    slope = np.sqrt((np.gradient(beat, axis=1)**2).sum(0))
    high = np.flatnonzero(slope[BEFORE-60:BEFORE+80] > .12*slope[BEFORE-60:BEFORE+80].max())+BEFORE-60
    first, last = high[0], high[-1]
    before = beat[:, max(0, first-135):first-10]
    ends = np.linspace(0, 1, before.shape[1])
    p = np.abs(before-before[:, :1]*(1-ends)-before[:, -1:]*ends).sum(0)
    return {'QRS ms': (last-first)*1000/FS, 'P to QRS ms': (len(p)+10-p.argmax())*1000/FS}

def residuals(beats):
    "Root mean square (12,) µV of what a beat differs from the median beat by, the median over beats like it."
    middle = np.median(beats, axis=0)
    alike = [np.corrcoef(b.ravel(), middle.ravel())[0, 1] > .9 for b in beats]
    rest = (beats[alike] if sum(alike) > 1 else beats)-middle
    return {'residual': 1000*np.median(np.sqrt((rest**2).mean(2)), axis=0)}

def noise(x, between):
    "Slow wander and fast noise per lead (12,) mV, and the power in bands (13,) as logarithms: limb and chest leads."
    f, power = welch(x, FS, nperseg=1000)
    bands = [np.log10(1e-9+power[:, (f >= a) & (f < b)].sum(1)) for a, b in BANDS]
    return {'wander': filtered(x, 'wander').std(1), 'noise': filtered(x, 'noise')[:, between].std(1),
            'limb band': [b[:2].mean() for b in bands], 'chest band': [b[6:].mean() for b in bands]}

def rhythm(peaks):
    "Median interval, s, coefficient of variation, and the earliest and latest beat as a factor on the median interval."
    rr = np.diff(peaks)/FS
    return {'interval': np.median(rr), 'variation': rr.std()/rr.mean(), 'earliest': rr.min()/np.median(rr),
            'latest': rr.max()/np.median(rr)}

def measure(record):
    "All measures of a recording's first ten seconds; None where fewer than three beats are found."
    x = np.nan_to_num(record.signal[:, :10*FS]).astype(float)
    peaks = r_peaks(x)
    inside = [p for p in peaks if BEFORE <= p < x.shape[1]-AFTER]
    if len(inside) < 3: return None
    between = np.ones(x.shape[1], bool)
    for p in peaks: between[max(0, p-60):p+60] = False
    steady = np.median(beats_of(filtered(x, 'steady'), inside), axis=0)
    beats = beats_of(filtered(x, 'beat'), inside)
    later = {'T late': steady[:, BEFORE+150], 'ST60': steady[:, BEFORE+60],
             'J slope': steady[:, BEFORE+75]-steady[:, BEFORE+45]}
    return {**waves(steady), **noise(x, between), **rhythm(peaks), **residuals(beats),
            **times(np.median(beats, axis=0)), **later}


# ---- the two kinds

def real_recordings(root):
    """Every labelled recording of the data sets at 500 Hz, with its source.

    The headers with codes in `ptbxl-own` (HR….hea) say 200 units per mV, but their samples are microvolts: as they
    stand, R in V5 is 5.9 mV in the median. They are divided by five here."""
    table = real_table(root)
    for row in table[table.labels != ''].itertuples():
        r = read_row(row, FS)
        wrong = row.source == 'ptbxl-own' and r.id.startswith('HR')
        yield row.source, replace(r, signal=r.signal/5) if wrong else r

def likeness(real, seed):
    "A simulated recording with the labels, age and sex of a real one."
    return simulate(real.labels, seconds=10, fs=FS, rng=seed, age=real.age, sex=real.sex)

def table(pairs):
    "One row per recording that can be measured: source, labels, age, sex and the measures, flat."
    rows = []
    for source, r in pairs:
        if (m := measure(r)) is None: continue
        flat = {f'{k} {LEADS[i] if len(v) == 12 else i}' if np.ndim(v) else k: x
                for k, v in m.items() for i, x in enumerate(np.atleast_1d(v))}
        rows.append({'source': source, 'labels': r.labels, 'age': r.age, 'sex': r.sex, **flat})
    return pd.DataFrame(rows)

def group(t, name):
    "Rows of a group: a class alone, all of it outside CPSC2018 (`PAC elsewhere`), or with a sex (`Normal F`)."
    label, _, more = name.partition(' ')
    rows = t if label == 'all' else t[t.labels.map(lambda l: label in l)]
    if more == 'elsewhere': return rows[rows.source != 'cpsc2018']
    return rows[rows.sex == more] if more else rows

# what is compared: measure → groups
BY_SEX = (*CLASSES, 'Normal F', 'Normal M')
BY_CLASS = ('T II', 'ST II', 'ST V2', 'R II', 'R V5', 'S V2', 'P II', 'P to QRS ms', 'QRS ms', 'interval')
FIGURES = {**dict.fromkeys(BY_CLASS, CLASSES), 'T V5': BY_SEX, 'ST60 V4': BY_SEX,
           'T V1': ('all', 'all elsewhere', 'Normal elsewhere'), 'residual II': (*CLASSES, 'PAC elsewhere'),
           'residual V2': (*CLASSES, 'PAC elsewhere'), 'earliest': ('PAC', 'PAC elsewhere', 'PVC')}

def compare(real, made):
    "Medians of either kind, and the middle half of the real ones, per measure and group."
    rows = []
    for what, groups in FIGURES.items():
        for name in groups:
            a, b = group(real, name)[what], group(made, name)[what]
            low, middle, high = a.quantile([.25, .5, .75])
            rows.append((what, name, len(a), low, middle, high, b.median(), b.quantile(.25), b.quantile(.75)))
    return pd.DataFrame(rows, columns=['measure', 'group', 'real recordings', 'real 25 %', 'real', 'real 75 %',
                                       'simulated', 'simulated 25 %', 'simulated 75 %'])

PAGE = ('R ', 'S ', 'ST ', 'T ', 'P ', 'wander ', 'noise ', 'interval', 'variation') # what the page's forest sees
NOT_PAGE = ('T late', 'P to')

def told_apart(real, made, model, columns, folds):
    "AUROC of a classifier on recordings that it was not fitted to, and the measures that tell it most."
    both = pd.concat([real, made], ignore_index=True)
    X, y = both[columns].fillna(0).to_numpy(), np.repeat([0, 1], [len(real), len(made)])
    guess = cross_val_predict(model, X, y, cv=folds, method='predict_proba')
    telling = pd.Series(model.fit(X, y).feature_importances_, columns).nlargest(14)
    return roc_auc_score(y, guess[:, 1]), telling

def classifiers(real, made):
    """Each classifier: name, AUROC, most telling measures.

    The page's folds are blocks in the order of the data sets, so that a fold's data sets are hardly met in fitting;
    mixed folds let the classifier know every recorder, and are harder on the simulator."""
    measures = [c for c in real.columns if c not in ('source', 'labels', 'age', 'sex')]
    page = [c for c in measures if c.startswith(PAGE) and not c.startswith(NOT_PAGE)]
    forest = RandomForestClassifier(200, min_samples_leaf=3, random_state=0, class_weight='balanced')
    trees = ExtraTreesClassifier(400, min_samples_leaf=2, random_state=0, class_weight='balanced')
    blocks, mixed = StratifiedKFold(5), StratifiedKFold(5, shuffle=True, random_state=0)
    yield f"the page's forest, {len(page)} measures, folds in blocks", *told_apart(real, made, forest, page, blocks)
    yield f"the page's forest, {len(page)} measures, mixed folds", *told_apart(real, made, forest, page, mixed)
    yield f'extra trees, {len(measures)} measures, mixed folds', *told_apart(real, made, trees, measures, mixed)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--n', type=int, default=1, help='simulated recordings per real one')
    parser.add_argument('--csv', action='store_true', help='write bench/results/realism.csv')
    args = parser.parse_args()
    warnings.filterwarnings('ignore', category=RuntimeWarning)
    pairs = list(real_recordings(data_folder()))
    real = table(pairs)
    made = table((source, likeness(r, [k, i])) for k in range(args.n) for i, (source, r) in enumerate(pairs))
    found = compare(real, made)
    with pd.option_context('display.width', 200, 'display.max_rows', None): print(found.round(3).to_string(index=False))
    scores = [(name, auc, telling) for name, auc, telling in classifiers(real, made)]
    for name, auc, telling in scores:
        print(f'\n{name}: AUROC {auc:.3f}, real {len(real)}, simulated {len(made)}')
        print(telling.round(3).to_string())
    rows = pd.DataFrame([('AUROC', name, len(real), np.nan, np.nan, np.nan, auc) for name, auc, _ in scores],
                        columns=found.columns[:7])
    if args.csv: pd.concat([found, rows]).round(4).to_csv(OUT, index=False)
