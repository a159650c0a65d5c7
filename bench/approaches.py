"""An output for each label set, or a threshold for each label? `python bench/approaches.py`, about five minutes of one
core; tables in bench/results.

Both approaches are heads of equal size (one hidden layer of 64) on the same features: the 128 of the network that
`bench/pretrained.py --stage pretrain` trains on simulated recordings alone and keeps in runs/pretrained. So what
differs is the output and nothing else. `simulated`: one recording for each of the 6,877 rows of CPSC2018's label table,
simulated with exactly that row's labels, the ten committed folds. `real`: the real recordings under `ECG_DATA`, five
folds. Of each split one fold reports, the next one chooses (epoch, thresholds, calibration, decoder), the others train.

  powerset            36 outputs, softmax: the likeliest label set answers
  thresholds          9 outputs, sigmoid: a threshold for each class
  sets over labels    9 outputs, sigmoid, calibrated: the label set that is likeliest answers (`SetDecoder`)

CPSC2018's score takes one class per recording: in all three ways the likeliest of the labels answered. A wrong one
counts against the label that the recording lists first.
"""
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from ecg_nbdev.parallel import keep_memory
from ecg_nbdev.calibration import fit_calibration
from ecg_nbdev.folds import cpsc2018_folds, make_folds
from ecg_nbdev.decoding import fit_decoder
from ecg_nbdev.uncertainty import SCORES, bootstrap, corrected_t_test, drawn_scores
from ecg_nbdev.labels import LabelSets, first_labels, label_states, multi_hot, read_reference
from ecg_nbdev.predictions import Predictions, pool_predictions
from ecg_nbdev.protocol import inner_splits
from ecg_nbdev.signal import Preparation
from ecg_nbdev.sim.synth import simulate
from ecg_nbdev.thresholds import apply_thresholds, fit_thresholds
from real import data_folder, real_store, whole_names
from shipped.networks import RUNS, new_network

OUT, NETWORK = Path(__file__).resolve().parent/'results', RUNS/'pretrained-0.safetensors'
PAIRS = (('thresholds', 'powerset'), ('sets over labels', 'powerset'), ('sets over labels', 'thresholds'))


def write_table(table, name):
    "Write a table to bench/results and print it."
    table.round(5).to_csv(OUT/f'approaches_{name}.csv', index=False)
    print(f'\n{name}\n{table.round(3).to_string(index=False)}', flush=True)


# ---- features

def pretrained_network():
    "The network that has seen simulated recordings only."
    if not NETWORK.exists():
        raise SystemExit(f'{NETWORK} is not there: python bench/pretrained.py --stage pretrain makes it')
    model = new_network().eval()
    shapes = model.state_dict()
    model.load_state_dict({k: v.reshape(shapes[k].shape) for k, v in load_file(NETWORK).items()})
    return model

def window(x, n=1000):
    "The first ten seconds at 100 Hz, NaN where there is no sample."
    out = torch.full((12, n), float('nan'))
    out[:, :min(n, x.shape[1])] = torch.as_tensor(x[:, :n])
    return out

def features(signals):
    "What the pretrained network knows of each signal before its last layer: (n, 128)."
    model, seen = pretrained_network(), []
    model.join[-1].register_forward_hook(lambda layer, args, out: seen.append(args[0]))
    with torch.no_grad():
        for i in range(0, len(signals), 64): model(torch.stack([window(x) for x in signals[i:i+64]]))
    return torch.cat(seen).numpy()


# ---- the data of a study

@dataclass(frozen=True, eq=False)
class Labelled:
    "Features of recordings, their labels and their folds."
    x:np.ndarray # (n, 128) features
    truth:np.ndarray # (n, 9) bool
    first:np.ndarray # (n,) number of the first label
    ids:np.ndarray # (n,) names of the recordings
    folds:np.ndarray # (n,) number of each recording's fold

    @property
    def k(self): return int(self.folds.max())+1

    def split(self, outer):
        "Rows that train, rows that choose, rows that report."
        (train, valid), = inner_splits(self.folds, outer)
        return train, valid, np.flatnonzero(self.folds == outer)

    def take(self, rows):
        "Some of the recordings."
        return Labelled(**{name: values[rows] for name, values in vars(self).items()})

    def scaled(self, train):
        "The features as the heads read them: mean 0 and deviation 1 on the rows that train."
        mean, sd = self.x[train].mean(0), self.x[train].std(0)+1e-6
        return torch.as_tensor((self.x-mean)/sd, dtype=torch.float32)

    def predictions(self, rows, role, outer, prob):
        "Predictions of some rows."
        return Predictions(self.ids[rows], prob, self.truth[rows], role, first=self.first[rows],
                           provenance={'fold': outer})

