"""What pretraining brings on CPSC2018's committed folds: `make cpsc2018-grid DATA=DIR OPTIONS=…`.

Cells: {none, simulated, shipped-recipe} × network × {100, 300, 1000, all} training recordings × seeds, each over ten
folds: one reports, the next one chooses epoch, calibration and thresholds, of the others so many recordings train.
  none             from new weights; the choosing fold picks the best epoch, by as many recordings as train; small
                   sets get more epochs
  simulated        the same with weights that have learned from the stream of simulated recordings
  shipped-recipe   simulated ones mixed with the real ones, last weights averaged with those before, as the model that
                   ships (which is distilled before)
A smaller set of recordings is part of the next larger one. Each fold of a cell is kept with its network, in
runs/cpsc2018/grid. `--part 0/2` takes every second cell, beside a process with 1/2. Other folders (`--others`, such as
Georgia, PTB-XL, Chapman and Ningbo) are scored by the networks of all folds, unknown entries left out. What it costs is
measured and printed first; `--cost 1` stops there. Tables: grid*.csv.
"""
import copy, math, warnings
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastcore.script import call_parse
from filelock import FileLock
from safetensors.torch import load_file, save_file

from baselines import kept, macro, patient_draws
from cpsc2018 import place
from ecg_nbdev.parallel import keep_memory
from ecg_nbdev.cohort import scan
from ecg_nbdev.core import ECGError, whole_file
from ecg_nbdev.data import WindowDL, WindowDataset, ecg_dls
from ecg_nbdev.uncertainty import SCORES, draw_weights, single_answer
from ecg_nbdev.labels import cpsc2018_label_order, first_labels, label_states, multi_hot
from ecg_nbdev.learner import ecg_learner, predict_records, train_learner
from ecg_nbdev.metrics import UndefinedScore
from ecg_nbdev.pretrain import RECIPE, finetune, simulated_store
from ecg_nbdev.protocol import cross_validate
from ecg_nbdev.signal import Preparation
from ecg_nbdev.packing import build_store
from ecg_nbdev.store import MemoryStore
from family.fits import Fit, train
from family.plan import NETWORKS, Plan
from family.stages import Held, step_seconds
from shipped.stream import stream

PRETRAINING, COUNTS = ('none', 'simulated', 'shipped-recipe'), (100, 300, 1000, None)
KEPT = ('macro_auroc', 'macro_auprc', 'macro_f1', 'cpsc2018_f1', 'exact_match')
BATCH, LEARN = 32, {'none': 3e-3, 'simulated': 1e-3}  # windows in a step; largest learning rates


@dataclass(frozen=True)
class Cell:
    "One way to train, on so many recordings."
    pretraining:str
    network:str
    count:int|None # None: all
    seed:int

    @property
    def name(self):
        network = self.network.replace(', ', '-').replace(' ', '-')
        return f'{self.pretraining}-{network}-{self.count or "all"}-{self.seed}'


class Grid:
    "The cells of a folder of recordings."
    def __init__(self, store, out, cells, epochs=20, pretrained=30, steps=1500, stream=stream, plan=None):
        self.store, self.out, self.cells, self.epochs, self.stream = store, out, cells, epochs, stream
        self.steps, self.plan = steps, plan or Plan(epochs=pretrained)
        self.folds = store.index.fold.to_numpy()
        self.k = int(self.folds.max())+1
        self.windows = np.ceil(store.index.n_samples/1000).mean()  # of a recording

    @cache
    def before(self, network, seed):
        "The network that has seen simulated recordings only; shared with bench/study.py where epochs and rate agree."
        fit = Fit(network, 3e-3, seed, self.plan.epochs)
        path = fit.path(self.plan.runs)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{path}.lock'):  # a process that wants the same network waits for it
            return train(fit, self.stream, Held.of(simulated_store(min(200, self.plan.held), 700_000)), self.plan)[0]

    def rows(self, train_rows, count, seed, fold):
        "Recordings that train; a count's choice is part of the next larger one."
        return np.random.default_rng([seed, fold]).permutation(train_rows)[:count]

    def epochs_of(self, count):
        "Passes over so many recordings."
        return max(self.epochs, math.ceil(self.steps*BATCH/(count*self.windows)))

    def learned(self, cell, rows, valid):
        "The trained network of one fold."
        torch.manual_seed(cell.seed)
        if cell.pretraining == 'shipped-recipe':
            some, own = np.r_[rows, valid[:1]], np.arange(len(rows)+1)
            held = MemoryStore.of([self.store.signal(i) for i in some], self.store.index.iloc[some], self.store.fs)
            return finetune(self.before(cell.network, cell.seed), held, own[:-1], own[-1:], seed=cell.seed).model
        model = NETWORKS[cell.network]() if cell.pretraining == 'none' else self.before(cell.network, cell.seed)
        split = np.full(len(self.store), 'other')
        some = self.rows(valid, cell.count, cell.seed, int(self.folds[valid[0]]))  # all of them would take most of the time
        split[rows], split[some] = 'train', 'valid'
        dls = ecg_dls(self.store, split, bs=BATCH, jitter=2.5, seed=cell.seed)
        learn = ecg_learner(dls, model=copy.deepcopy(model), seed=cell.seed, ema=.98, augment=RECIPE)
        train_learner(learn, self.epochs_of(len(rows)), LEARN[cell.pretraining], show=False)
        return learn.model

    def fit_predict(self, cell, fit, valid, test, seed):
        "The `fit_predict` of `cross_validate`; the network is kept."
        fold = int(self.folds[test[0]])
        rows = self.rows(fit, cell.count, seed, fold)
        model = self.learned(cell, rows, valid)
        with whole_file(self.out/cell.name/f'network-{fold}.safetensors') as f:
            save_file({k: v.contiguous() for k, v in model.state_dict().items()}, f)
        prob = predict(model, self.store, np.r_[valid, test])
        print(f'{cell.name}: fold {fold+1} of {self.k}, {len(rows)} recordings', flush=True)
        return prob[:len(valid)], prob[len(valid):]

    def cross_validated(self, cell):
        "The cell's folds, each in its turn the one that reports; finished ones are read."
        index = self.store.index
        first = first_labels(cpsc2018_label_order(index.id, index.labels))
        about = {'data': self.store.meta['fingerprint'], 'epochs': self.epochs, 'steps': self.steps,
                 'pretrained': self.plan.epochs, **vars(cell)}
        return cross_validate(partial(self.fit_predict, cell), index.id, multi_hot(index.labels), self.folds, first,
                              index.mark, seeds=(cell.seed,), calibrate='choose', folder=self.out/cell.name,
                              provenance=about)

    def finished(self, cell):
        "Folds of a cell that are kept."
        return len(list((self.out/cell.name).glob('fold-*.parquet')))

    def done(self): return [c for c in self.cells if self.finished(c) == self.k]

    def networks(self, cell):
        "The kept network of each fold."
        for fold in range(self.k):
            model = NETWORKS[cell.network]()
            model.load_state_dict(load_file(self.out/cell.name/f'network-{fold}.safetensors'))
            yield model.eval()


