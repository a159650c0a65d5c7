"CPSC2018's protocol from a folder to its tables: the committed folds, what is left out, every score, resuming."
import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecg_nbdev.folds import cpsc2018_folds
from ecg_nbdev.core import CLASSES, CohortError, ECGError
from ecg_nbdev.evaluation import evaluate
from ecg_nbdev.uncertainty import single_answer
from ecg_nbdev.labels import cpsc2018_label_order, label_tuples, multi_hot, read_reference
from ecg_nbdev.official import challenge_weights
from ecg_nbdev.predictions import Predictions
from ecg_nbdev.records import write_record
from ecg_nbdev.sim.synth import simulate

ROOT = Path(__file__).resolve().parents[1]
ECG_DATA = os.environ.get('ECG_DATA')
real = pytest.mark.skipif(not ECG_DATA, reason='ECG_DATA does not name the folder of real recordings')


def script():
    spec = importlib.util.spec_from_file_location('bench_cpsc2018', ROOT/'bench'/'cpsc2018.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

bench = script()


# --- folds

def test_every_record_has_a_fold():
    folds = cpsc2018_folds()
    assert folds.index.tolist() == [f'A{i:04d}' for i in range(1, 6878)]
    assert set(folds) == set(range(10)) and np.ptp(np.bincount(folds)) <= 2


@real
def test_the_folds_can_be_made_again_to_the_byte():
    reference = read_reference(f'{ECG_DATA}/cpsc2018/REFERENCE.csv')
    assert bench.deal_folds(reference).encode() == bench.FOLDS.read_bytes()
    turned = dict(reversed(list(reference.items())))
    assert bench.deal_folds(turned) == bench.deal_folds(reference)


@real
def test_the_order_of_labels_is_that_of_the_label_table():
    reference = read_reference(f'{ECG_DATA}/cpsc2018/REFERENCE.csv')
    in_class_order = label_tuples(multi_hot(reference.values()))
    assert cpsc2018_label_order(reference, in_class_order) == list(reference.values())
    assert cpsc2018_label_order([f'x{i}' for i in reference], in_class_order) == in_class_order


@real
def test_the_challenge_scores_six_of_the_nine():
    weights = challenge_weights(f'{ECG_DATA}/physionet2020-evaluation/weights.csv', bench.CODES)
    assert [c for c, w in zip(CLASSES, weights) if not w.any()] == ['PVC', 'STD', 'STE']
    stats = pd.read_csv(f'{ECG_DATA}/challenge-metadata/stats.csv', usecols=['tranche_name', 'diagnosis', 'diagnosis_scored'],
                        keep_default_na=False)
    ventricular = stats[(stats.tranche_name == 'CPSC') & stats.diagnosis.str.split(';').map(lambda names: 'VEB' in names)]
    assert len(ventricular) == 700 and not ventricular.diagnosis_scored.str.contains('VEB|PVC|VPB').any()


@real
def test_labels_and_label_sets_are_spread_evenly():
    reference, folds = read_reference(f'{ECG_DATA}/cpsc2018/REFERENCE.csv'), cpsc2018_folds()
    fold = folds[list(reference)].to_numpy()
    of_label = pd.DataFrame(multi_hot(reference.values())).groupby(fold).sum()
    of_set = pd.crosstab(fold, [';'.join(sorted(names)) for names in reference.values()])
    assert of_set.shape == (10, 36)
    assert ((of_label.max()-of_label.min()) <= 1).all()
    assert ((of_set.max()-of_set.min()) <= 4).all()
    # a rare set's recordings lie in folds of their own, but for one
    assert ((of_set > 0).sum() >= of_set.sum().clip(upper=10)-1).all()


def listed(ids, **columns):
    "A cohort's table."
    return pd.DataFrame({'id': ids, 'patient': ids, 'path': [f'{i}.hea' for i in ids], 'labels': 'AF', **columns})


def test_what_has_no_fold_or_no_label_is_left_out_and_named():
    table = listed(['A0001', 'A0002', 'A0003', 'E0001', 'A0004'])
    table.loc[4, 'labels'] = ''
    kept, left, said = bench.place(table)
    assert kept.id.tolist() == ['A0001', 'A0002', 'A0003'] and left.id.tolist() == ['E0001', 'A0004']
    assert left.reason.tolist() == ['no fold number: not one of the 6,877 ids', 'no label']
    assert said == ['3 of 6877 recordings are here; 2 left out (E0001, A0004)',
                    '7 of 10 folds would be empty: 3 folds are used']
    assert sorted(kept.fold) == [0, 1, 2]


def test_copies_share_a_fold_and_few_folds_are_refused():
    folds = cpsc2018_folds()
    names = [folds.index[folds == f][0] for f in range(4)]
    kept = bench.place(listed(names, patient=[names[0], names[0], *names[2:]]))[0]
    assert kept.fold.tolist() == [0, 0, 1, 2]
    assert bench.place(listed(list(folds.index[:300])), k=5)[0].fold.nunique() == 5
    with pytest.raises(CohortError, match='2 recordings with a fold number lie in 2 folds'):
        bench.place(listed(names[:2]))


# --- scores

SHARED = {'cpsc2018_f1', 'cpsc2018_F_AF', 'cpsc2018_F_Block', 'cpsc2018_F_PC', 'cpsc2018_F_ST', 'macro_auroc',
          'macro_auprc', 'exact_match', 'hamming_loss', 'f_beta2', 'g_beta2', 'challenge'}

def drawn_predictions(n):
    "Answered predictions of recordings with random labels."
    rng = np.random.default_rng(0)
    truth = np.eye(9, dtype=bool)[rng.integers(9, size=n)] | (rng.uniform(size=(n, 9)) < .05)
    prob = 1/(1+np.exp(-rng.normal(-2, 1, (n, 9))-2*truth))
    return Predictions(np.arange(n), prob, truth, 'test', answer=prob > .4)

def repeated(preds, rows):
    "Predictions with some rows once more, as recordings of their own."
    fields = ('prob', 'truth', 'known', 'answer', 'first', 'fold', 'key', 'role')
    return replace(preds, **{f: getattr(preds, f)[rows] for f in fields}, ids=np.arange(len(rows)))

def test_every_score_is_that_of_the_package():
    n, rewards = 400, np.eye(9)+.3*(1-np.eye(9))
    preds = drawn_predictions(n)
    ours = bench.scores(preds, single_answer(preds), np.ones((1, n)), rewards).iloc[0]
    theirs = evaluate(preds, weights=rewards)
    shared = [name for name in ours.index if not name.startswith('cpsc2018 F1 ')]
    assert SHARED <= set(shared)
    for name in shared: assert ours[name] == pytest.approx(theirs[name], abs=1e-12), name
    # a recording that counts twice is a recording that stands there twice
    doubled = evaluate(repeated(preds, np.r_[np.arange(n), np.arange(50)]), weights=rewards)
    twice = np.where(np.arange(n) < 50, 2., 1.)[None]
    weighted = bench.scores(preds, single_answer(preds), twice, rewards).iloc[0]
    for name in shared: assert weighted[name] == pytest.approx(doubled[name], abs=1e-12), name


def test_published_rows_say_where_they_come_from():
    table = pd.read_csv(ROOT/'bench'/'published.csv')
    assert table[['system', 'source', 'protocol', 'comparable']].notna().to_numpy().all()
    assert table.comparable.str.startswith(('in part: ', 'no: ')).all()
    values = table.iloc[:, 4:]
    assert values.notna().any(axis=1).all() and values.stack().dropna().between(.4, 1).all()
    hidden = table.protocol.str.contains('hidden')
    assert hidden.sum() == 3 and (table.comparable[hidden] == 'no: hidden test set').all()


def test_a_table_as_markdown():
    table = pd.DataFrame({'a': ['x', 'y'], 'b': [.5, np.nan]})
    assert bench.markdown(table) == '| a | b |\n| --- | --- |\n| x | 0.500 |\n| y |  |'


# --- from a folder to the tables

QUICK = dict(arch='lead', epochs=1, k=3, seconds=5., n_boot=20)
WRITTEN = {'scores.csv', 'classes.csv', 'by_fold.csv', 'published.csv', 'left_out.csv', 'scores.md', 'folds', 'store'}

def untrained(*args):
    "A trainer that may not be used."
    return lambda *rows: pytest.fail('trained again')

@real
def test_the_real_subset(tmp_path, monkeypatch, capsys):
    weights = f'{ECG_DATA}/physionet2020-evaluation/weights.csv'
    table = bench.protocol(f'{ECG_DATA}/cpsc2018', tmp_path, weights=weights, **QUICK)
    printed = capsys.readouterr().out
    assert '123 of 6877 recordings are here; 0 left out' in printed and printed.count(' report; ') == 3
    assert WRITTEN <= set(os.listdir(tmp_path))
    assert table.loc['macro_auroc', 'pooled'] > 0 and (table.low <= table.high).all() and 'challenge' in table.index
    assert pd.read_csv(tmp_path/'by_fold.csv').fold.tolist() == [0, 1, 2]
    beside = pd.read_csv(tmp_path/'published.csv')
    assert beside.source[0] == 'this run' and len(beside) == 1+len(pd.read_csv(ROOT/'bench'/'published.csv'))
    assert beside.cpsc2018_f1[0] == pytest.approx(table.loc['cpsc2018_f1', 'pooled'], abs=1e-5)
    text = (tmp_path/'scores.md').read_text()
    assert '| xresnet1d101 |' in text and '123 of 6877' in text
    # a finished fold is not trained again, and predictions of another run are not taken for this one
    monkeypatch.setattr(bench, 'trainer', untrained)
    assert bench.protocol(f'{ECG_DATA}/cpsc2018', tmp_path, weights=weights, **QUICK).equals(table)
    with pytest.raises(ECGError, match='another run'):
        bench.protocol(f'{ECG_DATA}/cpsc2018', tmp_path, **{**QUICK, 'epochs': 2})


@pytest.fixture(scope='module')
def simulated(tmp_path_factory):
    "Forty simulated recordings under CPSC's names, and one that is not CPSC's."
    folder = tmp_path_factory.mktemp('cpsc')
    for i in range(41):
        labels = (CLASSES[i % 9],)
        name = f'A{i+1:04d}' if i < 40 else 'Z0001'
        write_record(simulate(labels, 6, 100, np.random.default_rng(i), id=name), folder)
    rows = [f'A{i+1:04d},{i % 9+1},,' for i in range(40)]
    (folder/'REFERENCE.csv').write_text('\n'.join(['Recording,First_label,Second_label,Third_label', *rows])+'\n')
    return folder


def test_a_simulated_set_from_the_command_line(simulated, tmp_path):
    options = {'data': simulated, 'out': tmp_path/'out', 'arch': 'lead', 'epochs': 1, 'k': 3, 'seconds': 5,
               'approach': 'powerset'}
    words = [str(word) for name, value in options.items() for word in (f'--{name}', value)]
    command = [sys.executable, ROOT/'bench'/'cpsc2018.py', *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert '40 of 6877 recordings are here; 1 left out (Z0001)' in done.stdout
    assert pd.read_csv(tmp_path/'out'/'left_out.csv')['id'].tolist() == ['Z0001']
    scores = pd.read_csv(tmp_path/'out'/'scores.csv').set_index('score')
    assert scores.pooled.between(0, 1).all() and 'challenge' not in scores.index


@pytest.mark.parametrize('args, said', [
    ({}, 'no folder of recordings'), ({'data': 'nowhere'}, 'nowhere: there is no such folder'),
    ({'stage': 'folds', 'data': 'nowhere'}, 'nowhere/REFERENCE.csv')])
def test_a_mistake_is_one_line(args, said):
    with pytest.raises(SystemExit) as e: bench.main(**args)
    assert said in str(e.value.code) and '\n' not in str(e.value.code)
