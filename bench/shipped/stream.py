"""The simulated recordings that all networks of the study learn from: made once, kept in whole microvolts."""
from pathlib import Path

import numpy as np
import pandas as pd

from ecg_nbdev.core import whole_file
from ecg_nbdev.pretrain import simulated_store
from ecg_nbdev.store import MemoryStore
from ecg_nbdev.units import to_millivolts, to_units

STREAM, N, FS = Path('runs/stream'), 4096, 100
# a share with findings beside the nine, half of the labels drawn evenly, one in twelve not naming all that is there
RECIPE = {'findings': .2, 'balance': .5, 'unnamed': .08}


def kept_store(
    path, # a .npy file; the index lies beside it as .parquet
    n, # recordings
    number, # of the simulated cohort
)->MemoryStore: # signals (12, 1000)
    "Simulated recordings, made where they are not kept yet."
    index = path.with_suffix('.parquet')
    if not index.exists():
        store = simulated_store(n, number, 10., FS, **RECIPE)
        units = np.stack([to_units(store.signal(i))[0] for i in range(n)])
        with whole_file(path) as f, open(f, 'wb') as file: np.save(file, units)
        with whole_file(index) as f: store.index.to_parquet(f)
    return MemoryStore.of([to_millivolts(u) for u in np.load(path)], pd.read_parquet(index), FS)

def stream(epoch):
    "The recordings of an epoch."
    return kept_store(STREAM/f'{epoch:03d}.npy', N, epoch+1)
