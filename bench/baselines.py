"""What is reached without the package's training: hand-made features in a forest, untrained encoders with a linear
head, and networks that see real recordings only, their epochs and learning rate chosen by inner folds.

    python bench/baselines.py                       all rows; what is finished is kept in runs/baselines
    python bench/baselines.py --rows forest random  some of them
    python bench/baselines.py --rows network --part 0/2     every second fold, beside a process with 1/2
    python bench/baselines.py --table               the table of what there is

Five patient-safe folds over the real recordings, unknown entries left out class by class, intervals by a bootstrap over
patients. `pooled` compares all pairs, `within` only pairs of one data set, `cpsc2018` its part alone. Linear heads are
logistic regressions whose penalty inner folds choose, after arXiv:2602.17531. Table: bench/results/baselines.csv.
"""
import argparse, json, time
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ecg_nbdev.parallel import keep_memory
from ecg_nbdev.folds import make_folds
from ecg_nbdev.core import CLASSES, whole_file
from ecg_nbdev.data import WindowDL, WindowDataset, make_targets
from ecg_nbdev.labels import label_states
from ecg_nbdev.learner import predict_records
from ecg_nbdev.metrics import auroc
from ecg_nbdev.models import create_model
from ecg_nbdev.pretrain import finetune, simulated_store
from ecg_nbdev.signal import Preparation
from features import FS, measure
from real import data_folder, real_store, whole_names

RUNS, RESULTS = Path('runs/baselines'), Path(__file__).resolve().parent/'results'
FOLDS, SIMULATED = 5, (720, 4096)
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # C of the linear heads
RATES, EPOCHS, REPEAT = (1e-3, 3e-3, 1e-2), (20, 60), 3  # tried for networks; times an epoch shows each recording
ROWS = ('forest', 'random', 'network')


def save(path, **arrays):
    with whole_file(path) as f, open(f, 'wb') as file: np.savez(file, **arrays)

def kept(path, make):
    "An array of a file; made and written where there is none."
    if not path.exists(): save(path, values=make())
    return np.load(path)['values']


class Real:
    "The real recordings: labels, folds and what is measured of them."
    def __init__(self, folder):
        self.folder, self.store = folder, real_store(folder)
        index = self.index = self.store.index
        self.truth, self.known = label_states(index)
        self.folds = make_folds(index, FOLDS, 0)
        self.source = index.source.to_numpy()
        self.patient = pd.factorize(index.patient)[0]
        self.windows = WindowDataset(self.store, range(len(index)), make_targets(index), 1000)

    def __len__(self): return len(self.index)

    def mark(self):
        "A name for these recordings."
        return blake2b('\n'.join(whole_names(self.index)).encode(), digest_size=6).hexdigest()

    def features(self):
        "Features of all recordings, (n, features)."
        return measured(real_store(self.folder, prepare=Preparation(fs=FS)), f'real-{self.mark()}')


# ---- scores

def macro(truth, prob, known, weight, group=None):
    "Macro AUROC of each draw over known entries, (draws,); with groups, over pairs of one group."
    return np.nanmean(auroc(truth, prob, weight, group, known), 1)

def patient_draws(patient, n, seed=0):
    "How often each recording counts when patients are drawn with replacement, the first row once each: (n+1, N)."
    rng, count = np.random.default_rng(seed), patient.max()+1
    drawn = rng.multinomial(count, np.full(count, 1/count), n)
    return np.r_[np.ones((1, len(patient))), drawn[:, patient]]

def scored(real, prob, n_boot=500):
    """The scores of a row, each with its 95 % interval, over the recordings that have one of the nine.

    They are those that `make pretrained` scores, so that its rows and these can stand in one table."""
    some = real.truth.any(1)
    truth, prob, known, source = (x[some] for x in (real.truth, prob, real.known, real.source))
    weight, cpsc = patient_draws(pd.factorize(real.index.patient[some])[0], n_boot), source == 'cpsc2018'
    cases = {'pooled': macro(truth, prob, known, weight), 'within': macro(truth, prob, known, weight, source),
             'cpsc2018': macro(truth[cpsc], prob[cpsc], known[cpsc], weight[:, cpsc])}
    row = {'recordings': int(some.sum()), 'left out': int((~known).sum())}
    for name, values in cases.items():
        row |= {name: values[0], f'{name} low': np.nanquantile(values[1:], .025),
                f'{name} high': np.nanquantile(values[1:], .975)}
    return row


# ---- hand-made features in a forest

def measured(store, name):
    "Features of a store's recordings (n, features), measured once."
    def make():
        frame = pd.DataFrame([measure(store.signal(i)) for i in range(len(store))])
        print(f'{name}: {frame.shape[1]} features; {frame.RR.isna().sum()} of {len(frame)} without beats', flush=True)
        return frame.to_numpy(float)
    return kept(RUNS/f'features-{name}.npz', make)

