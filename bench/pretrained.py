"""The shipped model, from simulated hearts to a folder in the package: `make pretrained`, under two hours on two cores.

Four systems of the same network, three seeds each, on the labelled real recordings under ECG_DATA; what is trained on real ones is trained in five folds, on 25, 50, 100 or all recordings of the other four:
  a               simulated recordings only
  b               real recordings only
  c, tuned alone  a's network, tuned on real and simulated recordings
  c               the mean of a's weights and those tuned (`mix_weights`, share .5, fixed before it was tried)
The model that ships is an ensemble of three c, tuned on every real recording; its thresholds and calibration come from the cross-validated predictions of the same recipe.

Networks are kept in runs/pretrained, so that a run can be taken up again, or be shared out: `--stage pretrain --seed 1`, `--stage tune --seed 1`. Without a stage all that is missing is done, scored and written:
tables to bench/results (real_*.csv, pretrain.csv), the model to ecg_nbdev/data/pretrained.
"""
import os
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
import torch
from fastcore.script import call_parse
from safetensors.torch import load_file, save_file

from ecg_nbdev.bundle import Predictor, save_bundle
from ecg_nbdev.calibration import fit_calibration
from ecg_nbdev.cohort import make_folds
from ecg_nbdev.core import CLASSES, LEADS, whole_file
from ecg_nbdev.store import MemoryStore
from ecg_nbdev.data import make_targets, WindowDataset, WindowDL
from ecg_nbdev.evaluation import bootstrap, compare, draw_weights, evaluate
from ecg_nbdev.labels import multi_hot
from ecg_nbdev.learner import training_history, predict_records
from ecg_nbdev.metrics import auroc, brier, calibration_error, f_score
from ecg_nbdev.models import Ensemble, create_model
from ecg_nbdev.predictions import Predictions, save_predictions
from ecg_nbdev.pretrain import finetune, mix_weights, pretrain_model, real_store
from ecg_nbdev.labels import first_labels
from ecg_nbdev.signal import Preparation
from ecg_nbdev.store import to_units
from ecg_nbdev.thresholds import fit_thresholds

RUNS, RESULTS = Path('runs/pretrained'), Path(__file__).parent/'results'
# What lasts all the recording is averaged over windows, what may happen once counts where it happens.
HOW = tuple('max' if c in ('PAC', 'PVC') else 'mean' for c in CLASSES)
SEEDS, FOLDS, COUNTS = (0, 1, 2), 5, (25, 50, 100, None)  # None: all recordings of the other folds
# Written out: the model that ships stays what it is when the defaults move on.
NETWORK = dict(widths=(16, 32, 32), rates=(50, 25, 12.5), hidden=96, layers=2)
TUNING = {'b': dict(simulated=0, epochs=20, lr=3e-3), 'c': {}}
SYSTEMS = ('a', 'b', 'c, tuned alone', 'c')
LEAD_SETS = {'12 leads': LEADS, '8 leads: I, II, V1–V6': ('I', 'II', *LEADS[6:]), '6 limb leads': LEADS[:6], '3 leads: I, II, V2': ('I', 'II', 'V2'), '2 leads: I, II': ('I', 'II'), '1 lead: II': ('II',), '1 lead: I': ('I',)}
LENGTHS = (3, 5, 10)  # seconds


# ---- networks, each kept where it has been trained once

def network(): return create_model('crnn', n_classes=len(CLASSES), fs=100, **NETWORK)


def kept(path, train):
    "The network of a file; trained and written where there is none yet."
    model = network()
    if not path.exists():
        weights = {k: v.contiguous() for k, v in train().state_dict().items()}
        with whole_file(path) as f: save_file(weights, f)
    model.load_state_dict(load_file(path))
    return model.eval()


def pretrained(seed, epochs, n):
    "The network that has seen simulated recordings only; its history beside it."
    def train():
        start = time.perf_counter()
        learn = pretrain_model('crnn', epochs, n, seed, **NETWORK)
        log = training_history(learn).assign(seconds=time.perf_counter()-start, simulated=epochs*n, seed=seed)
        with whole_file(RUNS/f'pretrain-{seed}.csv') as f: log.to_csv(f, index=False)
        return learn.model
    return kept(RUNS/f'pretrained-{seed}.safetensors', train)


def folds_of(store, k=FOLDS):
    "Folds stratified by label; a patient's recordings stay together."
    return make_folds(store.index.assign(patient=store.index.source+'/'+store.index.patient), k=k, seed=0)


