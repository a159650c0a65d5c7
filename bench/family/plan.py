"""What the study fits: networks, learning rates, seeds, how long.

The peers are written out here from their papers, because tsai needs another environment: InceptionTime (Ismail Fawaz et
al. 2020, six modules of 32 filters), resnet1d (Wang et al. 2017, three blocks), LSTM 2x256. They read a missing sample
as 0, and train in bfloat16 where the package's networks do.
"""
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ecg_nbdev.core import CLASSES
from ecg_nbdev.models import _has_bf16, create_model
from shipped.networks import NETWORK

RUNS, RESULTS = Path('runs/study'), Path(__file__).resolve().parents[1]/'results'


# ---- peers

class Inception(nn.Module):
    "One module: a bottleneck, three widths of filters beside a pooled path."
    def __init__(self, n_in, n=32, widths=(39, 19, 9)):
        super().__init__()
        self.narrow = nn.Conv1d(n_in, n, 1, bias=False)
        self.filters = nn.ModuleList(nn.Conv1d(n, n, w, padding=w//2, bias=False) for w in widths)
        self.pooled = nn.Sequential(nn.MaxPool1d(3, 1, 1), nn.Conv1d(n_in, n, 1, bias=False))
        self.norm = nn.BatchNorm1d(n*(len(widths)+1))

    def forward(self, x):
        narrow = self.narrow(x)
        return self.norm(torch.cat([*(f(narrow) for f in self.filters), self.pooled(x)], 1))

class Residual(nn.Module):
    "Layers with what enters them added to what leaves them."
    def __init__(self, layers, n_in, n_out):
        super().__init__()
        self.layers, self.short = layers, nn.Sequential(nn.Conv1d(n_in, n_out, 1, bias=False), nn.BatchNorm1d(n_out))
    def forward(self, x): return (self.layers(x)+self.short(x)).relu()

class Mean(nn.Module):
    "The mean over time."
    def forward(self, x): return x.mean(-1)

class Filled(nn.Module):
    "A network that reads a missing sample as 0; it trains in bfloat16 where the family does."
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, x):
        with torch.autocast('cpu', torch.bfloat16, enabled=self.training and _has_bf16()):
            return self.model(x.nan_to_num(0.)).float()

def inception_time(n=128):
    def three(n_in): return nn.Sequential(Inception(n_in), nn.ReLU(), Inception(n), nn.ReLU(), Inception(n))
    blocks = Residual(three(12), 12, n), Residual(three(n), n, n)
    return Filled(nn.Sequential(*blocks, Mean(), nn.Linear(n, len(CLASSES))))

def conv(n_in, n_out, size): return nn.Conv1d(n_in, n_out, size, padding=size//2, bias=False), nn.BatchNorm1d(n_out)

def resnet1d(widths=(64, 128, 128)):
    blocks, n_in = [], 12
    for n in widths:
        layers = *conv(n_in, n, 7), nn.ReLU(), *conv(n, n, 5), nn.ReLU(), *conv(n, n, 3)
        blocks.append(Residual(nn.Sequential(*layers), n_in, n))
        n_in = n
    return Filled(nn.Sequential(*blocks, Mean(), nn.Linear(n_in, len(CLASSES))))

class LSTM(nn.Module):
    "Two layers of 256 over the samples; the last state is read."
    def __init__(self):
        super().__init__()
        self.recurrent, self.head = nn.LSTM(12, 256, 2, batch_first=True), nn.Linear(256, len(CLASSES))
    def forward(self, x): return self.head(self.recurrent(x.transpose(1, 2))[0][:, -1])


# ---- what is fitted

def ours(arch, **options): return partial(create_model, arch, **options)

NETWORKS = {
    'crnn': ours('crnn'), 'crnn, separate stem': ours('crnn', stem='separate'),
    'crnn, joint stem': ours('crnn', stem='joint'), 'crnn, shipped': ours('crnn', **NETWORK),
    'multilead': ours('multilead'), 'joint': ours('joint'), 'lead': ours('lead'), 'InceptionTime': inception_time,
    'resnet1d': resnet1d, 'LSTM 2x256': lambda: Filled(LSTM())}


@dataclass(frozen=True)
class Plan:
    "How much of the study is done."
    networks:tuple = tuple(NETWORKS)
    seeds:tuple = (0, 1, 2)
    rates:tuple = (1e-3, 3e-3, 1e-2) # learning rates that are tried
    epochs:int = 30 # stores of the stream, a pass over each
    search:int = 6 # epochs of a fit that only chooses the rate
    n:int = 4096 # recordings of a store that are used
    held:int = 1000 # simulated recordings that choose the rate, and as many that report
    batch:int = 64
    runs:Path = field(default=RUNS)
