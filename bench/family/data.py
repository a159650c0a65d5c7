"""The study's data: windows on disk, a table of records and folds, the role of each record in a split."""
import numpy as np
import pandas as pd

from ecg_nbdev.cohort import make_folds
from ecg_nbdev.core import whole_file
from ecg_nbdev.signal import Preparation
from ecg_nbdev.sim.synth import simulate_cohort
from ecg_nbdev.windows import WindowPlan, cut_windows
from real import data_folder, real_store, whole_names
from .plan import FOLDS, RUNS, SIMULATED


def window_files(name, fs, seconds):
    "The file of a data set's windows, and the file with the record of each window."
    stem = RUNS/'data'/f'{name}-{fs}-{seconds:g}'
    return stem.with_name(f'{stem.name}.npy'), stem.with_name(f'{stem.name}-record.npy')

def save_array(path, values):
    with whole_file(path) as f, open(f, 'wb') as file: np.save(file, values)

def write_windows(name, signals, fs, seconds):
    "Cut prepared signals into windows and write them."
    plan = WindowPlan.of([s.shape[1] for s in signals], round(seconds*fs))
    x = np.concatenate([cut_windows(s, plan.start[plan.record == i], plan.size) for i, s in enumerate(signals)])
    for path, values in zip(window_files(name, fs, seconds), (x, plan.record)): save_array(path, values)


def real_data():
    "Windows of the real recordings; their table."
    store = real_store(data_folder())
    table = store.index.assign(id=whole_names(store.index))
    write_windows('real', [store.signal(i) for i in range(len(store))], 100, 10.)
    return table.assign(fold=make_folds(table, k=FOLDS, seed=0))

def simulated_data():
    "Windows of recordings simulated once, at 500 Hz, and prepared at each rate; their table."
    rows, signals = [], {fs: [] for fs in (100, 250, 500)}
    for r in simulate_cohort(SIMULATED, 2026, 500., 10., balance=.5, unnamed=.08):
        for fs, prepared in signals.items(): prepared.append(Preparation(fs=fs)(r.signal, 500))
        rows.append({'id': r.id, 'patient': r.id, 'labels': ';'.join(r.labels)})
    for fs, seconds in ((100, 10.), (100, 5.), (100, 2.5), (250, 10.), (500, 10.)):
        write_windows('simulated', signals[fs], fs, seconds)
    table = pd.DataFrame(rows)
    return table.assign(fold=make_folds(table, k=10, seed=0))

MAKERS = {'real': real_data, 'simulated': simulated_data}

def records(name):
    "The table of records and folds; made with the windows where it is not kept yet."
    path = RUNS/'data'/f'{name}.parquet'
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        table = MAKERS[name]()
        with whole_file(path) as f: table[['id', 'labels', 'fold']].to_parquet(f)
    return pd.read_parquet(path)

def roles(name, table, fold):
    "The role of each record in a split."
    report, choose = ([fold], [(fold+1) % FOLDS]) if name == 'real' else ([0, 1], [2])
    return np.where(table.fold.isin(report), 'test', np.where(table.fold.isin(choose), 'valid', 'train'))
