"""The shipped model, from simulated hearts to a folder in the package: `make pretrained`.

Stages, each kept in runs/pretrained so that a run can be taken up again:
  pretrain   a network on simulated recordings only                        -> pretrained-SEED.safetensors
  real       the same scored on real recordings it has never seen (a)       -> predictions-a-SEED.parquet
  tune       five folds: trained on real ones only (b), simulated then real (c) -> predictions-b/c-SEED.parquet
  ship       fine-tuned on all real recordings; thresholds from (c)'s predictions -> ecg_nbdev/data/pretrained
Tables go to bench/results.
"""
import json
import time
from zlib import crc32
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastcore.script import call_parse
from safetensors.torch import load_file, save_file

from ecg_nbdev.bundle import Predictor, save_bundle
from ecg_nbdev.cohort import make_folds
from ecg_nbdev.core import CLASSES, whole_file
from ecg_nbdev.data import WindowDL, WindowDataset, make_targets
from ecg_nbdev.evaluation import bootstrap, evaluate
from ecg_nbdev.labels import multi_hot
from ecg_nbdev.learner import history, predict_records
from ecg_nbdev.metrics import auroc, macro_auroc
from ecg_nbdev.models import create_model
from ecg_nbdev.predictions import Predictions, load_predictions, save_predictions
from ecg_nbdev.pretrain import SOURCES, finetune, pretrain, real_store
from ecg_nbdev.runs import first_labels
from ecg_nbdev.store import to_units
from ecg_nbdev.thresholds import fit_thresholds

RUNS, RESULTS = Path('runs/pretrained'), Path(__file__).parent/'results'
# What lasts all the recording is averaged over windows, what may happen once counts where it happens.
HOW = tuple('max' if c in ('PAC', 'PVC') else 'mean' for c in CLASSES)
FOLDS = 5
# Written out: the model that ships stays what it is when the defaults move on.
NETWORK = dict(widths=(16, 32, 32), rates=(50, 25, 12.5), hidden=96, layers=2)


def table(frame, name):
    with whole_file(RESULTS/f'{name}.csv') as f: frame.to_csv(f, index=False)


def loader(store, rows):
    "The windows of some recordings, in order."
    data = WindowDataset(store, rows, make_targets(store.index.labels.iloc[rows]), 1000)
    return WindowDL(data, bs=128)


def predictions(store, rows, prob, role, fold, about):
    t = store.index.iloc[rows]
    return Predictions([f'{s}/{i}' for s, i in zip(t.source, t.id)], prob, multi_hot(t.labels), role, first=first_labels(t.labels), fold=np.broadcast_to(fold, len(t)).copy(), provenance=about)


def pretrained(seed, epochs, n):
    "The pretrained network; trained where it is not kept yet."
    path = RUNS/f'pretrained-{seed}.safetensors'
    model = create_model('crnn', n_classes=9, fs=100, **NETWORK)
    if not path.exists():
        start = time.perf_counter()
        learn = pretrain('crnn', epochs, n, seed, **NETWORK)
        log = history(learn).assign(seconds=time.perf_counter()-start, simulated=epochs*n, seed=seed)
        with whole_file(path) as f: save_file({k: v.contiguous() for k, v in learn.model.state_dict().items()}, f)
        table(log, f'pretrain-{seed}')
    model.load_state_dict(load_file(path))
    return model.eval()


def folds_of(store, k=FOLDS):
    "Folds stratified by label; a patient's recordings stay together."
    return make_folds(store.index.assign(patient=store.index.source+'/'+store.index.patient), k=k, seed=0)


def cross_validated(model, store, seed, system, **tuning):
    "Every real recording predicted by a network that was tuned on the other folds."
    path = RUNS/f'predictions-{system}-{seed}.parquet'
    if path.exists(): return load_predictions(path)
    folds, prob = folds_of(store), np.zeros((len(store), len(CLASSES)))
    for fold in range(FOLDS):
        start, test = time.perf_counter(), np.flatnonzero(folds == fold)
        learn = finetune(model, store, np.flatnonzero(folds != fold), test, seed=10*seed+fold, **tuning)  # the table of the held fold chooses nothing
        prob[test] = predict_records(learn.model, loader(store, test), HOW)
        print(f'{system}, fold {fold}: macro AUROC {np.nanmean(auroc(multi_hot(store.index.labels.iloc[test]), prob[test])):.3f}, {time.perf_counter()-start:.0f} s', flush=True)
    preds = predictions(store, np.arange(len(store)), prob, 'test', folds, {'system': system, 'seed': seed, 'folds': FOLDS})
    save_predictions(preds, path)
    return preds


def nested_answers(preds):
    "Labels by thresholds that were chosen on the other folds' predictions: no recording is answered by a threshold it helped to choose."
    labels = np.zeros_like(preds.truth)
    for fold in np.unique(preds.fold):
        other = preds.take(preds.fold != fold)
        chosen = fit_thresholds(Predictions(other.ids, other.prob, other.truth, 'valid', other.classes))
        labels[preds.fold == fold] = chosen.decode(preds.prob[preds.fold == fold])
    return replace(preds, answer=labels)


def by_class(preds, system):
    return pd.DataFrame({'system': system, 'class': CLASSES, 'positives': preds.truth.sum(0), 'auroc': auroc(preds.truth, preds.prob)})


