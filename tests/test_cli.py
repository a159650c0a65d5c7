"The commands as a person runs them: files written, exit status, one line for each mistake."
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecg_nbdev.calibration import Calibration
from ecg_nbdev.core import CLASSES
from ecg_nbdev.records import SAMPLE

BIN = Path(sys.executable).parent
ECG_DATA = os.environ.get('ECG_DATA')
needs_data = pytest.mark.skipif(not ECG_DATA, reason='ECG_DATA does not name the folder of real recordings')


def run(command, *args, status=0):
    env = {**os.environ, 'OMP_NUM_THREADS': '2'}
    done = subprocess.run([BIN/command, *map(str, args)], capture_output=True, text=True, env=env)
    assert done.returncode == status, f'{command} {args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}'
    return done


def one_line(done):
    "The error, which is a single line on stderr without a traceback."
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def without_labels(folder):
    "Take the labels from a simulated data set: its table, and the diagnoses in its headers."
    (folder/'REFERENCE.csv').unlink()
    for header in folder.glob('*.hea'):
        header.write_text(''.join(line for line in header.read_text().splitlines(True) if not line.startswith('#Dx')))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A small simulated data set and a model trained on it for two epochs."
    root = tmp_path_factory.mktemp('run')
    run('ecg-synth', root/'data', '--n', 150, '--seed', 0)
    done = run('ecg-train', '--data-path', root/'data', '--out', root/'model', '--arch', 'multilead', '--epochs', 2)
    return root, done


def test_training_writes_all_it_promises(trained):
    root, done = trained
    written = {f.name for f in (root/'model').iterdir()}
    assert {'model.safetensors', 'config.json', 'MODEL_CARD.md', 'history.csv', 'predictions.csv', 'metrics.json',
            'cohort.csv', 'skipped.csv'} <= written
    metrics = json.loads((root/'model'/'metrics.json').read_text())
    assert {'macro_auroc', 'macro_auprc', 'macro_f1', 'micro_f1', 'exact_match', 'cpsc2018_f1', 'n_records',
            'n_skipped', 'per_class'} <= set(metrics)
    history = pd.read_csv(root/'model'/'history.csv')
    assert list(history) == ['epoch', 'train_loss', 'valid_loss', 'macro_auroc'] and history.epoch.tolist() == [0, 1]
    predictions = pd.read_csv(root/'model'/'predictions.csv')
    assert predictions.record.is_unique and set(predictions.role) == {'train', 'valid', 'test'}
    assert metrics['n_records'] == (predictions.role == 'test').sum()
    assert f"{metrics['n_records']} test recordings: macro AUROC {metrics['macro_auroc']:.3f}" in done.stdout
    epochs = [line.rsplit(',', 1)[0] for line in done.stdout.splitlines() if line.startswith('epoch ')] # without the time
    assert epochs == [', '.join(f'{c} {row[c]:.4f}' if c != 'epoch' else f'epoch {i}' for c in history) for i, row in history.iterrows()]


@pytest.mark.nightly
def test_the_same_seed_gives_the_same_metrics(trained):
    root, _ = trained
    run('ecg-train', '--data-path', root/'data', '--out', root/'again', '--arch', 'multilead', '--epochs', 2)
    for file in ('metrics.json', 'history.csv'):
        assert (root/'again'/file).read_text() == (root/'model'/file).read_text()


def test_evaluation_writes_table_report_and_predictions(trained):
    root, _ = trained
    run('ecg-synth', root/'other', '--n', 40, '--seed', 1)
    done = run('ecg-evaluate', '--test-path', root/'other', '--model', root/'model', '--out', root/'evaluation')
    metrics = json.loads((root/'evaluation'/'metrics.json').read_text())
    assert metrics['n_records'] == 40 and metrics['n_skipped'] == 0
    predictions = pd.read_csv(root/'evaluation'/'predictions.csv')
    assert len(predictions) == 40 and predictions.labels.str.len().min() > 0
    assert (root/'evaluation'/'report.html').read_text().lstrip().lower().startswith('<!doctype html>')
    assert 'STE' in done.stdout


def test_evaluation_repeats_the_scores_of_training_and_leaves_out_what_was_seen(trained):
    """Training reads a store, evaluation reads files; both go through one predictor.

    Their probabilities differ by what the store rounds, 1 µV."""
    root, _ = trained
    done = run('ecg-evaluate', '--test-path', root/'data', '--model', root/'model', '--out', root/'once-more')
    ours, theirs = (pd.read_csv(root/folder/'predictions.csv', index_col='record') for folder in ('once-more', 'model'))
    assert ((ours.role == 'test') == (theirs.role == 'test')).all()
    np.testing.assert_allclose(ours[list(CLASSES)], theirs.loc[ours.index, list(CLASSES)], atol=2e-3)
    n_seen = (theirs.role != 'test').sum()
    assert json.loads((root/'once-more'/'metrics.json').read_text())['n_seen_in_training'] == n_seen
    assert f'{n_seen} recordings that the model has seen' in done.stdout