class Networks:
    "Every network of the study, trained when it is first asked for."
    def __init__(self, store, epochs, n):
        self.store, self.folds, self.pretrained = store, folds_of(store), cache(lambda seed: pretrained(seed, epochs, n))

    def tuned(self, system, count, seed, fold):
        "Trained on `count` recordings of the other folds; a fold's choice of recordings is part of the next larger one."
        def train():
            start = time.perf_counter()
            rows = np.random.default_rng([seed, fold]).permutation(np.flatnonzero(self.folds != fold))[:count]
            torch.manual_seed(seed)
            before = self.pretrained(seed) if system == 'c' else network()
            learn = finetune(before, self.store, rows, np.flatnonzero(self.folds == fold)[:1], seed=10*seed+fold, share=1, **TUNING[system])  # the table of one held recording chooses nothing
            print(f'{system}, {len(rows)} real recordings, seed {seed}, fold {fold}: {time.perf_counter()-start:.0f} s', flush=True)
            return learn.model
        return kept(RUNS/'tuned'/f'{system}-{count or "all"}-{seed}-{fold}.safetensors', train)

    def get(self, system, count, seed, fold):
        "The network of a system that predicts a fold."
        if system == 'a': return self.pretrained(seed)
        model = self.tuned(system[0], count, seed, fold)
        if system == 'c': mix_weights(self.pretrained(seed), model)
        return model


def predict(networks, system, count=None, seeds=SEEDS, store=None):
    "Every real recording predicted by an ensemble that has not seen it; `store` holds the signals where they are not the original ones."
    store = store or networks.store
    prob = np.zeros((len(store), len(CLASSES)))
    for fold in range(FOLDS):
        rows = np.flatnonzero(networks.folds == fold)
        model = Ensemble([networks.get(system, count, seed, fold) for seed in seeds])
        windows = WindowDataset(store, rows, make_targets(store.index.labels.iloc[rows]), 1000)
        prob[rows] = predict_records(model, WindowDL(windows, bs=128), HOW)
    t = store.index
    return Predictions([f'{s}/{i}' for s, i in zip(t.source, t.id)], prob, multi_hot(t.labels), 'test', first=first_labels(t.labels), fold=networks.folds,
        provenance={'system': system, 'real': count or 'all', 'seeds': list(seeds), 'folds': FOLDS})


# ---- scores

def nested(preds, calibrate=False):
    "Answers whose thresholds (and calibration) were chosen on the other folds: no recording is answered by a choice it took part in."
    labels, prob = np.zeros_like(preds.truth), preds.prob.copy()
    for fold in np.unique(preds.fold):
        here = preds.fold == fold
        chosen = preds.take(~here)
        chosen = Predictions(chosen.ids, chosen.prob, chosen.truth, 'valid')
        if calibrate:
            calibration = fit_calibration(chosen)
            prob[here], chosen = calibration.apply(prob[here]), calibration(chosen)
        labels[here] = fit_thresholds(chosen).decode(prob[here])
    return replace(preds, prob=prob, answer=labels)


def interval(preds, score, n_boot=500):
    "A score of each class, (draws, K), from `score(predictions, weights)`: value, low and high, of the mean first."
    drawn = score(preds, draw_weights(len(preds), n_boot))
    drawn = np.concatenate([np.nanmean(drawn, -1, keepdims=True), drawn], -1)
    return pd.DataFrame({'value': drawn[0], 'low': np.nanquantile(drawn[1:], .025, axis=0), 'high': np.nanquantile(drawn[1:], .975, axis=0)}, index=['mean', *preds.classes])

def auroc_score(preds, w): return auroc(preds.truth, preds.prob, w, preds.fold)
def f1_score(preds, w): return f_score(preds.truth, preds.answer, None, weight=w)
def some_classes(preds, which): return Predictions(preds.ids, preds.prob[:, which], preds.truth[:, which], 'test', tuple(np.array(CLASSES)[which]))  # the folds of a small source are too small to compare within
def macro_auroc_row(preds): return interval(preds, auroc_score).loc['mean'].to_dict()


def table(frame, name):
    with whole_file(RESULTS/f'{name}.csv') as f: frame.to_csv(f, index=False, float_format='%.6g')
    print(f'\n{name}\n{frame.round(3).to_string()}', flush=True)


def curves(networks):
    "Macro AUROC by the number of real recordings seen: each seed, and the three as one."
    points = [('a', None), *((s, count) for s in SYSTEMS[1:] for count in COUNTS)]
    rows = []
    for system, count in points:
        seen = 0 if system == 'a' else count or round(np.mean([(networks.folds != f).sum() for f in range(FOLDS)]))
        for seeds in [SEEDS, *((s,) for s in SEEDS)]:
            preds = predict(networks, system, count, seeds)
            rows.append({'system': system, 'real_seen': seen, 'seeds': ' '.join(map(str, seeds)), **macro_auroc_row(preds), 'n_records': len(preds)})
    table(pd.DataFrame(rows), 'real_curve')


