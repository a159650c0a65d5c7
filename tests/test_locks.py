"What has chosen thresholds or trained a model is never scored by them, whichever way the predictions come."
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecg_nbdev.bundle import load_bundle, save_bundle
from ecg_nbdev.cohort import scan
from ecg_nbdev.core import BundleError
from ecg_nbdev.filters import resample
from ecg_nbdev.fingerprint import ALIKE, Fingerprints, beat_trace, fingerprint
from ecg_nbdev.marks import sample_mark
from ecg_nbdev.records import read_record, write_record
from ecg_nbdev.simulated_set import synth_run
from ecg_nbdev.thresholds import fit_thresholds

BIN = Path(sys.executable).parent
ECG_DATA = os.environ.get('ECG_DATA')
needs_data = pytest.mark.skipif(not ECG_DATA, reason='ECG_DATA does not name the folder of real recordings')

# Prints a line per way: how it is called, how many recordings it tells of, and what scoring them says.
WAYS = """
import json, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from ecg_nbdev.all import *
from ecg_nbdev.learner import loader_predictions
from ecg_nbdev.store import join_stores
from ecg_nbdev.thresholds import check_unseen

root, folder, out = map(Path, sys.argv[1:])
bare = Predictor(create_model('lead', n_classes=9, fs=100))
chosen = bare.predictions(scan(root/'chosen'), 'valid')
points = fit_thresholds(chosen), fit_decoder(chosen), fit_calibration(chosen, 'temperature')
points += tuple(type(at).from_dict(json.loads(json.dumps(at.to_dict()))) for at in points)
cohort = scan(folder)
memory = MemoryStore((read_record(p) for p in cohort.table.path), prepare=bare.preparation)
disk = build_store(cohort.table, out/'store', bare.preparation, progress=False)
half = len(memory)//2
joined = join_stores(memory.take(range(half, len(memory))), memory.take(range(half)))
dls = ecg_dls(disk, np.where(np.arange(len(disk)) < half, 'train', 'valid'), seconds=5, bs=16)
data = dls.valid.dataset
ensemble = replace(bare, model=Ensemble([bare.model, bare.model]))

given = {'files': cohort, 'disk': disk, 'memory': memory, 'joined': joined}
ways = {name: bare.predictions(d) for name, d in given.items()}
first = ways['files']
ways['loader'] = loader_predictions(predict_records(bare.model, dls.valid), data, CLASSES, 'test')
ways['ensemble'] = ensemble.predictions(disk)
ways['average'] = average_predictions([first, ways['disk']])
ways['pooled'] = pool_predictions([first.take(range(half)), first.take(range(half, len(first)))])
ways['saved'] = load_predictions(save_predictions(first, out/'p.parquet'))
ways['calibrated'] = replace(points[2], chosen_on=())(first)
ways['one of them'] = first.take([0])
truth, folds = multi_hot(memory.index.labels), np.arange(len(memory)) % 3
def guess(train, valid, test, seed): return first.prob[valid], first.prob[test]
cv = cross_validate(guess, memory.index.id, truth, folds, key=memory.index.mark)
ways['cross-validation'] = cv.pooled
table = replace(bare, thresholds=points[0]).predict(folder)
ways['a table by hand'] = Predictions(table.record, table[list(CLASSES)], first.truth, 'test')
for name, p in ways.items():
    said = set()
    for at in points:
        calibrates = isinstance(at, Calibration)
        for score in (lambda preds, calibrate: calibrate(preds),) if calibrates else (apply_thresholds, evaluate, check_unseen):
            try: score(replace(p, answer=None), at); said.add('scored')
            except CohortError as e:
                if 'have chosen' in str(e): said.add('refused')
                else: said.add('unknown' if 'cannot be compared' in str(e) else str(e))
    print(name, len(p), *sorted(said), sep='|')
"""


