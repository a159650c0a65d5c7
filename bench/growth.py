"""Epoch time and memory as a data set grows: `python bench/growth.py`, two minutes of one core; table in bench/results.

Stores of 1,000, 4,000 and 16,000 recordings of ten seconds at 100 Hz, memory-mapped, nine tenths train and one tenth is scored; one epoch of `crnn` in a process of its own for each. The recordings are 1,000 simulated ones,
as often as it takes: what a recording holds changes neither its time nor its place. Memory of the process at its peak in two parts: its own (libraries' data, network, batches), and pages of mapped files (libraries, signals), which the system takes back when it needs them.
"""
import argparse, json, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd

from ecg_nbdev.core import whole_file
from ecg_nbdev.store import STORE_VERSION, Store, to_units
from ecg_nbdev.sim.synth import simulate_cohort

OUT, SIZES, FS = Path(__file__).resolve().parent/'results', (1000, 4000, 16000), 100


def write_store(folder, n, distinct=1000, seconds=10.):
    "A store of `n` recordings, straight from the simulator."
    folder = Path(folder); folder.mkdir(parents=True)
    made = [(to_units(r.signal)[0], ';'.join(r.labels)) for r in simulate_cohort(min(n, distinct), 7, FS, seconds, balance=.5)]
    rows, total = [], 0
    with open(folder/'signal.i16', 'wb') as f:
        for i in range(n):
            units, labels = made[i % len(made)]
            f.write(units.tobytes())
            rows.append({'id': f'S{i:05d}', 'patient': f'S{i:05d}', 'labels': labels, 'offset': total, 'n_samples': len(units), 'clipped': 0, 'crc': 0})
            total += len(units)
    pd.DataFrame(rows).to_parquet(folder/'index.parquet')
    (folder/'store.json').write_text(json.dumps({'version': STORE_VERSION, 'fs': float(FS), 'tag': '', 'samples': total, 'fingerprint': ''}))
    return Store(folder)


def memory():
    "Megabytes of this process now: of its own, and of files it has mapped."
    status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines() if ':' in line)
    return {part: int(status[part].split()[0])/1024 for part in ('RssAnon', 'RssFile')}


def one_epoch(folder):
    "Train `crnn` for an epoch; seconds and memory."
    import torch
    from fastai.basics import Callback
    from ecg_nbdev.data import ecg_dls
    from ecg_nbdev.learner import ecg_learner
    torch.set_num_threads(1)
    store = Store(folder)
    class Watch(Callback):
        peak = {'RssAnon': 0, 'RssFile': 0}
        def after_batch(self): self.peak.update({k: max(v, self.peak[k]) for k, v in memory().items()})
    small = ecg_dls(store, np.where(np.arange(len(store)) < 128, 'train', np.where(np.arange(len(store)) < 384, 'valid', '')))
    fit = lambda dls, cbs=(): ecg_learner(dls, 'crnn', cbs=cbs)
    with (first := fit(small)).no_bar(), first.no_logging(): first.fit_one_cycle(1, 3e-3)  # loads the libraries, warms the allocator up
    dls = ecg_dls(store, np.where(np.arange(len(store)) % 10 == 0, 'valid', 'train'))
    learn = fit(dls, [Watch()])
    clock, cpu = time.perf_counter(), time.process_time()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 3e-3)
    cpu, clock = time.process_time()-cpu, time.perf_counter()-clock
    loading = time.process_time()
    for _ in dls.train: pass
    index = store.index.memory_usage(deep=True).sum()/2**20
    print(json.dumps({'cpu_s': cpu, 'clock_s': clock, 'loading_cpu_s': time.process_time()-loading, 'signals_mb': store.units.nbytes/2**20, 'own_mb': Watch.peak['RssAnon'], 'mapped_mb': Watch.peak['RssFile'], 'index_mb': index}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--epoch', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.epoch: return one_epoch(args.epoch)
    rows = []
    with tempfile.TemporaryDirectory(prefix='growth-') as folder:
        for n in SIZES:
            write_store(Path(folder)/str(n), n)
            done = subprocess.run([sys.executable, '-W', 'ignore', __file__, '--epoch', str(Path(folder)/str(n))], capture_output=True, text=True)
            if done.returncode: raise SystemExit(done.stderr)
            rows.append({'records': n, **json.loads(done.stdout.splitlines()[-1])})
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table['exponent'] = np.polyfit(np.log(table.records), np.log(table.cpu_s), 1)[0]
    with whole_file(OUT/'growth.csv') as f: table.to_csv(f, index=False, float_format='%.5g')
    print(table.round(3).T.to_string())

if __name__ == '__main__': main()