def predict(model, store, rows):
    "Probabilities (rows, 9)."
    windows = WindowDataset(store, rows, np.zeros(len(rows)), 1000)
    return predict_records(model, WindowDL(windows, bs=128))


# --- what it costs

def cost(grid):
    "Processor hours of each kind of cell, and what is left of them."
    mean = int((np.bincount(grid.folds).sum())*(grid.k-2)/grid.k)
    second = {n: step_seconds(n, grid.store, Plan(batch=BATCH))[0]/BATCH for n in {c.network for c in grid.cells}}
    rows = []
    for c in grid.cells:
        n = min(c.count or mean, mean)
        # the recipe: three passes over the recordings three times and over 2,048 simulated ones; else as many windows
        # are scored after each epoch, a third of the time
        recipe, once = c.pretraining == 'shipped-recipe', n*grid.windows
        chosen = min(n, len(grid.store)/grid.k)*grid.windows/3
        seen = 3*(3*once+2048) if recipe else grid.epochs_of(n)*(once+chosen)
        hours = seen*second[c.network]/3600
        rows.append({**vars(c), 'hours': hours*grid.k, 'left': hours*(grid.k-grid.finished(c))})
    table = pd.DataFrame(rows).fillna({'count': mean})
    table = table.groupby(['network', 'pretraining', 'count'])[['hours', 'left']].sum()
    asked = {(c.network, c.seed) for c in grid.cells if c.pretraining != 'none'}
    before = sum((grid.plan.epochs-Fit(n, 3e-3, s, grid.plan.epochs).done(grid.plan.runs))*grid.plan.n*second[n]
                 for n, s in asked)/3600
    return table, before


# --- tables

def cell_draws(cv, weight):
    "Scores (draws, scores) of a cell's pooled answers."
    one = np.concatenate([single_answer(p.of('test'), at) for p, at in zip(cv.parts, cv.points)])
    return np.stack([SCORES[name](cv.pooled, one, weight) for name in KEPT], 1)

def interval(values):
    low, high = np.nanquantile(values[1:], [.025, .975], axis=0)
    return {'value': values[0], 'low': low, 'high': high}

def over_seeds(draws, seed=0):
    "Draws of recordings and seeds together, the first row the mean over seeds; `draws` has an array for each seed."
    stack = np.stack(draws)
    which = np.random.default_rng(seed).integers(len(stack), size=(stack.shape[1]-1, len(stack)))
    some = stack[which, np.arange(1, stack.shape[1])[:, None]].mean(1)
    return np.concatenate([stack[:, :1].mean(0), some])

