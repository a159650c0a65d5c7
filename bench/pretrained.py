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
from ecg_nbdev.evaluation import answer, bootstrap, evaluate
from ecg_nbdev.labels import multi_hot
from ecg_nbdev.learner import history, predict_records
from ecg_nbdev.metrics import auroc
from ecg_nbdev.models import create_model
from ecg_nbdev.predictions import Predictions, load_predictions, save_predictions
from ecg_nbdev.pretrain import SOURCES, finetune, pretrain, real_store
from ecg_nbdev.runs import first_labels
from ecg_nbdev.thresholds import fit_thresholds

RUNS, RESULTS = Path('runs/pretrained'), Path(__file__).parent/'results'
# What lasts all the recording is averaged over windows, what may happen once counts where it happens.
HOW = tuple('max' if c in ('PAC', 'PVC') else 'mean' for c in CLASSES)
FOLDS = 5


def table(frame, name):
    with whole_file(RESULTS/f'{name}.csv') as f: frame.to_csv(f, index=False)


def loader(store, rows):
    "The windows of some recordings, in order."
    data = WindowDataset(store, rows, make_targets(store.index.labels.iloc[rows]), 1000)
    return WindowDL(data, bs=128)


def predictions(store, rows, prob, role, fold, about):
    t = store.index.iloc[rows]
    return Predictions([f'{s}/{i}' for s, i in zip(t.source, t.id)], prob, multi_hot(t.labels), role, first=first_labels(t.labels), fold=fold, provenance=about)


def pretrained(seed, epochs, n):
    "The pretrained network; trained where it is not kept yet."
    path = RUNS/f'pretrained-{seed}.safetensors'
    model = create_model('crnn', n_classes=9, fs=100)
    if not path.exists():
        start = time.perf_counter()
        learn = pretrain('crnn', epochs, n, seed)
        log = history(learn).assign(seconds=time.perf_counter()-start, simulated=epochs*n, seed=seed)
        with whole_file(path) as f: save_file({k: v.contiguous() for k, v in learn.model.state_dict().items()}, f)
        table(log, f'pretrain-{seed}')
    model.load_state_dict(load_file(path))
    return model.eval()


@call_parse
def main(
    data:str=None, # folder that holds cpsc2018, georgia, …: the real recordings
    stage:str='all', # 'pretrain' stops after it
    epochs:int=50, # of pretraining
    n:int=4096, # simulated recordings an epoch
    seed:int=0,
    threads:int=2, # of torch
):
    "Train, measure and write the model that ships."
    torch.set_num_threads(threads)
    model = pretrained(seed, epochs, n)
    if stage == 'pretrain': return
    store = real_store(data)
    every = np.arange(len(store))
    prob = predict_records(model, loader(store, every), HOW)
    a = predictions(store, every, prob, 'test', 0, {'system': 'simulated only', 'seed': seed})
    save_predictions(a, RUNS/f'predictions-a-{seed}.parquet')
    by_class = pd.DataFrame({'class': CLASSES, 'positives': a.truth.sum(0), 'auroc': auroc(a.truth, a.prob)})
    print(store.index.source.value_counts().to_string()); print(by_class.round(3).to_string()); print('macro AUROC', by_class.auroc.mean().round(4))
