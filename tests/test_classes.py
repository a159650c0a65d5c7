"Any class list, as a user has it: read, trained on, evaluated, answered, exported; and the lists that come with the package."
import csv, json, os, re, shutil, subprocess, sys
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest

from ecg_nbdev.bundle import load_bundle
from ecg_nbdev.cohort import scan
from ecg_nbdev.core import CLASSES, CohortError
from ecg_nbdev.export import load_onnx
from ecg_nbdev.official import list_weights
from ecg_nbdev.page_server import page_server, write_page_model
from ecg_nbdev.records import write_record
from ecg_nbdev.rules import LISTS, label_rules
from ecg_nbdev.runs import train_run
from ecg_nbdev.scoring import evaluate_run
from ecg_nbdev.sim.findings import FINDINGS
from ecg_nbdev.sim.synth import simulate
from ecg_nbdev.simulated_set import synth_run

BIN = Path(sys.executable).parent
ECG_DATA = os.environ.get('ECG_DATA')
real = pytest.mark.skipif(not ECG_DATA, reason='ECG_DATA is not set: the real recordings are not at hand')
SHIPPED = sorted(f.name[:-4] for f in LISTS.iterdir() if not f.name.endswith('-weights.csv'))

def rows(name): return list(csv.DictReader((LISTS/f'{name}.csv').read_text(encoding='utf-8').splitlines()))
def codes(row): return [code.strip() for code in row['codes'].split(';') if code.strip()]


# ---- the lists of the package

with (LISTS.parent/'label_rules.csv').open(encoding='utf-8') as f:
    KNOWN = {row['code'].lower(): row for row in csv.DictReader(f)}
MEANING = {code: row['name'] for code, row in KNOWN.items() if row['vocabulary'] != 'name'} # PAC stands under both
def plain(text): return re.sub('[^a-z0-9]', '', text.lower())

@pytest.mark.parametrize('name', SHIPPED)
def test_every_code_of_a_list_means_what_the_list_says(name):
    "The same codes with names from the Challenges' and PTB-XL's own tables stand in the label rules."
    table = rows(name)
    assert all(row['source'] and row['title'] for row in table)
    for row in table:
        of_row = codes(row)
        assert all(code.lower() in MEANING for code in of_row if code.isdigit())
        if name.startswith('challenge'):
            said = [plain(MEANING[code]) for code in of_row if code.isdigit()]
            assert plain(row['title']) in (said[0], said[0].replace('1st', 'first')), row
        elif name == 'simulated':
            assert row['title'] == FINDINGS[row['class']].title and of_row in ([], [str(FINDINGS[row['class']].code)])
        else:
            assert all(code.lower() in KNOWN for code in of_row), row
            if of_row == [row['class']]: assert plain(row['title']) == plain(MEANING.get(row['class'].lower(), row['title']))


@real
def test_the_lists_are_those_of_their_sources():
    scp = pd.read_csv(Path(ECG_DATA)/'ptbxl-own/scp_statements.csv', index_col=0)
    for kind in ('diagnostic', 'form', 'rhythm'):
        assert {row['class'] for row in rows(f'ptbxl-{kind}')} == set(scp.index[scp[kind] == 1])
    assert {row['class'] for row in rows('ptbxl-statements')} == set(scp.index)
    for name, column in (('superclasses', 'diagnostic_class'), ('subclasses', 'diagnostic_subclass')):
        assert {row['class']: set(codes(row)) for row in rows(f'ptbxl-{name}')} \
            == {c: set(part.index) for c, part in scp[scp.diagnostic == 1].groupby(column)}
    scored = pd.read_csv(Path(ECG_DATA)/'physionet2020-evaluation/dx_mapping_scored.csv', dtype=str)
    numbers = [[code for code in codes(row) if code.isdigit()] for row in rows('challenge2020')]
    assert sorted(sum(numbers, [])) == sorted(scored['SNOMED CT Code'])
    pairs = {frozenset(re.findall(r'\d{6,}', note)) for note in scored.Notes.dropna()}
    assert pairs == {frozenset(of_class) for of_class in numbers if len(of_class) > 1}
    weights = pd.read_csv(Path(ECG_DATA)/'physionet2020-evaluation/weights.csv', index_col=0)
    at = [list(map(str, weights.index)).index(of_class[0]) for of_class in numbers]
    assert (list_weights(label_rules('challenge2020')) == weights.to_numpy()[np.ix_(at, at)]).all()


