"The commands as a person runs them: files written, exit status, one line for each mistake."
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

BIN = Path(sys.executable).parent
ECG_DATA = os.environ.get('ECG_DATA')
needs_data = pytest.mark.skipif(not ECG_DATA, reason='ECG_DATA does not name the folder of real recordings')


def run(command, *args, status=0):
    done = subprocess.run([BIN/command, *map(str, args)], capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '2'})
    assert done.returncode == status, f'{command} {args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}'
    return done


def one_line(done):
    "An error is one line on stderr without a traceback."
    lines = done.stderr.strip().splitlines()
    assert 'Traceback' not in done.stderr and lines, done.stderr
    return lines[-1]


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
    assert {'model.safetensors', 'config.json', 'MODEL_CARD.md', 'history.csv', 'predictions.csv', 'metrics.json', 'cohort.csv', 'skipped.csv'} <= written
    metrics = json.loads((root/'model'/'metrics.json').read_text())
    assert {'macro_auroc', 'macro_auprc', 'macro_f1', 'micro_f1', 'exact_match', 'cpsc2018_f1', 'n_records', 'n_skipped', 'per_class'} <= set(metrics)
    assert len(pd.read_csv(root/'model'/'history.csv')) == 2
    predictions = pd.read_csv(root/'model'/'predictions.csv')
    assert predictions.record.is_unique and set(predictions.role) == {'train', 'valid', 'test'}
    assert metrics['n_records'] == (predictions.role == 'test').sum()
    assert 'macro_auroc' in done.stdout or 'macro AUROC' in done.stdout


def test_the_same_seed_gives_the_same_metrics(trained):
    root, _ = trained
    run('ecg-train', '--data-path', root/'data', '--out', root/'again', '--arch', 'multilead', '--epochs', 2)
    drop = lambda m: {k: v for k, v in m.items() if k != 'seconds'}
    assert drop(json.loads((root/'again'/'metrics.json').read_text())) == drop(json.loads((root/'model'/'metrics.json').read_text()))


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


def test_prediction_speaks_json_and_csv(trained):
    root, _ = trained
    file = sorted((root/'data').rglob('*.hea'))[0]
    answer = json.loads(run('ecg-predict', file, '--model', root/'model').stdout)
    assert answer[0]['record'] == file.stem and 0 <= answer[0]['probabilities']['AF'] <= 1 and answer[0]['labels']
    lines = run('ecg-predict', file, '--model', root/'model', '--format', 'csv').stdout.strip().splitlines()
    assert len(lines) == 2 and lines[0].startswith('record,Normal,AF')


def test_a_label_set_a_class_is_an_option_of_training(trained, tmp_path):
    root, _ = trained
    run('ecg-train', '--data-path', root/'data', '--out', tmp_path/'sets', '--arch', 'crnn', '--epochs', 1, '--approach', 'powerset')
    config = json.loads((tmp_path/'sets'/'config.json').read_text())
    assert config['thresholds'] is None and ['RBBB'] in config['label_sets'] and config['model']['n_classes'] == len(config['label_sets'])
    file = sorted((root/'data').rglob('*.hea'))[0]
    assert json.loads(run('ecg-predict', file, '--model', tmp_path/'sets').stdout)[0]['labels'] in config['label_sets']


def test_the_shipped_model_predicts_without_a_model_named(trained):
    root, _ = trained
    answer = json.loads(run('ecg-predict', sorted((root/'data').rglob('*.hea'))[0]).stdout)
    assert len(answer) == 1 and answer[0]['labels']


@pytest.mark.parametrize('command, args, says', [
    ('ecg-train', ('--data-path', '/nowhere/at/all'), '/nowhere/at/all'),
    ('ecg-evaluate', ('--test-path', '/nowhere/at/all', '--model', '/no/model'), '/no'),
    ('ecg-predict', ('/nowhere.hea',), '/nowhere.hea'),
])
def test_a_mistake_is_one_line_and_status_one(command, args, says, tmp_path):
    assert says in one_line(run(command, *args, *(('--out', tmp_path/'out') if command != 'ecg-predict' else ()), status=1))


def test_an_empty_folder_and_a_folder_without_labels(tmp_path):
    assert str(tmp_path) in one_line(run('ecg-train', '--data-path', tmp_path, '--out', tmp_path/'out', status=1))


def test_a_failed_run_leaves_the_earlier_model_alone(trained, tmp_path):
    root, _ = trained
    before = (root/'model'/'model.safetensors').read_bytes()
    (tmp_path/'empty').mkdir()
    run('ecg-train', '--data-path', tmp_path/'empty', '--out', root/'model', status=1)
    assert (root/'model'/'model.safetensors').read_bytes() == before


def test_wrong_usage_is_status_two():
    run('ecg-train', '--no-such-option', status=2)


@pytest.mark.parametrize('command', ['ecg-train', 'ecg-evaluate', 'ecg-predict', 'ecg-synth'])
def test_help_imports_nothing_heavy(command):
    "Help must not wait for torch: the modules that are imported are looked at, not the clock."
    done = subprocess.run([sys.executable, '-X', 'importtime', BIN/command, '--help'], capture_output=True, text=True)
    imported = {line.rsplit('|', 1)[-1].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0 and '--help' in done.stdout
    assert 'ecg_nbdev.cli' in imported and not {'torch', 'fastai', 'pandas', 'scipy'} & imported


@needs_data
def test_odd_and_bad_recordings_are_counted_or_named(trained, tmp_path):
    root, _ = trained
    odd = Path(ECG_DATA)/'odd-inputs'
    few = run('ecg-predict', odd/'two_leads'/'E07500.hea', '--model', root/'model')
    assert json.loads(few.stdout)[0]['labels'] and 'absent' in few.stderr
    for file in (odd/'header-without-signal'/'I0001.hea', odd/'pointer-text-not-signal'/'00001_hr.hea'):
        done = run('ecg-predict', file, '--model', root/'model', status=1)
        assert file.stem in one_line(done)
    done = run('ecg-evaluate', '--test-path', Path(ECG_DATA)/'georgia', '--model', root/'model', '--out', tmp_path/'georgia')
    metrics = json.loads((tmp_path/'georgia'/'metrics.json').read_text())
    assert metrics['n_records'] == 29 and metrics['n_without_class'] == 27
