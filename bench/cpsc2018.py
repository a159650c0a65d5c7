"""CPSC2018's published protocol, from a folder of recordings to the table beside the published rows:
`make cpsc2018 DATA=DIR`.

DIR holds the 6,877 recordings in any layout that the package reads, or some of them. Stages:
  folds      makes `ecg_nbdev/data/cpsc2018_folds.csv` again from the label table (REFERENCE.csv), to the byte
  all        scan, packed store, ten committed folds, training, scores. Of each split one fold reports; the next one
             chooses epoch, calibration and thresholds; the others train
Everything goes to `runs/cpsc2018`; a fold that is finished is kept there and not trained again.
"""
import time, warnings
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from fastcore.script import call_parse

from ecg_nbdev.parallel import keep_memory
from ecg_nbdev.cohort import scan
from ecg_nbdev.folds import cpsc2018_folds, make_folds
from ecg_nbdev.core import CLASSES, SNOMED, CohortError, ECGError, whole_file
from ecg_nbdev.data import WindowDL, WindowDataset, ecg_dls
from ecg_nbdev.evaluation import evaluate
from ecg_nbdev.uncertainty import SCORES, draw_weights, single_answer, weight_parts
from ecg_nbdev.labels import cpsc2018_label_order, first_labels, multi_hot, read_reference
from ecg_nbdev.learner import ecg_learner, predict_records, train_learner
from ecg_nbdev.metrics import UndefinedScore
from ecg_nbdev.official import challenge_score, challenge_weights, cpsc2018_matrix, cpsc2018_score, first_phase_scores
from ecg_nbdev.models import MODELS
from ecg_nbdev.protocol import cross_validate
from ecg_nbdev.signal import Preparation
from ecg_nbdev.packing import build_store
from ecg_nbdev.thresholds import fit_thresholds

HERE = Path(__file__).resolve().parent
FOLDS = HERE.parent/'ecg_nbdev'/'data'/'cpsc2018_folds.csv'
CODES = [SNOMED[c] for c in CLASSES]  # PVC as CPSC2018's headers code it, 164884008: not scored in 2020, as STD and STE
TITLES = {'scores': 'Scores', 'classes': 'Classes', 'by_fold': 'Folds',
          'published': 'Beside published rows (protocols differ: see the column *comparable*)'}


# --- folds

def deal_folds(reference):
    "Ten folds of a label table as the text of a CSV file: stratified over the labels and over whole label sets."
    labels = [';'.join(dict.fromkeys([*names, '+'.join(sorted(names))])) for names in reference.values()]
    table = pd.DataFrame({'record': list(reference), 'id': list(reference), 'labels': labels})
    dealt = table.assign(fold=make_folds(table, k=10)).sort_values('record')
    return dealt[['record', 'fold']].to_csv(index=False, lineterminator='\n')

def left_out(table):
    "The recordings of a cohort's table that can't take part: id, path, reason."
    reasons = ['no fold number: not one of the 6,877 ids', 'no label']
    why = np.select([~table.id.isin(cpsc2018_folds().index), table.labels == ''], reasons, '')
    return table[['id', 'path']].assign(reason=why)[why != '']

def what_is_here(kept, out):
    "How many of the recordings there are, in a sentence."
    some = f' ({", ".join(out.id[:5])}{", …" if len(out) > 5 else ""})' if len(out) else ''
    return f'{len(kept)} of {len(cpsc2018_folds())} recordings are here; {len(out)} left out{some}'

