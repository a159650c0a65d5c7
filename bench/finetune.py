"""What few recordings of one's own bring: `python bench/finetune.py`, six minutes of one core; table in bench/results.

Each of six real data sets in turn is the one a user has. It is cut into two halves, patients kept together. Networks
are tuned on 0, 10, 25, 50 or all recordings of one half and score those of the other, then the other way round, so that
every recording is predicted by networks that have not seen it. They start
  shipped     from the recipe of the shipped model without this data set: tuned on the real recordings of the others.
              The model that ships has seen all of them, so it can't be scored here
  simulated   from the network that has seen simulated recordings only
  nothing     from random weights
Tuning is what `ecg-train --pretrain` does: one cycle, and the mean of the weights before and after; from nothing it is
`ecg-train` with three times as many steps. The steps are the same for every size; no epoch is chosen, as so few
recordings can't spare any to choose by. None of this was adjusted to its scores.

The starts are in runs/pretrained (`make pretrained` makes them). Probabilities of each finished fit are kept in
runs/finetune, so that a run that was stopped goes on.
"""
import copy
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastcore.script import call_parse

from ecg_nbdev.folds import make_folds
from ecg_nbdev.core import whole_file
from ecg_nbdev.data import WindowDL, WindowDataset, make_targets, window_dls
from ecg_nbdev.uncertainty import draw_weights
from ecg_nbdev.labels import label_states
from ecg_nbdev.learner import ecg_learner, predict_records, quiet, seed_everything
from ecg_nbdev.metrics import auroc
from ecg_nbdev.parallel import keep_memory
from ecg_nbdev.pretrain import mix_weights
from real import SOURCES, data_folder, real_store
from shipped.networks import HOW, ONE, Networks, new_network
from shipped.scores import write_table

RUNS = Path('runs/finetune')
STARTS, SIZES = ('shipped', 'simulated', 'nothing'), (0, 10, 25, 50, None) # None: all of a half
STEPS, BS, LR = 24, 8, {'nothing': 3e-3, 'simulated': 5e-4, 'shipped': 5e-4}
LEAST = 3 # recordings with a class, and without it, that a data set must have for its AUROC
SCORED = tuple(name for name in SOURCES if name != 'ptb') # eight recordings, one of them labelled


# ---- one fit

def windows(store, rows, jitter=0):
    "Windows of some recordings, with their targets."
    return WindowDataset(store, rows, make_targets(store.index.iloc[rows]), 1000, jitter=jitter)

def started(networks, start, source):
    "The network that tuning goes on from."
    if start == 'simulated': return networks.before(ONE)
    if start == 'shipped': return networks.tuned(ONE, source, networks.store.index.source.to_numpy())
    seed_everything(0)
    return new_network()

def tuned(before, store, rows, fresh):
    "The network after so many steps on some recordings."
    train = windows(store, rows, jitter=250)
    dls = window_dls(train, windows(store, rows[:1]), min(BS, len(train)))
    learn = ecg_learner(dls, model=copy.deepcopy(before))
    steps = 3*STEPS if fresh else STEPS
    epochs = max(1, round(steps/len(dls.train)))
    with quiet(learn): learn.fit_one_cycle(epochs, LR['nothing' if fresh else 'simulated'])
    if not fresh: mix_weights(before, learn.model)
    return learn.model

def kept(path, say):
    "The array of a file; computed and written where there is none yet."
    if not path.exists():
        begin, found = time.process_time(), say()
        with whole_file(path) as f, f.open('wb') as file: np.save(file, found)
        print(f'{path.stem}: {time.process_time()-begin:.1f} s', flush=True)
    return np.load(path, allow_pickle=False)


# ---- one data set

def halves(store, source):
    "Rows of the two halves of a data set, each in an order of its own."
    rows = np.flatnonzero(store.index.source == source)
    fold = make_folds(store.index.iloc[rows].reset_index(drop=True), k=2, seed=0)
    rng = np.random.default_rng(0)
    return [rng.permutation(rows[fold == half]) for half in (0, 1)]

def probabilities(networks, source, start, size):
    "Rows of a data set, each row's probabilities by the network tuned on `size` recordings of the other half, its half."
    store, found = networks.store, []
    for half, (train, test) in enumerate(zip(halves(store, source), halves(store, source)[::-1])):
        n = len(train) if size is None else min(size, len(train))
        def say():
            model = started(networks, start, source)
            if n: model = tuned(model, store, train[:n], start == 'nothing')
            return predict_records(model, WindowDL(windows(store, test), bs=128), HOW)
        found.append((test, kept(RUNS/f'{source}-{start}-{n}-{half}.npy', say), np.full(len(test), half)))
    return [np.concatenate(part) for part in zip(*found)]


# ---- tables

def area(store, rows, prob, group, classes, n_boot=500):
    "Mean AUROC over some classes, pairs within groups only, with its bootstrap interval."
    truth, known = label_states(store.index.iloc[rows])
    drawn = auroc(truth[:, classes], prob[:, classes], draw_weights(len(rows), n_boot), group, known[:, classes])
    drawn = np.nanmean(drawn, -1)
    low, high = np.nanquantile(drawn[1:], (.025, .975))
    return {'recordings': len(rows), 'classes': int(classes.sum()), 'value': drawn[0], 'low': low, 'high': high}

def scorable(store, rows):
    "Which classes enough recordings have, and enough lack."
    truth, known = label_states(store.index.iloc[rows])
    return (np.minimum((truth & known).sum(0), (~truth & known).sum(0)) >= LEAST)

def rows_of(networks, start, size):
    "The score of each data set, and of all together, pairs within data sets and halves."
    every, store = [], networks.store
    name = {'start': start, 'size': 'all' if size is None else size}
    for number, source in enumerate(SCORED):
        rows, prob, half = probabilities(networks, source, start, size)
        every.append((rows, prob, 2*number+half))
        if size is None or size <= len(rows)/2: # of smaller ones it would be the same as all
            yield {**name, 'source': source, **area(store, rows, prob, half, scorable(store, rows))}
    rows, prob, group = (np.concatenate(part) for part in zip(*every))
    yield {**name, 'source': 'all six', **area(store, rows, prob, group, scorable(store, rows))}

@call_parse
def main(
    data:str=None, # folder that holds cpsc2018, georgia, …; ECG_DATA where not given
    threads:int=1, # of torch
):
    "Tune, score and write bench/results/finetune.csv."
    torch.set_num_threads(threads)
    keep_memory()
    RUNS.mkdir(parents=True, exist_ok=True)
    networks = Networks(real_store(data_folder(data)))
    table = pd.DataFrame([row for size in SIZES for start in STARTS for row in rows_of(networks, start, size)])
    write_table(table, 'finetune')
