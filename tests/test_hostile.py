"""Hostile input: files that lie about themselves, model folders that were tampered with, an evil mirror, a full disk.

Each ends in one line that names the file; nothing hangs, takes memory for what is not there, or ends the process."""
import json, os, resource, struct, subprocess, sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from ecg_nbdev.cohort import find_records, scan
from ecg_nbdev.containers import load_matlab
from ecg_nbdev.core import CLASSES, CohortError, ECGError, Record, RecordError, printable, write_sheet
from ecg_nbdev.export import export_onnx
from ecg_nbdev.headers import read_header
from ecg_nbdev.labels import read_ptbxl, read_reference
from ecg_nbdev.record_report import report_run
from ecg_nbdev.records import read_record, write_record
from ecg_nbdev.signal import Preparation
from ecg_nbdev.sim.synth import cohort_record
from ecg_nbdev.simulated_set import synth_run
from ecg_nbdev.stream import open_stream

h5py = pytest.importorskip('h5py')


def noise(n=1000, **kw):
    return Record(np.random.default_rng(0).normal(0, .3, (12, n)), **{'fs': 500, 'id': 'A0001', 'labels': ('AF',)} | kw)


def refused(path, text):
    with pytest.raises(RecordError, match=text) as e: read_record(path)
    assert '\n' not in str(e.value)


# --- MATLAB and HDF5

@pytest.fixture
def feats(tmp_path):
    path = tmp_path/'a.mat'
    savemat(path, {'feats': noise().signal.astype(float), 'curr_sample_rate': 400.})
    return path