def simulated_features(n):
    "Features, truth and known entries of simulated recordings."
    path, labels = RUNS/f'features-simulated-{n}.npz', RUNS/f'labels-simulated-{n}.parquet'
    if not (path.exists() and labels.exists()):
        store = simulated_store(n, 77, 10., FS, Preparation(fs=FS))
        measured(store, f'simulated-{n}')
        with whole_file(labels) as f: store.index.to_parquet(f)
    return np.load(path)['values'], *label_states(pd.read_parquet(labels))

def forest(features, truth, known, asked, trees=500):
    "Probabilities of the classes (n, 9) by a forest for each; a class of which one side is missing gets its share."
    prob = np.empty((len(asked), truth.shape[1]))
    for k in range(truth.shape[1]):
        x, y = features[known[:, k]], truth[known[:, k], k]
        if y.all() or not y.any(): prob[:, k] = y.mean() if len(y) else .5
        else: prob[:, k] = ExtraTreesClassifier(trees, random_state=0).fit(x, y).predict_proba(asked)[:, 1]
    return prob

def across_folds(real, fit_predict, features):
    "Each fold predicted by what the others have taught."
    prob = np.empty(real.truth.shape)
    for fold in range(FOLDS):
        train, test = real.folds != fold, real.folds == fold
        prob[test] = fit_predict(train, test, features)
    return prob

def forest_fold(real, train, test, x): return forest(x[train], real.truth[train], real.known[train], x[test])

def forests(real):
    "Rows of the forest: name → probabilities."
    rows = {'features, forest: real recordings': across_folds(real, partial(forest_fold, real), real.features())}
    for n in SIMULATED:
        rows[f'features, forest: {n} simulated'] = forest(*simulated_features(n), real.features())
    return rows


# ---- encoders that have learned nothing, with a linear head

@torch.inference_mode()
def encoder_features(windows, seed=0):
    "What an untrained `crnn` passes to its last layers, mean over windows; norms know the mean of these windows."
    torch.manual_seed(seed)
    model, found = create_model('crnn'), []
    x, _ = windows.batch(range(len(windows)))
    model.join.register_forward_pre_hook(lambda _, args: found.append(args[0].float()))
    model.train()
    for part in torch.as_tensor(x).split(64): model(part)
    found.clear()
    model.eval()
    for part in torch.as_tensor(x).split(64): model(part)
    return means(torch.cat(found), windows)