def run(command, *args, status=0):
    done = subprocess.run([BIN/command, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == status, f'{command} {args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}'
    return done


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    "Two simulated folders: `chosen`, and `other`; and `renamed`, the recordings of `chosen` under other names."
    root = tmp_path_factory.mktemp('locks')
    for seed, name in enumerate(('chosen', 'other')): synth_run(root/name, n=24, seed=seed)
    (root/'renamed').mkdir()
    for path in scan(root/'chosen').table.path:
        record = read_record(path)
        write_record(type(record)(record.signal, record.fs, f'X{record.id}', record.labels), root/'renamed')
    return root


@pytest.mark.parametrize('folder', ['chosen', 'renamed', 'other'])
def test_every_way_to_predictions_meets_the_lock(root, folder, tmp_path):
    done = subprocess.run([sys.executable, '-c', WAYS, root, root/folder, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = {name: (int(n), *results) for name, n, *results in (line.split('|') for line in done.stdout.splitlines())}
    assert len(said) == 13 and said.pop('a table by hand') == (24, 'unknown')
    assert said['one of them'][0] == 1 and said['loader'][0] == 12 and said['joined'][0] == 24
    results = {result for _, *results in said.values() for result in results}
    assert results == {"scored" if folder == "other" else "refused"}


@pytest.fixture(scope='module')
def model(root):
    "A model whose thresholds were chosen on `chosen` and which does not remember having seen it."
    run('ecg-train', '--data-path', root/'other', '--epochs', 1, '--arch', 'lead', '--out', root/'trained')
    predictor = load_bundle(root/'trained')
    predictor.about = {k: v for k, v in predictor.about.items() if k != 'seen'}
    predictor.thresholds = fit_thresholds(predictor.predictions(scan(root/'chosen'), 'valid'))
    return save_bundle(predictor, root/'model')


def test_the_command_refuses_what_has_chosen(root, model):
    for folder in ('chosen', 'renamed'):
        done = run('ecg-evaluate', '--test-path', root/folder, '--model', model, '--out', root/'out', status=1)
        line, = done.stderr.strip().splitlines()
        assert '24 of 24 test recordings' in line and 'have chosen these thresholds' in line
    assert not (root/'out'/'metrics.json').exists()
    run('ecg-evaluate', '--test-path', root/'other', '--model', model, '--out', root/'out')
    assert json.loads((root/'out'/'metrics.json').read_text())['n_records'] == 24


def test_the_command_knows_recordings_that_were_changed(root, model):
    "Without its first sample a recording has another digest, and is still no test recording."
    cut = root/'cut'
    for path in scan(root/'other').table.path:
        r = read_record(path)
        write_record(type(r)(r.signal[:, 1:], r.fs, r.id, r.labels), cut)
    shutil.copy(root/'other'/'REFERENCE.csv', cut)
    done = run('ecg-evaluate', '--test-path', cut, '--model', root/'trained', '--out', root/'again')
    metrics, about = (json.loads((root/p).read_text()) for p in ('again/metrics.json', 'trained/config.json'))
    n = len(about['about']['seen'])
    assert 0 < n < 24 and metrics['n_seen_in_training'] == n and metrics['n_records'] == 24-n
    assert f'{n} recordings that the model has seen' in done.stdout and f'({n} of them cut' in done.stdout
    for folder, said in (('other', 'identical'), ('cut', 'alike')):
        answers = json.loads(run('ecg-predict', root/folder, '--model', root/'trained').stdout)
        assert sorted(a['seen'] for a in answers) == ['']*(24-n)+[said]*n


@pytest.mark.parametrize('spoil', [
    lambda about, at: about.update(seen=[886841642]),
    lambda about, at: about.update(seen={'886841642': ''}),
    lambda about, at: at.update(chosen_on=['002a7b6487cc'])])
def test_a_model_with_marks_of_another_kind_is_refused(root, model, tmp_path, spoil):
    shutil.copytree(model, tmp_path/'model')
    config = json.loads((tmp_path/'model'/'config.json').read_text())
    spoil(config['about'], config['thresholds'])
    (tmp_path/'model'/'config.json').write_text(json.dumps(config))
    with pytest.raises(BundleError, match='config.json') as e: load_bundle(tmp_path/'model')
    assert len(str(e.value).splitlines()) == 1 and 'again' in str(e.value)


@needs_data
def test_the_shipped_model_knows_its_recordings():
    from ecg_nbdev.bundle import load_pretrained
    shipped = load_pretrained()
    listed = pd.read_csv(Path(__file__).parents[1]/'bench/results/real_recordings.csv')
    assert set(shipped.about['seen']) == set(shipped.thresholds.chosen_on) == set(listed.mark)
    found = map(read_record, scan(Path(ECG_DATA)/'cpsc-extra').table.path)
    held = [r for r in found if sample_mark(r.signal) in shipped.seen.marks]
    assert len(held) > 1
    for r in held:
        assert shipped.seen(sample_mark(r.signal), r.signal, r.fs) == 'identical'
        for x, fs in ((r.signal[:, 1:], r.fs), (r.signal[:, round(3*r.fs):], r.fs), (np.rint(r.signal*200)/200, r.fs),
                      (resample(r.signal, r.fs, 100), 100)):
            if x.shape[1] < 5*fs: continue # too little is left
            assert shipped.seen(sample_mark(x), x, fs) == 'alike'


def test_what_a_fingerprint_cannot_tell_is_no_match():
    rng = np.random.default_rng(0)
    noise, flat = rng.normal(0, .1, (12, 2000)).astype(np.float32), np.zeros((12, 2000), np.float32)
    gone = noise.copy()
    gone[[1, 7]] = np.nan # the two leads that it shows
    held = Fingerprints(fingerprint(x, 200) for x in (noise, flat, gone))
    def found(x): return held.correlations(beat_trace(x, 200))
    assert found(noise)[0] > .99 and max(found(noise)[1:]) < ALIKE
    for x in (flat, gone, noise[:, :100], noise[:, :1]): assert found(x).max() < ALIKE  # half a second is no evidence
    assert len(Fingerprints([]).correlations(beat_trace(noise, 200))) == 0


def test_threads_compare_by_the_same_fingerprints():
    "Between any two lines of a comparison another thread may make its own, of another length or other leads."
    rng = np.random.default_rng(0)
    signals = [rng.normal(0, .1, (12, 100*s)).astype(np.float32) for s in (10, 12, 10, 12)]
    signals[2][1] = signals[3][1] = np.nan # lead II
    texts, traces = [fingerprint(x, 100) for x in signals], [beat_trace(x, 100) for x in signals]
    alone = [Fingerprints(texts).correlations(t) for t in traces]
    for i, trace in enumerate(traces):
        held, others, switches = Fingerprints(texts), [t for k, t in enumerate(traces) if k != i], []
        def switch(frame, event, _):
            if not frame.f_code.co_filename.endswith('fingerprint.py'): return None
            if event == 'line':
                sys.settrace(None)
                switches.append(frame.f_lineno)
                for t in others: held.correlations(t)
                sys.settrace(switch)
            return switch
        before = sys.gettrace()
        sys.settrace(switch)
        try: found = held.correlations(trace)
        finally: sys.settrace(before)
        assert len(set(switches)) > 20 and np.array_equal(found, alone[i])


@pytest.mark.parametrize('patients', [False, True])
def test_scores_of_a_folder_without_patients_say_so(root, tmp_path, patients):
    says = 'no patient ids: folds and intervals are by recording'
    for i, path in enumerate(scan(root/'other').table.path):
        r = read_record(path)
        write_record(type(r)(r.signal, r.fs, r.id, r.labels, patient=f'P{i//2}' if patients else ''), tmp_path/'data')
    done = run('ecg-train', '--data-path', tmp_path/'data', '--epochs', 1, '--arch', 'lead', '--out', tmp_path/'model')
    run('ecg-evaluate', '--test-path', tmp_path/'data', '--model', tmp_path/'model', '--out', tmp_path/'scores')
    texts = [done.stdout, *((tmp_path/p).read_text() for p in ('model/metrics.json', 'model/MODEL_CARD.md',
                                                              'scores/metrics.json', 'scores/report.html'))]
    assert [says in text for text in texts] == [not patients]*5
