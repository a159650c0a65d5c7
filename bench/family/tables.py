"""The study's tables, from the predictions that are kept."""
import numpy as np
import pandas as pd

from ecg_nbdev.core import whole_file
from ecg_nbdev.evaluation import bootstrap, compare, corrected_t_test, drawn_scores
from ecg_nbdev.predictions import load_predictions, pool_predictions
from ecg_nbdev.thresholds import apply_thresholds, fit_thresholds
from train import PEERS
from .fits import chosen_rate, fit_path
from .plan import ABLATIONS, FOLDS, KEPT, LONGER, MEMBERS, RATES, RESULTS

COLUMNS = ['data', 'system', 'approach', 'score', 'value', 'low', 'high', 'fold_mean', 'fold_sd', 'n_records']


# ---- kept fits

def answered(preds):
    "With thresholds that the choosing records chose, where there are no answers yet."
    return preds if preds.answer is not None else apply_thresholds(preds, fit_thresholds(preds, least=1))

def tried_rates(system):
    "Learning rate → predictions of the first real fold."
    paths = {lr: fit_path('real', system, lr=lr) for lr in RATES}
    return {lr: load_predictions(path) for lr, path in paths.items() if path.exists()}

def kept(data, system, approach):
    "The fits of a system on all splits of a data set, answered; none where one is missing."
    paths = [fit_path(data, system, approach, fold=f) for f in range(FOLDS if data == 'real' else 1)]
    if data == 'real' and approach == 'thresholds':
        tried = tried_rates(system)
        if len(tried) < len(RATES): return []
        paths[0] = fit_path('real', system, lr=chosen_rate(tried))
    return [answered(load_predictions(p)) for p in paths] if all(p.exists() for p in paths) else []

def fold_scores(parts):
    "The scores of each fold: (folds, scores)."
    tests = [p.of('test') for p in parts]
    return pd.DataFrame([drawn_scores(q, np.ones((1, len(q))), KEPT).iloc[0] for q in tests])


# ---- tables

def scores_table(fits):
    "Scores with intervals, and their mean and standard deviation over folds."
    rows = []
    for (data, system, approach), parts in fits.items():
        each, pooled = fold_scores(parts), pool_predictions(parts)
        sd = each.std() if len(each) > 1 else np.nan
        table = bootstrap(pooled, KEPT).assign(fold_mean=each.mean(), fold_sd=sd).reset_index()
        rows.append(table.assign(data=data, system=system, approach=approach, n_records=len(pooled)))
    return pd.concat(rows)[COLUMNS]

def cost_row(data, system, approach, parts):
    "What the fits of one system took."
    about = pd.DataFrame([p.provenance for p in parts])
    total, n = about[['cpu_s', 'windows', 'steps', 'epochs']].sum(), len(about)
    return {'data': data, 'system': system, 'approach': approach, 'parameters': about.parameters[0], 'lr': about.lr[0],
            'budget_s': about.budget[0], 'cpu_s_a_fit': total.cpu_s/n, 'steps_a_fit': total.steps/n,
            'epochs_a_fit': total.epochs/n, 'cpu_ms_a_window': 1e3*total.cpu_s/total.windows}

def cost_table(fits): return pd.DataFrame([cost_row(*case, parts) for case, parts in fits.items()])


def pairs():
    "`crnn` with either stem against every other system, more time against less, thresholds against powerset."
    stems, others, sets = MEMBERS[:2], [s for s in (*PEERS, *MEMBERS) if s != 'crnn'], ('real', 'simulated')
    yield from (((d, c, 'thresholds'), (d, s, 'thresholds')) for d in sets for c in stems for s in others if s != c)
    yield from (((sets[1], c, way), (sets[1], s, 'longer')) for c in stems for way in ('thresholds', 'longer')
                for s in LONGER if (c, way) != (s, 'longer'))
    yield from (((d, s, 'thresholds'), (d, s, 'powerset')) for d in sets for s in MEMBERS)

def difference(a, b, fits):
    "One system's scores less another's: over recordings, and over folds where there are several."
    (data, system, way), (_, other, other_way) = a, b
    table = compare(pool_predictions(fits[a]), pool_predictions(fits[b]), KEPT).reset_index()
    table = table.assign(data=data, system=f'{system}, {way}', than=f'{other}, {other_way}')
    if len(fits[a]) > 1:
        gaps = fold_scores(fits[a])-fold_scores(fits[b])
        tests = [corrected_t_test(gaps[score].dropna(), 1/(FOLDS-2)) for score in table.score]
        columns = ['fold_mean', 'fold_low', 'fold_high', 'fold_p']
        table[columns] = [[t['mean'], t['low'], t['high'], t['p']] for t in tests]
    return table

def differences(fits): return pd.concat([difference(a, b, fits) for a, b in pairs() if a in fits and b in fits])


def ablation_row(factor, choice, path, plain):
    "One choice against the default with the same seed."
    part = answered(load_predictions(path))
    gap = compare(part, plain, KEPT)[['difference', 'low', 'high']]
    gap, about = gap.rename(columns={'low': 'low_difference', 'high': 'high_difference'}), part.provenance
    return bootstrap(part, KEPT).join(gap).reset_index().assign(
        factor=factor, choice=choice, seed=about['seed'], parameters=about['parameters'], epochs=about['epochs'],
        cpu_ms_a_window=1e3*about['cpu_s']/about['windows'], budget_s=about['budget'])

def ablation_table():
    "Each choice that has been fitted."
    paths = {(factor, choice): fit_path('ablation', 'crnn', variant=f'{factor} {choice}')
             for factor, choices in ABLATIONS.items() for choice in choices}
    found = {case: path for case, path in paths.items() if path.exists()}
    if not found: return None
    plain = answered(load_predictions(paths['default', 'seed 0']))
    return pd.concat([ablation_row(*case, path, plain) for case, path in found.items()])


def rates_table():
    "What each learning rate that was tried gave."
    found = [preds.provenance for s in (*MEMBERS, *PEERS) for preds in tried_rates(s).values()]
    return pd.DataFrame([{k: p[k] for k in ('system', 'lr', 'valid_auroc', 'epochs')} for p in found])

def write_tables():
    "Every table that the kept fits give, to bench/results."
    cases = [(d, s, a) for d in ('real', 'simulated') for a in ('thresholds', 'powerset', 'longer')
             for s in (*MEMBERS, *PEERS)]
    fits = {case: parts for case in cases if (parts := kept(*case))}
    made = {'rates': rates_table(), 'scores': scores_table(fits), 'cost': cost_table(fits),
            'differences': differences(fits), 'ablations': ablation_table()}
    for name, table in made.items():
        if table is None or not len(table): continue
        with whole_file(RESULTS/f'study_{name}.csv') as f: table.to_csv(f, index=False, float_format='%.5g')
        print(f'\n{name}\n{table.round(3).to_string(index=False)}', flush=True)