def scores(networks):
    "Every score of the ensembles with all real recordings; differences to simulation alone; classes; sources; calibration."
    systems = {s: nested(predict(networks, s)) for s in SYSTEMS}
    for s, p in systems.items(): save_predictions(p, RUNS/f'predictions-{s}.parquet')
    table(pd.concat([bootstrap(p).reset_index().assign(system=s, n_records=len(p)) for s, p in systems.items()]), 'real_scores')
    table(pd.concat([compare(p, systems['a']).reset_index().assign(system=s) for s, p in systems.items() if s != 'a']), 'real_differences')
    table(pd.concat([interval(p, f).iloc[1:].rename_axis('class').reset_index().assign(system=s, score=name, positives=p.truth.sum(0))
                     for s, p in systems.items() for name, f in (('auroc', auroc_score), ('f1', f1_score))]), 'real_by_class')
    c = systems['c']
    source = np.array([i.split('/')[0] for i in c.ids])
    parts = {s: c.take(source == s) for s in pd.unique(source)}
    graded = {s: (q.truth.sum(0) >= 3) & ((~q.truth).sum(0) >= 3) for s, q in parts.items()}  # an area over one or two positives says nothing
    table(pd.DataFrame([{'source': s, 'n_records': len(q), 'classes': int(graded[s].sum()), **macro_auroc_row(some_classes(q, graded[s]))} for s, q in parts.items() if graded[s].any()]), 'real_sources')
    table(pd.DataFrame([{'probabilities': name, 'brier': brier(q.truth, q.prob).mean(), 'calibration_error': np.mean([calibration_error(t, p) for t, p in zip(q.truth.T, q.prob.T)]),
                         'macro_f1': np.mean(f_score(q.truth, q.answer, None)), 'n_records': len(q)} for name, q in (('as they come', c), ('calibrated', nested(c, True)))]), 'real_calibration')


def with_leads(store, leads):
    "The same recordings, the other leads absent."
    absent = ~np.isin(LEADS, leads)
    return MemoryStore.of([np.where(absent[:, None], np.float32('nan'), store.signal(i)) for i in range(len(store))], store.index, store.fs)