def place(table, k=10):
    """The labelled recordings of a cohort's table with their `fold`; what is left out and why; what to say.

    Copies lie in the fold of the first of them, and empty folds are closed up. Raises CohortError below three folds."""
    out = left_out(table)
    kept = table.drop(out.index)
    kept = kept.assign(fold=kept.id.map(cpsc2018_folds()).astype(int)*k//10)
    kept['fold'] = kept.groupby('patient').fold.transform('first')
    held = sorted(kept.fold.unique())
    said = [what_is_here(kept, out)]
    if len(held) < k: said.append(f'{k-len(held)} of {k} folds would be empty: {len(held)} folds are used')
    if len(held) < 3:
        raise CohortError(f'{len(kept)} recordings with a fold number lie in {len(held)} folds: three are needed, one '
                          'trains, one chooses, one reports; give more of the 6,877 recordings')
    return kept.assign(fold=kept.fold.map({f: i for i, f in enumerate(held)})).reset_index(drop=True), out, said


# --- training

def predict_rows(learn, dls, store, rows, bs):
    "Probabilities of the classes, (rows, 9)."
    windows = WindowDataset(store, rows, np.zeros(len(rows)), dls.valid.dataset.plan.size)
    return predict_records(learn.model, WindowDL(windows, bs=bs), label_sets=dls.label_sets)

def trainer(store, folds, arch, epochs, seconds, approach, bs=64):
    "The `fit_predict` of `cross_validate`: train on some rows, keep the best epoch on others, predict."
    def fit_predict(fit, valid, test, seed):
        start, split = time.perf_counter(), np.full(len(folds), 'other')
        split[fit], split[valid] = 'train', 'valid'
        dls = ecg_dls(store, split, seconds, bs=bs, approach=approach, jitter=seconds/4, seed=seed)
        learn = ecg_learner(dls, arch, seed=seed)
        best = train_learner(learn, epochs, show=False).macro_auroc.max()
        prob = predict_rows(learn, dls, store, np.r_[valid, test], 4*bs)
        print(f'fold {folds[test[0]]+1} of {folds.max()+1}, seed {seed}: {len(fit)} train, {len(valid)} choose '
              f'(macro AUROC {best:.3f}), {len(test)} report; {(time.perf_counter()-start)/60:.1f} min', flush=True)
        return prob[:len(valid)], prob[len(valid):]
    return fit_predict


# --- scores

def unweighted(part, one, rows, rewards=None):
    "The scores that know no weights, of some rows: CPSC2018's groups and classes, the first phase's, the Challenge's."
    truth, answer = part.truth[rows], part.answer[rows]
    official = cpsc2018_score(cpsc2018_matrix(truth, part.first[rows], one[rows]))
    f_beta, g_beta = first_phase_scores(truth, answer)
    found = {f'cpsc2018_{group}': v for group, v in official.items() if group.startswith('F_')}
    found |= {'hamming_loss': (truth != answer).mean(), 'f_beta2': f_beta, 'g_beta2': g_beta}
    if rewards is not None: found['challenge'] = challenge_score(truth, answer, rewards)
    return {**found, **{f'cpsc2018 F1 {c}': official[c] for c in CLASSES}}

def scores(part, one, weight, rewards=None):
    "Every score of answered recordings, a row for each draw."
    # `one` is the class answered for CPSC2018's score, `weight` (draws, n) how often each recording counts
    weighted = pd.DataFrame({name: score(part, one, weight) for name, score in SCORES.items()})
    drawn = [np.repeat(np.arange(len(part)), often.astype(int)) for often in weight]
    others = pd.DataFrame([unweighted(part, one, rows, rewards) for rows in drawn])
    return pd.concat([weighted, others], axis=1)

def fold_scores(cv, rewards=None):
    "The scores of each fold; its operating point says which one class CPSC2018's score takes."
    parts = [p.of('test') for p in cv.parts]
    ones = [single_answer(p, at) for p, at in zip(parts, cv.points)]
    rows = [scores(p, one, np.ones((1, len(p))), rewards) for p, one in zip(parts, ones)]
    return pd.concat(rows, ignore_index=True).rename_axis('fold'), np.concatenate(ones)

def summary(cv, rewards=None, n_boot=500):
    "Each score over the folds and of all answers together, with a bootstrap interval; the scores of each fold."
    by_fold, one = fold_scores(cv, rewards)
    pooled = cv.pooled
    parts = weight_parts(draw_weights(len(pooled), n_boot))
    draws = pd.concat([scores(pooled, one, weight, rewards) for weight in parts], ignore_index=True)
    low, high = draws[1:].quantile(.025), draws[1:].quantile(.975)
    table = pd.DataFrame({'mean of folds': by_fold.mean(), 'sd of folds': by_fold.std(), 'pooled': draws.iloc[0],
                          'low': low, 'high': high})
    return table.rename_axis('score'), by_fold


# --- tables

def beside(table, system, protocol):
    "This run's scores above the published rows."
    published = pd.read_csv(HERE/'published.csv')
    ours = {'system': system, 'source': 'this run', 'protocol': protocol, 'comparable': 'with itself'}
    ours |= {c: table.pooled.get(c) for c in published.columns[4:-1]}
    return pd.concat([pd.DataFrame([ours]), published], ignore_index=True)[published.columns]

def digits(value):
    "A cell of a table as text: three digits, nothing where there is no number."
    if pd.isna(value): return ''
    return f'{value:.3f}' if isinstance(value, float) else str(value)

def markdown(table):
    "A table as Markdown."
    body = [[digits(v) for v in row] for row in table.itertuples(index=False)]
    rows = [list(table.columns), ['---']*len(table.columns), *body]
    return '\n'.join('| '+' | '.join(row)+' |' for row in rows)

def write(out, tables, said):
    "The tables as CSV files, and most of them as one page."
    for name, t in tables.items():
        with whole_file(out/f'{name}.csv') as f: t.to_csv(f, index=False, float_format='%.6g')
    ours = tables['published'].iloc[0]
    text = [f'# CPSC2018, {ours.system}', f'{"; ".join(said)}. {ours.protocol}.',
            *(f'## {title}\n\n{markdown(tables[name])}' for name, title in TITLES.items())]
    with whole_file(out/'scores.md') as f: f.write_text('\n\n'.join(text)+'\n', encoding='utf-8')

def show(out, tables):
    "Print the scores, and what stands beside them."
    print(tables['scores'].set_index('score').round(3).to_string(), '\n')
    print(tables['published'].drop(columns='source').to_string(index=False, na_rep=''), '\n')
    print(f'written to {out}: {", ".join(f"{name}.csv" for name in tables)}, scores.md')


# --- from a folder to the tables

def cross_validated(store, arch, epochs, seeds, seconds, approach, folder, about):
    "The committed folds, each in its turn the one that reports."
    index, folds = store.index, store.index.fold.to_numpy()
    first = first_labels(cpsc2018_label_order(index.id, index.labels))
    fit_predict = trainer(store, folds, arch, epochs, seconds, approach)
    return cross_validate(fit_predict, index.id, multi_hot(index.labels), folds, first, index.mark,
                          seeds=range(seeds), calibrate='choose', folder=folder,
                          choose=partial(fit_thresholds, least=1), provenance=about) # the protocol wants a label

def protocol(data, out='runs/cpsc2018', arch='crnn', epochs=20, seeds=1, k=10, seconds=10., approach='thresholds',
             weights=None, n_boot=500):
    "Run the protocol on a folder and write its tables; raises ECGError where the folder can't be used."
    out, cohort = Path(out), scan(data)
    kept, left, said = place(cohort.table, k)
    print(f'{data}: '+'; '.join(said), flush=True)
    store = build_store(kept, out/'store', Preparation())
    about = {'data': store.meta['fingerprint'], 'arch': arch, 'epochs': epochs, 'seconds': seconds,
             'approach': approach, 'k': k}
    warnings.simplefilter('ignore', UndefinedScore)
    cv = cross_validated(store, arch, epochs, seeds, seconds, approach, out/'folds', about)
    table, by_fold = summary(cv, challenge_weights(weights, CODES) if weights else None, n_boot)
    ran = f'{len(cv.parts)} committed folds, each reports once; {len(store)} recordings, {seeds} seed'+'s'*(seeds > 1)
    tables = {
        'scores': table.reset_index(), 'classes': evaluate(cv.pooled).table.reset_index(names='class'),
        'by_fold': by_fold.reset_index(),
        'published': beside(table, f'ecg_nbdev {arch}, {approach}, {epochs} epochs', ran),
        'left_out': pd.concat([left, cohort.skipped, store.skipped], ignore_index=True)}
    write(out, tables, said)
    show(out, tables)
    return table

def write_folds(data):
    "Write the committed folds again."
    text = deal_folds(read_reference(Path(data)/'REFERENCE.csv'))
    with whole_file(FOLDS) as f: f.write_text(text, encoding='utf-8')


@call_parse
def main(
    data:str=None, # folder of recordings; for `--stage folds` the folder of REFERENCE.csv
    stage:Annotated[str, 'folds writes the committed folds again', {'choices': ('all', 'folds')}]='all',
    out:str='runs/cpsc2018', # folder to write
    arch:Annotated[str, 'network', {'choices': tuple(MODELS)}]='crnn',
    epochs:int=20, # passes over the training windows
    seeds:int=1, # trainings of each split, averaged
    k:int=10, # folds; fewer merge committed ones
    seconds:float=10., # length of a window
    approach:Annotated[str, 'a threshold for each class, or a class for each label set',
                       {'choices': ('thresholds', 'powerset')}]='thresholds',
    weights:str=None, # weights.csv of the PhysioNet Challenge 2020, for its score
):
    "CPSC2018's protocol on a folder of recordings."
    try:
        if not data: raise ECGError('no folder of recordings: make cpsc2018 DATA=DIR')
        if stage == 'folds': return write_folds(data)
        keep_memory()
        protocol(data, out, arch, epochs, seeds, k, seconds, approach, weights)
    except ECGError as e: raise SystemExit(f'error: {e}')
