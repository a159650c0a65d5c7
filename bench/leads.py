"""What computing III, aVR, aVL and aVF from I and II is worth to recordings that hold only some leads.

The labelled recordings under ECG_DATA, reduced to 2, 3, 6 and 8 leads, are answered by the shipped model with the missing
limb leads absent and with them computed. The model was trained on most of these recordings: the numbers compare the two
ways with each other and are no estimate of how well it does elsewhere. Writes bench/results/leads.csv.
"""
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ecg_nbdev.bundle import load_pretrained
from ecg_nbdev.cohort import scan
from ecg_nbdev.core import CLASSES, LEADS, whole_file
from ecg_nbdev.labels import label_states
from ecg_nbdev.marks import record_mark
from ecg_nbdev.metrics import auroc
from ecg_nbdev.records import _with_limb_leads, read_record

RESULTS = Path(__file__).resolve().parent/'results'
SOURCES = ('cpsc2018', 'cpsc-extra', 'georgia', 'chapman-ningbo', 'ptbxl')
HELD = {'2': ('I', 'II'), '3': ('I', 'II', 'V2'), '6, three of them limb leads': ('I', 'II', 'III', 'V1', 'V3', 'V5'),
        '8': ('I', 'II', *LEADS[6:]), '12': LEADS}


def only(record, leads):
    "The record with these leads."
    held = np.isin(LEADS, leads)
    return replace(record, signal=np.where(held[:, None], record.signal, np.nan))

def probabilities(predictor, records):
    "(n, K) of the shipped model."
    return predictor.class_prob(predictor.outputs(predictor.preparation(r.signal, r.fs) for r in records))

def main():
    data, predictor = Path(os.environ['ECG_DATA']), load_pretrained()
    table = pd.concat([scan(data/source).table for source in SOURCES], ignore_index=True)
    table = table[(table.labels != '') & (table.n_samples/table.fs <= 30)].reset_index(drop=True)
    records, (truth, known) = [read_record(path) for path in table.path], label_states(table, CLASSES)
    known_again = [predictor.seen(record_mark(r), predictor.preparation(r.signal, r.fs), 100) != '' for r in records]
    print(f'{len(records)} recordings, {sum(known_again)} of them seen in training', flush=True)
    labels = predictor.thresholds.decode
    whole, rows = probabilities(predictor, records), []
    for name, leads in HELD.items():
        for how, complete in (('absent', lambda r: r), ('computed', _with_limb_leads)):
            prob = probabilities(predictor, [complete(only(r, leads)) for r in records])
            rows.append({'leads held': name, 'other limb leads': how, 'recordings': len(records),
                         'macro AUROC': float(np.nanmean(auroc(truth, prob, known=known))),
                         'mean change of probability': float(np.abs(prob-whole).mean()),
                         'same labels as with 12': float((labels(prob) == labels(whole)).all(1).mean())})
            print(rows[-1], flush=True)
            if name == '12': break
    with whole_file(RESULTS/'leads.csv') as f: pd.DataFrame(rows).to_csv(f, index=False, float_format='%.4g')


if __name__ == '__main__': main()
