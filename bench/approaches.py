"""A class for each label set, or a threshold for each label? `python bench/approaches.py`, about five minutes of one core; tables in bench/results.

Both approaches are heads of equal size (one hidden layer of 64) on the same features: the 128 of the network that `bench/pretrained.py --stage pretrain` trains on simulated recordings alone and keeps in runs/pretrained. So what differs is the
output and nothing else. `simulated`: one recording for each of the 6,877 rows of CPSC2018's label table, simulated with exactly that row's labels, the ten committed folds. `real`: the real recordings under `ECG_DATA`, five folds. Of each split one fold
reports, the next one chooses (epoch, thresholds, calibration, decoder), the others train.

  powerset            36 outputs, softmax: the likeliest label set answers
  thresholds          9 outputs, sigmoid: a threshold a class
  sets over labels    9 outputs, sigmoid, calibrated: the label set that is likeliest answers (`SetDecoder`)

CPSC2018's score takes one class a recording: with all three ways the likeliest of the labels answered. A wrong one counts against the label that the recording lists first."""
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from ecg_nbdev.calibration import fit_calibration
from ecg_nbdev.cohort import cpsc2018_folds, make_folds
from ecg_nbdev.core import CLASSES
from ecg_nbdev.decoding import fit_decoder
from ecg_nbdev.evaluation import bootstrap, corrected_t_test, drawn_scores, SCORES
from ecg_nbdev.thresholds import apply_thresholds
from ecg_nbdev.labels import LabelSets, multi_hot, read_reference
from ecg_nbdev.models import create_model
from ecg_nbdev.predictions import Predictions, pool_predictions
from ecg_nbdev.pretrain import real_store
from ecg_nbdev.protocol import inner_splits
from ecg_nbdev.labels import first_labels
from ecg_nbdev.signal import Preparation
from ecg_nbdev.sim.synth import simulate
from ecg_nbdev.thresholds import fit_thresholds

OUT, NETWORK = Path(__file__).parent/'results', Path('runs/pretrained/pretrained-0.safetensors')


def features(signals):
    "What the pretrained network knows of each signal before its last layer: (n, 128)."
    if not NETWORK.exists(): raise SystemExit(f'{NETWORK} is not there: python bench/pretrained.py --stage pretrain makes it')
    model = create_model('crnn', n_classes=9, fs=100, widths=(16, 32, 32), rates=(50, 25, 12.5), hidden=96, layers=2).eval()
    shapes = model.state_dict()
    model.load_state_dict({k: v.reshape(shapes[k].shape) for k, v in load_file(NETWORK).items()})
    seen = []
    model.join[-1].register_forward_hook(lambda layer, args, out: seen.append(args[0]))
    with torch.no_grad():
        for i in range(0, len(signals), 64): model(torch.stack([window(x) for x in signals[i:i+64]]))
    return torch.cat(seen).numpy()

def window(x, n=1000):
    "The first ten seconds at 100 Hz, NaN where there is no sample."
    out = torch.full((12, n), float('nan'))
    out[:, :min(n, x.shape[1])] = torch.as_tensor(x[:, :n])
    return out


def head(x, y, x_valid, y_valid, loss, seed, epochs=60):
    "A hidden layer of 64, Adam; the epoch of the lowest validation loss."
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Dropout(.2), nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Dropout(.2), nn.Linear(64, int(y.max())+1 if y.ndim == 1 else y.shape[1]))
    opt, best, kept = torch.optim.Adam(net.parameters(), 3e-3, weight_decay=1e-4), np.inf, None
    for _ in range(epochs):
        net.train()
        for rows in torch.randperm(len(x)).split(128):
            opt.zero_grad(); loss(net(x[rows]), y[rows]).backward(); opt.step()
        net.eval()
        with torch.no_grad(): now = loss(net(x_valid), y_valid).item()
        if now < best: best, kept = now, {k: v.clone() for k, v in net.state_dict().items()}
    net.load_state_dict(kept)
    return net.eval()


