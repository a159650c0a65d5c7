"""The stages of the study and their order; processes that run it at the same time take different fits."""
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout

from baselines import save
from ecg_nbdev.augment import Augment
from ecg_nbdev.data import WindowDL, WindowDataset, make_targets
from ecg_nbdev.labels import label_states
from ecg_nbdev.learner import predict_records
from ecg_nbdev.losses import create_loss
from ecg_nbdev.pretrain import RECIPE, finetune
from shipped.stream import kept_store
from .fits import Fit, predict, read_log, signals_of, step, train


@dataclass(frozen=True, eq=False)
class Held:
    "Simulated recordings that no network learns from."
    x:np.ndarray # (n, 12, 1000) mV
    truth:np.ndarray # (n, 9) bool
    known:np.ndarray # (n, 9) bool

    @classmethod
    def of(cls, store): return cls(signals_of(store, np.arange(len(store))), *label_states(store.index))

def held_store(plan, number):
    "Simulated recordings with a number outside the stream's."
    return kept_store(plan.runs/'held'/f'{number}-{plan.held}.npy', plan.held, number)


@contextmanager
def claimed(path):
    "Whether this process may work on a file now; no other one does meanwhile."
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f'{path}.lock')
    try: lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try: yield True
    finally: lock.release()


class Stages:
    "Search, final fits, predictions, leave one data set out; each goes on with what is kept."
    def __init__(self, plan, stream, real):
        self.plan, self.stream, self.real = plan, stream, real

    @cached_property
    def choosing(self): return Held.of(held_store(self.plan, 700_000))

    @cached_property
    def reporting(self): return Held.of(held_store(self.plan, 700_001))

    def searches(self, network): return [Fit(network, lr, 0, self.plan.search) for lr in self.plan.rates]

    def rate(self, network):
        "The learning rate with the best score on the choosing recordings; None while one is missing."
        fits = self.searches(network)
        if any(f.done(self.plan.runs) < f.epochs for f in fits): return None
        return max(fits, key=lambda f: read_log(f.path(self.plan.runs))[-1]['auroc']).lr

    def finals(self):
        "Final fits whose rate has been chosen, every network's first seed before the second."
        rates = {n: self.rate(n) for n in self.plan.networks}
        return [Fit(n, rates[n], s, self.plan.epochs) for s in self.plan.seeds for n in self.plan.networks if rates[n]]

    def fit_all(self, fits):
        "Finish fits that no other process works on."
        for fit in fits:
            with claimed(fit.path(self.plan.runs)) as mine:
                if mine and fit.done(self.plan.runs) < fit.epochs: train(fit, self.stream, self.choosing, self.plan)

    def network(self, fit):
        "The network of a finished fit."
        return train(fit, self.stream, self.choosing, self.plan, most=0)[0]

    def predicted(self, fit):
        "The file with what a finished fit says of the reporting simulated and of the real recordings; written once."
        path = self.plan.runs/'predicted'/(fit.path(self.plan.runs).stem+'.npz')
        if not path.exists():
            model = self.network(fit)
            real = predict_records(model, WindowDL(self.real.windows, bs=128))
            save(path, simulated=predict(model, self.reporting.x), real=real)
        return np.load(path)

    def best(self, count=2):
        "The networks best on the choosing recordings, mean over seeds; and the one that ships."
        mean = {}
        for fit in self.finals():
            if fit.done(self.plan.runs) == fit.epochs:
                mean.setdefault(fit.network, []).append(read_log(fit.path(self.plan.runs))[-1]['auroc'])
        order = sorted(mean, key=lambda n: -np.mean(mean[n]))
        return list(dict.fromkeys([*order[:count], *(n for n in ('crnn, shipped',) if n in mean)]))

    def without(self, fit, source):
        "What a network tuned on the other data sets says of one; kept."
        path = self.plan.runs/'without'/f'{fit.path(self.plan.runs).stem}-{source}.npz'
        with claimed(path) as mine:
            if mine and not path.exists():
                rows, asked = (np.flatnonzero(self.real.source != source), np.flatnonzero(self.real.source == source))
                learn = finetune(self.network(fit), self.real.store, rows, asked[:1], seed=fit.seed)
                windows = WindowDataset(self.real.store, asked, np.zeros(len(asked)), 1000)
                save(path, real=predict_records(learn.model, WindowDL(windows, bs=128)), rows=asked)
                print(f'{fit.network}, seed {fit.seed}: tuned without {source}', flush=True)
        return np.load(path) if path.exists() else None

    def run(self):
        "All stages."
        self.fit_all(f for n in self.plan.networks for f in self.searches(n))
        self.fit_all(self.finals())
        done = [f for f in self.finals() if f.done(self.plan.runs) == f.epochs]
        for fit in done: self.predicted(fit)
        if len(done) < len(self.plan.networks)*len(self.plan.seeds): return  # another process still trains
        for fit in done:
            if fit.network in self.best():
                for source in np.unique(self.real.source): self.without(fit, source)


# ---- what it costs

def step_seconds(network, store, plan, repeats=2):
    "Processor seconds of a training step, the median of some; parameters."
    model, optimizer = Fit(network, 1e-3, 0, 1).new()
    rows, took = np.arange(plan.batch) % len(store), []
    target, augment = torch.as_tensor(make_targets(store.index))[rows], Augment(RECIPE, 0)
    for _ in range(repeats+1):
        start = time.process_time()
        step(model, optimizer, create_loss('bce'), *augment(torch.from_numpy(signals_of(store, rows)), target))
        took.append(time.process_time()-start)
    return float(np.median(took[1:])), sum(p.numel() for p in model.parameters())

def cost(plan, store):
    "What each network costs, processor hours; `left` counts what is not kept yet."
    rows, steps = [], plan.n//plan.batch
    for network in plan.networks:
        second, parameters = step_seconds(network, store, plan)
        print(f'{network}: {second:.2f} s a step of {plan.batch} windows', flush=True)
        epoch = steps*second/3600
        search = len(plan.rates)*plan.search*epoch
        kept = sum(len(read_log(p)) for p in fits_of(plan, network))
        final = len(plan.seeds)*plan.epochs*epoch
        rows.append({'network': network, 'parameters': parameters, 'seconds a step': second, 'search': search,
                     'final': final, 'left': search+final-kept*epoch})
    return pd.DataFrame(rows)

def fits_of(plan, network):
    "The files of a network's fits that belong to this plan."
    fits = [Fit(network, lr, 0, plan.search) for lr in plan.rates]
    fits += [Fit(network, lr, s, plan.epochs) for lr in plan.rates for s in plan.seeds]
    return {p for f in fits if (p := f.path(plan.runs)).exists()}