def test_ptbxl_comes_with_its_likelihoods_and_its_folds(tmp_path):
    "Probably normal is not normal; its test fold, strat_fold 10, is fold 0."
    write_record(simulate('Normal', seconds=10, rng=0, id='HR00001'), tmp_path)
    write_record(simulate('AF', seconds=10, rng=1, id='00002_hr'), tmp_path)
    said = ({'NORM': 50., 'SR': 0.}, {'IMI': 35., 'ASMI': 100., 'AFIB': 0.})
    pd.DataFrame({'ecg_id': [1, 2], 'patient_id': [7., 8.], 'age': [50., 60.], 'sex': [0, 1], 'scp_codes': map(str, said),
                  'strat_fold': [10, 9]}).to_csv(tmp_path/'ptbxl_database.csv', index=False)
    table = scan(tmp_path, classes='ptbxl-superclasses').table.set_index('id')
    assert table.loc['HR00001', ['labels', 'unknown', 'fold']].tolist() == ['', 'NORM', 0]
    assert table.loc['00002_hr', ['labels', 'unknown', 'fold']].tolist() == ['MI', '', 1]
    statements = scan(tmp_path, classes='ptbxl-statements').table.set_index('id')
    assert statements.loc['00002_hr', ['labels', 'unknown']].tolist() == ['ASMI;AFIB', 'IMI']


# ---- lists of one's own

@pytest.mark.parametrize('text, why', [
    ('class,code\nA,1\n', 'has no column codes'), ('class,codes\n', 'holds no rows'), ('class,codes\nA,1\nA,2\n', 'class A twice'),
    ('class,codes\nseen,1\n', 'give it another name'), ('class,codes,parent\nA,1,B\n', 'parent B of A'),
    ('class,codes,exclusions\nA,1,B\n', 'write all, or nothing'), ('class,codes\n"A,B",1\n', 'without')])
def test_a_list_that_cannot_be_meant_is_refused_in_one_line(tmp_path, text, why):
    (tmp_path/'mine.csv').write_text(text)
    with pytest.raises(CohortError, match=why) as e: label_rules(str(tmp_path/'mine.csv'))
    assert str(tmp_path/'mine.csv') in str(e.value) and '\n' not in str(e.value)


LIST = """class,codes,title,parent,exclusions
fast,427084000; 426761007,more than 100 a minute,,
ventricular,164895002,ventricular tachycardia,fast,
paced,10370003,paced by a machine,,
low,251146004; 427393009?,low voltage,,
healthy,426783006,nothing to report,,all
"""

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    "Two small simulated folders and a class list."
    root = tmp_path_factory.mktemp('classes')
    for name, n, seed in (('data', 140, 0), ('other', 30, 1)): synth_run(root/name, n, seed, findings=.8)
    (root/'mine.csv').write_text(LIST)
    return root

