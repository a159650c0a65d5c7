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


def make(epoch):
    "Simulate the recordings of an epoch and write them."
    store = simulated_store(N, epoch+1, 10., FS, **RECIPE)
    units = np.stack([to_units(store.signal(i))[0] for i in range(N)])
    with whole_file(STREAM/f'{epoch:03d}.npy') as f, open(f, 'wb') as file: np.save(file, units)
    with whole_file(STREAM/f'{epoch:03d}.parquet') as f: store.index.to_parquet(f)

def stream(epoch):
    "The recordings of an epoch (n, 12, 1000) as a store; made where they are not kept yet."
    if not (STREAM/f'{epoch:03d}.parquet').exists(): make(epoch)
    units = np.load(STREAM/f'{epoch:03d}.npy')
    return MemoryStore.of([to_millivolts(u) for u in units], pd.read_parquet(STREAM/f'{epoch:03d}.parquet'), FS)
