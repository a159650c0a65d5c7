"""The study's fits: each is trained by a process of `bench/fit.py`, and its predictions are kept in runs/study."""
import os, subprocess, time
from dataclasses import dataclass
from functools import cache, cached_property, partial

import numpy as np
import pandas as pd

from ecg_nbdev.labels import LabelSets, first_labels, multi_hot
from ecg_nbdev.predictions import Predictions, load_predictions, save_predictions
from job import Fitted, Job
from train import PEERS
from .data import records, roles, window_files
from .plan import ABLATIONS, BENCH, FOLDS, LONGER, MEMBERS, OPTIONS, RATES, RUNS


class Trainer:
    "A process of bench/fit.py, started with its first job."
    def __init__(self, python): self.python = python

    @cached_property
    def process(self):
        env = {**os.environ, 'PYTHONPATH': str(BENCH.parent), 'OMP_NUM_THREADS': '1'}
        return subprocess.Popen([self.python, '-W', 'ignore', BENCH/'fit.py'], env=env, text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, job):
        self.process.stdin.write(job.to_json()+'\n')
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line: raise SystemExit(f'the training process of {job.system} ended: see its message above')
        return Fitted.from_json(line)


# ---- one split of a data set

@dataclass(frozen=True, eq=False)
class Split:
    "The records of a data set, and what they are for."
    table:pd.DataFrame # id, labels
    role:np.ndarray # (records,) train, valid or test
    powerset:bool # whether a network answers with a label set

    @classmethod
    def of(cls, data, fold, approach):
        "A split of the study."
        table = records(data)
        return cls(table, roles(data, table, fold), approach == 'powerset')

    @cached_property
    def truth(self): return multi_hot(self.table.labels)

    @cached_property
    def sets(self): return LabelSets().fit(self.truth[self.role == 'train'])

    def targets(self):
        "What the network learns for each record: numbers of label sets (records,), or (records, 9)."
        return self.sets.encode(self.truth).astype(np.int64) if self.powerset else self.truth.astype(np.float32)

    def write(self, path, record):
        "The file that a job reads; `record` is the record of each window."
        parts = {part: np.flatnonzero(self.role[record] == part) for part in ('train', 'valid', 'test')}
        np.savez(path, record=record, truth=self.truth, target=self.targets()[record], sets=self.sets.matrix, **parts)

    def predictions(self, prob, fold, about):
        "Predictions of the choosing and the reporting records; of label sets, the likeliest answers."
        rows = np.concatenate([np.flatnonzero(self.role == part) for part in ('valid', 'test')])
        p, answer = np.concatenate([prob['valid'], prob['test']]), None
        if self.powerset: p, answer = self.sets.marginals(p), self.sets.decode(p.argmax(1))
        return Predictions(self.table['id'].to_numpy()[rows], p, self.truth[rows], self.role[rows], answer=answer,
                           first=first_labels(self.table.labels)[rows], fold=np.full(len(rows), fold), provenance=about)


# ---- one fit

def fit_path(data, system, approach='thresholds', variant='', fold=0, lr=None):
    "The file of a fit's predictions."
    name = f'{data} {system} {approach} {variant} {fold}'+(f' {lr:g}' if lr else '')
    return RUNS/(name.replace(' ', '_').replace(',', '')+'.parquet')

def kept_fit(path, budget):
    "The predictions of a fit that has been trained before."
    preds = load_predictions(path)
    before = preds.provenance['budget']
    if before == budget: return preds
    raise SystemExit(f'{path}: was trained for {before:g} s, not {budget:g}: remove it, or ask for its budget')

def create_job(data, system, lr, budget, split, change):
    "The job of a fit, with its files; `change` holds fields that differ from the default."
    scratch = RUNS/'scratch'/str(os.getpid())
    scratch.mkdir(parents=True, exist_ok=True)
    fields = {**change, 'options': {**OPTIONS.get(system, {}), **change.get('options', {})}}
    if split.powerset: fields['loss'] = 'powerset'
    job = Job(system, lr, budget, '', str(scratch/'split.npz'), str(scratch/'prob.npz'), **fields)
    x, record = window_files(data, job.fs, job.seconds)
    split.write(job.split, np.load(record))
    return Job(**{**vars(job), 'x': str(x)})

def fit(trainers, data, system, lr, budget, path, approach='thresholds', fold=0, change=None):
    "Train once and keep the predictions of the records that choose and report."
    if path.exists(): return kept_fit(path, budget)
    split = Split.of(data, fold, approach)
    job, start = create_job(data, system, lr, budget, split, change or {}), time.perf_counter()
    fitted = trainers[system in PEERS](job)
    about = {**job.about(), 'data': data, 'approach': approach, **vars(fitted)}
    preds = split.predictions(np.load(job.out), fold, about)
    save_predictions(preds, path)
    print(f'{time.strftime("%H:%M:%S")} {path.stem}: {fitted.epochs:.1f} epochs, {fitted.cpu_s:.0f} s of '
          f'{time.perf_counter()-start:.0f} s; macro AUROC where it was chosen {fitted.valid_auroc:.3f}', flush=True)
    return preds


# ---- all fits, a stage after another

def chosen_rate(tried):
    "Of learning rate → predictions, the rate with the better score where weights are chosen."
    return max(tried, key=lambda lr: tried[lr].provenance['valid_auroc'])

def best_rate(fit, system, budget):
    "The learning rate with the better score on the first real fold; its fit is that fold's."
    return chosen_rate({lr: fit('real', system, lr, budget, fit_path('real', system, lr=lr)) for lr in RATES})


class Stages:
    "The fits of each stage; `fit` trains one and `budget` says for how long."
    def __init__(self, fit, budget, systems):
        self.fit, self.budget, self.systems = fit, budget, systems
        self.members = [s for s in systems if s in MEMBERS]
        self.rate = cache(partial(best_rate, fit, budget=budget['real']))

    def all_folds(self, systems, approach):
        "Every fold of the real recordings; the first one was fitted when the learning rate was chosen."
        for fold in range(FOLDS):
            for s in systems:
                tried = self.rate(s) if approach == 'thresholds' and fold == 0 else None
                path = fit_path('real', s, approach, fold=fold, lr=tried)
                self.fit('real', s, self.rate(s), self.budget['real'], path, approach, fold)

    def one_split(self, systems, approach):
        "The simulated recordings."
        for s in systems:
            path = fit_path('simulated', s, approach)
            self.fit('simulated', s, self.rate(s), self.budget['simulated'], path, approach)

    def ablations(self):
        "`crnn` with one change at a time."
        for factor, choices in ABLATIONS.items():
            for choice, change in choices.items():
                path = fit_path('ablation', 'crnn', variant=f'{factor} {choice}')
                self.fit('simulated', 'crnn', self.rate('crnn'), self.budget['ablation'], path, change=change)

    def longer(self):
        "Some systems with a larger budget."
        for s in (s for s in LONGER if s in self.systems):
            budget = LONGER[s]*self.budget['simulated']
            self.fit('simulated', s, self.rate(s), budget, fit_path('simulated', s, 'longer'))

    def run(self, stage):
        "One of `STAGES`."
        {'simulated': partial(self.one_split, self.systems, 'thresholds'),
         'real': partial(self.all_folds, self.systems, 'thresholds'), 'ablations': self.ablations,
         'simulated-powerset': partial(self.one_split, self.members, 'powerset'),
         'real-powerset': partial(self.all_folds, self.members, 'powerset'), 'longer': self.longer}[stage]()