def run(command, *args):
    done = subprocess.run([BIN/command, *map(str, args)], capture_output=True, text=True,
                          env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, f'{command} {args}\n{done.stdout}\n{done.stderr}'
    return done.stdout


def test_a_user_trains_evaluates_predicts_and_exports_with_classes_of_ones_own(data):
    names = ['fast', 'ventricular', 'paced', 'low', 'healthy']
    said = run('ecg-train', '--data-path', data/'data', '--classes', data/'mine.csv', '--out', data/'model', '--epochs', 1)
    assert 'begins at a network that knows 9 classes, with a new head for 5' in said and 'CPSC2018' not in said
    config = json.loads((data/'model/config.json').read_text())
    assert config['classes'] == names and config['rules']['parents'] == {'ventricular': 'fast'}
    assert config['about']['pretrain'] == 'shipped' and config['thresholds']['alone'] == ['healthy']
    cohort = pd.read_csv(data/'model/cohort.csv', keep_default_na=False)
    assert {'ventricular;fast', 'paced', 'healthy'} <= set(cohort.labels)

    run('ecg-evaluate', '--test-path', data/'other', '--model', data/'model', '--out', data/'evaluation')
    scores = json.loads((data/'evaluation/metrics.json').read_text())
    assert [row['class'] for row in scores['per_class']] == names and 'healthy alone' in (data/'evaluation/report.html').read_text()

    asked = sorted((data/'other').glob('*.hea'))[:3]
    said = json.loads(run('ecg-predict', *asked, '--model', data/'model', '--format', 'json'))
    assert all(list(row['probabilities']) == names and set(row['labels']) <= set(names) for row in said)
    assert not any('healthy' in row['labels'] and len(row['labels']) > 1 for row in said)
    shown = run('ecg-predict', asked[0], '--model', data/'model', '--format', 'table')
    assert any(row['title'] in shown for row in csv.DictReader(LIST.splitlines()))

    run('ecg-export', data/'model', data/'model.onnx')
    exported, model = load_onnx(data/'model.onnx'), load_bundle(data/'model')
    assert exported.rules == model.rules == label_rules(str(data/'mine.csv'))
    write_page_model(data/'model', data)
    with page_server(own=data) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        page = json.load(urlopen(f'http://127.0.0.1:{server.server_port}/model.json'))
        server.shutdown()
    assert page['classes'] == names and page['titles']['paced'] == 'paced by a machine'
    one, two = (predictor.predict(asked)[names].to_numpy() for predictor in (exported, model))
    assert np.abs(one-two).max() < 1e-3


def test_labels_in_a_column_of_ones_own(data):
    "Training on the column of a table, on its folds; evaluation by another table; label sets."
    table = scan(data/'data', classes=str(data/'mine.csv')).table
    mine = pd.DataFrame({'file': 'somewhere/'+table['id']+'.mat', 'rhythm': table.labels.replace('', 'none'), 'age': 50,
                         'fold': np.arange(len(table)) % 4})
    mine.loc[0, 'rhythm'] = ''
    mine.to_csv(data/'mine-rhythm.csv', index=False)
    source = f'{data}/mine-rhythm.csv:rhythm'
    cohort = scan(data/'data', classes=source)
    assert cohort.classes == ('fast', 'healthy', 'low', 'paced', 'ventricular') and (cohort.table.age == 50).all()
    assert cohort.table.unknown[0] == ';'.join(cohort.classes) and (cohort.table.unknown[1:] == '').all()
    scored = train_run(data/'data', data/'sets', classes=source, approach='powerset', arch='lead', epochs=1, show=False)
    tested = pd.read_csv(data/'sets/predictions.csv').query('role == "test"').record
    assert set(tested) == set(mine.file.str[10:-4][mine.fold == 0][1:]) and scored.part.classes == cohort.classes

    other = scan(data/'other', classes=str(data/'mine.csv')).table
    other.rename(columns={'labels': 'said'})[['id', 'said']].replace('', 'none').to_csv(data/'other.csv', index=False)
    judged = evaluate_run(data/'other', data/'sets', data/'judged', f'{data}/other.csv:said', show=False)
    assert len(judged) == len(other) == 30 and 0 < len(judged.none) < 30 # who has none of them shows false alarms


@real
def test_the_challenge_classes_on_real_recordings(tmp_path, capsys):
    "What can be scored is scored, and what cannot is said in one line; the Challenge score is among the scores."
    for name in ('georgia', 'chapman-ningbo'): shutil.copytree(f'{ECG_DATA}/{name}', tmp_path/'data'/name)
    scored = train_run(tmp_path/'data', tmp_path/'model', classes='challenge2020', pretrain='none', arch='lead', epochs=1,
                       show=False)
    said = capsys.readouterr().out
    missing = re.search(r'(\d+) of 24 classes lack recordings .*:\n((?:.*/\d+,?\n)+)', said)
    tested = scored.part.truth.sum(0)
    assert int(missing[1]) == len(missing[2].split(',')) and f'Challenge score {scored["challenge"]:.3f}' in said
    unscored = {c for c, n in zip(scored.part.classes, tested) if not 0 < n < len(scored)}
    assert unscored and unscored == set(scored.per_class.index[scored.per_class.auroc.isna()])
    assert np.isfinite(scored['macro_auroc']) and scored.part.classes == label_rules('challenge2020').classes != CLASSES
