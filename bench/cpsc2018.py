"""CPSC2018's published protocol, from a folder of recordings to the table beside the published rows: `make cpsc2018 DATA=DIR`.

DIR holds the 6,877 recordings in any layout that the package reads, or some of them. Stages:
  folds      makes `ecg_nbdev/data/cpsc2018_folds.csv` again from the label table (REFERENCE.csv), to the byte
  all        scan, packed store, ten committed folds, training, scores. Of each split one fold reports; the next one chooses epoch, calibration and thresholds; the others train
Everything goes to `runs/cpsc2018`; a fold that is finished is kept there and not trained again.
"""
import json, time, warnings
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from fastcore.script import call_parse

from ecg_nbdev.cohort import cpsc2018_folds, make_folds, scan
from ecg_nbdev.core import CLASSES, SNOMED, CohortError, ECGError, whole_file
from ecg_nbdev.data import WindowDL, WindowDataset, ecg_dls
from ecg_nbdev.evaluation import SCORES, draw_weights, report_table, single_answer
from ecg_nbdev.labels import multi_hot, read_reference
from ecg_nbdev.learner import ecg_learner, predict_records, train_learner
from ecg_nbdev.metrics import CPSC_GROUPS, UndefinedScore, challenge_score, challenge_weights, cpsc2018_matrix, cpsc2018_score, first_phase_scores, hamming_loss
from ecg_nbdev.models import MODELS
from ecg_nbdev.protocol import cross_validate
from ecg_nbdev.labels import first_labels
from ecg_nbdev.signal import Preparation
from ecg_nbdev.store import build_store

HERE = Path(__file__).parent
FOLDS = HERE.parent/'ecg_nbdev'/'data'/'cpsc2018_folds.csv'


# --- folds

def deal_folds(reference):
    "Ten folds of a label table as the text of a CSV file: stratified over the labels and over whole label sets."
    labels = [';'.join(dict.fromkeys([*names, '+'.join(sorted(names))])) for names in reference.values()]
    table = pd.DataFrame({'record': list(reference), 'id': list(reference), 'labels': labels})
    return table.assign(fold=make_folds(table, k=10)).sort_values('record')[['record', 'fold']].to_csv(index=False, lineterminator='\n')

