"""How fast answers come: `python bench/predict.py`, some minutes; table in bench/results/predict.csv.

One table, one run: what is measured, beside what, and the limit. Simulated recordings of 15 s at 500 Hz, WFDB pairs on
disk. Everything that is compared takes turns in the same process, and the smallest of several turns counts, for the
machine may be busy with other things. Times of one core are processor seconds; `two cores` and `shell` are by the clock,
and beside them stands what the processor spent.

- `file`: from a path to its answer by the shipped model, loaded, on one thread; onnxruntime, and torch as its peer.
- `files`: `answer_rows` from files to answers, two threads; recordings a second.
- `shell`: `ecg-predict FILE` against `python -c 'import torch'`.
- `read`: `read_record` against `wfdb.rdrecord` and a bare `numpy.fromfile` of the samples, each over all files.
- `explain`: `explain_record`, one thread.
- `same`: the largest difference between the probabilities of the two programs.
"""
import os
os.environ['OMP_NUM_THREADS'] = '1'
import resource, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import wfdb

from ecg_nbdev.answers import answer_rows
from ecg_nbdev.bundle import load_pretrained
from ecg_nbdev.core import whole_file
from ecg_nbdev.explain import explain_record
from ecg_nbdev.parallel import keep_memory
from ecg_nbdev.records import read_record, write_record
from ecg_nbdev.sim.synth import cohort_record

OUT = Path(__file__).resolve().parent/'results'
FILES, SECONDS = 60, 15


def write_files(folder):
    "Headers of simulated recordings."
    from dataclasses import replace
    made = (replace(cohort_record(i, 11, seconds=SECONDS), id=f'S{i:05d}') for i in range(FILES))
    return [write_record(record, folder) for record in made]

def turns(ways, n, clock=time.process_time):
    "The smallest time of each way, s; they take turns."
    spent = {name: [] for name in ways}
    for _ in range(n):
        for name, way in ways.items():
            start = clock()
            way()
            spent[name].append(clock()-start)
    return {name: min(values) for name, values in spent.items()}

def row(what, value, unit, limit, fewer=True, **beside):
    "A line of the table: value, limit, whether it holds, and what it was compared with."
    return {'what': what, 'value': value, 'unit': unit, 'limit': f'{"≤" if fewer else "≥"} {limit}',
            'holds': value <= limit if fewer else value >= limit,
            'beside': '; '.join(f'{name.replace("_", " ")} {v:.4g}' for name, v in beside.items())}


def one_file(light, full, paths):
    spent = turns({'light': lambda: light.answers(paths[0]), 'torch': lambda: full.answers(paths[0])}, 25)
    ms = {name: 1000*s for name, s in spent.items()}
    return [row('one file of 15 s, one core', ms['light'], 'ms', 8, torch_ms=ms['torch'])]

def many_files(light, full, paths, n=3):
    "Recordings a second on two threads, and what the processor spends on each."
    def failed(error): raise error
    best, cpu = 0, np.inf
    for _ in range(n):
        start, before = time.perf_counter(), time.process_time()
        list(answer_rows(paths, light, failed))
        best = max(best, len(paths)/(time.perf_counter()-start))
        cpu = min(cpu, (time.process_time()-before)/len(paths))
    return [row('files to answers, two cores', best, 'recordings/s', 300, fewer=False, load=os.getloadavg()[0]),
            row('the same, two cores that do nothing else', 2/cpu, 'recordings/s', 300, fewer=False, ms_each=1000*cpu)]

def run(command):
    "Seconds by the clock, and of the processor, of a process."
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime+after.ru_stime-before.ru_utime-before.ru_stime
    return time.perf_counter()-start, spent

def from_shell(paths, n=3):
    ways = {'predict': [str(Path(sys.executable).parent/'ecg-predict'), str(paths[0])],
            'torch': [sys.executable, '-c', 'import torch']}
    found = {name: [] for name in ways}
    for _ in range(n):
        for name, command in ways.items(): found[name].append(run(command))
    (clock, cpu), (clock_torch, cpu_torch) = (np.min(found[name], axis=0) for name in ('predict', 'torch'))
    return [row('ecg-predict FILE / import torch, clock', clock/clock_torch, 'ratio', .67, predict_s=clock, torch_s=clock_torch),
            row('ecg-predict FILE / import torch, processor', cpu/cpu_torch, 'ratio', .67, predict_s=cpu, torch_s=cpu_torch)]

def reading(paths, n=5):
    "Each way reads all files, one after the other."
    some = paths[:60]
    signals = [path.with_suffix('.mat') for path in some]
    spent = turns({
        'ours': lambda: [read_record(path) for path in some],
        'wfdb': lambda: [wfdb.rdrecord(str(path.with_suffix(''))) for path in some],
        'fromfile': lambda: [np.fromfile(path, '<i2') for path in signals]}, n)
    ms = {name: 1000*s/len(some) for name, s in spent.items()}
    return [row('wfdb.rdrecord / read_record', ms['wfdb']/ms['ours'], 'ratio', 20, fewer=False,
                wfdb_ms=ms['wfdb'], read_record_ms=ms['ours']),
            row('read_record / numpy.fromfile', ms['ours']/ms['fromfile'], 'ratio', 5, fromfile_ms=ms['fromfile'])]

def explaining(full, paths, n=3):
    records = [read_record(path) for path in paths[:n]]
    explain_record(full, records[0]) # loads captum
    spent = [turns({'explain': lambda: explain_record(full, record)}, 2)['explain'] for record in records]
    return [row('explain_record, one core, mean', float(np.mean(spent)), 's', 1, longest_s=max(spent))]

def same(light, full, paths):
    one, two = (model.predict(paths) for model in (light, full))
    classes = list(full.classes)
    distance = float(np.abs(one[classes].to_numpy()-two[classes].to_numpy()).max())
    return [row('probabilities of onnxruntime less those of torch', distance, 'largest', 1e-4,
                same_labels=(one.labels == two.labels).mean())]


def main():
    keep_memory() # as the commands do
    torch.set_num_threads(1)
    light, full = load_pretrained(light=True), load_pretrained()
    with tempfile.TemporaryDirectory(prefix='predict-') as folder:
        paths = write_files(folder)
        table = pd.DataFrame([*one_file(light, full, paths), *many_files(light, full, paths), *from_shell(paths),
                              *reading(paths), *explaining(full, paths), *same(light, full, paths[:40])])
    with whole_file(OUT/'predict.csv') as f: table.to_csv(f, index=False, float_format='%.4g')
    print(table.round(4).to_string(index=False))

if __name__ == '__main__': main()
