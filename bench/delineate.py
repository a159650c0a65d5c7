"""How well intervals are measured: `ecg_nbdev.measurements` and two delineation libraries beside what is known.

Simulated recordings of the nine classes, whose intervals the simulator knows: bias and standard deviation of what was
measured less what is true, and the share that was measured. With ECG_DATA, also the recordings in its folder `formats`
that carry their machine's own measurements. Writes bench/results/delineate.csv and delineate_real.csv.

The libraries are no part of the project: pip install --target LIB --no-deps neurokit2==0.2.13 ecgdeli==1.0.0
pywavelets requests, and put LIB on PYTHONPATH. (neurokit2 asks for pandas below 3, this project's is 3; ecgdeli has the
licence GPL-3.) One that can't be imported is left out.
"""
import argparse, os, re, time, warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ecg_nbdev.core import CLASSES, LEADS, Record, whole_file
from ecg_nbdev.measurements import measure
from ecg_nbdev.records import read_record
from ecg_nbdev.sim.synth import compose_signal

RESULTS = Path(__file__).resolve().parent/'results'
MEASURES = {'pr': 'ms', 'qrs': 'ms', 'qt': 'ms', 'rate': 'beats/min'}
warnings.filterwarnings('ignore')


# ---- what is true

def truth(beats, heart, seconds):
    "PR, QRS, QT in ms and the rate of the commonest kind of beat, as the simulator drew them."
    inside = (beats.qrs > 0) & (beats.qrs < seconds)
    kind = np.bincount(beats.kind[inside]).argmax()
    of, end = inside & (beats.kind == kind), heart.shapes[kind].end
    qt = np.clip(heart.qtc*np.cbrt(np.clip(beats.rr[of], .3, 1.6)), .24, .56)*(1.1 if end > .12 else 1)
    recover = np.maximum(qt-end, .16)+.5*max(end-.1, 0)
    pr = (beats.qrs-beats.p)[of]
    return {'pr': 1000*np.nanmedian(pr) if np.isfinite(pr).any() else np.nan, 'qrs': 1000*end,
            'qt': 1000*(end+np.median(recover)), 'rate': 60/np.diff(np.sort(beats.qrs[inside])).mean()}

def simulated(n, seed):
    "(class, recording of 10 s at 500 Hz, what is true of it), the nine classes in turn."
    for i in range(n):
        rng, name = np.random.default_rng([seed, i]), CLASSES[i%len(CLASSES)]
        signal, beats, heart = compose_signal(rng, (name,), 10., 500., float(rng.integers(25, 85)), rng.choice(['F', 'M']))
        yield name, Record(signal, 500., f'{name}-{i}'), truth(beats, heart, 10.)


# ---- who measures

def ours(record):
    m = measure(record)
    return {name: getattr(m, name) for name in MEASURES}

def between(start, stop, fs):
    "The median interval between moments of the same beats, ms; NaN where fewer than two are known."
    gaps = (np.asarray(stop, float)-np.asarray(start, float))/fs*1000
    gaps = gaps[np.isfinite(gaps) & (gaps > 0)]
    return np.median(gaps) if len(gaps) > 1 else np.nan

def neurokit(record, method='dwt', lead='II'):
    import neurokit2 as nk
    fs = round(record.fs)
    x = nk.ecg_clean(record.signal[LEADS.index(lead)].astype(float), sampling_rate=fs)
    peaks = nk.ecg_peaks(x, sampling_rate=fs)[1]['ECG_R_Peaks']
    found = {'rate': 60*fs/np.diff(peaks).mean()}
    waves = nk.ecg_delineate(x, peaks, sampling_rate=fs, method=method)[1]
    p, on, off, end = (waves.get(f'ECG_{name}', []) for name in ('P_Onsets', 'R_Onsets', 'R_Offsets', 'T_Offsets'))
    return found | {'pr': between(p, on, fs), 'qrs': between(on, off, fs), 'qt': between(on, end, fs)}

def ecgdeli(record):
    import ecgdeli as library
    x = library.filter_ecg(record.signal.T.astype(float), fs=record.fs)
    p, on, r, off, end = library.annotate(x, fs=record.fs).consensus.samples[:, [0, 3, 5, 7, 11]].T
    return {'rate': 60*record.fs/np.nanmean(np.diff(r)), 'pr': between(p, on, record.fs),
            'qrs': between(on, off, record.fs), 'qt': between(on, end, record.fs)}

METHODS = {'ecg_nbdev': ours, 'neurokit2, lead II': neurokit, 'ecgdeli': ecgdeli}

@cache
def available():
    "The methods whose library can be imported."
    found = {}
    for name, method in METHODS.items():
        try: __import__(name.split(',')[0].replace('ecg_nbdev', 'ecg_nbdev.measurements'))
        except ImportError: print(f'{name}: not installed, left out')
        else: found[name] = method
    return found

