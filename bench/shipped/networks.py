"""The networks behind the shipped model: each is trained when it is first asked for, and kept in runs/pretrained."""
import time
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ecg_nbdev.cohort import make_folds
from ecg_nbdev.core import CLASSES, whole_file
from ecg_nbdev.data import WindowDL, WindowDataset, make_targets
from ecg_nbdev.labels import first_labels, multi_hot
from ecg_nbdev.learner import predict_records, training_history
from ecg_nbdev.models import Ensemble, create_model
from ecg_nbdev.predictions import Predictions
from ecg_nbdev.pretrain import finetune, mix_weights, pretrain_model
from ecg_nbdev.store import record_keys
from real import whole_names

RUNS = Path('runs/pretrained')
# What lasts all the recording is averaged over windows, what may happen once counts where it happens.
HOW = tuple('max' if c in ('PAC', 'PVC') else 'mean' for c in CLASSES)
SEEDS, FOLDS, COUNTS = (0, 1, 2), 5, (25, 50, 100, None)  # None: all recordings of the other folds
# Written out: the model that ships stays what it is when the defaults move on.
NETWORK = {'widths': (16, 32, 32), 'rates': (50, 25, 12.5), 'hidden': 96, 'layers': 2}
TUNING = {'b': {'simulated': 0, 'epochs': 20, 'lr': 3e-3}, 'c': {}}
SYSTEMS = ('a', 'b', 'c, tuned alone', 'c')


def new_network(): return create_model('crnn', n_classes=len(CLASSES), fs=100, **NETWORK)


def kept(path, train):
    "The network of a file; trained and written where there is none yet."
    model = new_network()
    if not path.exists():
        weights = {k: v.contiguous() for k, v in train().state_dict().items()}
        with whole_file(path) as f: save_file(weights, f)
    model.load_state_dict(load_file(path))
    return model.eval()


def simulation_only(seed, epochs, n):
    "The network that has seen simulated recordings only; its training history is written beside it."
    def train():
        start = time.perf_counter()
        learn = pretrain_model('crnn', epochs, n, seed, **NETWORK)
        seconds = time.perf_counter()-start
        log = training_history(learn).assign(seconds=seconds, simulated=epochs*n, seed=seed)
        with whole_file(RUNS/f'pretrain-{seed}.csv') as f: log.to_csv(f, index=False)
        return learn.model
    return kept(RUNS/f'pretrained-{seed}.safetensors', train)


class Networks:
    "Every network of the study, trained when it is first asked for."
    def __init__(self, store, epochs, n):
        self.store = store
        self.folds = make_folds(store.index, k=FOLDS, seed=0)  # a patient's recordings stay together
        self.pretrained = cache(lambda seed: simulation_only(seed, epochs, n))

    def training_rows(self, count, seed, fold):
        "Recordings of the other folds; a fold's choice is part of its next larger one."
        others = np.flatnonzero(self.folds != fold)
        return np.random.default_rng([seed, fold]).permutation(others)[:count]

    def train(self, system, count, seed, fold):
        "A network tuned on real recordings (`c`), or trained on them from new weights (`b`)."
        start, rows = time.perf_counter(), self.training_rows(count, seed, fold)
        held = np.flatnonzero(self.folds == fold)[:1]  # one recording for the table, which chooses nothing
        torch.manual_seed(seed)
        before = self.pretrained(seed) if system == 'c' else new_network()
        learn = finetune(before, self.store, rows, held, seed=10*seed+fold, share=1, **TUNING[system])
        print(f'{system}, {len(rows)} real recordings, seed {seed}, fold {fold}: '
              f'{time.perf_counter()-start:.0f} s', flush=True)
        return learn.model

    def tuned(self, system, count, seed, fold):
        "The network trained on `count` recordings of the other folds."
        path = RUNS/'tuned'/f'{system}-{count or "all"}-{seed}-{fold}.safetensors'
        return kept(path, lambda: self.train(system, count, seed, fold))

    def tune_all(self, seeds):
        "Train what is missing, the largest numbers of recordings first."
        for count, seed, system, fold in product(reversed(COUNTS), seeds, TUNING, range(FOLDS)):
            self.tuned(system, count, seed, fold)

    def get(self, system, count, seed, fold):
        "The network of a system that predicts a fold."
        if system == 'a': return self.pretrained(seed)
        model = self.tuned(system[0], count, seed, fold)
        if system == 'c': mix_weights(self.pretrained(seed), model)
        return model

    def real_seen(self, system, count):
        "How many real recordings a network of a system has seen, the mean over folds."
        if system == 'a': return 0
        return count or round(np.mean([(self.folds != f).sum() for f in range(FOLDS)]))


def predict(networks, system, count=None, seeds=SEEDS, store=None):
    "Every real recording predicted by an ensemble that has not seen it; `store` may hold changed signals of them."
    store = store or networks.store
    index, prob = store.index, np.zeros((len(store), len(CLASSES)))
    for fold in range(FOLDS):
        rows = np.flatnonzero(networks.folds == fold)
        model = Ensemble([networks.get(system, count, seed, fold) for seed in seeds])
        windows = WindowDataset(store, rows, make_targets(index.labels.iloc[rows]), 1000)
        prob[rows] = predict_records(model, WindowDL(windows, bs=128), HOW)
    about = {'system': system, 'real': count or 'all', 'seeds': list(seeds), 'folds': FOLDS}
    return Predictions(whole_names(index), prob, multi_hot(index.labels), 'test', first=first_labels(index.labels),
                       fold=networks.folds, provenance=about, key=record_keys(store, range(len(store))))
