"""Prediction without torch: what is imported, that answers are the same, and which ONNX file counts."""
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecg_nbdev.answers import answer_rows, answer_to
from ecg_nbdev.bundle import load_bundle, load_pretrained
from ecg_nbdev.engines import OnnxNetwork
from ecg_nbdev.quality import check_quality
from ecg_nbdev.records import read_record, write_record
from ecg_nbdev.sim.synth import simulate_cohort

HEAVY = ('torch', 'fastai', 'sklearn', 'matplotlib', 'scipy.signal', 'fastprogress')
SHIPPED = Path(str(files('ecg_nbdev')/'data'/'pretrained'))


@pytest.fixture(scope='module')
def paths(tmp_path_factory):
    "Recordings with gaps, absent leads, several lengths and rates, and one that is refused."
    place, rng = tmp_path_factory.mktemp('data'), np.random.default_rng(0)
    made = [replace(r, id=f'S{i:05d}') for i, r in enumerate(simulate_cohort(10, seed=3))]
    for signal in (made[1].signal, made[2].signal): signal[3:9, 1000:] = np.nan
    made[3].signal[[2, 7]] = np.nan
    made[4] = replace(made[4], signal=made[4].signal[:, ::2], fs=250)
    made[5] = replace(made[5], signal=rng.normal(size=(12, 5000)).astype('f')*.3)
    return [write_record(record, place) for record in made]

@pytest.fixture(scope='module')
def models(): return load_pretrained(light=True), load_pretrained()


def test_predicting_loads_nothing_heavy(paths):
    "In a process of its own, as the command runs."
    code = ('import sys\nfrom ecg_nbdev.cli import ecg_predict\nsys.argv[0] = "ecg-predict"\n'
            f'try: ecg_predict.__wrapped__(sys.argv[1:], format="jsonl")\n'
            f'finally: print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)')
    command = [sys.executable, '-c', code]
    done = subprocess.run([*command, str(paths[0])], capture_output=True, text=True)
    assert json.loads(done.stdout)['record'] == 'S00000', done.stderr
    assert done.stderr.splitlines()[-1] == '[]'


def test_answers_are_those_of_torch(models, paths):
    one, two = (model.predict(paths) for model in models)
    classes = list(models[0].classes)
    np.testing.assert_allclose(one[classes], two[classes], atol=1e-4)
    pd.testing.assert_frame_equal(one.drop(columns=classes), two.drop(columns=classes))
    assert (one.refused != '').any() and one.warnings.str.contains('absent').any()


def test_several_at_once_are_answered_as_each_alone(models, paths):
    light, failed = models[0], []
    rows = list(answer_rows([*paths, 'nowhere.hea', *paths], light, failed.append, at_once=2))
    assert [row['record'] for row in rows] == 2*[path.stem for path in paths] and len(failed) == 1
    for path, row in zip(paths, rows):
        alone, = light.answers(path)
        for name, value in alone.items():
            np.testing.assert_equal(row[name], value) if isinstance(value, str) else np.testing.assert_allclose(row[name], value, atol=1e-5)


def test_answers_do_not_depend_on_their_company(models, paths, tmp_path):
    "How many go through the network at once, what else can be read, and where a run was stopped."
    light, failed = replace(models[0], calibration=None), []
    def probs(rows): return {row['record']: [row[name] for name in light.classes] for row in rows}
    whole = probs(answer_rows(paths, light, failed.append))
    for n in (1, 3, 7): np.testing.assert_equal(probs(answer_rows(paths, light, failed.append, at_once=n)), whole)
    np.testing.assert_equal(probs(answer_rows([tmp_path/'gone.hea', paths[0]], light, failed.append)), {'S00000': whole['S00000']})
    light = models[0]
    class Stop(Exception): pass
    def stop(error): raise Stop
    with pytest.raises(Stop): answer_to(tmp_path/'a.jsonl', [*paths[:9], tmp_path/'gone.hea'], light, stop, show=False, at_once=1)
    answer_to(tmp_path/'a.jsonl', paths, light, stop, show=False)
    answer_to(tmp_path/'b.jsonl', paths, light, stop, show=False)
    assert (tmp_path/'a.jsonl').read_bytes() == (tmp_path/'b.jsonl').read_bytes()


def test_what_goes_wrong_in_one_recording_is_named(models, paths, monkeypatch):
    "Also where the rest of its batch is answered."
    light, failed = models[0], []
    def fails(record):
        if record.id == 'S00001': raise MemoryError('no room')
        return check_quality(record)
    monkeypatch.setattr('ecg_nbdev.predictor.check_quality', fails)
    rows = list(answer_rows(paths, light, failed.append))
    assert [row['record'] for row in rows] == [p.stem for p in paths if p.stem != 'S00001']
    assert 'S00001.hea' in str(failed[0]) and 'no room' in str(failed[0]) and len(failed) == 1


def test_either_program_continues_what_the_other_began(models, paths, tmp_path):
    "The same weights: the same model."
    class Stop(Exception): pass
    def stop(error): raise Stop
    out = tmp_path/'answers.csv'
    with pytest.raises(Stop): answer_to(out, [*paths[:8], tmp_path/'gone.hea'], models[1], stop, show=False)
    assert answer_to(out, paths, models[0], stop, show=False) == (10, 8)


def test_the_shipped_file_was_made_from_the_weights_beside_it(models):
    assert isinstance(models[0].model, OnnxNetwork)
    assert (SHIPPED/'model.onnx').stat().st_size <= 2.5e6


@pytest.mark.parametrize('harm', ['another bit', 'damaged', 'missing'])
def test_a_file_that_does_not_fit_is_left_alone(tmp_path, harm):
    folder = tmp_path/'model'
    shutil.copytree(SHIPPED, folder)
    file = folder/'model.onnx'
    if harm == 'another bit': file.write_bytes((content := file.read_bytes())[:-5000]+bytes([content[-5000]^1])+content[-4999:])
    elif harm == 'damaged': file.write_bytes(b'no network')
    else: file.unlink()
    assert not isinstance(load_bundle(folder, light=True).model, OnnxNetwork)


def test_without_onnxruntime_torch_answers(monkeypatch):
    monkeypatch.setattr('ecg_nbdev.bundle.find_spec', lambda name: None)
    assert not isinstance(load_pretrained(light=True).model, OnnxNetwork)


def test_a_network_of_onnxruntime_gives_no_gradients(models, paths):
    from ecg_nbdev.core import ECGError
    from ecg_nbdev.explain import integrated_gradients
    pytest.importorskip('captum')
    with pytest.raises(ECGError, match='load the model folder'): integrated_gradients(models[0], read_record(paths[0]), 'AF')
