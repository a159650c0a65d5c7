"""What the student of the shipped model learns from, scored on the real recordings before any of them trains a network.

    python bench/teachers.py     once `make pretrained` has made networks and features (runs/pretrained, runs/stream)

The three networks, the forest on hand-made features, both together at several weights of the forest (the mean of their
logits), and the students: one of the networks alone (trained here where it is not kept), one of both. All have learned
from simulated recordings only; unknown entries are left out, intervals by a bootstrap over patients. No calibration: the
probabilities are as they come.
Table: bench/results/teachers.csv.
"""
import argparse

import numpy as np
import pandas as pd
import torch
from scipy.special import expit, logit

from baselines import RESULTS, Real, kept, scored
from ecg_nbdev.core import whole_file
from ecg_nbdev.data import WindowDL
from ecg_nbdev.learner import predict_records
from ecg_nbdev.models import Ensemble
from ecg_nbdev.parallel import keep_memory
from real import data_folder
from shipped.forest import ask, measured
from shipped.networks import HOW, RUNS, SEEDS, distilled, simulation_only

WEIGHTS = (.2, .35, .5)  # of the forest


def said(model, real): return predict_records(model, WindowDL(real.windows, bs=128), HOW)

def forest_said(real):
    "What the forest says of the real recordings, (n, 9)."
    return kept(RUNS/f'forest-{real.mark()}.npz', lambda: ask(measured(real.store)))

def rows(real):
    "Name of a row → probabilities (n, 9)."
    networks, trees = said(Ensemble([simulation_only(s) for s in SEEDS]), real), forest_said(real)
    found = {'three networks': networks, 'forest': trees}
    a, b = (logit(np.clip(p, 1e-4, 1-1e-4)) for p in (networks, trees))
    found |= {f'both, {w:g} of the forest': expit((1-w)*a+w*b) for w in WEIGHTS}
    students = {'student of the three networks': distilled(trust=1), 'student of both': distilled()}
    return found | {name: said(model, real) for name, model in students.items()}

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', help='folder of real recordings; else ECG_DATA')
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    real = Real(data_folder(args.data))
    table = pd.DataFrame([{'row': name, **scored(real, p)} for name, p in rows(real).items()])
    with whole_file(RESULTS/'teachers.csv') as f: table.to_csv(f, index=False, float_format='%.4f')
    print(table.round(3).to_string(index=False))

if __name__ == '__main__': main()