def place(table, k=10):
    "The labelled recordings of a cohort's table with their `fold`, copies in the fold of the first of them, empty folds closed up; what is left out and why; what to say."
    known = cpsc2018_folds()
    fold = table.id.map(known)
    why = pd.Series(np.select([fold.isna(), table.labels == ''], ['no fold number: not one of the 6,877 ids', 'no label'], ''), table.index)
    out = table[why != ''][['id', 'path']].assign(reason=why[why != ''])
    kept = table[why == ''].assign(fold=fold[why == ''].astype(int)*k//10)
    kept['fold'] = kept.groupby('patient').fold.transform('first')
    held = sorted(kept.fold.unique())
    said = [f'{len(kept)} of {len(known)} recordings are here; {len(out)} left out'+(f' ({", ".join(out.id[:5])}{", …" if len(out) > 5 else ""})' if len(out) else '')]
    if len(held) < k: said.append(f'{k-len(held)} of {k} folds would be empty: {len(held)} folds are used')
    if len(held) < 3: raise CohortError(f'{len(kept)} recordings with a fold number lie in {len(held)} folds: three are needed, one trains, one chooses, one reports; give more of the 6,877 recordings')
    return kept.assign(fold=kept.fold.map({f: i for i, f in enumerate(held)})).reset_index(drop=True), out, said


# --- training

def trainer(store, folds, arch, epochs, seconds, approach, bs=64):
    "The `fit_predict` of `cross_validate`: train on some rows, keep the best epoch on others, predict."
    def fit_predict(fit, valid, test, seed):
        start, split = time.perf_counter(), np.full(len(folds), 'other')
        split[fit], split[valid] = 'train', 'valid'
        dls = ecg_dls(store, split, seconds, bs=bs, approach=approach, jitter=seconds/4, seed=seed)
        learn = ecg_learner(dls, arch, seed=seed)
        log = train_learner(learn, epochs, show=False)
        rows = np.r_[valid, test]
        windows = WindowDataset(store, rows, np.zeros(len(rows)), dls.valid.dataset.plan.size)
        prob = predict_records(learn.model, WindowDL(windows, bs=4*bs), label_sets=dls.label_sets)
        print(f'fold {folds[test[0]]+1} of {folds.max()+1}, seed {seed}: {len(fit)} train, {len(valid)} choose (macro AUROC {log.macro_auroc.max():.3f}), {len(test)} report; {(time.perf_counter()-start)/60:.1f} min', flush=True)
        return prob[:len(valid)], prob[len(valid):]
    return fit_predict


# --- scores

def scores(part, one, w, rewards=None):
    "Every score of answered recordings, a row a draw; `one` is the class answered for CPSC2018's score, `w` (draws, n) how often each recording counts."
    def unweighted(draw):
        t, a = part.truth[draw], part.answer[draw]
        official, beta = cpsc2018_score(cpsc2018_matrix(t, part.first[draw], one[draw])), first_phase_scores(t, a)
        return {**{f'cpsc2018_{g}': official[g] for g in CPSC_GROUPS}, 'hamming_loss': hamming_loss(t, a), 'f_beta2': beta[0], 'g_beta2': beta[1],
            **({} if rewards is None else {'challenge': challenge_score(t, a, rewards)}), **{f'cpsc2018 F1 {c}': official[c] for c in CLASSES}}
    rows = np.arange(len(part))
    return pd.concat([pd.DataFrame({n: f(part, one, w) for n, f in SCORES.items()}), pd.DataFrame([unweighted(np.repeat(rows, often.astype(int))) for often in w])], axis=1)

def summary(cv, rewards=None, n_boot=500):
    "A row a score: mean and standard deviation over folds, the score of all answers together with its bootstrap interval; and the scores of each fold."
    parts = [p.of('test') for p in cv.parts]
    ones = [single_answer(p, at) for p, at in zip(parts, cv.points)]
    by_fold = pd.concat([scores(p, o, np.ones((1, len(p))), rewards) for p, o in zip(parts, ones)], ignore_index=True).rename_axis('fold')
    pooled, one = cv.pooled, np.concatenate(ones)
    draws = pd.concat([scores(pooled, one, w, rewards) for w in np.array_split(draw_weights(len(pooled), n_boot), 1+n_boot//100)], ignore_index=True)
    low, high = draws[1:].quantile(.025), draws[1:].quantile(.975)
    return pd.DataFrame({'mean of folds': by_fold.mean(), 'sd of folds': by_fold.std(), 'pooled': draws.iloc[0], 'low': low, 'high': high}).rename_axis('score'), by_fold

def beside(table, system, protocol):
    "This run's scores above the published rows."
    published = pd.read_csv(HERE/'published.csv')
    ours = {'system': system, 'source': 'this run', 'protocol': protocol, 'comparable': 'with itself', **{c: table.pooled.get(c) for c in published.columns[4:-1]}}
    return pd.concat([pd.DataFrame([ours]), published], ignore_index=True)[published.columns]

def markdown(table):
    "A table as Markdown; three digits, nothing where there is no number."
    cell = lambda v: '' if pd.isna(v) else f'{v:.3f}' if isinstance(v, float) else str(v)
    return '\n'.join('| '+' | '.join(row)+' |' for row in [list(table.columns), ['---']*len(table.columns), *[[cell(v) for v in row] for row in table.itertuples(index=False)]])


# --- from a folder to the tables

def protocol(data, out='runs/cpsc2018', arch='crnn', epochs=20, seeds=1, k=10, seconds=10., approach='thresholds', weights=None, n_boot=500):
    "Run the protocol on a folder and write its tables; raises ECGError where the folder can't be used."
    out, prepare, cohort = Path(out), Preparation(), scan(data)
    kept, left, said = place(cohort.table, k)
    print(f'{data}: '+'; '.join(said), flush=True)
    store = build_store(kept, out/'store', fs=prepare.fs, prepare=prepare, tag=json.dumps(prepare.to_dict()))
    index, folds = store.index, store.index.fold.to_numpy()
    about = {'data': store.meta['fingerprint'], 'arch': arch, 'epochs': epochs, 'seconds': seconds, 'approach': approach, 'k': k}
    warnings.simplefilter('ignore', UndefinedScore)
    cv = cross_validate(trainer(store, folds, arch, epochs, seconds, approach), index.id, multi_hot(index.labels), folds, first_labels(index.labels), index.crc, seeds=range(seeds),
        calibrate='choose', folder=out/'folds', provenance=about)
    rewards = challenge_weights(weights, ['427172004' if c == 'PVC' else SNOMED[c] for c in CLASSES]) if weights else None
    table, by_fold = summary(cv, rewards, n_boot)
    rows = beside(table, f'ecg_nbdev {arch}, {approach}, {epochs} epochs', f'{folds.max()+1} committed folds, each reports once; {len(index)} recordings, {seeds} seed{"s" if seeds > 1 else ""}')
    left = pd.concat([left, cohort.skipped, store.skipped], ignore_index=True)
    tables = {'scores': table.reset_index(), 'classes': report_table(cv.pooled).reset_index(names='class'), 'by_fold': by_fold.reset_index(), 'published': rows, 'left_out': left}
    for name, t in tables.items():
        with whole_file(out/f'{name}.csv') as f: t.to_csv(f, index=False, float_format='%.6g')
    text = [f'# CPSC2018, {rows.system[0]}', f'{"; ".join(said)}. {rows.protocol[0]}.', *(f'## {title}\n\n{markdown(tables[name])}' for name, title in
        (('scores', 'Scores'), ('classes', 'Classes'), ('by_fold', 'Folds'), ('published', 'Beside published rows (protocols differ: see the column *comparable*)')))]
    with whole_file(out/'scores.md') as f: f.write_text('\n\n'.join(text)+'\n', encoding='utf-8')
    print(table.round(3).to_string(), f'\n\n{rows.drop(columns="source").to_string(index=False, na_rep="")}\n\nwritten to {out}: {", ".join(f"{n}.csv" for n in tables)}, scores.md')
    return table


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
    approach:Annotated[str, 'one threshold a class, or one class a label set', {'choices': ('thresholds', 'powerset')}]='thresholds',
    weights:str=None, # weights.csv of the PhysioNet Challenge 2020, for its score
):
    "CPSC2018's protocol on a folder of recordings."
    try:
        if not data: raise ECGError('no folder of recordings: make cpsc2018 DATA=DIR')
        if stage == 'folds':
            with whole_file(FOLDS) as f: f.write_text(deal_folds(read_reference(Path(data)/'REFERENCE.csv')), encoding='utf-8')
        else: protocol(data, out, arch, epochs, seeds, k, seconds, approach, weights)
    except ECGError as e: raise SystemExit(f'error: {e}')