def measured(method, record):
    "What a method measures, and how long it takes, s; nothing where it fails."
    start = time.perf_counter()
    try: found = method(record)
    except Exception: found = {}
    return {name: float(np.nan if found.get(name) is None else found[name]) for name in MEASURES} | {'seconds': time.perf_counter()-start}


# ---- tables

def compare(n, seed, few):
    "A row per recording and method: class, what was measured, what is true; libraries measure the first `few` only."
    rows, methods = [], available()
    for i, (name, record, true) in enumerate(simulated(n, seed)):
        for method, function in methods.items():
            if i >= few and method != 'ecg_nbdev': continue
            rows.append({'method': method, 'class': name, **measured(function, record),
                         **{f'true {m}': v for m, v in true.items()}})
    return pd.DataFrame(rows)

def errors(table):
    "A row per method and measure: bias, standard deviation, 90 % of the errors, share measured."
    rows = []
    for (method, measure_name), part in ((k, p) for m, g in table.groupby('method', sort=False)
                                         for k, p in (((m, name), g) for name in MEASURES)):
        true, got = part[f'true {measure_name}'], part[measure_name]
        error = (got-true)[true.notna()]
        # where there is no P wave, as in atrial fibrillation, there is no PR to be found
        none = got[true.isna()]
        rows.append({'method': method, 'measure': measure_name, 'unit': MEASURES[measure_name], 'recordings': len(error),
                     'bias': error.mean(), 'sd': error.std(), 'median error': error.median(),
                     '90 % within': (error-error.median()).abs().quantile(.9), 'measured': error.notna().mean(),
                     'measured without there being one': none.notna().mean() if len(none) else np.nan,
                     'ms a recording': 1000*part.seconds.median()})
    return pd.DataFrame(rows)


# ---- machines' own measurements

PATTERNS = { # measure → how files say it: GE MUSE, Philips, CardioSoft; HL7 aECG
    'pr': r'<(?:PRInterval|PQInterval|meanprint|print)\b[^>]*>(\d+)<|PD_PR".{,300}?value="(\d+)"',
    'qrs': r'<(?:QRSDuration|meanqrsdur|qrsdur)\b[^>]*>(\d+)<|PD_QRS".{,300}?value="(\d+)"',
    'qt': r'<(?:QTInterval|meanqtint|qtint)\b[^>]*>(\d+)<|PD_QT".{,300}?value="(\d+)"',
    'rate': r'<(?:VentricularRate|meanventrate|heartrate)\b[^>]*>(\d+)<|HEART_RATE".{,300}?value="(\d+)"'}

def of_machine(path):
    "The global measurements in an XML file; NaN where it says none."
    raw = path.read_bytes()
    text = raw.decode('utf-16' if raw[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8', 'replace')
    text = text[max(0, text.find('<globalmeasurements')):]
    found = {name: re.search(pattern, text, re.S) for name, pattern in PATTERNS.items()}
    return {name: float(next(filter(None, m.groups()))) if m else np.nan for name, m in found.items()}

def real(folder):
    "A row per file and measure: what the machine says, and each method."
    rows, seen = [], set()
    for path in sorted(p for p in folder.rglob('*') if p.suffix.lower() == '.xml'):
        said = of_machine(path)
        if not sum(np.isfinite(v) for v in said.values()) > 1: continue
        try: record = read_record(path, missing='nan')
        except Exception as e: print(f'{path.name}: {e}'); continue
        if (key := record.signal.tobytes()) in seen: continue
        seen.add(key)
        each = {name: measured(function, record) for name, function in available().items()}
        rows += [{'file': f'{path.parent.name}/{path.name}', 'measure': m, 'machine': said[m], **{k: v[m] for k, v in each.items()}}
                 for m in MEASURES]
    return pd.DataFrame(rows)

def main():
    "Both tables."
    arguments = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    arguments.add_argument('--n', type=int, default=207, help='simulated recordings')
    arguments.add_argument('--few', type=int, default=207, help='of them, that the libraries measure, too')
    arguments.add_argument('--seed', type=int, default=12)
    told = arguments.parse_args()
    table = errors(compare(told.n, told.seed, told.few))
    print(table.round(2).to_string(index=False))
    with whole_file(RESULTS/'delineate.csv') as f: table.round(3).to_csv(f, index=False)
    if 'ECG_DATA' not in os.environ: return
    table = real(Path(os.environ['ECG_DATA'])/'formats')
    print(table.round(0).to_string(index=False))
    with whole_file(RESULTS/'delineate_real.csv') as f: table.round(1).to_csv(f, index=False)

if __name__ == '__main__': main()
