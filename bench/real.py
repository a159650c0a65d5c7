"""The real recordings that the measurements share: the data sets under `ECG_DATA`, as one store in memory."""
import os
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ecg_nbdev.cohort import scan
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


def known(root, name):
    "The recordings of one data set whose labels say something of the nine classes; of twins the first."
    cohort = scan(Path(root)/name)
    twins = cohort.duplicates[cohort.duplicates.case == 'twin'].id
    told = label_states(cohort.table)[1].any(1)
    return cohort.table[told & ~cohort.table.id.isin(twins)].assign(source=name)


def real_store(
    root, # folder that holds the data sets
    sources=SOURCES, # folders in it
    prepare=Preparation(), # filter and sampling rate
)->MemoryStore: # `index` with the column `source`
    "All recordings of some data sets whose labels say something."
    table = pd.concat([known(root, name) for name in sources], ignore_index=True)
    records = (replace(read_record(row.path), labels=split_labels(row.labels), unknown=split_labels(row.unknown),
                       patient=row.patient) for row in table.itertuples())
    store = MemoryStore(records, prepare.fs, prepare)
    store.index['source'] = table.source.to_numpy()
    return store


def whole_names(index):
    "Ids with their data set's name before them, (n,): two data sets may use the same id."
    return (index.source+'/'+index['id']).to_numpy()

def by_patient(index):
    "The table with patients told apart across data sets, as `make_folds` needs it."
    return index.assign(patient=index.source+'/'+index.patient)
