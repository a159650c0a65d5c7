"""The fourth teacher: a forest on hand-made features of simulated recordings. Its mistakes are others than networks'."""
import numpy as np
import pandas as pd
from scipy.signal import resample_poly

from baselines import forest, kept
from ecg_nbdev.core import CLASSES
from ecg_nbdev.labels import label_states
from features import FS as FEATURES_FS, measure
from .stream import FS, STREAM, stream

STUDENT, FOREST = range(20), range(20, 24)  # stores of the stream: those the student sees, those the forest learns from
COLUMNS = [f'forest {c}' for c in CLASSES]


def measured(store):
    "Features (n, features) of recordings at the network's rate; an absent sample is read as 0."
    signals = (np.nan_to_num(store.signal(i)) for i in range(len(store)))
    return pd.DataFrame([measure(resample_poly(x, FEATURES_FS, FS, axis=1)) for x in signals]).to_numpy(np.float32)

def features(number):
    "Features of a store of the stream, measured once."
    return kept(STREAM/f'{number:03d}-features.npz', lambda: measured(stream(number)))

def ask(asked):
    "Probabilities (n, 9) by the forest for features (n, features)."
    truth, known = label_states(pd.concat([stream(i).index for i in FOREST]))
    return forest(np.concatenate([features(i) for i in FOREST]), truth, known, asked).astype(np.float32)

def forest_answers():
    "What the forest says of each recording that the student sees, (stores, n, 9); asked once."
    def make():
        return ask(np.concatenate([features(i) for i in STUDENT])).reshape(len(STUDENT), -1, len(CLASSES))
    return kept(STREAM/'forest.npz', make)

def answered_stream(epoch):
    "The recordings of an epoch with the forest's probabilities beside their labels."
    store = stream(epoch)
    store.index[COLUMNS] = forest_answers()[epoch]
    return store

def forest_targets(index): return index[COLUMNS].to_numpy(np.float32)
