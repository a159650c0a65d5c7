"""Which recurrent network for twelve leads? Every member of the family and three peers, trained on the same windows for the same processor seconds.

    python bench/study.py --peers-python /work/peers-venv/bin/python       all fits that are not kept yet, then the tables
    python bench/study.py --tables                                         the tables from the fits there are

`real`: the labelled recordings under ECG_DATA, five folds; one reports, the next one chooses (weights, thresholds), three train. `simulated`: 3,000 recordings simulated at 500 Hz, 2,100 train, 300 choose, 600 report.
`longer`: on the simulated ones, `crnn` with either stem for four times as long, InceptionTime for ten times. `ablations`: `crnn` with one change at a time, on the simulated ones. `powerset`: an output a label set.
Each fit (bench/fit.py) runs on one thread and its predictions are kept in runs/study; tables in bench/results/study_*.csv come from these alone. Learning rate: of two, the one with the better macro AUROC on the choosing
fold of the first real fit; it is used for all fits of that network. InceptionTime, xresnet1d101 and LSTM 2x256 need an environment of their own (torch 2.14.1, torchvision 0.29.1, tsai) and read a missing sample as 0.
"""
import argparse, json, os, subprocess, sys, time
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from ecg_nbdev.cohort import make_folds
from ecg_nbdev.core import CLASSES, whole_file
from ecg_nbdev.evaluation import bootstrap, compare, corrected_t_test, drawn_scores, SCORES
from ecg_nbdev.thresholds import apply_thresholds
from ecg_nbdev.labels import LabelSets, multi_hot
from ecg_nbdev.predictions import Predictions, load_predictions, pool_predictions, save_predictions
from ecg_nbdev.labels import first_labels
from ecg_nbdev.signal import Preparation
from ecg_nbdev.thresholds import fit_thresholds
from ecg_nbdev.windows import WindowPlan, cut_windows

HERE = Path(__file__).resolve().parent
RUNS, RESULTS = Path('runs/study'), HERE/'results'
MEMBERS = ('crnn', 'crnn, joint stem', 'multilead', 'multilead_shared', 'joint', 'lead')
OPTIONS = {'crnn, joint stem': {'stem': 'joint'}}  # a system's name begins with its architecture
PEERS = ('InceptionTime', 'xresnet1d101', 'LSTM 2x256')
RATES = (1e-3, 3e-3)
FOLDS, BATCH, CHECKS, N = 5, 32, 4, 3000
BUDGET = {'real': 12., 'simulated': 60., 'ablation': 20.}  # processor seconds of training in a fit
LONGER = {'crnn, joint stem': 4, 'crnn': 4, 'InceptionTime': 10}  # times the budget of simulated recordings: what more time brings
KEPT = ('macro_auroc', 'macro_f1', 'cpsc2018_f1', 'exact_match')

RECIPE = {'scale': {}, 'noise': {'mv': .02}, 'drop_leads': {'share': .3}}  # as in ecg_nbdev.pretrain
DEFAULT = {'options': {}, 'fs': 100, 'seconds': 10., 'loss': 'bce', 'augment': None, 'seed': 0}
option = lambda **o: {'options': o}
ABLATIONS = {  # factor → choice → what differs from the default
    'default': {f'seed {s}': {'seed': s} for s in range(3)},
    'stem': {'one a lead': option(stem='separate'), 'all leads at once': option(stem='joint')},
    'pool': {'mean': option(pool=('mean',)), 'max': option(pool=('max',)), 'attention': option(pool=('attention',)), 'last': option(pool=('last',))},
    'cell': {'GRU': option(cell='gru'), 'forward only': option(bidirectional=False), 'two layers': option(layers=2)},
    'leads': {'no attention between leads': option(lead_attention=False), 'no deep supervision': option(supervise=False), 'no lead dropout': option(lead_dropout=0.), 'lead dropout 0.3': option(lead_dropout=.3)},
    'sampling rate': {'250 Hz': {'fs': 250}, '500 Hz': {'fs': 500}},
    'window': {'5 s': {'seconds': 5.}, '2.5 s': {'seconds': 2.5}},
    'loss': {'weighted BCE': {'loss': 'weighted_bce'}, 'focal': {'loss': 'focal'}, 'asymmetric': {'loss': 'asymmetric'}},
    'augmentation': {'scale, noise, leads': {'augment': RECIPE}, 'mixup': {'augment': {'mixup': {}}}},
    'arithmetic': {'float32': option(bf16=False)},
}

# ---- data: windows on disk, a table of records, folds