def test_every_changed_tag_of_a_matlab_file_is_read_or_refused(feats, tmp_path):
    "In a process of its own: scipy's reader ends the process on a kind that there is not."
    code = '''
import sys, warnings
from pathlib import Path
from ecg_nbdev.core import RecordError
from ecg_nbdev.records import read_record
warnings.simplefilter('ignore')
whole, path, read = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), 0
for at in range(112, 240):
    for value in (0, 17, 64, 255):
        path.write_bytes(whole[:at]+bytes([value])+whole[at+1:])
        try: read += read_record(path).n > 0
        except RecordError as e: assert '\\n' not in str(e)
print(read)
'''
    run = subprocess.run([sys.executable, '-c', code, feats, tmp_path/'b.mat'], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert 20 < int(run.stdout) < 500


def test_matlab_files_that_lie(feats, tmp_path):
    whole = feats.read_bytes()
    for old, new, text in [
            (struct.pack('<ii', 12, 1000), struct.pack('<ii', 12, 1 << 30), 'tells of 12884901888 numbers'),
            (struct.pack('<ii', 12, 1000), struct.pack('<ii', -12, 1000), 'dimensions'),
            (struct.pack('<II', 9, 96000), struct.pack('<II', 9, 96_000_000), 'longer than what it stands in'),
            (struct.pack('<II', 9, 96000), struct.pack('<II', 99, 96000), 'kind 99')]:
        feats.write_bytes(whole.replace(old, new, 1))
        refused(feats, text)
    nested = {'x': 1.}
    for _ in range(8): nested = {'x': nested}
    savemat(feats, {'ECG': nested})
    refused(feats, 'five deep')
    feats.write_bytes(struct.pack('<5i', 0, 12, 1 << 30, 0, 6)+b'feats\0')
    refused(feats, 'is cut off')


def test_matlab_level_73_is_read(tmp_path):
    record = noise()
    with h5py.File(tmp_path/'a.mat', 'w', userblock_size=512) as f:
        group = f.create_group('ECG')
        group['data'], group['age'] = record.signal.T.astype(float), [[61.]]
        group['sex'] = np.array([[ord(c)] for c in 'Female'], np.uint16)
        group['sex'].attrs['MATLAB_class'] = np.bytes_('char')
    with open(tmp_path/'a.mat', 'r+b') as f: f.write(b'MATLAB 7.3 MAT-file, Platform: GLNXA64'.ljust(124)+b'\0\2IM')
    found = read_record(tmp_path/'a.mat')
    assert (found.age, found.sex, found.fs) == (61, 'F', 500)
    np.testing.assert_array_equal(found.signal, record.signal)


def test_hdf5_reads_no_other_file(tmp_path):
    (tmp_path/'secret').write_bytes(bytes(range(256))*400)
    with h5py.File(tmp_path/'a.h5', 'w') as f:
        f.create_dataset('ecg', (12, 1000), 'i2', external=[(str(tmp_path/'secret'), 0, 24000)])
    with h5py.File(tmp_path/'b.h5', 'w') as f: f['ecg'] = h5py.ExternalLink(str(tmp_path/'c.h5'), 'ecg')
    with h5py.File(tmp_path/'c.h5', 'w') as f: f['ecg'] = noise().signal
    with h5py.File(tmp_path/'d.h5', 'w') as f:
        layout = h5py.VirtualLayout((12, 1000), 'f4')
        layout[:] = h5py.VirtualSource(tmp_path/'c.h5', 'ecg', (12, 1000))
        f.create_virtual_dataset('ecg', layout)
    with h5py.File(tmp_path/'e.h5', 'w') as f: f.create_dataset('ecg', (12, 1 << 40), 'f8', chunks=(12, 1000))
    for name, text in (('a', 'in another file'), ('b', 'is a link'), ('d', 'in another file'), ('e', 'tells of')):
        refused(tmp_path/f'{name}.h5', text)
    assert read_record(tmp_path/'c.h5').n == 1000


# --- headers, pipes, archives

def test_headers_that_reach_elsewhere_or_never_end(tmp_path):
    header = write_record(noise(), tmp_path)
    text = header.read_text()
    for name in ('/etc/passwd', '../A0001.mat', 'sub/A0001.mat', '..'):
        header.write_text(text.replace('A0001.mat', name))
        refused(header, 'bare name')
    for name in ('/etc/x', '../A0001'):
        header.write_text(f'A0001/1 12 500 1000\n{name} 1000\n')
        refused(header, 'bare name')
    (tmp_path/'part.hea').write_text(text.replace('A0001.mat', '/etc/passwd'))
    header.write_text('A0001/1 12 500 1000\npart 1000\n')
    refused(header, 'bare name')
    header.write_text(text.replace('A0001.mat 16+24', 'A0001.mat 212+24').replace('500 1000', '500 99999999999'))
    refused(header, 'its files hold')
    header.write_text('A0001/2 12 500 99999999999\n~ 99999999999\n~ 0\n')
    refused(header, 'its files hold')
    for line in ('#a: x'+' '*400_000+'y', '#a'+' '*400_000, 'x.mat 16 '+'1'*400_000):
        header.write_text(text.splitlines()[0]+'\n'+line+'\n')
        with pytest.raises(RecordError): read_header(header)


def test_pipes_are_no_recordings(tmp_path):
    header = write_record(noise(), tmp_path)
    (tmp_path/'A0001.mat').unlink()
    for name in ('A0001.mat', 'p.hea', 'q.csv', 'r.mat', 's.h5'): os.mkfifo(tmp_path/name)
    refused(header, 'pipe')
    assert len(find_records(tmp_path)) == 5
    with pytest.raises(CohortError, match='pipe'): scan(tmp_path)


def test_archives_and_tables_that_unpack_to_much(tmp_path):
    import pyarrow as pa, pyarrow.parquet as pq
    np.savez_compressed(tmp_path/'a.npz', signal=np.zeros((12, 3_000_000)))
    assert (tmp_path/'a.npz').stat().st_size < 1e6
    refused(tmp_path/'a.npz', 'unpacks to')
    pq.write_table(pa.table({lead: np.zeros(6_000_000) for lead in ('I', 'II', 'V1', 'V2', 'V3', 'V4')}), tmp_path/'a.parquet')
    assert (tmp_path/'a.parquet').stat().st_size < 1e6
    refused(tmp_path/'a.parquet', 'tells of 36000000 numbers')


@pytest.mark.parametrize('row', ['A0001,1e999', 'A0001,5.7', 'A0001,2\nA0001,3', 'A0001,-1', 'A0001,0x2', 'A0001,٣'])
def test_label_tables_say_what_is_wrong(tmp_path, row):
    table = tmp_path/'REFERENCE.csv'
    table.write_text(f'Recording,First_label\n{row}\n')
    with pytest.raises(CohortError, match='A0001') as e: read_reference(table)
    assert '\n' not in str(e.value)
    table.write_text('Recording,First_label\nA0001,2.0\nA0001,2\n')
    assert read_reference(table) == {'A0001': ('AF',)}


@pytest.mark.parametrize('row', ['x,1,1,0,{}', '1,x,1,0,{}', '1,1,1,7,{}', '1,1,1,0,'+'-'*100_000+'1', '1,1,1,0,'+'('*9000, '1,1,1,0,7'])
def test_statements_that_are_none(tmp_path, row):
    (tmp_path/'ptbxl_database.csv').write_text('ecg_id,patient_id,age,sex,scp_codes\n'+row+'\n')
    with pytest.raises(CohortError): read_ptbxl(tmp_path/'ptbxl_database.csv')


@pytest.mark.parametrize('ask, said', [
    (lambda d: report_run(d, d/'x.html'), 'holds 2 recordings: name one of them'),
    (lambda d: open_stream(d), 'is a folder: name one of its recordings'),
    (lambda d: export_onnx(None, d/'x.txt'), 'ends in .onnx'),
    (lambda d: synth_run(d/'new', n=0), '0 recordings'),
    (lambda d: Preparation(fs=0), 'give one above 1 Hz'),
])
def test_what_cannot_be_meant_is_refused_in_a_line(tmp_path, ask, said):
    for name in ('a', 'b'): write_record(noise(id=name), tmp_path)
    with pytest.raises(ECGError, match=said) as e: ask(tmp_path)
    assert '\n' not in str(e.value)

def ends_at_seven(path):
    "A reader that ends its process."
    if path.stem == 'n7': os._exit(1)
    return RecordError(path, 'was read')

def test_a_reading_that_ends_its_process_is_named_and_the_rest_is_read(monkeypatch):
    from ecg_nbdev.cohort import _survived
    monkeypatch.setattr('ecg_nbdev.cohort._describe', ends_at_seven)
    said = [error.reason for error in _survived([Path(f'n{i}') for i in range(30)])]
    assert len(said) == 30 and said.count('was read') == 29 and 'ended the process' in said[7]


# --- model folders

@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "A folder with a small model that has all parts."
    pytest.importorskip('torch')
    from ecg_nbdev.bundle import save_bundle
    from ecg_nbdev.calibration import Calibration
    from ecg_nbdev.models import create_model
    from ecg_nbdev.predictor import Predictor
    from ecg_nbdev.thresholds import Thresholds
    curves = [{'method': 'isotonic', 'x': [0., 1.], 'y': [.1, .9]}, *8*[{'method': 'platt', 'parameters': [1., 0.]}]]
    model = create_model('lead', hidden=8)
    return save_bundle(Predictor(model, thresholds=Thresholds([.5]*9), calibration=Calibration(tuple(curves))),
                       tmp_path_factory.mktemp('model'))


TAMPERED = { # what is changed in the configuration → what the line says
    'thresholds of another order': (lambda c: c['thresholds']['classes'].reverse(), 'another order'),
    'calibration of another order': (lambda c: c['calibration']['classes'].reverse(), 'another order'),
    'classes of another number': (lambda c: c['classes'].pop(), 'another order'),
    'a class that steers the terminal': (lambda c: c['classes'].__setitem__(0, '\x1b[2J'), 'is called'),
    'a curve above one': (lambda c: c['calibration']['curves'][0].update(y=[.1, 6.99]), 'calibration of Normal'),
    'a falling curve': (lambda c: c['calibration']['curves'][1].update(parameters=[-1., 0.]), 'calibration of AF'),
    'a threshold below zero': (lambda c: c['thresholds']['values'].__setitem__(0, -1), 'a threshold is -1'),
    'a million layers': (lambda c: c['model'].update(layers=1_000_000), '1000'),
    'units without end': (lambda c: c['model'].update(hidden=1_000_000_000), 'shape|overflow|size'),
    'wide': (lambda c: c['model'].update(hidden=20_000), 'has the shape'),
    'another rate': (lambda c: c['preparation'].update(fs=200), 'reads 100'),
    'a window of a year': (lambda c: c['window'].update(seconds=3e7), 'its window is'),
    'no stitching': (lambda c: c['window'].update(stitch='best'), 'stitched by best'),
    'no window': (lambda c: c.pop('window'), 'is damaged'),
    'a list': (lambda c: c.update(thresholds=[1]), 'is damaged'),
    'labels without number': (lambda c: c['thresholds'].update(least=None), 'whole numbers'),
    'no fingerprint': (lambda c: c['about'].update(seen={'blake2b:'+32*'0': 7}), 'no fingerprints'),
    'another use': (lambda c: c.update(about=[]), 'is damaged'),
    'another digest': (lambda c: c.update(weights='0'*32), 'not those'),
    'no digest': (lambda c: c.pop('weights'), 'not those')}

def test_tampered_model_folders_are_refused(small, tmp_path):
    import shutil
    from ecg_nbdev.bundle import load_bundle
    from ecg_nbdev.core import BundleError
    folder = tmp_path/'model'
    shutil.copytree(small, folder)
    config, weights = folder/'config.json', folder/'model.safetensors'
    good, whole = config.read_text(), weights.read_bytes()
    load_bundle(folder)
    def refuses(text):
        with pytest.raises(BundleError, match=text) as e: load_bundle(folder)
        assert str(folder) in str(e.value) and '\n' not in str(e.value)
    for change, text in TAMPERED.values():
        c = json.loads(good)
        change(c)
        config.write_text(json.dumps(c))
        refuses(text)
    for text in ('[]', '7', '{"a":'*100_000, good.replace('0.5', 'NaN'), '\0', good[:-40]):
        config.write_text(text)
        refuses('is damaged')
    config.write_text(good)
    weights.write_bytes(whole[:-900]+bytes([whole[-900]^1])+whole[-899:])
    refuses('not those')


def test_a_network_that_has_diverged_is_neither_written_nor_answers(small, tmp_path):
    import torch
    from ecg_nbdev.bundle import load_bundle, save_bundle
    from ecg_nbdev.core import BundleError
    predictor = load_bundle(small)
    with torch.no_grad(): next(predictor.model.parameters()).fill_(float('nan'))
    with pytest.raises(BundleError, match='NaN'): save_bundle(predictor, tmp_path/'model')
    with pytest.raises(BundleError, match='no finite numbers'): predictor.predict(cohort_record(0, 0))
    assert not (tmp_path/'model').exists()


def test_what_no_prediction_can_be(small):
    from ecg_nbdev.bundle import load_bundle
    from ecg_nbdev.evaluation import evaluate
    from ecg_nbdev.predictions import Predictions
    from ecg_nbdev.thresholds import Thresholds, apply_thresholds
    ids, prob, truth = ['a', 'b'], np.full((2, 9), .5), np.eye(9, dtype=bool)[:2]
    good = Predictions(ids, prob, truth, 'test')
    for wrong in (dict(prob=prob*3), dict(prob=prob*float('nan')), dict(prob=-prob), dict(truth=truth*.7), dict(prob=prob[:, :8]),
                  dict(truth=np.where(truth, float('nan'), 0)), dict(role=['test']), dict(fold=[1]), dict(first=[0, 9]),
                  dict(truth=truth[:, :8]), dict(classes=CLASSES[:8]), dict(classes=('AF',)*9), dict(key=['a'])):
        with pytest.raises(ECGError) as e: Predictions(**dict(ids=ids, prob=prob, truth=truth, role='test') | wrong)
        assert '\n' not in str(e.value)
    other = Thresholds([.5]*9, CLASSES[::-1])
    for call in (lambda: apply_thresholds(good, other), lambda: evaluate(good, other), lambda: other.decode(prob[:, :8]),
                 lambda: other.decode(prob*3), lambda: Thresholds([7.]*9), lambda: load_bundle(small).calibration.apply(prob[:, :8])):
        with pytest.raises(ECGError): call()


# --- stores

def test_a_store_that_does_not_say_how_it_was_made(tmp_path):
    "Found by bench/fuzz.py: `fs` under another name."
    from ecg_nbdev.core import StoreError
    from ecg_nbdev.signal import Preparation
    from ecg_nbdev.packing import build_store
    from ecg_nbdev.store import Store
    write_record(noise(), tmp_path/'data')
    path = build_store(scan(tmp_path/'data', progress=False).table, tmp_path/'store', Preparation(), progress=False).path
    good = json.loads((path/'store.json').read_text())
    for wrong in ({'fs': None}, {'fs': '100'}, {'fs': -1}, {'fs': float('nan')}, {'preparation': 3}, {'fingerprint': None}):
        (path/'store.json').write_text(json.dumps(good | wrong))
        for read in (Store, scan) if 'fs' in wrong else (Store,):
            with pytest.raises(StoreError) as e: read(path)
            assert str(path) in str(e.value) and '\n' not in str(e.value)


# --- what is written and printed

def test_names_neither_steer_a_terminal_nor_a_spreadsheet(tmp_path):
    import pandas as pd
    assert noise(id='a\x1b[2Jb\nc\u202ed').id == 'a\\x1b[2Jb\\nc\\u202ed'
    assert str(RecordError('x\x1b]0;evil\x07', 'bad')) == 'x\\x1b]0;evil\\x07: bad'
    write_sheet(pd.DataFrame({'=id': ['=1+1', '@x', '+y', '-z', 'A0001'], 'p': [-1., 0, 1, 2, 3]}), tmp_path/'a.csv')
    assert (tmp_path/'a.csv').read_text().splitlines() == ["'=id,p", "'=1+1,-1.0", "'@x,0.0", "'+y,1.0", "'-z,2.0", 'A0001,3.0']
    with pytest.raises(RecordError, match='give a tuple'): noise(labels='AF')
