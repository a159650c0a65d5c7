"""The tables of the study, from the fits that are kept; seeds and selection enter the intervals."""
import numpy as np
import pandas as pd

from baselines import macro, patient_draws
from ecg_nbdev.core import whole_file
from .fits import read_log
from .plan import RESULTS


def curves(stages):
    "Score on the choosing recordings over processor seconds and over windows seen, a row for each epoch."
    fits = [*(f for n in stages.plan.networks for f in stages.searches(n)), *stages.finals()]
    rows = [{'network': f.network, 'lr': f.lr, 'seed': f.seed, 'epochs': f.epochs, **row}
            for f in dict.fromkeys(fits) if f.done(stages.plan.runs) for row in read_log(f.path(stages.plan.runs))]
    return pd.DataFrame(rows)

def finished(stages):
    "Network → its finished final fits."
    found = {}
    for fit in stages.finals():
        if fit.done(stages.plan.runs) == fit.epochs: found.setdefault(fit.network, []).append(fit)
    return found

def drawn(probs, score, n_boot, seed):
    """Scores (1+draws,): first the mean over seeds, then draws of recordings (by `score`) and of a seed together.

    `probs` are a network's predictions, one a seed; `score` gives (draws,) for one of them."""
    by_seed = np.stack([score(p) for p in probs])
    which = np.random.default_rng(seed).integers(len(probs), size=(n_boot, len(probs)))
    draws = by_seed[which, np.arange(1, n_boot+1)[:, None]].mean(1)
    return np.r_[by_seed[:, 0].mean(), draws]

def cases(stages, n_boot):
    """Name of a score → the part that it reads, function of probabilities, number of recordings.

    Real recordings are those with one of the nine, the ones that the results page counts."""
    real, sim = stages.real, stages.reporting
    some, cpsc = real.truth.any(1), real.truth.any(1) & (real.source == 'cpsc2018')
    weight, alone = patient_draws(real.patient, n_boot), patient_draws(np.arange(len(sim.truth)), n_boot)
    def of(rows, group=None):
        return ('real', lambda p: macro(real.truth[rows], p[rows], real.known[rows], weight[:, rows],
                                        None if group is None else group[rows]), int(rows.sum()))
    found = {'simulated': ('simulated', lambda p: macro(sim.truth, p, sim.known, alone), len(sim.truth)),
             'real, pooled': of(some), 'real, within data sets': of(some, real.source)}
    return found | ({'real, cpsc2018': of(cpsc)} if cpsc.any() else {})

def without_scores(stages):
    "Tuned without the data set that is scored: probabilities of every real recording, for each seed of a network."
    found = {}
    for network, fits in finished(stages).items():
        for fit in fits if network in stages.best() else ():
            parts = [stages.plan.runs/'without'/f'{fit.path(stages.plan.runs).stem}-{s}.npz'
                     for s in np.unique(stages.real.source)]
            if not all(p.exists() for p in parts): continue
            prob = np.empty(stages.real.truth.shape)
            for part in map(np.load, parts): prob[part['rows']] = part['real']
            found.setdefault(network, []).append(prob)
    return found

def interval(values):
    return {'value': values[0], 'low': np.nanquantile(values[1:], .025), 'high': np.nanquantile(values[1:], .975)}

def compared(draws, name):
    "Rows of one score: each network, its difference to the best one, and how often it is best in a draw."
    if not draws: return []
    best = max(draws, key=lambda n: draws[n][0])
    first = np.stack([d[1:] for d in draws.values()]).argmax(0)
    rows = []
    for i, (network, d) in enumerate(draws.items()):
        gap = {f'{k} difference to best': v for k, v in interval(d-draws[best]).items()}
        rows.append({'score': name, 'network': network, **interval(d), **gap, 'best in': (first == i).mean()})
    return rows

def scores(stages, n_boot=500):
    "Every network on simulated and on real recordings that it has not seen, then tuned without the scored data set."
    fits, rows, found = finished(stages), [], cases(stages, n_boot)
    probs = {name: {n: [stages.predicted(f)[part] for f in some] for n, some in fits.items()}
             for name, (part, _, _) in found.items()}
    tuned = 'real, tuned without the data set, within'
    probs[tuned], found[tuned] = without_scores(stages), found['real, within data sets']
    for name, (_, score, n) in found.items():
        draws = {network: drawn(p, score, n_boot, i) for i, (network, p) in enumerate(probs[name].items())}
        rows += [{**row, 'recordings': n, 'seeds': len(probs[name][row['network']])} for row in compared(draws, name)]
    return pd.DataFrame(rows) if rows else None

def write_tables(stages, cost=None, folder=RESULTS):
    "Tables of what is kept: networks_*.csv."
    for name, table in {'cost': cost, 'curves': curves(stages), 'scores': scores(stages)}.items():
        if table is None or not len(table): continue
        with whole_file(folder/f'networks_{name}.csv') as f: table.to_csv(f, index=False, float_format='%.5g')
        if name == 'scores': print(table.round(3).to_string(index=False), flush=True)
