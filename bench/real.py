"""The real recordings that the measurements share: the data sets under `ECG_DATA`, as one store in memory."""
import os
from dataclasses import replace
from pathlib import Path

from ecg_nbdev.cohort import join_cohorts, scan
from ecg_nbdev.labels import label_states, split_labels
from ecg_nbdev.records import read_record
from ecg_nbdev.signal import Preparation
from ecg_nbdev.store import MemoryStore

# Folders of `ECG_DATA` with recordings whose labels speak of the nine classes.
SOURCES = ('cpsc2018', 'georgia', 'chapman-ningbo', 'ptbxl', 'ptbxl-own', 'cpsc-extra', 'ptb')


def data_folder(given=None):
    "The folder of real recordings: the one given, or the one that `ECG_DATA` names."
    folder = given or os.environ.get('ECG_DATA')
    if folder and Path(folder).is_dir(): return Path(folder)
    raise SystemExit(f'{folder or "ECG_DATA"}: no such folder of real recordings: name it with ECG_DATA=FOLDER')


def real_store(
    root, # folder that holds the data sets
    sources=SOURCES, # folders in it
    prepare=Preparation(), # filter and sampling rate
)->MemoryStore: # `index` with the column `source`, which patients have before their names
    "All recordings of some data sets whose labels say something, those that stand in two of them once."
    table = join_cohorts(*(scan(Path(root)/name) for name in sources)).table
    table = table[label_states(table)[1].any(1)]
    records = (replace(read_record(row.path), labels=split_labels(row.labels), unknown=split_labels(row.unknown),
                       patient=row.patient) for row in table.itertuples())
    store = MemoryStore(records, prepare.fs, prepare)
    store.index['source'] = table.source.to_numpy()
    return store


def whole_names(index):
    "Ids with their data set's name before them, (n,): two data sets may use the same id."
    return (index.source+'/'+index['id']).to_numpy()
