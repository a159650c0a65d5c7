"""What fingerprints find and what they mistake: hits after usual changes, false matches among different recordings.

    ECG_DATA=FOLDER python bench/fingerprint.py     writes results/fingerprint.csv, two minutes on one core

`wfdb-dat` holds one recording of `ptbxl` again, as PhysioNet publishes it at 500 and at 100 Hz: it is a row of its own.
PTB's recordings come without patient ids, so two of one patient count as two patients' there.
"""
import time
from pathlib import Path

import numpy as np
import pandas as pd

from ecg_nbdev.cohort import scan
from ecg_nbdev.core import CohortError, whole_file
from ecg_nbdev.filters import resample
from ecg_nbdev.fingerprint import ALIKE, Fingerprints, beat_trace, fingerprint
from ecg_nbdev.marks import sample_mark
from ecg_nbdev.records import read_record
from ecg_nbdev.signal import bandpass
from ecg_nbdev.sim.synth import simulate_cohort
from real import data_folder

OUT, SIMULATED = Path(__file__).resolve().parent/'results', 600


def recordings(folder):
    "All real recordings of a folder of data sets that twelve leads are there of: data set, patient, record."
    for place in sorted(p for p in folder.iterdir() if p.is_dir() and p.name not in ('odd-inputs', 'wfdb-dat')):
        try: table = scan(place, progress=False).table
        except CohortError: continue  # a folder without recordings of twelve leads
        for row in table.itertuples(): yield place.name, row.patient, read_record(row.path)


def limbs_only(x): return np.r_[x[:6], np.full_like(x[6:], np.nan)]

def changes(r):
    "Name → changed signal and its rate: what happens to recordings that are passed on."
    x, fs, time_s = r.signal, r.fs, np.arange(r.n)/r.fs
    yield 'one sample cut', x[:, 1:], fs
    for start in (.77, 1, 3, 4.5): yield f'{start} s cut', x[:, round(start*fs):], fs
    yield 'first 10 s only', x[:, :round(10*fs)], fs
    yield 'steps of 5 µV', np.rint(x*200)/200, fs
    for rate in (250, 100): yield f'resampled to {rate} Hz', resample(x, fs, rate) if fs != rate else x, rate
    yield 'mains of 0.1 mV', x+.1*np.sin(2*np.pi*50*time_s).astype(np.float32), fs
    yield 'scaled by 1.02', x*1.02, fs
    yield 'band-pass 0.5 to 40 Hz', bandpass(x, fs, .5, 40), fs
    changed = resample(bandpass(x, fs, .5, 40)*1.02, fs, 100)[:, 100:] if fs != 100 else x[:, 100:]
    yield '1 s cut, band-pass, scaled, 100 Hz', changed, 100
    yield 'limb leads only', limbs_only(x), fs


def hits(records, held):
    "A row per change: recordings, how many are known again, the lowest correlation."
    found = {}
    for i, r in enumerate(records):
        for name, x, fs in changes(r): found.setdefault(name, []).append(held.correlations(beat_trace(x, fs))[i])
    return pd.DataFrame([{'what': name, 'compared': len(c), 'alike': int((np.array(c) >= ALIKE).sum()),
                          'lowest': min(c), 'highest': max(c)} for name, c in found.items()])


def pairs(found, chosen, what):
    "A row for pairs of different recordings, each counted once: both ways of comparing them, the larger correlation."
    both = np.maximum(found, found.T)[chosen & np.triu(np.ones(chosen.shape, bool), 1)]
    return {'what': what, 'compared': len(both), 'alike': int((both >= ALIKE).sum()),
            'lowest': both.min() if len(both) else np.nan, 'highest': both.max() if len(both) else np.nan}


def main():
    source, patient, records = zip(*recordings(data_folder()))
    marks = np.array([sample_mark(r.signal) for r in records])
    prints = [fingerprint(r.signal, r.fs) for r in records]
    held = Fingerprints(prints)
    start = time.perf_counter()
    found = np.array([held.correlations(beat_trace(r.signal, r.fs)) for r in records])
    print(f'{(time.perf_counter()-start)/len(records)*1e3:.1f} ms per recording, compared with {len(held)}')
    ten_s, shown = [beat_trace(r.signal[:, :round(10*r.fs)], r.fs) for r in records], Fingerprints(prints[:220])
    start = time.perf_counter()
    for trace in ten_s: shown.correlations(trace)
    print(f'{(time.perf_counter()-start)/len(records)*1e3:.1f} ms per recording of 10 s, compared with {len(shown)}')
    people = np.array([f'{s}/{p}' for s, p in zip(source, patient)])
    limbs = [limbs_only(r.signal) for r in records]
    one_lead = np.array([held.correlations(beat_trace(x, r.fs)) for x, r in zip(limbs, records)])
    twins, same = marks[:, None] == marks, people[:, None] == people
    made = Fingerprints(fingerprint(r.signal, r.fs) for r in simulate_cohort(SIMULATED, seed=0))
    across = np.array([made.correlations(beat_trace(r.signal, r.fs)) for r in records]).ravel()
    table = hits(records, held)
    low = read_record(data_folder()/'wfdb-dat'/'00001_lr.hea')
    published = held.correlations(beat_trace(low.signal, low.fs))[[r.id for r in records].index('HR00001')]
    table.loc[len(table)] = {'what': "PTB-XL's own version at 100 Hz", 'compared': 1, 'alike': int(published >= ALIKE),
                             'lowest': published, 'highest': published}
    table.loc[len(table)] = pairs(found, same & ~twins, 'different recordings of one patient')
    table.loc[len(table)] = pairs(found, ~same & ~twins, 'different recordings of different patients')
    table.loc[len(table)] = pairs(one_lead, ~same & ~twins, 'the same, limb leads only')
    table.loc[len(table)] = {'what': 'real and simulated recordings', 'compared': across.size,
                             'alike': int((across >= ALIKE).sum()), 'lowest': across.min(), 'highest': across.max()}
    table['rate'] = table.alike/table.compared
    with whole_file(OUT/'fingerprint.csv') as f: table.round(5).to_csv(f, index=False)
    print(table.round(4).to_string(index=False))
    mistaken = np.argwhere(np.triu((np.maximum(found, found.T) >= ALIKE) & ~twins, 1))
    for i, j in mistaken:
        print(source[i], records[i].id, source[j], records[j].id, f'{max(found[i, j], found[j, i]):.3f}')


if __name__ == '__main__': main()
