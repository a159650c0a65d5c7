"""The real recordings that the measurements share: the data sets under `ECG_DATA`, as one store in memory."""
import os
from dataclasses import replace
from pathlib import Path

import pandas as pd

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


def real_table(
    root, # folder that holds the data sets
    sources=SOURCES, # folders in it
)->pd.DataFrame: # a cohort's table; patients have the name of their data set before their own
    "All recordings of some data sets whose labels say something, those that are in two of them once."
    table = join_cohorts(*(scan(Path(root)/name) for name in sources)).table
    return table[label_states(table)[1].any(1)]

def read_row(
    row, # of `real_table`
    fs=None, # Hz; as the file has it where not given
):
    "The recording with the table's labels and patient."
    labels, unknown = split_labels(row.labels), split_labels(row.unknown)
    return replace(read_record(row.path, fs=fs), labels=labels, unknown=unknown, patient=row.patient)

def real_store(
    root, # folder that holds the data sets
    sources=SOURCES, # folders in it
    prepare=Preparation(), # filter and sampling rate
)->MemoryStore: # `index` with the column `source`
    "The recordings of `real_table`, in memory."
    table = real_table(root, sources)
    store = MemoryStore(map(read_row, table.itertuples()), prepare.fs, prepare)
    store.index['source'] = table.source.to_numpy()
    return store


def whole_names(index):
    "Ids with their data set's name before them, (n,): two data sets may use the same id."
    return (index.source+'/'+index['id']).to_numpy()