def test_a_folder_whose_labelled_recordings_were_all_seen_is_refused(trained, tmp_path):
    root, _ = trained
    roles = pd.read_csv(root/'model'/'predictions.csv', index_col='record').role
    seen, unseen = roles.index[roles == 'train'][:3], roles.index[roles == 'test'][:2]
    for folder, names in (('known', seen), ('nameless', unseen)):
        (tmp_path/folder).mkdir()
        for file in (f for name in names for f in (root/'data').glob(f'{name}.*')): shutil.copy(file, tmp_path/folder)
    shutil.copy(root/'data'/'REFERENCE.csv', tmp_path/'nameless')
    without_labels(tmp_path/'nameless')
    for file in (tmp_path/'nameless').iterdir(): shutil.copy(file, tmp_path/'known')
    model = ('--model', root/'model', '--out', tmp_path/'out')
    done = run('ecg-evaluate', '--test-path', tmp_path/'known', *model, status=1)
    assert 'has seen all 3 labelled recordings' in one_line(done) and str(tmp_path/'known') in one_line(done)
    done = run('ecg-evaluate', '--test-path', tmp_path/'nameless', *model, status=1)
    assert 'is labelled with one of the classes' in one_line(done)


def test_prediction_speaks_json_and_csv(trained):
    root, _ = trained
    file = sorted((root/'data').rglob('*.hea'))[0]
    answer = json.loads(run('ecg-predict', file, '--model', root/'model').stdout)
    assert answer[0]['record'] == file.stem and 0 <= answer[0]['probabilities']['AF'] <= 1 and answer[0]['labels']
    lines = run('ecg-predict', file, '--model', root/'model', '--format', 'csv').stdout.strip().splitlines()
    assert len(lines) == 2 and lines[0].startswith('record,file,Normal,AF')


def test_a_label_set_a_class_is_an_option_of_training(trained, tmp_path):
    root, _ = trained
    run('ecg-train', '--data-path', root/'data', '--out', tmp_path/'sets',
        '--arch', 'crnn', '--epochs', 1, '--approach', 'powerset')
    config = json.loads((tmp_path/'sets'/'config.json').read_text())
    assert config['thresholds'] is None and ['RBBB'] in config['label_sets']
    assert config['model']['n_classes'] == len(config['label_sets'])
    file = sorted((root/'data').rglob('*.hea'))[0]
    assert json.loads(run('ecg-predict', file, '--model', tmp_path/'sets').stdout)[0]['labels'] in config['label_sets']


@pytest.mark.nightly
def test_calibration_is_an_option_of_training(trained, tmp_path):
    root, _ = trained
    run('ecg-train', '--data-path', root/'data', '--out', tmp_path/'calibrated',
        '--arch', 'multilead', '--epochs', 2, '--calibrate', 'platt')
    folders = root/'model', tmp_path/'calibrated'
    plain, calibrated = (json.loads((folder/'config.json').read_text()) for folder in folders)
    assert plain['calibration'] is None and [c['method'] for c in calibrated['calibration']['curves']] == ['platt']*9
    assert calibrated['thresholds']['values'] != plain['thresholds']['values']
    before, after = (pd.read_csv(folder/'predictions.csv')[list(CLASSES)] for folder in folders)
    np.testing.assert_allclose(Calibration.from_dict(calibrated['calibration']).apply(before), after, atol=2e-3)
    assert not np.allclose(before, after, atol=.01)
    file = sorted((root/'data').rglob('*.hea'))[0]
    said = json.loads(run('ecg-predict', file, '--model', tmp_path/'calibrated').stdout)[0]
    assert said['probabilities']['AF'] == pytest.approx(after.AF[0], abs=2e-3)
    done = run('ecg-train', '--data-path', root/'data', '--out', tmp_path/'x', '--epochs', 1,
               '--calibrate', 'plat', status=1)
    assert 'isotonic' in one_line(done)


def test_the_shipped_model_predicts_without_a_model_named(trained):
    root, _ = trained
    answer = json.loads(run('ecg-predict', sorted((root/'data').rglob('*.hea'))[0]).stdout)
    assert len(answer) == 1 and answer[0]['labels']