def one_fold(x, truth, first, ids, folds, outer, seed=0, keep=None):
    "Answered predictions of the test fold, a `Predictions` an approach; `keep` training rows at most."
    (train, valid), = inner_splits(folds, outer)
    train = np.random.default_rng(seed).permutation(train)[:keep]
    test = np.flatnonzero(folds == outer)
    mean, sd = x[train].mean(0), x[train].std(0)+1e-6
    z = torch.as_tensor((x-mean)/sd, dtype=torch.float32)
    Y = torch.as_tensor(truth, dtype=torch.float32)
    rows = np.r_[train, valid, test]
    role = np.repeat(['train', 'valid', 'test'], [len(train), len(valid), len(test)])
    make = lambda prob: Predictions(ids[rows], prob, truth[rows], role, first=first[rows], provenance={'fold': outer})
    nine = head(z[train], Y[train], z[valid], Y[valid], F.binary_cross_entropy_with_logits, seed)
    sets = LabelSets().fit(truth[train])
    number = torch.as_tensor(sets.encode(truth))
    known = valid[number[valid].numpy() >= 0]
    power = head(z[train], number[train], z[known], number[known], F.cross_entropy, seed)
    with torch.no_grad(): labels, joint = make(nine(z[rows]).sigmoid().double().numpy()), power(z[rows]).softmax(-1).double().numpy()
    honest = fit_calibration(labels)(labels)
    return {'powerset': replace(make(sets.marginals(joint)), answer=sets.decode(joint.argmax(1))).of('test'),
        'thresholds': apply_thresholds(labels, fit_thresholds(labels)).of('test'), 'sets over labels': apply_thresholds(honest, fit_decoder(honest, 'exact')).of('test')}, sets


def groups(part, sets, truth_train):
    "Exact match by how many training recordings carry the very label set."
    n = np.zeros(len(part), int)
    counts = pd.Series(sets.encode(truth_train)).value_counts()
    code = sets.encode(part.truth)
    n[code >= 0] = counts.reindex(code[code >= 0]).to_numpy()
    single = part.truth.sum(1) == 1
    name = np.where(single, 'one label', np.select([n >= 50, n >= 10, n >= 1], ['50 or more', '10 to 49', '1 to 9'], 'none: unseen'))
    return pd.DataFrame({'group': name, 'right': (part.answer == part.truth).all(1), 'given': part.answer.sum(1)})


def study(name, x, truth, first, ids, folds, seeds=(0, 1)):
    "Scores with intervals, differences over folds, exact match by frequency of the label set."
    parts, by_group, per_fold, k = {}, [], [], int(folds.max())+1
    for seed in seeds:
        for outer in range(k):
            answered, sets = one_fold(x, truth, first, ids, folds, outer, seed)
            (train, _), = inner_splits(folds, outer)
            for way, part in answered.items():
                parts.setdefault((way, seed), []).append(part)
                by_group.append(groups(part, sets, truth[train]).assign(way=way, seed=seed))
                per_fold.append({'way': way, 'seed': seed, 'fold': outer, **drawn_scores(part, np.ones((1, len(part)))).iloc[0]})
    scores = pd.concat([bootstrap(pool_predictions(p), n_boot=300).assign(way=way, seed=seed) for (way, seed), p in parts.items()]).reset_index()
    scores = scores.groupby(['way', 'score'], sort=False)[['value', 'low', 'high']].mean().reset_index()
    each = pd.DataFrame(per_fold).groupby(['way', 'fold']).mean().drop(columns='seed')
    tests = [{'score': s, 'difference': f'{a} − {b}', **corrected_t_test(each.loc[a][s]-each.loc[b][s], 1/(k-2))} for a, b in (('thresholds', 'powerset'), ('sets over labels', 'powerset'), ('sets over labels', 'thresholds')) for s in SCORES]
    by_group = pd.concat(by_group).groupby(['group', 'way'], sort=False).agg(recordings=('right', 'size'), exact_match=('right', 'mean'), labels=('given', 'mean')).reset_index()
    by_group['recordings'] //= len(seeds)
    for what, table in (('scores', scores), ('differences', pd.DataFrame(tests)), ('groups', by_group)):
        table.round(5).to_csv(OUT/f'approaches_{name}_{what}.csv', index=False)
        print(f'\n{name}: {what}\n{table.round(3).to_string(index=False)}', flush=True)


