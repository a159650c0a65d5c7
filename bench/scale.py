"""What training, ingest, prediction and simulation cost, and what a second process brings: `python bench/scale.py`.

Ten minutes of two cores; tables in bench/results. Each kind of work is done by one process and by two, in turn.
`epoch`: the training steps of `crnn` at 128 windows of ten seconds a step, by one process or by two that share each
step (gloo on loopback); `ingest`, `predict`, `synth`: by one process or by a dask scheduler with two workers of one
thread. Start-up of processes is not counted. `cpu_s` is processor time of all processes together, which other work on
the machine changes little; `clock_s` is time by the clock, which it lengthens. Of several repetitions the shortest
counts. `efficiency`: processor time of one process by that of two; on cores of their own two processes are twice that
many times as fast, waiting apart. `items` are recordings, or windows for an epoch. `scale_losses.csv` holds the losses
of both trainings, step by step.
"""
import json, os, shutil, socket, subprocess, sys, tempfile, time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from ecg_nbdev.answers import answer_parts, find_model
from ecg_nbdev.cohort import scan
from ecg_nbdev.core import whole_file
from ecg_nbdev.packing import build_store
from ecg_nbdev.signal import Preparation
from ecg_nbdev.simulated_set import synth_run

OUT, N, REPEATS, SECONDS = Path(__file__).resolve().parent/'results', 120, 2, 10.
ENV = {**os.environ, 'OMP_NUM_THREADS': '1'}

# ---- training, in processes of their own

def train(store, processes, epochs=3):
    "Seconds of an epoch's training steps, by the clock and of the processor, peak memory in MB, the loss of each step."
    import resource
    import torch
    from fastai.basics import Callback
    from ecg_nbdev.data import ecg_dls
    from ecg_nbdev.learner import ecg_learner, train_learner
    from ecg_nbdev.parallel import keep_memory
    from ecg_nbdev.store import Store
    torch.set_num_threads(1)
    keep_memory()
    class Clock(Callback):
        order, clock, cpu = 1, [], []
        def before_train(self): self.start = time.perf_counter(), time.process_time()
        def after_train(self):
            self.clock.append(time.perf_counter()-self.start[0])
            self.cpu.append(time.process_time()-self.start[1])
    def fit(cbs=()):
        dls = ecg_dls(store, np.where(np.arange(len(store)) % 10 == 0, 'valid', 'train'), SECONDS, SECONDS/4, 128,
                      jitter=SECONDS/4)
        learn, clock = ecg_learner(dls, cbs=cbs, dropout=0., lead_dropout=0.), Clock()
        learn.add_cb(clock)
        train_learner(learn, epochs, 1e-3, show=False)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
        return {'windows': len(dls.train.dataset), 'clock_s': min(clock.clock[1:]), 'cpu_s': min(clock.cpu[1:]), 'peak_mb': peak,
                'losses': [float(x) for x in learn.recorder.losses]}
    store = Store(store)
    if processes == 1: return fit()
    from ecg_nbdev.ranks import ShareFit, joined
    with joined() as ranks:
        ranks.tell(None)
        return fit([ShareFit(ranks)])

def trained(store, processes):
    "What the ranks measured: processor time of all together, the rest of rank 0."
    with socket.create_server(('127.0.0.1', 0)) as s: port = s.getsockname()[1]
    command = [sys.executable, '-W', 'ignore', __file__, str(store), str(processes)]
    def started(rank):
        group = {'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
        return subprocess.Popen(command, env={**ENV, **(group if processes > 1 else {})}, stdout=subprocess.PIPE, text=True)
    running = [started(rank) for rank in range(processes)]
    said = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running): raise SystemExit('training failed')
    told = [json.loads(text.splitlines()[-1]) for text in said]
    return {**told[0], 'cpu_s': sum(t['cpu_s'] for t in told)}


# ---- the rest, here or on a cluster

