"""Long recordings: windows in blocks as of the whole, episodes found again, `ecg-holter` stopped and continued."""
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from datetime import time as clock
from pathlib import Path

import edfio
import numpy as np
import pandas as pd
import pytest
import wfdb
from PIL import Image

from ecg_nbdev.bundle import load_pretrained
from ecg_nbdev.core import CLASSES, LEADS, ECGError, RecordError
from ecg_nbdev.filters import resample
from ecg_nbdev.holter import UNREADABLE, find_episodes, predict_stream
from ecg_nbdev.journal import own_journal
from ecg_nbdev.records import read_record
from ecg_nbdev.signal import Preparation
from ecg_nbdev.sim.synth import simulate
from ecg_nbdev.stream import cut_stream, open_stream, stream_of

COMMAND = str(Path(sys.executable).parent/'ecg-holter')
DATA = Path(os.environ.get('ECG_DATA', 'nowhere'))


def write_mit(folder, name, signal, leads=('MLII', 'V5'), fs=360, **kw):
    "A record in format 212, as the MIT-BIH databases have it; `signal` (leads, n) mV."
    k = len(leads)
    wfdb.wrsamp(name, fs, ['mV']*k, list(leads), p_signal=signal.T.astype(float), fmt=['212']*k, adc_gain=[200]*k,
                baseline=[0]*k, write_dir=str(folder), **kw)
    return folder/f'{name}.hea'


