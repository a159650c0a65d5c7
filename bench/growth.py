"""Epoch time and memory as a data set grows: `python bench/growth.py`, two minutes of one core; table in bench/results.

Stores of 1,000, 4,000 and 16,000 recordings of ten seconds at 100 Hz, memory-mapped, nine tenths train and one tenth is
scored; one epoch of `crnn` in a process of its own for each. The recordings are 1,000 simulated ones, as often as it
takes: what a recording holds changes neither its time nor its place. Memory of the process at its peak in two parts:
its own (libraries' data, network, batches; kept by the allocator), and pages of mapped files (libraries, signals),
which the system takes back when it needs them.
"""
import argparse, json, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd

from ecg_nbdev.core import whole_file
from ecg_nbdev.marks import name_mark
from ecg_nbdev.signal import Preparation
from ecg_nbdev.sim.synth import simulate_cohort
from ecg_nbdev.store import STORE_VERSION, Store, shard_file
from ecg_nbdev.units import to_units

OUT, SIZES, FS = Path(__file__).resolve().parent/'results', (1000, 4000, 16000), 100


def write_rows(file, made, n):
    "Write recordings one after another, from the first again where they run out; the rows of the index."
    total = 0
    for i in range(n):
        units, labels = made[i % len(made)]
        file.write(units)
        yield {'id': f'S{i:05d}', 'patient': f'S{i:05d}', 'labels': labels, 'shard': 0, 'offset': total,
               'n_samples': units.shape[1], 'gaps': False, 'clipped': 0, 'crc': 0,
               'mark': name_mark('growth', f'S{i:05d}')}
        total += units.shape[1]

def write_store(folder, n, distinct=1000, seconds=10.):
    "A store of `n` recordings, straight from the simulator."
    folder = Path(folder)
    folder.mkdir(parents=True)
    cohort = simulate_cohort(min(n, distinct), 7, FS, seconds, balance=.5)
    made = [(to_units(r.signal)[0], ';'.join(r.labels)) for r in cohort]
    with open(shard_file(folder, 0), 'wb') as f: index = pd.DataFrame(write_rows(f, made, n))
    index.to_parquet(folder/'index.parquet')
    meta = {'version': STORE_VERSION, 'fs': float(FS), 'preparation': Preparation(fs=FS).to_dict(), 'fingerprint': ''}
    (folder/'store.json').write_text(json.dumps(meta))
    return Store(folder)


# ---- in a process of its own

def memory():
    "Megabytes of this process now: of its own, and of files it has mapped."
    status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines() if ':' in line)
    return {part: int(status[part].split()[0])/1024 for part in ('RssAnon', 'RssFile')}

def train(store, split, cbs=()):
    "An epoch of `crnn`; its loaders, its processor seconds and its seconds by the clock."
    from ecg_nbdev.data import ecg_dls
    from ecg_nbdev.learner import ecg_learner
    dls = ecg_dls(store, split)
    learn = ecg_learner(dls, 'crnn', cbs=cbs)
    clock, cpu = time.perf_counter(), time.process_time()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 3e-3)
    return dls, time.process_time()-cpu, time.perf_counter()-clock

def loading_time(dls):
    "Processor seconds of reading all batches once."
    start = time.process_time()
    for _ in dls.train: pass
    return time.process_time()-start

def peak_memory():
    "A callback that keeps the largest values of `memory`."
    from fastai.basics import Callback
    class PeakMemory(Callback):
        peak = {'RssAnon': 0, 'RssFile': 0}
        def after_batch(self): self.peak.update({k: max(v, self.peak[k]) for k, v in memory().items()})
    return PeakMemory()

def one_epoch(folder):
    "Train `crnn` for an epoch; seconds and memory as a line of JSON."
    import torch
    from ecg_nbdev.parallel import keep_memory
    torch.set_num_threads(1)
    keep_memory()
    store, watch = Store(folder), peak_memory()
    row = np.arange(len(store))
    train(store, np.where(row < 128, 'train', np.where(row < 384, 'valid', '')))  # loads libraries, warms up
    dls, cpu, clock = train(store, np.where(row % 10 == 0, 'valid', 'train'), [watch])
    print(json.dumps({
        'cpu_s': cpu, 'clock_s': clock, 'loading_cpu_s': loading_time(dls), 'signals_mb': store.nbytes/2**20,
        'own_mb': watch.peak['RssAnon'], 'mapped_mb': watch.peak['RssFile'],
        'index_mb': store.index.memory_usage(deep=True).sum()/2**20}))


# ---- in the process that measures

def measured(folder, n):
    "One epoch on `n` recordings."
    write_store(folder, n)
    command = [sys.executable, '-W', 'ignore', __file__, '--epoch', str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode: raise SystemExit(done.stderr)
    return {'records': n, **json.loads(done.stdout.splitlines()[-1])}

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--epoch', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.epoch: return one_epoch(args.epoch)
    rows = []
    with tempfile.TemporaryDirectory(prefix='growth-') as folder:
        for n in SIZES:
            rows.append(measured(Path(folder)/str(n), n))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table['exponent'] = np.polyfit(np.log(table.records), np.log(table.cpu_s), 1)[0]
    with whole_file(OUT/'growth.csv') as f: table.to_csv(f, index=False, float_format='%.5g')
    print(table.round(3).T.to_string())

if __name__ == '__main__': main()