def grid_tables(grid, n_boot=500):
    "Every finished cell's scores with intervals over recordings and seeds; what pretraining brings."
    found, weight = {}, draw_weights(len(grid.store), n_boot).astype(float)
    for cell in grid.done():
        key = cell.network, cell.count or 'all', cell.pretraining
        found.setdefault(key, []).append(cell_draws(grid.cross_validated(cell), weight))
    drawn = {key: over_seeds(d) for key, d in found.items()}
    scores, gains = [], []
    for (network, count, pretraining), d in drawn.items():
        at = {'network': network, 'recordings': count, 'pretraining': pretraining}
        seeds = len(found[network, count, pretraining])
        scores += [{**at, 'score': s, **interval(d[:, i]), 'seeds': seeds} for i, s in enumerate(KEPT)]
        plain = drawn.get((network, count, 'none'))
        if pretraining != 'none' and plain is not None:
            gains += [{**at, 'score': s, **interval((d-plain)[:, i])} for i, s in enumerate(KEPT)]
    return pd.DataFrame(scores), pd.DataFrame(gains)

def other_store(folder, out):
    "The recordings of another data set whose labels say something."
    table = scan(folder).table
    return build_store(table[label_states(table)[1].any(1)], out, Preparation())

def other_scores(grid, folders, n_boot=500):
    "Macro AUROC of each finished cell on other data sets, mean over the networks of its folds; unknown entries left out."
    rows = []
    for folder in folders:
        name = Path(folder).name
        store = other_store(folder, grid.out/'others'/name)
        truth, known = label_states(store.index)
        weight = patient_draws(pd.factorize(store.index.patient)[0], n_boot)
        def say(cell): return np.stack([predict(m, store, np.arange(len(store))) for m in grid.networks(cell)])
        for cell in grid.done():
            by_fold = kept(grid.out/cell.name/f'other-{name}-{store.meta["fingerprint"]}.npz', partial(say, cell))
            draws = np.mean([macro(truth, prob, known, weight) for prob in by_fold], 0)
            rows.append({'data set': name, **vars(cell), 'recordings': len(store), 'left out': int((~known).sum()),
                         **interval(draws)})
    return pd.DataFrame(rows)


# --- the command line

def make_cells(pretraining, networks, counts, seeds, most):
    "The cells asked for, sizes that the folds don't hold left out; seeds last, so that one of each comes first."
    counts = [c for c in counts if c is None or c < most]
    return [Cell(p, n, c, s) for s in range(seeds) for n in networks for c in counts for p in pretraining]

def write_tables(grid, out, others, n_boot=500):
    scores, gains = grid_tables(grid, n_boot)
    tables = {'grid': scores, 'grid_gains': gains, 'grid_others': other_scores(grid, others, n_boot)}
    for name, table in tables.items():
        if not len(table): continue
        with whole_file(out/f'{name}.csv') as f: table.to_csv(f, index=False, float_format='%.5g')
        print(f'\n{name}\n{table.round(3).to_string(index=False)}', flush=True)

def run(data, out, pretraining, networks, counts, seeds, k, epochs, pretrained, steps, others, part,
        only_cost, n_boot=500, **made):
    "The grid of a folder, from the scan to the tables; raises ECGError where the folder can't be used."
    warnings.simplefilter('ignore', UndefinedScore)
    out = Path(out)
    held, _, said = place(scan(data).table, k)
    print(f'{data}: '+'; '.join(said), flush=True)
    store = build_store(held, out/'store', Preparation())
    folds = store.index.fold.nunique()
    cells = make_cells(pretraining, networks, counts, seeds, len(store)*(folds-2)//folds)
    grid = Grid(store, out/'grid', cells, epochs, pretrained, steps, **made)
    table, before = cost(grid)
    print(table.round(3).to_string())
    print(f'processor hours in all: {table.hours.sum():.2f}, left: {table.left.sum():.2f}; '
          f'pretraining left: {before:.2f}', flush=True)
    if only_cost: return
    here, of = map(int, part.split('/'))
    for cell in cells[here::of]: grid.cross_validated(cell)
    write_tables(grid, out, others, n_boot)

def numbers(text): return [None if c == 'all' else int(c) for c in text.split(',')]

@call_parse
def main(
    data:str=None, # folder of CPSC2018's recordings, all or some
    out:str='runs/cpsc2018', # folder to write
    pretraining:str=','.join(PRETRAINING), # some of them
    networks:str='crnn;multilead', # of bench/family/plan.py, with semicolons between
    counts:str='100,300,1000,all', # training recordings
    seeds:int=3, # trainings of each cell
    k:int=10, # folds; fewer merge committed ones
    epochs:int=20, # passes over the training recordings, at least
    pretrained:int=30, # passes of pretraining, 4,096 simulated recordings each
    steps:int=1500, # training steps at least, for small sets
    others:str='', # other folders to score, with commas between
    part:str='0/1', # which share of the cells
    cost:int=0, # 1: say what it costs, and stop
):
    "The grid of pretraining on CPSC2018's folds."
    torch.set_num_threads(1)
    keep_memory()
    try:
        if not data: raise ECGError('no folder of recordings: make cpsc2018-grid DATA=DIR')
        run(data, out, pretraining.split(','), networks.split(';'), numbers(counts), seeds, k, epochs, pretrained,
            steps, [f for f in others.split(',') if f], part, bool(cost))
    except ECGError as e: raise SystemExit(f'error: {e}')