def simulated_recordings(folder):
    "A recording with the labels of each row of CPSC2018's label table, the committed folds."
    reference, prepare = read_reference(folder/'cpsc2018'/'REFERENCE.csv'), Preparation()
    ids, labels = np.array(list(reference)), list(reference.values())
    signals = (simulate(l, 10, 100, np.random.default_rng([2018, i]), id=r).signal
               for i, (r, l) in enumerate(reference.items()))
    x = features([prepare(s, 100) for s in signals])
    return Labelled(x, multi_hot(labels), first_labels(labels), ids, cpsc2018_folds()[ids].to_numpy())

def real_recordings(folder):
    "The labelled real recordings, five folds; not those with an unknown label, whose label set is not known."
    store = real_store(folder)
    truth, known = label_states(store.index)
    rows = np.flatnonzero(truth.any(1) & known.all(1))
    t = store.index.iloc[rows].reset_index(drop=True)
    x, folds = features([store.signal(i) for i in rows]), make_folds(t, k=5)
    return Labelled(x, multi_hot(t.labels), first_labels(t.labels), whole_names(t), folds)


# ---- one fold

def new_head(n_in, n_out):
    "A hidden layer of 64."
    return nn.Sequential(nn.Dropout(.2), nn.Linear(n_in, 64), nn.ReLU(), nn.Dropout(.2), nn.Linear(64, n_out))

def train_epoch(net, opt, loss, x, y):
    "One pass in batches of 128."
    net.train()
    for rows in torch.randperm(len(x)).split(128):
        opt.zero_grad()
        loss(net(x[rows]), y[rows]).backward()
        opt.step()

def fit_head(x, y, x_valid, y_valid, loss, seed, epochs=60):
    "A head trained with Adam; the epoch of the lowest validation loss."
    torch.manual_seed(seed)
    net = new_head(x.shape[1], int(y.max())+1 if y.ndim == 1 else y.shape[1])
    opt, best, kept = torch.optim.Adam(net.parameters(), 3e-3, weight_decay=1e-4), np.inf, None
    for _ in range(epochs):
        train_epoch(net, opt, loss, x, y)
        net.eval()
        with torch.no_grad(): now = loss(net(x_valid), y_valid).item()
        if now < best: best, kept = now, {k: v.clone() for k, v in net.state_dict().items()}
    net.load_state_dict(kept)
    return net.eval()

def nine_outputs(data, z, train, valid, seed):
    "A head with an output for each label."
    y = torch.as_tensor(data.truth, dtype=torch.float32)
    return fit_head(z[train], y[train], z[valid], y[valid], F.binary_cross_entropy_with_logits, seed)

def set_outputs(data, z, train, valid, seed):
    "A head with an output for each label set of the rows that train; the sets."
    sets = LabelSets().fit(data.truth[train])
    number = torch.as_tensor(sets.encode(data.truth))
    known = valid[number[valid].numpy() >= 0]
    return fit_head(z[train], number[train], z[known], number[known], F.cross_entropy, seed), sets

@torch.no_grad()
def probabilities(head, z, activation): return activation(head(z)).double().numpy()

def one_fold(data, outer, seed=0, keep=None):
    "Answered predictions of the test fold for each approach, and the label sets; `keep` training rows at most."
    train, valid, test = data.split(outer)
    train = np.random.default_rng(seed).permutation(train)[:keep]
    z, rows = data.scaled(train), np.r_[train, valid, test]
    role = np.repeat(['train', 'valid', 'test'], [len(train), len(valid), len(test)])
    nine = nine_outputs(data, z, train, valid, seed)
    power, sets = set_outputs(data, z, train, valid, seed)
    labels = data.predictions(rows, role, outer, probabilities(nine, z[rows], torch.sigmoid))
    joint = probabilities(power, z[rows], partial(torch.softmax, dim=-1))
    of_sets = data.predictions(rows, role, outer, sets.marginals(joint))
    honest = fit_calibration(labels)(labels)
    answered = {'powerset': replace(of_sets, answer=sets.decode(joint.argmax(1))),
                'thresholds': apply_thresholds(labels, fit_thresholds(labels, least=1)),
                'sets over labels': apply_thresholds(honest, fit_decoder(honest, 'exact'))}
    return {way: p.of('test') for way, p in answered.items()}, sets


# ---- tables

def all_scores(part): return drawn_scores(part, np.ones((1, len(part)))).iloc[0]

def exact_by_frequency(part, sets, truth_train):
    "Whether each label set was answered exactly, by how many training recordings are labelled with that very set."
    n = np.zeros(len(part), int)
    counts = pd.Series(sets.encode(truth_train)).value_counts()
    code = sets.encode(part.truth)
    n[code >= 0] = counts.reindex(code[code >= 0]).to_numpy()
    several = np.select([n >= 50, n >= 10, n >= 1], ['50 or more', '10 to 49', '1 to 9'], 'none: unseen')
    name = np.where(part.truth.sum(1) == 1, 'one label', several)
    return pd.DataFrame({'group': name, 'right': (part.answer == part.truth).all(1), 'given': part.answer.sum(1)})