def shortened(store, seconds):
    "The middle `seconds` of each recording."
    n = round(seconds*store.fs)
    middle = lambda x: x[:, (s := max(0, (x.shape[1]-n)//2)):s+n]
    signals = [middle(store.signal(i)) for i in range(len(store))]
    return MemoryStore.of(signals, store.index.assign(n_samples=[x.shape[1] for x in signals]), store.fs)

def reduced(networks):
    "What is left with fewer leads, or less time."
    store = networks.store
    cases = {**{name: with_leads(store, leads) for name, leads in LEAD_SETS.items()}, **{f'12 leads, {s} s': shortened(store, s) for s in LENGTHS}}
    rows = []
    for name, signals in cases.items():
        preds = predict(networks, 'c', store=signals)
        each = interval(preds, auroc_score)
        rows.append({'available': name, **each.loc['mean'], **each.value[list(CLASSES)], 'n_records': len(preds)})
    table(pd.DataFrame(rows), 'real_reduced')


# ---- the model that ships

def ship(networks, folder):
    "Tune on every real recording, take thresholds and calibration from the cross-validated predictions, write the model folder."
    store, every = networks.store, np.arange(len(networks.store))
    def member(seed):
        model = kept(RUNS/'tuned'/f'ship-{seed}.safetensors', lambda: finetune(networks.pretrained(seed), store, every, every[:1], seed=seed, share=1).model)
        mix_weights(networks.pretrained(seed), model)
        return model
    model = Ensemble([member(seed) for seed in SEEDS]).eval()
    c = predict(networks, 'c')
    calibration = fit_calibration(Predictions(c.ids, c.prob, c.truth, 'valid'))
    thresholds = fit_thresholds(calibration(Predictions(c.ids, c.prob, c.truth, 'valid')))
    scored = nested(c, calibrate=True)
    scores = evaluate(scored)
    about = {'name': 'The model that ships with ecg_nbdev', 'arch': 'ensemble of three crnn', 'seed': list(SEEDS),
        'data': 'simulated recordings, then '+', '.join(f'{n} of {s}' for s, n in store.index.source.value_counts().items()),
        'scored_on': f'{len(c)} real recordings by {FOLDS}-fold cross-validation of the same recipe; calibration and thresholds of each fold from the other folds',
        'seen': [crc32(to_units(store.signal(i))[0].tobytes()) for i in every], 'per_class': scores['per_class'],
        'metrics': {k: v for k, v in scores.items() if isinstance(v, float)}}
    predictor = Predictor(model, Preparation(), 10., None, HOW, CLASSES, thresholds, calibration=calibration, about=about)
    save_bundle(predictor, folder, card(predictor, scored))


def card(predictor, scored):
    "The model card: use, data, scores, known failures, attribution."
    a, weak = predictor.about, sorted(predictor.about['per_class'], key=lambda r: r['precision'])
    rows = lambda lines: '\n'.join('| '+' | '.join(map(str, line))+' |' for line in lines)
    span = lambda r: f'{r.value:.3f} ({r.low:.3f} – {r.high:.3f})'
    area, f1 = interval(scored, auroc_score), interval(scored, f1_score)
    totals = rows((r.Index, span(r)) for r in bootstrap(scored).itertuples())
    classes = rows((r['class'], r['support'], span(area.loc[r['class']]), span(f1.loc[r['class']]), f"{r['recall']:.2f}", f"{r['specificity']:.2f}", f"{r['precision']:.2f}") for r in a['per_class'])
    fewer = pd.read_csv(RESULTS/'real_reduced.csv')
    weights = sum(p.numel() for p in predictor.model.parameters())
    return f"""# Model card: the model that ships with ecg_nbdev

**Not a medical device.** For research and teaching. No decision about a patient may rest on it.

Classifies electrocardiograms into one to three of {", ".join(CLASSES)}. It takes any sampling rate, any length from 3 s on, and recordings that lack leads.

## How it was made

Three networks of one kind (strided convolutions a lead, shared; two bidirectional LSTM layers; attention, mean and maximum over time), each started from a seed of its own, answer with the mean of their logits: {weights:,} weights in all.
Each was trained on simulated recordings, tuned on real and simulated ones, and given the mean of the weights before and after tuning. The real recordings: {a["data"].split("then ")[1]}; all of them carry one of the nine classes. Recordings are resampled to {predictor.preparation.fs:g} Hz and high-passed at {predictor.preparation.highpass:g} Hz;
windows of {predictor.seconds:g} s are averaged, but for PAC and PVC the largest counts. `make pretrained` repeats all of it.

## How it scored

{a["scored_on"]}. In brackets 95 % bootstrap intervals over recordings. The shipped weights were then tuned on all of these recordings, so scoring them again would flatter the model.

| score | value (interval) |
|---|---|
{totals}

| class | recordings | AUROC (interval) | F1 (interval) | sensitivity | specificity | PPV |
|---|---|---|---|---|---|---|
{classes}

With fewer leads or less time, the same networks on the same recordings:

| available | macro AUROC (interval) |
|---|---|
{rows((r.available, span(r)) for r in fewer.itertuples())}

## Known failures

- The recordings are few, from six data sets whose labels follow different rules: Normal means "sinus rhythm" in some and "nothing abnormal" in others.
- Of what it calls {weak[0]["class"]}, {weak[0]["precision"]:.0%} is; of what it calls {weak[1]["class"]}, {weak[1]["precision"]:.0%}.
- With one lead, answers on what only other leads show (bundle branch blocks, ST segments) are guesses.
- The simulator's amplitudes, intervals and noise were fitted to statistics of these same recordings: the scores are optimistic.
- Thresholds fit the share of diagnoses in these recordings; elsewhere choose them anew.
- It knows nine classes. A pacemaker, atrial flutter, an old infarction or a ventricular tachycardia has no class of its own and is answered with one of the nine.

## Attribution

CPSC2018 and CPSC-Extra (Liu et al. 2018), Georgia, Chapman-Shaoxing and Ningbo (Zheng et al. 2020), PTB-XL (Wagner et al. 2020), as published for the PhysioNet Challenges 2020 and 2021 (Perez Alday et al. 2020; Reyna et al. 2021), CC BY 4.0; PTB (Bousseljot et al. 1995), ODC-By.
"""


@call_parse
def main(
    data:str=None, # folder that holds cpsc2018, georgia, …: the real recordings; ECG_DATA where not given
    stage:str='all', # 'pretrain' and 'tune' stop after it
    seed:int=None, # only this one, with a stage
    epochs:int=50, # of pretraining
    n:int=4096, # simulated recordings an epoch
    threads:int=2, # of torch
    out:str='ecg_nbdev/data/pretrained', # the model folder
):
    "Train, measure and write the model that ships."
    torch.set_num_threads(threads)
    data, seeds = data or os.environ.get('ECG_DATA'), SEEDS if seed is None else (seed,)
    if not data or not Path(data).is_dir(): raise SystemExit(f'{data or "ECG_DATA"}: no such folder of real recordings: make pretrained ECG_DATA=FOLDER')
    for s in seeds: pretrained(s, epochs, n)
    if stage == 'pretrain': return
    networks = Networks(real_store(data), epochs, n)
    for system, count, s, fold in ((system, count, s, fold) for count in reversed(COUNTS) for s in seeds for system in TUNING for fold in range(FOLDS)): networks.tuned(system, count, s, fold)
    if stage == 'tune': return
    table(pd.concat([pd.read_csv(RUNS/f'pretrain-{s}.csv') for s in SEEDS]), 'pretrain')
    curves(networks); scores(networks); reduced(networks)
    ship(networks, out)
