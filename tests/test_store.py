"The packed store: what went in comes out, stale and damaged stores are noticed, nothing is left behind."
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from hypothesis import given, settings, strategies as st

from ecg_nbdev.cohort import scan
from ecg_nbdev.core import Record, RecordError, StoreError, hold_file
from ecg_nbdev.filters import resample
from ecg_nbdev.packing import _fingerprint, build_store, grow_store
from ecg_nbdev.records import read_record, write_record
from ecg_nbdev.signal import Preparation
from ecg_nbdev.store import MemoryStore, Store, join_stores
from ecg_nbdev.units import to_millivolts, to_units

ECG_DATA = os.environ.get('ECG_DATA')
real = pytest.mark.skipif(not ECG_DATA, reason='ECG_DATA does not name the folder of real recordings')
FILES = ['index.parquet', 'signal-000.i16', 'skipped.csv', 'store.json']


class Keep:
    "Signals as they are."
    def __init__(self, fs=500): self.fs = fs
    def __call__(self, signal, fs): return signal
    def to_dict(self): return {'fs': self.fs}

class Negate(Keep):
    def __call__(self, signal, fs): return -signal

class Halve(Keep):
    def __call__(self, signal, fs): return signal[:, ::2]

class Resample(Keep):
    def __call__(self, signal, fs): return resample(signal, fs, self.fs)

class Watched(Keep):
    "Counts its calls, stops at one of them, and has a name."
    def __init__(self, name='', stop_at=None): self.fs, self.name, self.stop_at, self.calls = 500, name, stop_at, 0
    def __call__(self, signal, fs):
        self.calls += 1
        if self.calls == self.stop_at: raise KeyboardInterrupt
        return signal
    def to_dict(self): return {'name': self.name}


def same_signals(a, b):
    "Whether two stores hold the same files of signals."
    files = [sorted(path.glob('signal-*.i16')) for path in (a, b)]
    return [f.name for f in files[0]] == [f.name for f in files[1]] and all(
        f.read_bytes() == g.read_bytes() for f, g in zip(*files))

def pack_up(table, path, prepare=Keep(), **kw): return build_store(table, path, prepare, progress=False, **kw)


@pytest.fixture
def cohort(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        signal = rng.normal(0, 0.5, (12, 300+100*i))
        if i == 3: signal[7, 50:90] = np.nan
        write_record(Record(signal, 500, f'A{i:02d}', ('AF',), age=40+i), tmp_path/'set')
    return scan(tmp_path/'set')


@pytest.mark.parametrize('n_workers', [0, 1, 2, 5])
def test_signals_come_out_as_they_went_in(cohort, tmp_path, n_workers):
    store = pack_up(cohort.table, tmp_path/'store', n_workers=n_workers)
    assert store.index.id.tolist() == cohort.table.id.tolist() and store.verify() == 12
    for i, path in enumerate(cohort.table.path):
        signal = read_record(path).signal
        assert np.array_equal(np.isnan(store.signal(i)), np.isnan(signal))
        assert np.nanmax(np.abs(store.signal(i)-signal)) < 1e-4
    assert sorted(os.listdir(tmp_path)) == ['set', 'store'] and sorted(os.listdir(tmp_path/'store')) == FILES


@settings(max_examples=60, deadline=None)
@given(data=st.data(), size=st.integers(1, 2000))
def test_gather_is_a_piece_of_signal(shared_store, data, size):
    rows = data.draw(st.lists(st.integers(0, len(shared_store)-1), max_size=6))
    starts = data.draw(st.lists(st.integers(0, 1500), min_size=len(rows), max_size=len(rows)))
    batch = shared_store.gather(rows, starts, size)
    assert batch.shape == (len(rows), 12, size) and batch.dtype == np.float32 and batch.flags.c_contiguous
    for window, row, start in zip(batch, rows, starts):
        piece = shared_store.signal(row)[:, start:start+size]
        assert np.array_equal(window[:, :piece.shape[1]], piece, equal_nan=True)
        assert np.isnan(window[:, piece.shape[1]:]).all()


@pytest.fixture(scope='module')
def shared_store(tmp_path_factory):
    d = tmp_path_factory.mktemp('shared')
    rng = np.random.default_rng(1)
    for i in range(5): write_record(Record(rng.normal(0, 0.5, (12, 200+300*i)), 500, f'A{i}'), d/'set')
    return pack_up(scan(d/'set').table, d/'store')


@settings(max_examples=60, deadline=None)
@given(data=st.data(), size=st.integers(1, 2000))
def test_memory_and_disk_answer_alike(shared_store, data, size):
    held = MemoryStore.of([shared_store.signal(i) for i in range(5)], shared_store.index, shared_store.fs)
    rows = data.draw(st.lists(st.integers(0, 4), max_size=6))
    starts = data.draw(st.lists(st.integers(0, 1500), min_size=len(rows), max_size=len(rows)))
    assert np.array_equal(held.gather(rows, starts, size), shared_store.gather(rows, starts, size), equal_nan=True)
    assert held.gather(rows, starts, size).dtype == np.float32


def test_negative_start(shared_store):
    held = MemoryStore.of([shared_store.signal(0)], shared_store.index.iloc[:1], shared_store.fs)
    for store in (shared_store, held):
        with pytest.raises(ValueError, match='-1'): store.gather([0], [-1], 10)
        assert store.gather([], [], 10).shape == (0, 12, 10)


def test_joined_stores_keep_their_rows():
    rng = np.random.default_rng(2)
    def made(name): return Record(rng.normal(0, 0.5, (12, 300)), 100, name, ('AF', 'RBBB'))
    a, b = MemoryStore([made('A'), made('B')]), MemoryStore([made('C')])
    both = join_stores(b, a.take([1]))
    assert both.index.id.tolist() == ['C', 'B'] and both.index.index.tolist() == [0, 1]
    assert both.signal(1) is a.signal(1)
    assert both.index.labels.tolist() == ['AF;RBBB']*2
    with pytest.raises(StoreError, match='comes at 100 Hz, not 250'): MemoryStore([made('D')], fs=250)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 20), st.integers(0, 99), st.sampled_from([0.5, 20, 60]))
