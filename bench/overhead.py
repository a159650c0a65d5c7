"""What an epoch costs beside the network: `python bench/overhead.py`, a minute of one core; table in bench/results.

One epoch of `ecg_learner`, as `train` runs it with progress bar, table and CSV log, on a memory-mapped store of 1,200 simulated recordings (1,024 train), batches of 64. Parts are timed inside the epoch (processor seconds of one thread):
the network (forward, loss, backward, optimizer, clipping of the gradient), reading of batches, augmentation, metrics; the rest is the training loop and its log. `share` is a part of the time of the network.
"""
import contextlib, io, tempfile, time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.callback.training import GradientClip

from growth import write_store
from ecg_nbdev.augment import Augment
from ecg_nbdev.core import whole_file
from ecg_nbdev.data import WindowDL, WindowDataset, ecg_dls
from ecg_nbdev.learner import RecordMetric, ecg_learner, train_learner
from ecg_nbdev.pretrain import RECIPE

OUT = Path(__file__).resolve().parent/'results'
NETWORK = ('forward', 'loss', 'backward', 'optimizer', 'clip gradient')


class Clock:
    "Processor seconds of named functions, each without the named functions inside it."
    def __init__(self): self.spent, self.open = Counter(), []
    def wrap(self, name, f):
        def timed(*args, **kwargs):
            start = time.process_time(); self.open.append(0.)
            try: return f(*args, **kwargs)
            finally:
                took = time.process_time()-start
                self.spent[name] += took-self.open.pop()
                if self.open: self.open[-1] += took
        return timed


def epoch(store, arch, augment, log, repeats=2):
    "Processor seconds of each part of an epoch, the median of several."
    split = np.where(np.arange(len(store)) < 1024, 'train', 'valid')
    found = []
    for _ in range(repeats+1):
        clock, learn = Clock(), ecg_learner(ecg_dls(store, split, jitter=0), arch, augment=augment)
        wrap = lambda owner, method, name: stack.enter_context(swapped(owner, method, clock.wrap(name, getattr(owner, method))))
        with contextlib.ExitStack() as stack:
            for owner, method, name in ((WindowDataset, 'batch', 'read batches'), (Augment, '__call__', 'augmentation'), (RecordMetric, 'accumulate', 'metrics'), (RecordMetric, 'value', 'metrics'),
                                        (type(learn.model), 'forward', 'forward'), (type(learn.loss_func), 'forward', 'loss'), (torch.Tensor, 'backward', 'backward'), (GradientClip, 'before_step', 'clip gradient')):
                if isinstance(owner.__dict__.get(method), property): stack.enter_context(swapped(owner, method, property(clock.wrap(name, owner.__dict__[method].fget))))
                else: wrap(owner, method, name)
            learn.create_opt(); wrap(learn.opt, 'step', 'optimizer'); wrap(learn.opt, 'zero_grad', 'optimizer')
            with contextlib.redirect_stdout(io.StringIO()): clock.wrap('loop and log', train_learner)(learn, 1, csv=log)
        found.append(clock.spent)
    return pd.DataFrame(found[1:]).median()


@contextlib.contextmanager
def swapped(owner, name, value):
    old = owner.__dict__.get(name)
    setattr(owner, name, value)
    try: yield
    finally: setattr(owner, name, old) if old is not None else delattr(owner, name)


def main():
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory(prefix='overhead-') as folder:
        store = write_store(Path(folder)/'store', 1200)
        for arch in ('crnn', 'multilead'):
            for name, augment in (('none', None), ('scale, noise, leads', RECIPE)):
                spent = epoch(store, arch, augment, Path(folder)/'log.csv')
                network = spent[list(NETWORK)].sum()
                rows += [{'arch': arch, 'augmentation': name, 'part': part, 'cpu_ms': 1e3*t, 'share': t/network} for part, t in spent.items()]
                rows += [{'arch': arch, 'augmentation': name, 'part': 'all beside the network', 'cpu_ms': 1e3*(spent.sum()-network), 'share': spent.sum()/network-1}]
                print(pd.DataFrame(rows[-len(spent)-1:]).round(4).to_string(index=False), flush=True)
    with whole_file(OUT/'overhead.csv') as f: pd.DataFrame(rows).to_csv(f, index=False, float_format='%.5g')

if __name__ == '__main__': main()
