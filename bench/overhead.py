"""What an epoch costs beside the network: `python bench/overhead.py`, a minute of one core; table in bench/results.

One epoch of `ecg_learner`, as `train` runs it with progress bar, table and CSV log, on a memory-mapped store of 1,200
simulated recordings (1,024 train), batches of 64. Parts are timed inside the epoch (processor seconds of one thread):
the network (forward, loss, backward, optimizer, clipping of the gradient), reading of batches, augmentation, metrics;
the rest is the training loop and its log. `share` is a part of the time of the network. The allocator keeps memory.
"""
import contextlib, io, tempfile, time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.callback.training import GradientClip

from ecg_nbdev.augment import Augment
from ecg_nbdev.parallel import keep_memory
from ecg_nbdev.core import whole_file
from ecg_nbdev.data import WindowDataset, ecg_dls
from ecg_nbdev.learner import RecordMetric, ecg_learner, train_learner
from ecg_nbdev.pretrain import RECIPE
from growth import write_store

OUT = Path(__file__).resolve().parent/'results'
NETWORK = ('forward', 'loss', 'backward', 'optimizer', 'clip gradient')


class Clock:
    "Processor seconds of named functions, each without the named functions inside it."
    def __init__(self): self.spent, self.open = Counter(), []

    def wrap(self, name, f):
        "`f` with its time counted under a name."
        def timed(*args, **kwargs):
            start = time.process_time()
            self.open.append(0.)
            try: return f(*args, **kwargs)
            finally: self.count(name, time.process_time()-start)
        return timed

    def count(self, name, took):
        "Count a call that ends now, and tell the call around it."
        self.spent[name] += took-self.open.pop()
        if self.open: self.open[-1] += took

    def wrap_method(self, owner, method, name):
        "A method, or the getter of a property, with its time counted."
        found = owner.__dict__.get(method)
        if isinstance(found, property): return property(self.wrap(name, found.fget))
        return self.wrap(name, getattr(owner, method))


@contextlib.contextmanager
def swapped(owner, name, value):
    "An attribute of an object or a class replaced for a while."
    old = owner.__dict__.get(name)
    setattr(owner, name, value)
    try: yield
    finally: setattr(owner, name, old) if old is not None else delattr(owner, name)

def timed_parts(learn):
    "What is timed: (owner, method, name of the part)."
    return (
        (WindowDataset, 'batch', 'read batches'), (Augment, '__call__', 'augmentation'),
        (RecordMetric, 'accumulate', 'metrics'), (RecordMetric, 'value', 'metrics'),
        (type(learn.model), 'forward', 'forward'), (type(learn.loss_func), 'forward', 'loss'),
        (torch.Tensor, 'backward', 'backward'), (GradientClip, 'before_step', 'clip gradient'),
        (learn.opt, 'step', 'optimizer'), (learn.opt, 'zero_grad', 'optimizer'))

def one_epoch(store, split, arch, augment, log):
    "Processor seconds of each part of an epoch."
    clock, learn = Clock(), ecg_learner(ecg_dls(store, split, jitter=0), arch, augment=augment)
    learn.create_opt()
    with contextlib.ExitStack() as stack:
        for owner, method, name in timed_parts(learn):
            stack.enter_context(swapped(owner, method, clock.wrap_method(owner, method, name)))
        with contextlib.redirect_stdout(io.StringIO()): clock.wrap('loop and log', train_learner)(learn, 1, csv=log)
    return clock.spent

def epoch(store, arch, augment, log, repeats=2):
    "Processor seconds of each part of an epoch, the median of several; the first one warms up."
    split = np.where(np.arange(len(store)) < 1024, 'train', 'valid')
    found = [one_epoch(store, split, arch, augment, log) for _ in range(repeats+1)]
    return pd.DataFrame(found[1:]).median()

def rows(arch, name, spent):
    "The parts of an epoch, and all beside the network."
    network = spent[list(NETWORK)].sum()
    parts = {**spent, 'all beside the network': spent.sum()-network}
    return [{'arch': arch, 'augmentation': name, 'part': part, 'cpu_ms': 1e3*t, 'share': t/network}
            for part, t in parts.items()]

def main():
    torch.set_num_threads(1)
    keep_memory()
    tables = []
    with tempfile.TemporaryDirectory(prefix='overhead-') as folder:
        store = write_store(Path(folder)/'store', 1200)
        for arch in ('crnn', 'multilead'):
            for name, augment in (('none', None), ('scale, noise, leads', RECIPE)):
                spent = epoch(store, arch, augment, Path(folder)/'log.csv')
                tables.append(pd.DataFrame(rows(arch, name, spent)))
                print(tables[-1].round(4).to_string(index=False), flush=True)
    with whole_file(OUT/'overhead.csv') as f: pd.concat(tables).to_csv(f, index=False, float_format='%.5g')

if __name__ == '__main__': main()