def test_units(n, seed, scale):
    signal = np.random.default_rng(seed).normal(0, scale, (12, n)).astype(np.float32)
    signal[np.random.default_rng(seed).random((12, n)) < 0.1] = np.nan
    units, clipped = to_units(signal)
    again = to_millivolts(units)
    beyond = np.abs(np.rint(signal*1000)) > 32767
    assert clipped == beyond.sum() and np.array_equal(np.isnan(again), np.isnan(signal))
    inside = ~beyond & ~np.isnan(signal)
    assert (np.abs(again-signal)[inside] < 0.000503).all() and (np.abs(again[beyond]) > 32.766).all()


def test_reused_relabelled_rebuilt(cohort, tmp_path):
    path = tmp_path/'store'
    def built(table=cohort.table, **kw):
        store = pack_up(table, path, **kw)
        return store, (path/'signal-000.i16').stat().st_ino
    store, first = built()
    assert built()[1] == first
    relabelled, inode = built(cohort.table.assign(labels='PVC;AF'))
    assert inode == first and set(relabelled.index.labels) == {'PVC;AF'}
    assert np.array_equal(relabelled.signal(2), store.signal(2))
    with_fold, inode = built(cohort.table.assign(fold=np.arange(12)))
    assert inode == first and with_fold.index.fold.tolist() == list(range(12))
    assert built(cohort.table.iloc[:5])[0].index.id.tolist() == cohort.table.id[:5].tolist()
    for other in (Resample(250), Resample(500), Negate()):
        _, before = built()
        assert built(prepare=other)[1] != before
    _, before = built()
    write_record(Record(np.random.default_rng(9).normal(0, 1, (12, 500)), 500, 'A05'), tmp_path/'set')
    store, after = built(scan(tmp_path/'set').table)
    assert after != before and store.index.n_samples[5] == 500