def write_windows(name, signals, fs, seconds):
    "The windows of prepared signals and the record of each."
    plan = WindowPlan.of([s.shape[1] for s in signals], round(seconds*fs))
    x = np.concatenate([cut_windows(s, plan.start[plan.record == i], plan.size) for i, s in enumerate(signals)])
    with whole_file(RUNS/'data'/f'{name}-{fs}-{seconds:g}.npy') as f, open(f, 'wb') as file: np.save(file, x)
    with whole_file(RUNS/'data'/f'{name}-{fs}-{seconds:g}-record.npy') as f, open(f, 'wb') as file: np.save(file, plan.record)


def real_data():
    from ecg_nbdev.pretrain import real_store
    if 'ECG_DATA' not in os.environ: raise SystemExit('ECG_DATA does not name the folder of real recordings: set it')
    store = real_store(os.environ['ECG_DATA'])
    table = store.index.assign(id=store.index.source+'/'+store.index['id'], patient=store.index.source+'/'+store.index.patient)
    write_windows('real', [store.signal(i) for i in range(len(store))], 100, 10.)
    return table.assign(fold=make_folds(table, k=FOLDS, seed=0))


def simulated_data():
    "Every recording simulated once, at 500 Hz, and prepared at each rate."
    from ecg_nbdev.sim.synth import simulate_cohort
    rates, rows = (100, 250, 500), []
    signals = {fs: [] for fs in rates}
    for r in simulate_cohort(N, 2026, 500., 10., balance=.5, unnamed=.08):
        for fs in rates: signals[fs].append(Preparation(fs=fs)(r.signal, 500))
        rows.append({'id': r.id, 'patient': r.id, 'labels': ';'.join(r.labels)})
    for fs, seconds in ((100, 10.), (100, 5.), (100, 2.5), (250, 10.), (500, 10.)): write_windows('simulated', signals[fs], fs, seconds)
    table = pd.DataFrame(rows)
    return table.assign(fold=make_folds(table, k=10, seed=0))


def records(name):
    "The table of records and folds; made with the windows where it is not kept yet."
    path = RUNS/'data'/f'{name}.parquet'
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        table = {'real': real_data, 'simulated': simulated_data}[name]()
        with whole_file(path) as f: table[['id', 'labels', 'fold']].to_parquet(f)
    return pd.read_parquet(path)


def roles(name, table, fold):
    "The role of each record in a split."
    report, choose = ([fold], [(fold+1) % FOLDS]) if name == 'real' else ([0, 1], [2])
    return np.where(table.fold.isin(report), 'test', np.where(table.fold.isin(choose), 'valid', 'train'))

# ---- fits