def sizes(x, truth, first, ids, folds):
    "How scores grow with training recordings, and with the number of classes."
    rows = []
    for keep in (250, 500, 1000, 2000, 5500):
        for outer in range(3):
            answered, sets = one_fold(x, truth, first, ids, folds, outer, 0, keep)
            rows += [{'training recordings': keep, 'classes': 9, 'fold': outer, 'way': way, 'label sets': len(sets), **drawn_scores(p, np.ones((1, len(p)))).iloc[0]} for way, p in answered.items()]
    for k in (3, 5, 7):
        kept = np.argsort(-truth.sum(0), kind='stable')[:k]
        inside = truth[:, kept].any(1) & ~np.delete(truth, kept, 1).any(1)
        for outer in range(3):
            answered, sets = one_fold(x[inside], truth[inside], first[inside], ids[inside], folds[inside], outer)
            rows += [{'training recordings': int(inside.sum()*.8), 'classes': k, 'fold': outer, 'way': way, 'label sets': len(sets), **drawn_scores(p, np.ones((1, len(p)))).iloc[0]} for way, p in answered.items()]
    table = pd.DataFrame(rows).groupby(['classes', 'training recordings', 'way'], sort=False).mean().drop(columns='fold').reset_index()
    table.round(5).to_csv(OUT/'approaches_sizes.csv', index=False)
    print(f'\nsizes\n{table.round(3).to_string(index=False)}', flush=True)


def table_facts(truth, folds):
    "What a powerset can't answer, whatever the network: label sets of the test fold that training has not."
    rows = []
    for outer in range(int(folds.max())+1):
        (train, _), = inner_splits(folds, outer)
        sets = LabelSets().fit(truth[train])
        rows.append({'fold': outer, 'label sets in training': len(sets), 'sets with fewer than 10': int((pd.Series(sets.encode(truth[train])).value_counts() < 10).sum()), 'unseen test recordings': int((sets.encode(truth[folds == outer]) < 0).sum()),
            'test recordings': int((folds == outer).sum())})
    table, sets = pd.DataFrame(rows), LabelSets().fit(truth)
    listed = pd.DataFrame({'label set': ['+'.join(names) for names in sets.sets], 'recordings': np.bincount(sets.encode(truth))})
    table.to_csv(OUT/'approaches_table.csv', index=False); listed.to_csv(OUT/'approaches_sets.csv', index=False)
    print(f'\nlabel table: {len(listed)} label sets\n{table.to_string(index=False)}', flush=True)


if __name__ == '__main__':
    if 'ECG_DATA' not in os.environ: raise SystemExit('ECG_DATA does not name the folder of real recordings: set it')
    OUT.mkdir(exist_ok=True)
    prepare = Preparation()
    reference = read_reference(Path(os.environ['ECG_DATA'])/'cpsc2018'/'REFERENCE.csv')
    ids, labels = np.array(list(reference)), list(reference.values())
    truth, first, folds = multi_hot(labels), first_labels(labels), cpsc2018_folds()[ids].to_numpy()
    table_facts(truth, folds)
    x = features([prepare(simulate(l, 10, 100, np.random.default_rng([2018, i]), id=r).signal, 100) for i, (r, l) in enumerate(reference.items())])
    study('simulated', x, truth, first, ids, folds)
    sizes(x, truth, first, ids, folds)
    store = real_store(os.environ['ECG_DATA'])
    t = store.index
    study('real', features([store.signal(i) for i in range(len(t))]), multi_hot(t.labels), first_labels(t.labels), (t.source+'/'+t['id']).to_numpy(), make_folds(t.assign(patient=t.source+'/'+t.patient), k=5), seeds=(0, 1, 2, 3))
