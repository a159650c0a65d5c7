"""How often each check of `ecg_nbdev.quality` speaks up: on real recordings as they are, and with a fault put in.

ECG_DATA names the folder of the data sets. Writes bench/results/quality.csv: a row per case, with how many recordings
were refused, warned of, and named (the fault was reported by one of the checks that are meant for it).
"""
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ecg_nbdev.cohort import find_records
from ecg_nbdev.core import ECGError, Record, whole_file
from ecg_nbdev.quality import QUALITY_LIMITS, check_quality
from ecg_nbdev.records import read_record

RESULTS = Path(__file__).resolve().parent/'results'
SOURCES = ('cpsc2018', 'cpsc-extra', 'georgia', 'chapman-ningbo', 'ptb', 'ptbxl', 'ptbxl-own', 'code15', 'sph', 'wfdb-dat')
UNITS = {'huge', 'tiny', 'small', 'large'}


# ---- what is put in; `x` (12, n) mV may be changed, `t` is time in s

def rows(x, *change):
    "The leads `x` with some rows replaced."
    for k, row in change: x[k] = row
    return x

def one(k, function):
    "A fault of one lead."
    return lambda x, t, rng: rows(x, (k, function(x[k], t, rng)))

def noise(x, t, rng): return x+rng.normal(0, .25, x.shape)
def drift(x, t, rng): return x+2*np.sin(2*np.pi*rng.uniform(.15, .4)*t+rng.uniform(0, 6))
def hum(x, t, rng): return x+.2*np.sin(2*np.pi*rng.choice([50, 60])*t)
def clip(x, t, rng):
    low, high = np.nanquantile(x, [.02, .98], axis=-1, keepdims=True)
    return np.clip(x, np.minimum(low, -.35), np.maximum(high, .35))

def gaps(x, t, rng):
    "Two seconds in which every electrode was off."
    start = rng.uniform(0, max(t[-1]-2, 0))
    x[:, (t >= start) & (t < start+2)] = 0
    return x

FAULTS = { # name → change, checks that name it
    'V3 flat': (one(8, lambda x, t, rng: 0*x), {'flat', 'off'}),
    'II off, at the end of the range': (one(1, lambda x, t, rng: 0*x+5), {'flat', 'off', 'limb leads'}),
    'V5 absent': (one(10, lambda x, t, rng: x*np.nan), {'missing'}),
    'all electrodes off for 2 s': (gaps, {'flat', 'off'}),
    'clipped at the 2 % and 98 % quantiles, beyond 0.35 mV': (clip, {'clipped'}),
    'white noise of 0.25 mV': (noise, {'noise', 'no QRS'}),
    'white noise of 0.25 mV in V2': (one(7, noise), {'noise'}),
    'baseline ±2 mV': (drift, {'baseline'}), 'baseline ±2 mV in V4': (one(9, drift), {'baseline'}),
    'mains hum ±0.2 mV': (hum, {'powerline'}), 'mains hum ±0.2 mV in V1': (one(6, hum), {'powerline'}),
    'microvolts taken for millivolts': (lambda x, t, rng: 1000*x, UNITS),
    'volts taken for millivolts': (lambda x, t, rng: x/1000, UNITS),
    'leads in reverse order': (lambda x, t, rng: x[::-1], {'limb leads'}),
    'II and V2 swapped': (lambda x, t, rng: x[[0, 7, 2, 3, 4, 5, 6, 1, 8, 9, 10, 11]], {'limb leads'}),
    'aVR and aVL swapped': (lambda x, t, rng: x[[0, 1, 2, 4, 3, *range(5, 12)]], {'limb leads'}),
    'arm electrodes reversed': (lambda x, t, rng: np.stack([-x[0], x[2], x[1], x[4], x[3], *x[5:]]), {'arms', 'arm and leg'}),
    'right arm and left leg reversed': (lambda x, t, rng: np.stack([-x[2], -x[1], -x[0], x[5], x[4], x[3], *x[6:]]),
                                        {'arms', 'arm and leg'}),
    'first 0.5 s': (lambda x, t, rng: x[:, t < .5], {'too short'}), 'first 2 s': (lambda x, t, rng: x[:, t < 2], {'short'})}


# ---- what is no ECG

def strange(rng):
    "(name, signal at 500 Hz) of recordings without a heart."
    t = np.arange(5000)/500
    for sd in (.02, .1, .5, 2): yield 'white noise', rng.normal(0, sd, (12, 5000))
    for step in (.005, .02, .05): yield 'random walk', step*np.cumsum(rng.normal(size=(12, 5000)), axis=1)
    for hertz in rng.uniform(.3, 45, 4): yield 'sine', np.sin(2*np.pi*(hertz*t+rng.uniform(0, 1, (12, 1))))
    yield 'flat', np.zeros((12, 5000))+rng.choice([0, 1, -3], (12, 1))


# ---- counts

def row(case, found, expected):
    "Counts of one case from the findings of its recordings."
    names = [{f.name for f in each} for each in found]
    refused = sum(any(f.refuse for f in each) for each in found)
    counts = {'recordings': len(found), 'refused': refused, 'warned': sum(map(bool, found))-refused}
    named = sum(bool(each & expected) for each in names) if expected else np.nan
    return {'case': case, **counts, 'named': named, 'named_share': named/len(found),
            **{f'check {name}': sum(name in each for each in names) for name in (*QUALITY_LIMITS, 'off', 'missing')}}

def faulty(record, change, rng):
    "The findings with a fault put in."
    t = np.arange(record.n)/record.fs
    return check_quality(replace(record, signal=change(record.signal.copy(), t, rng)))

def read_all(folder):
    "Every recording that can be read."
    for path in find_records(folder):
        try: yield read_record(path, missing='nan')
        except ECGError as e: print(f'not read: {e}')

def main():
    data, rng = Path(os.environ['ECG_DATA']), np.random.default_rng(0)
    real = {source: list(read_all(data/source)) for source in SOURCES}
    clean = [r for group in real.values() for r in group if not any(f.refuse for f in check_quality(r))]
    table = [row('as they are', [check_quality(r) for group in real.values() for r in group], set())]
    table += [row(f'as they are: {source}', [check_quality(r) for r in group], set()) for source, group in real.items()]
    table += [row(name, [faulty(r, change, rng) for r in clean], expected) for name, (change, expected) in FAULTS.items()]
    signals = [pair for _ in range(50) for pair in strange(rng)]
    for kind in dict.fromkeys(name for name, _ in signals):
        found = [check_quality(Record(x, 500, kind)) for name, x in signals if name == kind]
        table.append(row(kind, found, {f.name for each in found for f in each if f.refuse}))
    odd = list(read_all(data/'odd-inputs'))
    table.append(row('odd-inputs', [check_quality(r) for r in odd], {'missing', 'flat'}))
    table = pd.DataFrame(table)
    with whole_file(RESULTS/'quality.csv') as f: table.to_csv(f, index=False, float_format='%.4g')
    print(table.iloc[:, :6].to_string())
    print(table.iloc[0].to_string())


if __name__ == '__main__': main()