def every_fold(data, seeds):
    "Seed, fold, approach, answered predictions, and their exact answers, of all folds and seeds."
    for seed in seeds:
        for outer in range(data.k):
            answered, sets = one_fold(data, outer, seed)
            truth = data.truth[data.split(outer)[0]]
            for way, part in answered.items(): yield seed, outer, way, part, exact_by_frequency(part, sets, truth)

def scores_table(parts):
    "Scores of the pooled folds with intervals, means over seeds."
    each = pd.concat([bootstrap(pool_predictions(p), n_boot=300).assign(way=way, seed=seed)
                      for (way, seed), p in parts.items()]).reset_index()
    return each.groupby(['way', 'score'], sort=False)[['value', 'low', 'high']].mean().reset_index()

def differences_table(per_fold, k):
    "Corrected t-tests of the approaches over folds."
    each = pd.DataFrame(per_fold).groupby(['way', 'fold']).mean().drop(columns='seed')
    tests = {(a, b, s): corrected_t_test(each.loc[a][s]-each.loc[b][s], 1/(k-2)) for a, b in PAIRS for s in SCORES}
    return pd.DataFrame([{'score': s, 'difference': f'{a} − {b}', **test} for (a, b, s), test in tests.items()])

def groups_table(by_group, n_seeds):
    "Exact match by how often the label set occurs in training."
    groups = pd.concat(by_group).groupby(['group', 'way'], sort=False)
    table = groups.agg(recordings=('right', 'size'), exact_match=('right', 'mean'), labels=('given', 'mean'))
    return table.assign(recordings=table.recordings//n_seeds).reset_index()

def study(name, data, seeds=(0, 1)):
    "Scores with intervals, differences over folds, exact match by frequency of the label set."
    parts, by_group, per_fold = {}, [], []
    for seed, outer, way, part, exact in every_fold(data, seeds):
        parts.setdefault((way, seed), []).append(part)
        by_group.append(exact.assign(way=way, seed=seed))
        per_fold.append({'way': way, 'seed': seed, 'fold': outer, **all_scores(part)})
    write_table(scores_table(parts), f'{name}_scores')
    write_table(differences_table(per_fold, data.k), f'{name}_differences')
    write_table(groups_table(by_group, len(seeds)), f'{name}_groups')


def size_rows(data, recordings, classes, keep=None):
    "Scores of three folds."
    for outer in range(3):
        answered, sets = one_fold(data, outer, 0, keep)
        for way, part in answered.items():
            yield {'training recordings': recordings, 'classes': classes, 'fold': outer, 'way': way,
                   'label sets': len(sets), **all_scores(part)}

def of_classes(data, k):
    "The recordings that are labelled with the `k` most frequent classes only."
    kept = np.argsort(-data.truth.sum(0), kind='stable')[:k]
    return data.take(data.truth[:, kept].any(1) & ~np.delete(data.truth, kept, 1).any(1))

def sizes(data):
    "How scores grow with training recordings, and with the number of classes."
    rows = [row for keep in (250, 500, 1000, 2000, 5500) for row in size_rows(data, keep, 9, keep)]
    for k in (3, 5, 7):
        some = of_classes(data, k)
        rows += size_rows(some, int(len(some.ids)*.8), k)
    table = pd.DataFrame(rows).groupby(['classes', 'training recordings', 'way'], sort=False).mean()
    write_table(table.drop(columns='fold').reset_index(), 'sizes')


def label_table(truth, folds):
    "What a powerset can't answer, whatever the network: label sets of the test fold that training has not."
    rows = []
    for outer in range(int(folds.max())+1):
        (train, _), = inner_splits(folds, outer)
        sets, test = LabelSets().fit(truth[train]), truth[folds == outer]
        often = pd.Series(sets.encode(truth[train])).value_counts()
        rows.append({'fold': outer, 'label sets in training': len(sets),
                     'sets with fewer than 10': int((often < 10).sum()),
                     'unseen test recordings': int((sets.encode(test) < 0).sum()), 'test recordings': len(test)})
    sets = LabelSets().fit(truth)
    names = ['+'.join(names) for names in sets.sets]
    write_table(pd.DataFrame(rows), 'table')
    write_table(pd.DataFrame({'label set': names, 'recordings': np.bincount(sets.encode(truth))}), 'sets')


def main():
    folder = data_folder()
    OUT.mkdir(exist_ok=True)
    keep_memory()
    simulated = simulated_recordings(folder)
    label_table(simulated.truth, simulated.folds)
    study('simulated', simulated)
    sizes(simulated)
    study('real', real_recordings(folder), seeds=(0, 1, 2, 3))

if __name__ == '__main__': main()