@contextmanager
def cluster(folder):
    "The address of a scheduler with two workers, and what tells their processor time."
    def started(*args): return subprocess.Popen([Path(sys.executable).parent/'dask', *args], env=ENV, cwd=folder, stderr=subprocess.DEVNULL)
    here = '--scheduler-file', str(folder/'scheduler.json')
    running = [started('scheduler', *here, '--port', '0', '--no-dashboard', '--host', '127.0.0.1')]
    running += [started('worker', *here, '--no-nanny', '--nthreads', '1', '--no-dashboard') for _ in range(2)]
    try:
        while not (folder/'scheduler.json').exists() or not (held := (folder/'scheduler.json').read_text()): time.sleep(.1)
        address = json.loads(held)['address']
        from distributed import Client
        with Client(address) as client: client.wait_for_workers(2)
        yield address, lambda: sum(sum(psutil.Process(worker.pid).cpu_times()[:2]) for worker in running)
    finally:
        for process in running: process.kill()

def clocked(work, where, others):
    "Seconds by the clock, and of the processor, here and in workers."
    clock, cpu = time.perf_counter(), time.process_time()+others()
    work(where)
    return time.perf_counter()-clock, time.process_time()+others()-cpu

def size(folder): return sum(f.stat().st_size for f in Path(folder).rglob('*') if f.is_file())/1e6

def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    return folder

def measured(folder, address, others):
    "Kind of work → seconds of one process and of two, the shortest of several; and sizes in MB."
    table = scan(synth_run(folder/'data', N, 0)).table
    paths, model = list(map(Path, table.path)), find_model(light=True)
    def ingest(where): build_store(table, fresh(folder/'store'), Preparation(fs=100), where or 1, progress=False)
    def predict(where): answer_parts(fresh(folder/'parts'), paths, model, print, show=False, size=N, cluster=where)
    def synth(where): synth_run(fresh(folder/'synth'), 40, 0, cluster=where)
    kinds = {'ingest': (ingest, N), 'predict': (predict, N), 'synth': (synth, 40)}
    synth(address), ingest(address), predict(address) # workers load what they need
    times = {}
    for _ in range(REPEATS):
        for kind, (work, n) in kinds.items():
            for processes, where in ((1, None), (2, address)):
                times.setdefault((kind, processes, n), []).append(clocked(work, where, others))
    return times, {'ingest': size(folder/'store')/N, 'synth': size(folder/'synth')/40}, (table.n_samples/table.fs).sum()/N

def main():
    if len(sys.argv) == 3: return print(json.dumps(train(sys.argv[1], int(sys.argv[2]))))
    with tempfile.TemporaryDirectory(prefix='scale-') as folder:
        folder = Path(folder)
        with cluster(folder) as (address, others): times, disk, seconds = measured(folder, address, others)
        runs = {1: [], 2: []}
        for _ in range(REPEATS):
            for n, held in runs.items(): held.append(trained(folder/'store', n))
    losses = pd.DataFrame({f'{n} processes': runs[n][0]['losses'] for n in (1, 2)}).rename_axis('step')
    rows = [{'work': kind, 'processes': p, 'items': n, 'clock_s': min(t)[0], 'cpu_s': min(c for _, c in t),
             'mb_per_recording': disk.get(kind)} for (kind, p, n), t in times.items()]
    rows += [{'work': 'epoch', 'processes': n, 'items': held[0]['windows'], 'peak_mb': max(r['peak_mb'] for r in held),
              **{name: min(r[name] for r in held) for name in ('clock_s', 'cpu_s')}} for n, held in runs.items()]
    table = pd.DataFrame(rows).assign(mean_length_s=seconds)
    one = table[table.processes == 1].set_index('work')
    table['efficiency'] = table.work.map(one.cpu_s)/table.cpu_s
    table['times_as_fast'] = table.work.map(one.clock_s)/table.clock_s
    for name, held in (('scale.csv', table), ('scale_losses.csv', losses.reset_index())):
        with whole_file(OUT/name) as f: held.to_csv(f, index=False, float_format='%.5g')
    print(table.round(4).to_string())
    print('largest difference of losses:', losses.diff(axis=1).abs().max().iloc[-1])

if __name__ == '__main__': main()