@torch.inference_mode()
def kernel_features(windows, n=1000, seed=0):
    "Share of positive values and maximum of random dilated kernels (ROCKET, Dempster 2020), mean over windows."
    rng = np.random.default_rng(seed)
    x = torch.as_tensor(windows.batch(range(len(windows)))[0]).nan_to_num()/.25
    found = []
    for dilation in (1, 2, 4, 8, 16, 32):
        w = rng.normal(size=(n//6, 12, 9))*(rng.uniform(size=(n//6, 12, 1)) < .25)
        w = torch.as_tensor(w-w.mean(-1, keepdims=True), dtype=torch.float32)
        bias = torch.as_tensor(rng.uniform(-1, 1, n//6), dtype=torch.float32)
        out = [F.conv1d(part, w, bias, dilation=dilation, padding=4*dilation) for part in x.split(64)]
        found += [torch.cat([(o > 0).float().mean(-1) for o in out]), torch.cat([o.amax(-1) for o in out])]
    return means(torch.cat(found, 1), windows)

def means(values, windows):
    "Mean over the windows of each recording."
    record = windows.plan.record
    return np.stack([values.numpy()[record == i].mean(0) for i in range(record.max()+1)])

def linear(x, truth, known, asked, penalty):
    "Probabilities (n, 9) by a logistic regression for each class."
    prob = np.empty((len(asked), truth.shape[1]))
    for k in range(truth.shape[1]):
        a, y = x[known[:, k]], truth[known[:, k], k]
        head = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=300, class_weight='balanced'))
        prob[:, k] = head.fit(a, y).predict_proba(asked)[:, 1] if 0 < y.sum() < len(y) else .5
    return prob

def linear_fold(real, train, test, x):
    "A linear head whose penalty the next fold chooses."
    rows, inner = np.flatnonzero(train), (real.folds[test][0]+1) % FOLDS
    fit, valid = rows[real.folds[rows] != inner], rows[real.folds[rows] == inner]
    def score(c):
        prob = linear(x[fit], real.truth[fit], real.known[fit], x[valid], c)
        return macro(real.truth[valid], prob, real.known[valid], np.ones((1, len(valid))))[0]
    best = max(PENALTIES, key=score)
    return linear(x[rows], real.truth[rows], real.known[rows], x[test], best)

def random_encoders(real):
    "Rows of untrained encoders: name → probabilities."
    makers = {'untrained crnn, linear head': encoder_features, 'random kernels, linear head': kernel_features}
    return {name: across_folds(real, partial(linear_fold, real), make(real.windows)) for name, make in makers.items()}


# ---- networks that see real recordings only

def fit_path(real, fold, inner, lr, epochs):
    return RUNS/'network'/real.mark()/f'{fold}-{"inner" if inner else "outer"}-{lr:g}-{epochs}.npz'

def train_network(real, rows, asked, lr, epochs, seed):
    "Probabilities of the rows asked for, by a network that has learned from `rows` alone."
    torch.manual_seed(seed)
    learn = finetune(create_model('crnn'), real.store, rows, asked[:1], epochs, 0, REPEAT, seed, lr, share=1)
    windows = WindowDataset(real.store, asked, np.zeros(len(asked)), 1000)
    return predict_records(learn.model, WindowDL(windows, bs=128))

def network_fit(real, fold, inner, lr, epochs):
    "The predictions of a fit on the fold that chooses (inner) or reports; kept."
    choose = (fold+1) % FOLDS
    out = (fold, choose) if inner else (fold,)
    rows, asked = np.flatnonzero(~np.isin(real.folds, out)), np.flatnonzero(real.folds == (choose if inner else fold))
    return kept(fit_path(real, fold, inner, lr, epochs), lambda: train_network(real, rows, asked, lr, epochs, fold))

def choose_network(real, fold):
    "The learning rate that is best on the inner fold after few epochs, and with it the best number of epochs."
    valid = np.flatnonzero(real.folds == (fold+1) % FOLDS)
    def score(lr, epochs):
        prob = network_fit(real, fold, True, lr, epochs)
        return macro(real.truth[valid], prob, real.known[valid], np.ones((1, len(valid))))[0]
    lr = max(RATES, key=lambda lr: score(lr, EPOCHS[0]))
    return lr, max(EPOCHS, key=lambda epochs: score(lr, epochs))

def epoch_seconds(real, rows):
    "Processor seconds of one epoch, from the difference of two small ones: what a fit costs besides does not count."
    took = []
    for n in (32, 96):
        start = time.process_time()
        train_network(real, rows[:n], rows[:8], 1e-3, 1, 0)
        took.append(time.process_time()-start)
    return (took[1]-took[0])/64*len(rows)

def network_cost(real):
    "Print what the whole row costs at most."
    second = epoch_seconds(real, np.flatnonzero(real.folds != 0))
    inner = (len(RATES)*EPOCHS[0]+sum(EPOCHS[1:]))*(FOLDS-2)/(FOLDS-1)
    most = FOLDS*(inner+max(EPOCHS))*second/3600
    print(f'network: {second:.1f} s an epoch, at most {most:.2f} processor hours in all', flush=True)

def networks(real, part=0, parts=1):
    "The row of networks; none where another process still trains."
    network_cost(real)
    for fold in range(part, FOLDS, parts):
        lr, epochs = choose_network(real, fold)
        network_fit(real, fold, False, lr, epochs)
        print(f'fold {fold}: learning rate {lr:g}, {epochs} epochs', flush=True)
    if not all(list(RUNS.glob(f'network/{real.mark()}/{fold}-outer-*')) for fold in range(FOLDS)): return {}
    prob, chosen = np.empty(real.truth.shape), {}
    for fold in range(FOLDS):
        chosen[fold] = choose_network(real, fold)
        prob[real.folds == fold] = network_fit(real, fold, False, *chosen[fold])
    with whole_file(RUNS/'network-chosen.json') as f: f.write_text(json.dumps(chosen))
    return {'crnn, real recordings only, tuned by inner folds': prob}


# ---- the table

def table(real):
    "Scores of every row that has been predicted."
    found = []
    for path in sorted((RUNS/'rows').glob('*.npz')):
        row = np.load(path)
        if not np.array_equal(row['truth'], real.truth): raise SystemExit(f'{path}: of other recordings: remove it')
        found.append({'row': str(row['name']), **scored(real, row['prob'])})
    made = pd.DataFrame(found).sort_values('within', ascending=False)
    with whole_file(RESULTS/'baselines.csv') as f: made.to_csv(f, index=False, float_format='%.4f')
    print(made.round(3).to_string(index=False))

def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', help='folder of real recordings; else ECG_DATA')
    parser.add_argument('--rows', nargs='+', choices=ROWS, default=ROWS)
    parser.add_argument('--part', default='0/1', help='which share of the network\'s folds, such as 0/2')
    parser.add_argument('--table', action='store_true', help='train nothing')
    return parser.parse_args()

def main():
    args = options()
    torch.set_num_threads(1)
    keep_memory()
    real = Real(data_folder(args.data))
    makers = {'forest': forests, 'random': random_encoders,
              'network': partial(networks, part=int(args.part[0]), parts=int(args.part[2:]))}
    for kind in () if args.table else args.rows:
        for name, prob in makers[kind](real).items():
            slug = name.replace(':', '').replace(',', '').replace(' ', '-')
            save(RUNS/'rows'/f'{slug}.npz', prob=prob, truth=real.truth, name=name)
    table(real)

if __name__ == '__main__': main()
