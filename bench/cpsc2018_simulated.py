"""A simulated CPSC2018: for each row of its label table a recording of that name with those labels.

    python bench/cpsc2018_simulated.py DIR       then: make cpsc2018-grid DATA=DIR OPTIONS=…

Lengths, ages and sexes are drawn as in CPSC2018; names are the committed folds' names, so that the protocol runs as it
would on the recordings themselves. The label table is REFERENCE.csv of CPSC2018 under ECG_DATA.
"""
import shutil
from functools import partial
from pathlib import Path

import numpy as np
from fastcore.script import call_parse

from ecg_nbdev.labels import read_reference
from ecg_nbdev.parallel import in_order, with_bar
from ecg_nbdev.records import write_record
from ecg_nbdev.sim.synth import simulate
from real import data_folder


def write_row(folder, seed, row):
    "Simulate and write one recording."
    i, (name, labels) = row
    write_record(simulate(labels, None, rng=np.random.default_rng([seed, i]), id=name), folder)

@call_parse
def main(
    out:Path, # folder to write
    data:str=None, # folder with cpsc2018/REFERENCE.csv; ECG_DATA where not given
    n:int=None, # the first so many rows; all where not given
    seed:int=2018,
):
    "Write the recordings, then the table that makes a folder of CPSC2018's kind of them."
    table = data_folder(data)/'cpsc2018'/'REFERENCE.csv'
    rows = list(enumerate(read_reference(table).items()))[:n]
    out.mkdir(parents=True, exist_ok=True)
    for _ in with_bar(in_order(partial(write_row, out, seed), rows), len(rows), True): pass
    shutil.copyfile(table, out/'REFERENCE.csv')
    print(f'{len(rows)} recordings in {out}')