@pytest.mark.parametrize('command, args, says', [
    ('ecg-train', ('--data-path', '/nowhere/at/all'), '/nowhere/at/all'),
    ('ecg-evaluate', ('--test-path', '/nowhere/at/all'), '/nowhere/at/all'),
    ('ecg-evaluate', ('--test-path', '/nowhere/at/all', '--model', '/no/model'), '/no/model'),
    ('ecg-predict', ('/nowhere.hea',), '/nowhere.hea'),
    ('ecg-fetch', ('nothing', '/nowhere'), 'give cpsc2018, cpsc-extra'),
    ('ecg-synth', ('/nowhere', '--findings', 2), 'findings is 2: give a share, 0 to 1'),
    ('ecg-holter', (SAMPLE, '--out', '/nowhere', '--stride', 0), 'stride is 0 s: give more than 0 and at most 10'),
    ('ecg-fetch', ('cpsc2018', '/nowhere', '--host', 'http://127.0.0.1:9'), 'http://127.0.0.1:9'),
])
def test_a_mistake_is_one_line_and_status_one(command, args, says, tmp_path):
    out = ('--out', tmp_path/'out') if command in ('ecg-train', 'ecg-evaluate') else ()
    assert says in one_line(run(command, *args, *out, status=1))


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path/'empty').mkdir()
    for command, path in (('ecg-train', '--data-path'), ('ecg-evaluate', '--test-path')):
        done = run(command, path, tmp_path/'empty', '--out', tmp_path/'out', status=1)
        assert str(tmp_path/'empty') in one_line(done)
    assert str(tmp_path/'empty') in one_line(run('ecg-predict', tmp_path/'empty', status=1))


def test_a_folder_without_labels_is_named(tmp_path):
    run('ecg-synth', tmp_path/'data', '--n', 5)
    without_labels(tmp_path/'data')
    said = one_line(run('ecg-train', '--data-path', tmp_path/'data', '--out', tmp_path/'out', status=1))
    assert str(tmp_path/'data') in said and '0 recordings are labelled with one of the classes' in said
    said = one_line(run('ecg-evaluate', '--test-path', tmp_path/'data', '--out', tmp_path/'out', status=1))
    assert str(tmp_path/'data') in said and 'none of its 5 recordings is labelled with one' in said
    assert not (tmp_path/'out'/'metrics.json').exists()


def test_a_failed_run_leaves_the_earlier_model_alone(trained, tmp_path):
    root, _ = trained
    before = (root/'model'/'model.safetensors').read_bytes()
    (tmp_path/'empty').mkdir()
    said = one_line(run('ecg-train', '--data-path', tmp_path/'empty', '--out', root/'model', status=1))
    assert str(root/'model') in said and 'finished run' in said
    assert (root/'model'/'model.safetensors').read_bytes() == before


def test_wrong_usage_is_status_two():
    assert '--no-such-option' in run('ecg-train', '--data-path', '.', '--no-such-option', status=2).stderr


