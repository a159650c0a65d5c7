"""What is left of the scores with fewer leads, or with less time."""
import numpy as np
import pandas as pd

from ecg_nbdev.core import CLASSES, LEADS
from ecg_nbdev.store import MemoryStore
from .networks import predict
from .scores import SHIPS, auroc_score, interval, labelled, write_table

LEAD_SETS = {
    '12 leads': LEADS, '8 leads: I, II, V1–V6': ('I', 'II', *LEADS[6:]), '6 limb leads': LEADS[:6],
    '3 leads: I, II, V2': ('I', 'II', 'V2'), '2 leads: I, II': ('I', 'II'), '1 lead: II': ('II',), '1 lead: I': ('I',)}
LENGTHS = (3, 5, 10)  # seconds


def with_leads(store, leads):
    "The same recordings, the other leads absent."
    absent = ~np.isin(LEADS, leads)
    signals = [np.where(absent[:, None], np.float32('nan'), store.signal(i)) for i in range(len(store))]
    return MemoryStore.of(signals, store.index, store.fs)

def middle(signal, n):
    "The middle `n` samples of a signal (12, samples)."
    start = max(0, (signal.shape[1]-n)//2)
    return signal[:, start:start+n]

def shortened(store, seconds):
    "The middle `seconds` of each recording."
    signals = [middle(store.signal(i), round(seconds*store.fs)) for i in range(len(store))]
    return MemoryStore.of(signals, store.index.assign(n_samples=[x.shape[1] for x in signals]), store.fs)

def reduced(networks):
    "Macro AUROC and each class's AUROC of what is available."
    store = networks.store
    cases = {**{name: with_leads(store, leads) for name, leads in LEAD_SETS.items()},
             **{f'12 leads, {s} s': shortened(store, s) for s in LENGTHS}}
    rows = []
    for name, signals in cases.items():
        preds = labelled(predict(networks, SHIPS, store=signals))
        each = interval(preds, auroc_score)
        rows.append({'available': name, **each.loc['mean'], **each.value[list(CLASSES)], 'n_records': len(preds)})
    write_table(pd.DataFrame(rows), 'real_reduced')