def test_preparation(cohort, tmp_path):
    store = pack_up(cohort.table, tmp_path/'store', Negate(), n_workers=2)
    assert np.allclose(store.signal(4), -read_record(cohort.table.path[4]).signal, atol=1e-4)
    assert store.meta['preparation'] == {'fs': 500} and store.meta['fs'] == 500.0
    slow = pack_up(cohort.table, tmp_path/'slow', Halve(250))
    assert slow.index.n_samples.tolist() == [(300+100*i)//2 for i in range(12)]
    assert slow.fs == 250 and (slow.index.recorded_fs == 500).all()
    with pytest.raises(StoreError, match='let it resample'): pack_up(cohort.table, tmp_path/'bad', Halve(500))
    for nothing in (lambda signal, fs: signal, {'fs': 500}):
        with pytest.raises(TypeError, match='give a `Preparation`'): pack_up(cohort.table, tmp_path/'bad', nothing)
    assert not (tmp_path/'bad').exists() and not list(tmp_path.glob('.*'))


def test_the_package_s_own_preparation(cohort, tmp_path):
    prepare = Preparation()
    store = pack_up(cohort.table, tmp_path/'store', prepare)
    assert store.fs == prepare.fs == 100 and store.meta['preparation'] == prepare.to_dict()
    held = MemoryStore(map(read_record, cohort.table.path), prepare.fs, prepare)
    for i in range(12): assert np.allclose(store.signal(i), held.signal(i), atol=6e-4, equal_nan=True)
    inode = (tmp_path/'store'/'signal-000.i16').stat().st_ino
    other = pack_up(cohort.table, tmp_path/'store', Preparation(limit=1.))
    assert (tmp_path/'store'/'signal-000.i16').stat().st_ino != inode and other.meta['preparation']['limit'] == 1


def test_resampled_as_read_record_does(cohort, tmp_path):
    store = pack_up(cohort.table, tmp_path/'store', Resample(100))
    for i in (0, 3, 11):
        want = read_record(cohort.table.path[i], fs=100).signal
        assert np.nanmax(np.abs(store.signal(i)-want)) < 0.00051
        assert np.array_equal(np.isnan(store.signal(i)), np.isnan(want))


def test_bad_records_are_skipped_and_listed(cohort, tmp_path):
    (tmp_path/'set'/'A02.mat').unlink()
    write_record(Record(np.zeros((12, 500)), 500, 'A07'), tmp_path/'set')
    for n_workers in (1, 2):
        store = pack_up(cohort.table, tmp_path/f'store{n_workers}', n_workers=n_workers)
        assert len(store) == 10 and [Path(path).stem for path in store.skipped.path] == ['A02', 'A07']
        assert store.skipped.reason.str.len().min() > 20
        # rows moved up
        assert np.allclose(store.signal(2), read_record(cohort.table.path[3]).signal, atol=1e-4, equal_nan=True)
        assert store.index.id.tolist() == [name for name in cohort.table.id if name not in ('A02', 'A07')]
    with pytest.raises(RecordError, match='A02'): pack_up(cohort.table, tmp_path/'strict', on_error='raise')
    assert not (tmp_path/'strict').exists() and not list(tmp_path.glob('.*'))
    with pytest.raises(StoreError, match='none of 1 recordings can be packed.*A02'):
        pack_up(cohort.table.iloc[[2]], tmp_path/'none')
    with pytest.raises(StoreError, match='no recordings to pack'): pack_up(cohort.table.iloc[:0], tmp_path/'none')


def test_a_failed_build_keeps_the_older_store(cohort, tmp_path):
    store = pack_up(cohort.table, tmp_path/'store')
    (tmp_path/'set'/'A02.mat').unlink()
    with pytest.raises(RecordError): pack_up(cohort.table, tmp_path/'store', on_error='raise')
    assert Store(tmp_path/'store').verify() == 12 and np.array_equal(Store(tmp_path/'store').signal(2), store.signal(2))


KILLED = """
import os, signal, sys
import pandas as pd
from ecg_nbdev.packing import build_store
class Watched:
    fs, calls = 500, 0
    def __call__(self, x, fs):
        self.calls += 1
        if self.calls == int(sys.argv[3]): os.kill(os.getpid(), signal.SIGKILL)
        return x
    def to_dict(self): return {'name': ''}
Watched.__module__ = sys.argv[4]  # so that the test below takes its store up again
build_store(pd.read_csv(sys.argv[1], keep_default_na=False), sys.argv[2], Watched(), n_workers=1, progress=False)
"""

@pytest.mark.skipif(sys.platform == 'win32', reason='there is no SIGKILL on Windows')
def test_a_killed_build_is_taken_up_again(cohort, tmp_path):
    (tmp_path/'set'/'A02.mat').unlink()
    cohort.save(tmp_path/'saved')
    table, path = pd.read_csv(tmp_path/'saved'/'cohort.csv', keep_default_na=False), tmp_path/'store'
    prepare = Watched()
    for n in (5, 3): # killed twice
        args = [tmp_path/'saved'/'cohort.csv', path, str(n), Watched.__module__]
        said = subprocess.run([sys.executable, '-c', KILLED, *args])
        assert said.returncode == -9
    left, = tmp_path.glob('.store.building-*')
    with open(left/'journal', 'a') as f: f.write('{"id": "A0') # a line, and a signal, that were cut off
    with open(left/'signal-000.i16', 'ab') as f: f.write(b'abc')
    store = pack_up(table, path, prepare, n_workers=1)
    assert prepare.calls == 11-4-2 and len(store) == store.verify() == 11
    assert store.skipped.path.tolist() == [str(tmp_path/'set'/'A02.hea')]
    whole = pack_up(table, tmp_path/'whole', prepare, n_workers=1)
    assert whole.index.equals(store.index) and same_signals(path, tmp_path/'whole')
    assert sorted(os.listdir(path)) == sorted(os.listdir(tmp_path/'whole')) == FILES
    assert not list(tmp_path.glob('.*'))


def test_many_files_of_signals(cohort, tmp_path, monkeypatch):
    "Stopped in any file and gone on, grown, in one go: the same files; one that is lost is named."
    from ecg_nbdev import packing as module
    monkeypatch.setattr(module, 'SHARD', 50_000)
    whole = pack_up(cohort.table, tmp_path/'whole', Watched())
    files = sorted(p.name for p in (tmp_path/'whole').glob('signal-*'))
    assert len(files) > 5 and whole.index.shard.max() == len(files)-1 and whole.verify() == 12
    assert max((tmp_path/'whole'/name).stat().st_size for name in files) <= 50_000
    for stop in (4, 3, 3):
        with pytest.raises(KeyboardInterrupt):
            pack_up(cohort.table, tmp_path/'store', Watched(stop_at=stop), n_workers=1)
    left, = tmp_path.glob('.store.building-*')
    (left/'signal-009.i16').write_bytes(b'what a killed build wrote and did not put down')
    store = pack_up(cohort.table, tmp_path/'store', Watched(), n_workers=1)
    assert store.index.equals(whole.index) and same_signals(store.path, whole.path)
    pack_up(cohort.table[:5], tmp_path/'grown', Watched())
    grown = grow_store(cohort.table, tmp_path/'grown', Watched(), progress=False)
    assert grown.index.equals(whole.index) and same_signals(grown.path, whole.path)
    for i in (3, 11): assert np.nanmax(np.abs(grown.signal(i)-read_record(cohort.table.path[i]).signal)) < 1e-4
    assert grown.take([11, 2]).gather([0, 1], [0, 100], 50).shape == (2, 12, 50)
    (tmp_path/'grown'/files[2]).unlink()
    with pytest.raises(StoreError, match=f'{files[2]}.*build it again'): Store(tmp_path/'grown')


def test_what_was_left_is_used_only_where_it_fits(cohort, tmp_path):
    path = tmp_path/'store'
    def leave(name):
        with pytest.raises(KeyboardInterrupt): pack_up(cohort.table, path, Watched(name, stop_at=1), n_workers=1)
        return [p.name for p in tmp_path.glob('.*')]
    # another preparation begins anew, and what the first one left is cleared
    assert len(leave('a')) == 1 and leave('a') == leave('a') != leave('b')
    left, = tmp_path.glob('.store.building-*')
    # its signal is not there
    (left/'journal').write_text(json.dumps(dict(id='A00', shard=0, offset=0, n_samples=300, clipped=0, crc=1))+'\n')
    with pytest.raises(StoreError, match='another process is packing it'):
        with FileLock(left/'lock'): pack_up(cohort.table, path, Watched('b'), n_workers=1)
    with FileLock(left/'lock'):
        assert pack_up(cohort.table, path).verify() == 12 and left.exists() # not taken from a build that still runs
    assert pack_up(cohort.table, path, Watched('b')).verify() == 12 and not list(tmp_path.glob('.*'))


def test_a_build_is_held_until_it_is_in_its_place(cohort, tmp_path, monkeypatch):
    "Another process that comes at the end finds no folder to pack into that becomes the store."
    held, rename = [], Path.rename
    def watched(folder, target):
        if '.building-' in folder.name:
            with open(folder/'lock', 'a') as f: held.append(not hold_file(f.fileno()))
        return rename(folder, target)
    monkeypatch.setattr(Path, 'rename', watched)
    pack_up(cohort.table, tmp_path/'store')
    assert held == [True] and sorted(os.listdir(tmp_path/'store')) == FILES


def test_two_that_add_at_once_lose_nothing(cohort, tmp_path, monkeypatch):
    "The second one looks at the store before the first has added, and begins when that is done."
    pack_up(cohort.table[:2], tmp_path/'store')
    def grow(table): return grow_store(table, tmp_path/'store', Keep(), 1, progress=False)
    def after_another(fd):
        with monkeypatch.context() as m:
            m.setattr('ecg_nbdev.packing.hold_file', hold_file)
            grow(cohort.table[2:5])
        return hold_file(fd)
    monkeypatch.setattr('ecg_nbdev.packing.hold_file', after_another)
    store = grow(cohort.table[4:])
    assert store.index.id.tolist() == cohort.table.id.tolist() and store.verify() == 12


def test_damage(cohort, tmp_path):
    path = tmp_path/'store'
    store = pack_up(cohort.table, path)
    with open(path/'signal-000.i16', 'r+b') as f: f.seek(store.index.offset[4]*24+7); f.write(b'\x77')
    with pytest.raises(StoreError, match=r'1 of 12 recordings are damaged \(A04\)'): Store(path).verify()
    os.truncate(path/'signal-000.i16', 1000)
    with pytest.raises(StoreError, match='1000 bytes'): Store(path)
    assert pack_up(cohort.table, path).verify() == 12
    (path/'index.parquet').write_bytes(b'no parquet')
    with pytest.raises(StoreError, match='damaged'): Store(path)
    meta = json.loads((path/'store.json').read_text())
    (path/'store.json').write_text(json.dumps(meta | {'version': 0}))
    with pytest.raises(StoreError, match='format 0'): Store(path)
    (path/'store.json').write_text('{')
    with pytest.raises(StoreError, match='no signal store'): Store(path)
    assert pack_up(cohort.table, path).verify() == 12


def test_nothing_else_is_overwritten(cohort, tmp_path):
    with pytest.raises(StoreError, match='in the way'): pack_up(cohort.table, tmp_path/'set')
    (tmp_path/'file').write_text('mine')
    with pytest.raises(StoreError, match='in the way'): pack_up(cohort.table, tmp_path/'file')
    (tmp_path/'empty').mkdir()
    assert len(pack_up(cohort.table, tmp_path/'empty')) == 12
    twice = pd.concat([cohort.table, cohort.table.iloc[[3]]])
    with pytest.raises(StoreError, match='lists A03 twice'): pack_up(twice, tmp_path/'new')


def test_fingerprint_sees_every_signal_file(cohort, tmp_path):
    before = _fingerprint(cohort.table, Keep())
    assert _fingerprint(cohort.table, Keep()) == before == _fingerprint(cohort.table.assign(labels=''), Keep())
    assert _fingerprint(cohort.table.iloc[::-1], Keep()) != before
    os.utime(tmp_path/'set'/'A01.mat', ns=(1, 1))
    assert _fingerprint(cohort.table, Keep()) != before


def test_fingerprint_sees_all_of_the_preparation(cohort):
    "Rate, every entry of `to_dict()`, and the type: Keep, Negate and Resample describe themselves alike."
    several = [Keep(), Keep(250), Negate(), Resample(500), Watched('a'), Watched('b'), Preparation(),
               Preparation(highpass=None), Preparation(limit=None), Preparation(fs=500)]
    assert len({_fingerprint(cohort.table, prepare) for prepare in several}) == len(several)
    again = Preparation(**Preparation().to_dict())
    assert _fingerprint(cohort.table, Preparation()) == _fingerprint(cohort.table, again)
    # numpy's numbers are numbers
    assert _fingerprint(cohort.table, Keep(np.int64(500))) == _fingerprint(cohort.table, Keep())


def test_a_store_travels_to_a_worker_by_its_path(shared_store):
    text = pickle.dumps(shared_store)
    assert len(text) < 1000 and np.array_equal(pickle.loads(text).signal(1), shared_store.signal(1))


def test_progress_bar_and_no_heavy_imports(cohort, tmp_path):
    cohort.save(tmp_path/'saved')
    code = f'''
import sys, pandas as pd
from ecg_nbdev.packing import build_store
from ecg_nbdev.signal import Preparation
table = pd.read_csv({str(tmp_path/'saved'/'cohort.csv')!r}, keep_default_na=False)
build_store(table, {str(tmp_path/'store')!r}, Preparation())
print("loaded", [m for m in ("torch", "fastai", "sklearn", "matplotlib") if m in sys.modules])'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout == 'loaded []\n' and '\r' not in done.stderr


@real
def test_real_records(tmp_path):
    cohort = scan(f'{ECG_DATA}/georgia')
    store = pack_up(cohort.table, tmp_path/'store')
    assert len(store) == len(cohort) == 55 and store.verify() == 55 and store.index.clipped.sum() == 0
    for i in range(0, 55, 7): assert np.abs(store.signal(i)-read_record(cohort.table.path[i]).signal).max() < 0.00051


# --- a store in the place of a folder

@pytest.fixture(scope='module')
def packed(tmp_path_factory):
    "Sixteen simulated recordings as files and as a store that the shipped model can read."
    from ecg_nbdev.simulated_set import synth_run
    root = tmp_path_factory.mktemp('packed')
    synth_run(root/'data', n=16, seed=3)
    build_store(scan(root/'data', progress=False).table, root/'store', Preparation(), progress=False)
    return root


def test_a_store_is_predicted_and_evaluated_as_its_folder(packed, tmp_path):
    from ecg_nbdev.answers import predict_files
    from ecg_nbdev.core import CLASSES
    from ecg_nbdev.scoring import evaluate_run
    files, stored = predict_files([packed/'data']), predict_files([packed/'store'])
    assert stored.record.tolist() == files.record.tolist() and (stored.labels == files.labels).mean() > .9
    np.testing.assert_allclose(stored[list(CLASSES)], files[list(CLASSES)], atol=.02)
    scored = evaluate_run(packed/'store', out=tmp_path/'scores', show=False)
    assert sorted(scored.part.ids) == sorted(name for name in files.record if name in set(scored.part.ids)) and len(scored) > 12


def test_a_store_at_native_rates_is_taken_as_its_folder(packed, tmp_path):
    from ecg_nbdev.answers import predict_files
    from ecg_nbdev.core import CLASSES
    from ecg_nbdev.scoring import evaluate_run
    cohort, fast = scan(packed/'data', progress=False), read_record(packed/'data'/'S00001.hea', fs=1000)
    write_record(replace(fast, id='fast'), tmp_path/'more')
    build_store(cohort.table[:9], tmp_path/'native', None, progress=False)
    grow_store(cohort.table, tmp_path/'native', None, progress=False)
    native = grow_store(scan(tmp_path/'more', progress=False).table, tmp_path/'native', None, progress=False)
    assert sorted({native.record(i).fs for i in range(17)}) == [500, 1000] and native.verify() == 17
    one = predict_files([tmp_path/'native']).set_index('record').drop(columns='file')
    other = predict_files([packed/'data']).set_index('record').drop(columns='file')
    pd.testing.assert_frame_equal(one.loc[other.index], other, rtol=0, atol=1e-6)
    assert np.abs(one.loc['fast', list(CLASSES)]-one.loc['S00001', list(CLASSES)]).max() < .1
    table = scan(tmp_path/'native', progress=False).table
    again = build_store(table[table.id != 'fast'], tmp_path/'again', Preparation(), progress=False)
    assert same_signals(again.path, packed/'store') and again.index.mark.tolist() == Store(packed/'store').index.mark.tolist()
    before = (again.path/'signal-000.i16').stat().st_ino
    os.utime(tmp_path/'native'/'index.parquet', ns=(1, 1)) # another native store, another packed one
    build_store(table[table.id != 'fast'], tmp_path/'again', Preparation(), progress=False)
    assert (again.path/'signal-000.i16').stat().st_ino != before
    assert len(evaluate_run(tmp_path/'native', out=tmp_path/'scores', show=False)) > 12
    with pytest.raises(StoreError, match='was prepared with None'):
        grow_store(cohort.table, tmp_path/'native', Preparation(), progress=False)


@pytest.mark.nightly
def test_a_training_from_native_rates_is_that_from_the_folder(tmp_path):
    from ecg_nbdev.simulated_set import synth_run
    synth_run(tmp_path/'data', n=60, seed=5)
    build_store(scan(tmp_path/'data', progress=False).table, tmp_path/'native', None, progress=False)
    for name in ('data', 'native'):
        command = 'ecg-train', '--data-path', tmp_path/name, '--out', tmp_path/f'of-{name}', '--epochs', '1', '--seconds', '5'
        subprocess.run([Path(sys.executable).parent/command[0], *map(str, command[1:])], check=True, capture_output=True)
    for file in ('history.csv', 'predictions.csv'):
        assert (tmp_path/'of-data'/file).read_bytes() == (tmp_path/'of-native'/file).read_bytes()


def test_a_flipped_bit_names_its_recording(packed, tmp_path):
    from ecg_nbdev.answers import predict_files
    shutil.copytree(packed/'store', tmp_path/'store')
    store = Store(tmp_path/'store')
    with open(tmp_path/'store'/'signal-000.i16', 'r+b') as f:
        f.seek(int(store.index.offset[4])*24+100)
        bit = f.read(1)[0]^1
        f.seek(-1, 1)
        f.write(bytes([bit]))
    name, failed = store.index.id[4], []
    with pytest.raises(StoreError, match=name): Store(tmp_path/'store').verify()
    assert len(predict_files([tmp_path/'store'], failed=failed.append)) == 15
    assert len(failed) == 1 and name in str(failed[0]) and 'damaged' in str(failed[0])
    with pytest.warns(UserWarning, match=f'{name}.*packed again'):
        mended = build_store(scan(packed/'data', progress=False).table, tmp_path/'store', Preparation(), progress=False)
    assert mended.verify() == 16


def test_a_store_that_grows_can_be_stopped_at_any_recording(packed, tmp_path, monkeypatch):
    from ecg_nbdev import packing as module
    table = scan(packed/'data', progress=False).table
    grow = partial(grow_store, table, tmp_path/'store', Preparation(), n_workers=1, progress=False)
    before = build_store(table[:4], tmp_path/'store', Preparation(), progress=False)
    n, append = 0, module._append
    def stop(*args):
        nonlocal n
        n += 1
        if n % 4 == 0: raise KeyboardInterrupt
        return append(*args)
    with monkeypatch.context() as m:
        m.setattr(module, '_append', stop)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt): grow()
            assert len(Store(tmp_path/'store')) == before.verify() == 4
    with open(tmp_path/'store'/'signal-000.i16', 'r+b') as f:
        assert hold_file(f.fileno())
        with pytest.raises(StoreError, match='another process'): grow()
    grown, whole = grow(), Store(packed/'store')
    assert grown.index.equals(whole.index) and same_signals(grown.path, whole.path)
    assert sorted(p.name for p in (tmp_path/'store').iterdir()) == sorted(p.name for p in (packed/'store').iterdir())
    write_record(replace(read_record(table.path[0]), id='copy'), tmp_path/'more')
    other = read_record(table.path[1])
    write_record(replace(other, id=table.id[0], signal=other.signal/2), tmp_path/'other')
    def add(name): return grow_store(scan(tmp_path/name, progress=False).table, tmp_path/'store', Preparation(), 1, False)
    assert len(add('more')) == 16 and f'is in the store as {table.id[0]}' in add('more').skipped.reason.iloc[-1]
    assert len(add('other')) == 16 and 'rename it' in add('other').skipped.reason.iloc[-1]