@pytest.mark.parametrize('command', ['ecg-train', 'ecg-evaluate', 'ecg-predict', 'ecg-synth'])
def test_help_imports_nothing_heavy(command):
    "Help must not wait for torch. The imported modules are checked; no time is measured."
    done = subprocess.run([sys.executable, '-X', 'importtime', BIN/command, '--help'], capture_output=True, text=True)
    imported = {line.rsplit('|', 1)[-1].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0 and '--help' in done.stdout
    assert 'ecg_nbdev.cli' in imported and not {'torch', 'fastai', 'pandas', 'scipy'} & imported


@needs_data
def test_odd_and_bad_recordings_are_counted_or_named(trained, tmp_path):
    root, _ = trained
    odd = Path(ECG_DATA)/'odd-inputs'
    few = run('ecg-predict', odd/'two_leads'/'E07500.hea', '--model', root/'model')
    answer = json.loads(few.stdout)[0]
    assert answer['labels'] and 'aVF absent, computed from the other limb leads' in answer['warnings']
    for file in (odd/'header-without-signal'/'I0001.hea', odd/'pointer-text-not-signal'/'00001_hr.hea'):
        done = run('ecg-predict', file, '--model', root/'model', status=1)
        assert file.stem in one_line(done)
    done = run('ecg-evaluate', '--test-path', Path(ECG_DATA)/'georgia',
               '--model', root/'model', '--out', tmp_path/'georgia')
    metrics = json.loads((tmp_path/'georgia'/'metrics.json').read_text())
    assert metrics['n_records'] == 28 and metrics['n_without_class'] == 27


_ANY_WAY_IN = """
import sys
from dataclasses import replace
from pathlib import Path
from ecg_nbdev.all import *
from ecg_nbdev.learner import loader_predictions

folder, out = map(Path, sys.argv[1:])
model, cohort = load_pretrained(), scan(folder)
memory = MemoryStore((read_record(p) for p in cohort.table.path), prepare=model.preparation)
store = build_store(cohort.table, out/'store', model.preparation, progress=False)
preds = [model.predictions(data) for data in (cohort, store, memory)]
windows = WindowDataset(memory, range(len(memory)), memory.index.n_samples, 1000)
preds.append(loader_predictions(preds[0].prob, windows, model.classes, 'test'))
print(*[(p.role == 'train').sum() for p in preds], len(memory), len({tuple(p.key) for p in preds}))
for p in preds:
    try: apply_thresholds(replace(p, role='test'), model.thresholds)
    except CohortError as e: print(e)
first, second, *_ = cohort.table.path
print(*model.predict([read_record(first), second, folder]).record)
"""


@needs_data
def test_the_shipped_model_knows_what_it_has_seen_whichever_way_it_comes(tmp_path):
    "Files, a store, memory, a loader: recordings it was tuned on never count as test, and its thresholds refuse them."
    folder = Path(ECG_DATA)/'cpsc2018'
    done = subprocess.run([sys.executable, '-c', _ANY_WAY_IN, folder, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts, *refused, names = done.stdout.splitlines()
    *seen, held, ways = map(int, counts.split())
    assert seen == [held, held, held, 0] and held > 100 and ways == 1 # the loader is told what the role is
    assert len(refused) == 4 and all(f'{held} of {held} test recordings' in line for line in refused)
    first, second, *rest = names.split() # a record, a path and a folder in one list
    assert {first, second} < set(rest) and len(rest) >= held


def test_training_goes_on_from_the_shipped_model(tmp_path):
    "What README and --help offer: any labelled folder, a process of its own, the model that ships."
    run('ecg-synth', tmp_path/'data', '--n', 40, '--seed', 5)
    done = run('ecg-train', '--data-path', tmp_path/'data', '--pretrain', 'shipped', '--epochs', 1,
               '--out', tmp_path/'model')
    config = json.loads((tmp_path/'model'/'config.json').read_text())
    assert config['model']['arch'] == 'crnn' and config['about']['pretrain'] == 'shipped'
    assert 'macro AUROC' in done.stdout
    answers = json.loads(run('ecg-predict', tmp_path/'data'/'S00001.hea', '--model', tmp_path/'model').stdout)
    assert set(answers[0]['probabilities']) == set(CLASSES)


@needs_data
def test_recordings_the_shipped_model_has_seen_train_and_never_judge(tmp_path):
    "A real data set beside simulated recordings; and alone, where nothing is left to judge by."
    real = Path(ECG_DATA)/'ptbxl'
    run('ecg-synth', tmp_path/'data'/'simulated', '--n', 40, '--seed', 5)
    shutil.copytree(real, tmp_path/'data'/'real')
    known = {f.stem for f in (tmp_path/'data'/'real').rglob('*.hea')}
    tuned = ('--pretrain', 'shipped', '--epochs', 1)
    run('ecg-train', '--data-path', tmp_path/'data', '--out', tmp_path/'model', *tuned)
    role = pd.read_csv(tmp_path/'model'/'predictions.csv', index_col='record').role
    held = role.index.isin(known)
    assert held.sum() > 10 and set(role[held]) == {'train'} and {'valid', 'test'} <= set(role[~held])
    said = one_line(run('ecg-train', '--data-path', real, '--out', tmp_path/'alone', *tuned, status=1))
    assert 'shipped has been trained on' in said and 'name another --fold' in said


@pytest.mark.nightly
def test_label_sets_can_answer_and_are_saved(tmp_path):
    "`--decode sets`: the model folder holds the decoder, answers and scores use it; some classes have no recording that chooses."
    run('ecg-synth', tmp_path/'data', '--n', 120, '--seed', 5)
    options = '--pretrain', 'shipped', '--epochs', 2, '--decode', 'sets'
    run('ecg-train', '--data-path', tmp_path/'data', *options, '--out', tmp_path/'model')
    point = json.loads((tmp_path/'model'/'config.json').read_text())['thresholds']
    assert point['kind'] == 'SetDecoder' and min(point['prevalence']) == 1/(point['about']['n_records']+2)
    assert json.loads((tmp_path/'model'/'metrics.json').read_text())['exact_match'] > .8
    known = {tuple(c for c, on in zip(point['classes'], row) if on) for row in point['sets']}
    answers = json.loads(run('ecg-predict', tmp_path/'data', '--model', tmp_path/'model').stdout)
    assert {tuple(a['labels']) for a in answers} <= known
    run('ecg-synth', tmp_path/'other', '--n', 10, '--seed', 7)
    run('ecg-evaluate', '--test-path', tmp_path/'other', '--model', tmp_path/'model', '--out', tmp_path/'scores')
    assert 'no thresholds to move' in (tmp_path/'scores'/'report.html').read_text(encoding='utf-8')