def ship(model, store, c, seed, folder):
    "Tune on every real recording, choose thresholds on the cross-validated predictions, write the model folder."
    from ecg_nbdev.signal import Preparation
    every = np.arange(len(store))
    learn = finetune(model, store, every, every[:1], seed=seed)
    thresholds = fit_thresholds(Predictions(c.ids, c.prob, c.truth, 'valid', c.classes))
    scores = evaluate(nested_answers(c))
    sizes = store.index.source.value_counts()
    about = {'name': 'The model that ships with ecg_nbdev', 'arch': 'crnn', 'seed': seed,
        'data': 'simulated recordings, then '+', '.join(f'{n} of {s}' for s, n in sizes.items()),
        'scored_on': f'{scores["n_records"]} real recordings by {FOLDS}-fold cross-validation of the same recipe; thresholds of each fold from the other folds',
        'seen': [crc32(to_units(store.signal(i))[0].tobytes()) for i in every], 'per_class': scores['per_class'],
        'metrics': {k: v for k, v in scores.items() if isinstance(v, float)}}
    predictor = Predictor(learn.model, Preparation(), 10., None, HOW, CLASSES, thresholds, about=about)
    save_bundle(predictor, folder, card(predictor, bootstrap(nested_answers(c))))


def card(predictor, intervals):
    "The model card: use, data, scores, known failures, attribution."
    a = predictor.about
    weak = sorted(a['per_class'], key=lambda r: r['precision'])
    rows = '\n'.join(f'| {r.Index} | {r.value:.3f} | {r.low:.3f} – {r.high:.3f} |' for r in intervals.itertuples())
    classes = '\n'.join(f"| {r['class']} | {r['support']} | {r['auroc']:.3f} | {r['recall']:.2f} | {r['specificity']:.2f} | {r['precision']:.2f} |" for r in a['per_class'])
    return f"""# Model card: the model that ships with ecg_nbdev

**Not a medical device.** For research and teaching. No decision about a patient may rest on it.

Classifies a 12-lead electrocardiogram, at any sampling rate, into one to three of {", ".join(CLASSES)}.

## How it was made

Trained on simulated recordings ({json.dumps(predictor.model.config)}), then fine-tuned on {a["data"].split("then ")[1]} (recordings that carry one of the nine classes). `make pretrained` repeats it.

## How it scored

{a["scored_on"]}. 95 % bootstrap intervals over recordings. The shipped weights were then tuned on all of these recordings, so scoring them again would flatter the model.

| score | value | interval |
|---|---|---|
{rows}

| class | recordings | AUROC | sensitivity | specificity | PPV |
|---|---|---|---|---|---|
{classes}

## Known failures

- The recordings are few, from six data sets whose labels follow different rules: Normal means "sinus rhythm" in some and "nothing abnormal" in others.
- Of what it calls {weak[0]["class"]}, {weak[0]["precision"]:.0%} is; of what it calls {weak[1]["class"]}, {weak[1]["precision"]:.0%}.
- Not measured yet: recordings with fewer than twelve leads, and recordings shorter than ten seconds.
- The simulator's amplitudes, intervals and noise were fitted to statistics of these same recordings: the scores are optimistic.
- Thresholds fit the share of diagnoses in these recordings; elsewhere choose them anew.

## Attribution

CPSC2018 and CPSC-Extra (Liu et al. 2018), Georgia, Chapman-Shaoxing and Ningbo (Zheng et al. 2020), PTB-XL (Wagner et al. 2020), as published for the PhysioNet Challenges 2020 and 2021 (Perez Alday et al. 2020; Reyna et al. 2021), CC BY 4.0; PTB (Bousseljot et al. 1995), ODC-By.
"""


@call_parse
def main(
    data:str=None, # folder that holds cpsc2018, georgia, …: the real recordings
    stage:str='all', # 'pretrain' stops after it
    epochs:int=50, # of pretraining
    n:int=4096, # simulated recordings an epoch
    seed:int=0,
    threads:int=2, # of torch
    out:str='ecg_nbdev/data/pretrained', # the model folder
):
    "Train, measure and write the model that ships."
    torch.set_num_threads(threads)
    model = pretrained(seed, epochs, n)
    if stage == 'pretrain': return
    store = real_store(data)
    every, fresh = np.arange(len(store)), create_model('crnn', n_classes=9, fs=100, **NETWORK)
    a = predictions(store, every, predict_records(model, loader(store, every), HOW), 'test', folds_of(store), {'system': 'a', 'seed': seed})
    save_predictions(a, RUNS/f'predictions-a-{seed}.parquet')
    print(by_class(a, 'a').round(3).to_string(), f'\nsimulated only: macro AUROC {macro_auroc(a.truth, a.prob):.4f}', flush=True)
    c = cross_validated(model, store, seed, 'c')
    b = cross_validated(fresh, store, seed, 'b', simulated=0, epochs=20, lr=3e-3)
    systems = {'a: simulated only': a, 'b: real only': b, 'c: simulated, then real': c}
    table(pd.concat([by_class(p, s) for s, p in systems.items()]), f'real-by-class-{seed}')
    rows = [bootstrap(nested_answers(p)).reset_index().assign(system=s, n_records=len(p), seed=seed) for s, p in systems.items()]
    table(pd.concat(rows), f'real-scores-{seed}')
    print(pd.concat(rows).round(3).to_string())
    ship(model, store, c, seed, out)