def start(*args):
    return subprocess.Popen([COMMAND, *map(os.fspath, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, 'OMP_NUM_THREADS': '1'})


def holter(*args, status=0):
    process = start(*args)
    said, complaint = process.communicate()
    assert process.returncode == status, (said, complaint)
    return said, complaint


@pytest.fixture(scope='module')
def predictor(): return load_pretrained()


@pytest.fixture(scope='module')
def half_hour(tmp_path_factory):
    "30 min of II and V5 from 23:50: AF from minute 10 to 16, both electrodes off from minute 25 to 27."
    def leads(labels, minutes, seed):
        return resample(simulate(labels, 60*minutes, 250, rng=seed).signal[[1, 10]], 250, 360)
    off = np.full((2, 2*60*360), .1)
    x = np.concatenate([leads('Normal', 10, 1), leads('AF', 6, 7), leads('Normal', 9, 1), off, leads('Normal', 3, 1)], axis=1)
    return write_mit(tmp_path_factory.mktemp('mit'), 'a01', x, base_time=clock(23, 50))


@pytest.fixture(scope='module')
def answered(half_hour, tmp_path_factory):
    "What the command says of it, and the folder it wrote."
    out = tmp_path_factory.mktemp('out')
    return *holter(half_hour, '--out', out), out


# ---- as a user would

def test_the_episodes_of_an_mit_record_are_found(answered):
    said, complaint, out = answered
    episodes = pd.read_csv(out/'episodes.csv')
    af, unread = (episodes[episodes.episode == name] for name in ('AF', UNREADABLE))
    assert len(af) == 1 and abs(af.start.iloc[0]-600) <= 30 and abs(af.end.iloc[0]-960) <= 30
    assert len(unread) == 1 and abs(unread.start.iloc[0]-1500) <= 10 and abs(unread.end.iloc[0]-1620) <= 10
    assert af['from'].iloc[0] >= '23:59:30' or af['from'].iloc[0].startswith('00:00')
    assert f"{af['from'].iloc[0]}" in said and 'I, III, aVR' in said and 'Thresholds were chosen on short recordings' in said
    assert complaint == '' or '\r' not in complaint


def test_a_window_has_its_time_and_either_an_answer_or_a_reason(answered):
    windows = pd.read_csv(answered[-1]/'windows.csv', keep_default_na=False, na_values={c: '' for c in CLASSES})
    assert len(windows) == 180 and windows.time[0] == '23:50:00' and windows.time[60] == '00:00:00 +1'
    assert (windows[list(CLASSES)].isna().all(axis=1) == (windows.refused != '')).all()
    assert 11 <= (windows.refused != '').sum() <= 13


def test_the_timeline_is_a_picture(answered):
    picture = Image.open(answered[-1]/'timeline.png')
    assert picture.width > 1800 and len(picture.convert('RGB').getcolors(1 << 24)) > 50


def test_nothing_else_is_left_behind(answered):
    assert sorted(p.name for p in answered[-1].iterdir()) == ['episodes.csv', 'timeline.png', 'windows.csv']


@pytest.mark.parametrize('form, read', (('jsonl', lambda p: pd.read_json(p, lines=True)), ('parquet', pd.read_parquet)))
def test_windows_in_other_formats(tmp_path, form, read):
    path = write_mit(tmp_path, 'b', simulate('Normal', 40, 360, rng=1).signal[[1, 10]])
    holter(path, '--out', tmp_path/'out', '--format', form)
    assert read(tmp_path/'out'/f'windows.{form}').end.tolist() == [10, 20, 30, 40]


# ---- stopped

def test_a_killed_run_is_continued_and_ends_as_one_that_was_not(half_hour, answered, tmp_path):
    journal = tmp_path/'.windows.journal'
    process = start(half_hour, '--out', tmp_path)
    for _ in range(2400):
        if journal.is_file() and journal.read_bytes().count(b'\n') >= 3: break
        time.sleep(.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    held = journal.read_text().split('\n')[:-1]
    assert 3 <= len(held) < 7 and not (tmp_path/'windows.csv').exists()
    with journal.open('a') as f: f.write('[{"start": 0.') # what was being written
    holter(half_hour, '--out', tmp_path)
    for name in ('windows.csv', 'episodes.csv'): assert (tmp_path/name).read_bytes() == (answered[-1]/name).read_bytes()
    assert not journal.exists()


def test_a_journal_of_another_file_is_not_used(tmp_path):
    x = simulate('Normal', 320, 360, rng=1).signal[[1, 10]]
    path = write_mit(tmp_path, 'c', x)
    (tmp_path/'out').mkdir()
    (tmp_path/'out'/'.windows.journal').write_text('["another", "c.hea", 1, 2, [], null]\n'+'['+','.join(['{}']*30)+']\n')
    holter(path, '--out', tmp_path/'out')
    assert len(pd.read_csv(tmp_path/'out'/'windows.csv')) == 32


def test_a_second_run_into_the_same_folder_is_refused(tmp_path):
    path = write_mit(tmp_path, 'f', simulate('Normal', 40, 360, rng=1).signal[[1, 10]])
    with own_journal(tmp_path/'.windows.journal', tmp_path): # as a run has it
        one_line(holter(path, '--out', tmp_path, status=1)[1], str(tmp_path), 'another process is writing it')
    holter(path, '--out', tmp_path)
    assert not (tmp_path/'.windows.journal').exists()


# ---- what can't be read is named in one line

def one_line(complaint, *words):
    lines = complaint.strip().splitlines()
    assert len(lines) == 1 and all(word in lines[0] for word in words), complaint


def test_a_truncated_file(half_hour, tmp_path):
    for file in half_hour.parent.iterdir(): (tmp_path/file.name).write_bytes(file.read_bytes())
    os.truncate(tmp_path/'a01.dat', 900_000)
    one_line(holter(tmp_path/'a01.hea', '--out', tmp_path/'out', status=1)[1], 'a01.dat', 'holds 300000 of 648000')


def test_a_file_that_is_not_there(tmp_path):
    one_line(holter(tmp_path/'nowhere', '--out', tmp_path/'out', status=1)[1], 'nowhere', 'no such recording')


def test_signals_without_the_name_of_a_lead_can_be_named(tmp_path):
    path = write_mit(tmp_path, 'd', simulate('Normal', 20, 360, rng=1).signal[[1, 10]], ('ECG1', 'ECG2'))
    one_line(holter(path, '--out', tmp_path/'out', status=1)[1], 'd.hea', 'ECG1, ECG2', 'name them')
    said, _ = holter(path, '--out', tmp_path/'out', '--leads', 'II,V5')
    assert 'II, V5 at 360 Hz' in said


def test_a_file_that_is_cut_off_while_it_is_read(tmp_path, predictor):
    path = write_mit(tmp_path, 'e', np.tile(simulate('Normal', 60, 360, rng=1).signal[[1, 10]], 15))
    rows = predict_stream(path, predictor)
    next(rows)
    os.truncate(tmp_path/'e.dat', 700_000)
    with pytest.raises(RecordError, match='e.hea'): list(rows)


def test_blocks_of_another_shape_are_refused(predictor):
    with pytest.raises(RecordError, match='gives 3 rows of samples and 2 leads are named'):
        list(predict_stream([np.zeros((3, 500))], predictor, fs=500, leads=['I', 'II']))
    with pytest.raises(ECGError, match='give fs and leads'): next(predict_stream([np.zeros((2, 500))], predictor))


# ---- windows in blocks are those of the whole

def windows_of(stream, **kw): return [w for part in cut_stream(stream, Preparation(), **kw) for w in part]


def same(a, b):
    assert len(a) == len(b)
    for one, other in zip(a, b):
        assert one[:2] == other[:2]
        np.testing.assert_array_equal(one.prepared, other.prepared)
        np.testing.assert_array_equal(one.record.signal, other.record.signal)


@pytest.mark.parametrize('fs, seconds, stride', ((360, 333.3, None), (500, 701, 4.), (257, 650, 7.5), (100, 320.07, 10.)))
def test_blocks_of_odd_sizes_give_the_same_as_one(fs, seconds, stride):
    x, rng = simulate('PVC', seconds, fs, rng=2).signal[[0, 1, 7]], np.random.default_rng(0)
    cuts = np.cumsum(rng.integers(0, 12*fs, 500))
    odd = [x[:, :1], *np.split(x[:, 1:], cuts[cuts < x.shape[1]-1], axis=1)]
    leads = 'I', 'II', 'V2'
    same(windows_of(stream_of([x], fs, leads), stride=stride), windows_of(stream_of(odd, fs, leads), stride=stride))


@pytest.mark.parametrize('fs', (100, 125, 128, 200, 250, 257, 360, 500, 1000))
def test_windows_are_those_of_the_whole_recording_within_a_microvolt(fs):
    x, prepare = simulate('AF', 650, fs, rng=4).signal.copy(), Preparation()
    t = np.arange(x.shape[1])/fs
    x += np.linspace(-2, 3, 12)[:, None]+np.sin(2*np.pi*t/40)+np.where(t > 297, 4, 0) # offsets, drift, a step at a seam
    x[4, (t > 299) & (t < 304)] = np.nan # a gap of 5 s over a seam
    y = prepare(x, fs)
    found = windows_of(stream_of([x], fs, LEADS))
    assert len(found) == 65
    for w in found:
        whole = y[:, (s := round(w.start*100)):s+1000]
        np.testing.assert_array_equal(np.isnan(whole), np.isnan(w.prepared))
        np.testing.assert_allclose(w.prepared, whole, atol=1e-3)


def test_windows_hold_every_sample_and_the_last_is_flush_with_the_end():
    for seconds in (3, 10, 299, 300, 301, 309.9, 310, 600.5, 905):
        found = windows_of(stream_of([np.ones((1, round(seconds*100)))], 100, ['II']))
        assert found[0].start == 0 and found[-1].end == pytest.approx(seconds)
        assert all(b.start <= a.end for a, b in zip(found, found[1:]))
        assert [w.start for w in found] == sorted({w.start for w in found})
    assert windows_of(stream_of([], 100, ['II'])) == []


def test_a_real_recording_is_answered_as_a_whole_one(predictor):
    path = DATA/'ptb'/'S0002.hea'
    if not path.exists(): pytest.skip('ECG_DATA has no ptb')
    record = read_record(path)
    y = predictor.preparation(record.signal, record.fs)
    rows = pd.DataFrame(predict_stream(path, predictor))
    whole = predictor.class_prob(predictor.outputs([y[:, (s := round(start*100)):s+1000] for start in rows.start]))
    assert len(rows) == 12 and rows.end.iloc[-1] == pytest.approx(record.seconds)
    np.testing.assert_allclose(rows[list(CLASSES)], whole, atol=1e-3)


def test_limb_leads_are_computed_as_in_a_whole_recording():
    record = simulate('LBBB', 30, 500, rng=3)
    rows = [1, 3, 9]
    some = windows_of(stream_of([record.signal[rows]], 500, [LEADS[i] for i in rows]))
    every = windows_of(stream_of([record.signal], 500, LEADS))
    for a, b in zip(some, every, strict=True):
        np.testing.assert_allclose(a.prepared[[*range(6), 9]], b.prepared[[*range(6), 9]], atol=2e-5)
        assert np.isnan(a.prepared[[6, 7, 8, 10, 11]]).all()


def test_memory_does_not_grow_with_the_recording():
    def hours(n):
        x = simulate('Normal', 60, 500, rng=1).signal
        for _ in range(60*n): yield x
    peaks = []
    for n in (1, 2):
        tracemalloc.start()
        for _ in cut_stream(stream_of(hours(n), 500, LEADS), Preparation()): pass
        peaks.append(tracemalloc.get_traced_memory()[1]/1e6)
        tracemalloc.stop()
    assert peaks[1] < 1.05*peaks[0] and peaks[1] < 150 # two hours are 173 MB as float32


# ---- other formats

def test_edf_in_blocks_is_edf_as_a_whole(tmp_path):
    x = simulate('Normal', 150, 250, rng=1).signal
    signals = [edfio.EdfSignal(row, 250, label=f'ECG {lead}', physical_dimension='mV', physical_range=(-10, 10))
               for lead, row in zip(LEADS[:3]+('V5',), x[[0, 1, 2, 10]])]
    slow = edfio.EdfSignal(np.zeros(150), 1, label='Temp', physical_dimension='degC', physical_range=(0, 50))
    edfio.Edf([*signals[:2], slow, *signals[2:]], starttime=clock(7, 5, 9)).write(tmp_path/'a.edf')
    stream = open_stream(tmp_path/'a.edf')
    assert (stream.leads, stream.fs, stream.n, stream.clock) == (('I', 'II', 'III', 'V5'), 250, 37_500, 7*3600+309)
    for first in (0, 16_777):
        block = np.concatenate(list(stream.blocks(first)), axis=1)
        np.testing.assert_allclose(block, x[[0, 1, 2, 10], first:], atol=2e-4)
    os.truncate(tmp_path/'a.edf', 100_000)
    with pytest.raises(RecordError, match='is cut off'): open_stream(tmp_path/'a.edf')


@pytest.mark.parametrize('name', ('formats/ecg/ECG_P28.01.ecg', 'wfdb-dat/3.hea', 'odd-inputs/fifteen-leads/s0010_re.hea', 'ptb/S0008.hea'))
def test_real_files_in_blocks_are_those_read_whole(name):
    path = DATA/name
    if not path.exists(): pytest.skip(f'ECG_DATA has no {name}')
    record, stream = read_record(path), open_stream(path)
    block = np.concatenate(list(stream.blocks(0)), axis=1)
    rows = [[str(n).lower() for n in stream.names].index(lead.lower()) for lead in LEADS]
    assert stream.n == record.n and stream.fs == record.fs
    np.testing.assert_allclose(block[rows], record.signal, atol=1e-5)
    np.testing.assert_array_equal(np.concatenate(list(stream.blocks(4321)), axis=1), block[:, 4321:])


def test_a_record_of_several_segments(tmp_path):
    x = simulate('Normal', 40, 360, rng=1).signal[[1, 10]]
    for i in (1, 2): write_mit(tmp_path, f's{i}', x[:, (i-1)*7200:i*7200])
    (tmp_path/'s.hea').write_text('s/2 2 360 14400\ns1 7200\ns2 7200\n')
    stream = open_stream(tmp_path/'s.hea')
    np.testing.assert_allclose(np.concatenate(list(stream.blocks(0)), axis=1), x, atol=1/400+1e-6)


# ---- episodes

def table(labels, step=10.):
    "Windows whose labels these are; '?' for one that can't be read."
    n = len(labels)
    return pd.DataFrame({'start': np.arange(n)*step, 'end': np.arange(n)*step+10, 'labels': ['' if x == '?' else x for x in labels],
                         'refused': ['noise' if x == '?' else '' for x in labels], 'warnings': ''})


def spans(labels, **rules):
    found = find_episodes(table(labels), classes=('AF', 'PVC'), **rules)
    return [(e.episode, e.start, e.end) for e in found.itertuples()]


def test_gaps_are_bridged_and_short_episodes_dropped():
    assert spans(['AF']*3+['']*3+['AF']*2) == [('AF', 0, 80)]
    assert spans(['AF']*3+['']*4+['AF']*2) == [('AF', 0, 30)]
    assert spans(['AF']*2+['']*9) == [] and spans(['AF']*2+['']*9, least=20) == [('AF', 0, 20)]
    assert spans(['', 'PVC', '']) == [('PVC', 10, 20)]
    assert spans(['AF']*3+['?']*2+['AF']*3) == [('AF', 0, 80), (UNREADABLE, 30, 50)]
    assert spans(['AF', 'AF']) == [('AF', 0, 20)] and spans(['AF', '']) == [] # as long as the recording, or not
    assert spans([]) == [] and spans(['?']) == [(UNREADABLE, 0, 10)]


def test_an_episode_lasts_while_the_evidence_is_near_the_threshold(predictor):
    windows = table(['']*9).assign(**dict.fromkeys(CLASSES, .01), labels='')
    at = predictor.thresholds.values[CLASSES.index('AF')]
    near, above = at/(at+(1-at)*np.exp(.5)), (1+at)/2  # half a unit of log odds below the threshold; above it
    windows['AF'] = [.01, .01, near, near, above, near, near, .01, .01]
    def found(**rules): return find_episodes(windows, predictor.thresholds, least=0, bridge=0, **rules).query('episode == "AF"')
    assert found(stay=1)[['start', 'end']].to_numpy().tolist() == [[20, 70]]
    assert found(stay=0)[['start', 'end']].to_numpy().tolist() == [[40, 50]]