class Trainer:
    "A process of bench/fit.py, started with its first job."
    def __init__(self, python): self.python, self.process = python, None
    def __call__(self, job):
        if not self.process:
            env = {**os.environ, 'PYTHONPATH': str(HERE.parent), 'OMP_NUM_THREADS': '1'}
            self.process = subprocess.Popen([self.python, '-W', 'ignore', HERE/'fit.py'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.process.stdin.write(json.dumps(job)+'\n'); self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line: raise SystemExit(f'the training process of {job["system"]} ended: see its message above')
        return json.loads(line)


def fit_path(data, system, approach='thresholds', variant='', fold=0, lr=None):
    name = f'{data} {system} {approach} {variant} {fold}'+(f' {lr:g}' if lr else '')
    return RUNS/(name.replace(' ', '_').replace(',', '')+'.parquet')


def fit(trainers, data, system, lr, budget, approach='thresholds', fold=0, change=None, path=None):
    "Train once and keep the predictions of the records that choose and report."
    if path.exists():
        preds = load_predictions(path)
        if preds.provenance['budget'] != budget: raise SystemExit(f'{path}: was trained for {preds.provenance["budget"]:g} s, not {budget:g}: remove it, or ask for its budget')
        return preds
    spec, table, scratch = {**DEFAULT, **(change or {})}, records(data), RUNS/'scratch'/str(os.getpid())
    scratch.mkdir(parents=True, exist_ok=True)
    truth, role = multi_hot(table.labels), roles(data, table, fold)
    x = RUNS/'data'/f'{data}-{spec["fs"]}-{spec["seconds"]:g}.npy'
    record = np.load(x.with_name(x.stem+'-record.npy'))
    sets = LabelSets().fit(truth[role == 'train'])
    target = sets.encode(truth).astype(np.int64) if approach == 'powerset' else truth.astype(np.float32)
    np.savez(scratch/'split.npz', record=record, truth=truth, target=target[record], sets=sets.matrix, **{part: np.flatnonzero(role[record] == part) for part in ('train', 'valid', 'test')})
    loss = 'powerset' if approach == 'powerset' else spec['loss']
    job = {**spec, 'loss': loss, 'system': system, 'arch': system.split(',')[0], 'options': {**OPTIONS.get(system, {}), **spec['options']}, 'lr': lr, 'budget': budget, 'batch': BATCH, 'checks': CHECKS, 'x': str(x), 'split': str(scratch/'split.npz'), 'out': str(scratch/'prob.npz')}
    start = time.perf_counter()
    about = trainers[system in PEERS](job)
    preds = told(table, truth, role, np.load(scratch/'prob.npz'), sets if approach == 'powerset' else None, fold, {**{k: v for k, v in job.items() if k not in ('x', 'split', 'out')}, 'data': data, 'approach': approach, **about})
    save_predictions(preds, path)
    print(f'{time.strftime("%H:%M:%S")} {path.stem}: {about["epochs"]:.1f} epochs, {about["cpu_s"]:.0f} s of {time.perf_counter()-start:.0f} s; macro AUROC where it was chosen {about["valid_auroc"]:.3f}', flush=True)
    return preds


def told(table, truth, role, prob, sets, fold, about):
    "Predictions of the choosing and the reporting records; those of a powerset are answered by the likeliest set."
    rows = np.r_[np.flatnonzero(role == 'valid'), np.flatnonzero(role == 'test')]
    p = np.concatenate([prob['valid'], prob['test']])
    given = sets.decode(p.argmax(1)) if sets else None
    return Predictions(table['id'].to_numpy()[rows], sets.marginals(p) if sets else p, truth[rows], role[rows], first=first_labels(table.labels)[rows], answer=given, fold=np.full(len(rows), fold), provenance=about)


def best_rate(fit, system, budget):
    "The learning rate with the better score where weights are chosen, first real fold; its fit is that fold's."
    tried = {lr: fit('real', system, lr, budget, path=fit_path('real', system, lr=lr)) for lr in RATES}
    return max(RATES, key=lambda lr: tried[lr].provenance['valid_auroc'])


def run(fit, stages, budget, systems):
    rate = cache(partial(best_rate, fit, budget=budget['real']))
    members = [s for s in systems if s in MEMBERS]
    def all_folds(systems, approach):
        for fold in range(FOLDS):
            for s in systems:
                path = fit_path('real', s, approach, fold=fold, lr=rate(s) if approach == 'thresholds' and fold == 0 else None)
                fit('real', s, rate(s), budget['real'], approach, fold, path=path)
    def one_split(systems, approach):
        for s in systems: fit('simulated', s, rate(s), budget['simulated'], approach, path=fit_path('simulated', s, approach))
    def ablations():
        for factor, choices in ABLATIONS.items():
            for choice, change in choices.items(): fit('simulated', 'crnn', rate('crnn'), budget['ablation'], change=change, path=fit_path('ablation', 'crnn', variant=f'{factor} {choice}'))
    def longer():
        for s in (s for s in LONGER if s in systems): fit('simulated', s, rate(s), LONGER[s]*budget['simulated'], path=fit_path('simulated', s, 'longer'))
    todo = {'simulated': partial(one_split, systems, 'thresholds'), 'real': partial(all_folds, systems, 'thresholds'), 'ablations': ablations,
            'simulated-powerset': partial(one_split, members, 'powerset'), 'real-powerset': partial(all_folds, members, 'powerset'), 'longer': longer}
    for stage in stages: todo[stage]()

STAGES = ('simulated', 'real', 'ablations', 'simulated-powerset', 'real-powerset', 'longer')

# ---- tables, from kept predictions

def answered(preds):
    "With thresholds that the choosing records chose, where it has no answers yet."
    return preds if preds.answer is not None else apply_thresholds(preds, fit_thresholds(preds))


def kept(data, system, approach):
    "The fits of a system on all splits of a data set, answered; none where one is missing."
    paths = [fit_path(data, system, approach, fold=f) for f in range(FOLDS if data == 'real' else 1)]
    if data == 'real' and approach == 'thresholds':
        tried = [load_predictions(p) for lr in RATES if (p := fit_path('real', system, lr=lr)).exists()]
        if len(tried) < len(RATES): return []
        paths[0] = fit_path('real', system, lr=max(tried, key=lambda p: p.provenance['valid_auroc']).provenance['lr'])
    return [answered(load_predictions(p)) for p in paths] if all(p.exists() for p in paths) else []


def fold_scores(parts): return pd.DataFrame([drawn_scores(q, np.ones((1, len(q))), KEPT).iloc[0] for q in (p.of('test') for p in parts)])


def scores_table(fits):
    rows = []
    for (data, system, approach), parts in fits.items():
        each = fold_scores(parts)
        rows.append(bootstrap(pool_predictions(parts), KEPT).assign(data=data, system=system, approach=approach, fold_mean=each.mean(), fold_sd=each.std() if len(each) > 1 else np.nan, n_records=len(pool_predictions(parts))).reset_index())
    return pd.concat(rows)[['data', 'system', 'approach', 'score', 'value', 'low', 'high', 'fold_mean', 'fold_sd', 'n_records']]


def cost_table(fits):
    rows = []
    for (data, system, approach), parts in fits.items():
        about = pd.DataFrame([p.provenance for p in parts])
        total = about[['cpu_s', 'windows', 'steps', 'epochs']].sum()
        rows.append({'data': data, 'system': system, 'approach': approach, 'parameters': about.parameters[0], 'lr': about.lr[0], 'budget_s': about.budget[0], 'cpu_s_a_fit': total.cpu_s/len(about), 'steps_a_fit': total.steps/len(about), 'epochs_a_fit': total.epochs/len(about), 'cpu_ms_a_window': 1e3*total.cpu_s/total.windows})
    return pd.DataFrame(rows)


def differences(fits):
    "`crnn` with either stem against every other system, more time against less, thresholds against powerset."
    rows = []
    others = [s for s in (*PEERS, *MEMBERS) if s != 'crnn']
    pairs = [((d, c, 'thresholds'), (d, s, 'thresholds')) for d in ('real', 'simulated') for c in MEMBERS[:2] for s in others if s != c]
    pairs += [(('simulated', c, way), ('simulated', s, 'longer')) for c in MEMBERS[:2] for way in ('thresholds', 'longer') for s in LONGER if (c, way) != (s, 'longer')]
    pairs += [((d, s, 'thresholds'), (d, s, 'powerset')) for d in ('real', 'simulated') for s in MEMBERS]
    for a, b in pairs:
        if a not in fits or b not in fits: continue
        table = compare(pool_predictions(fits[a]), pool_predictions(fits[b]), KEPT).reset_index().assign(data=a[0], system=f'{a[1]}, {a[2]}', than=f'{b[1]}, {b[2]}')
        if len(fits[a]) > 1:
            tests = [corrected_t_test((fold_scores(fits[a])-fold_scores(fits[b]))[s].dropna(), 1/(FOLDS-2)) for s in table.score]
            table[['fold_mean', 'fold_low', 'fold_high', 'fold_p']] = [[t['mean'], t['low'], t['high'], t['p']] for t in tests]
        rows.append(table)
    return pd.concat(rows)


def ablation_table():
    "Each choice against the default with the same seed."
    rows, plain = [], fit_path('ablation', 'crnn', variant='default seed 0')
    for factor, choices in ABLATIONS.items():
        for choice in choices:
            path = fit_path('ablation', 'crnn', variant=f'{factor} {choice}')
            if not path.exists(): continue
            part = answered(load_predictions(path))
            value, gap, about = bootstrap(part, KEPT), compare(part, answered(load_predictions(plain)), KEPT), part.provenance
            gap = gap[['difference', 'low', 'high']].rename(columns={'low': 'low_difference', 'high': 'high_difference'})
            rows.append(value.join(gap).reset_index().assign(factor=factor, choice=choice, seed=about['seed'], parameters=about['parameters'], epochs=about['epochs'], cpu_ms_a_window=1e3*about['cpu_s']/about['windows'], budget_s=about['budget']))
    return pd.concat(rows) if rows else None


def rates_table():
    found = [load_predictions(p).provenance for s in (*MEMBERS, *PEERS) for lr in RATES if (p := fit_path('real', s, lr=lr)).exists()]
    return pd.DataFrame([{k: p[k] for k in ('system', 'lr', 'valid_auroc', 'epochs')} for p in found])


def tables():
    combos = [(d, s, a) for d in ('real', 'simulated') for a in ('thresholds', 'powerset', 'longer') for s in (*MEMBERS, *PEERS)]
    fits = {c: parts for c in combos if (parts := kept(*c))}
    made = {'rates': rates_table(), 'scores': scores_table(fits), 'cost': cost_table(fits), 'differences': differences(fits), 'ablations': ablation_table()}
    for name, table in made.items():
        if table is None or not len(table): continue
        with whole_file(RESULTS/f'study_{name}.csv') as f: table.to_csv(f, index=False, float_format='%.5g')
        print(f'\n{name}\n{table.round(3).to_string(index=False)}', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--peers-python', help='the Python of an environment that holds tsai; without it, the family alone')
    parser.add_argument('--stages', nargs='+', choices=STAGES, default=STAGES)
    parser.add_argument('--tables', action='store_true', help='train nothing')
    for name, seconds in BUDGET.items(): parser.add_argument(f'--{name}-budget', type=float, default=seconds, help='processor seconds of training in a fit')
    args = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    if not args.tables:
        trainers = Trainer(sys.executable), Trainer(args.peers_python)
        budget = {name: getattr(args, f'{name}_budget') for name in BUDGET}
        run(partial(fit, trainers), args.stages, budget, ('crnn', *(PEERS if args.peers_python else ()), *MEMBERS[1:]))
    tables()

if __name__ == '__main__': main()
