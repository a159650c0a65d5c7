"""`ecg-predict` on many files, each test in processes of their own: nothing lost, failures named, runs continued."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from ecg_nbdev.answers import answer_parts, answer_rows, answer_to, file_stamp, find_model
from ecg_nbdev.cli import _list_failures
from ecg_nbdev.cohort import scan
from ecg_nbdev.core import LEADS, CohortError, ECGError, RecordError, hold_file
from ecg_nbdev.records import read_record, write_record
from ecg_nbdev.sim.synth import simulate_cohort

COMMAND = [str(Path(sys.executable).parent/'ecg-predict')]


def predict(*args, status=0, **kw):
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run([*COMMAND, *map(os.fspath, args)],
                          capture_output=True, env=env, **kw)
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == status, (done.stdout, done.stderr)
    return done


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Six recordings."
    place = tmp_path_factory.mktemp('data')
    for i, record in enumerate(simulate_cohort(6, seed=5)): write_record(replace(record, id=f'S{i:05d}'), place)
    return place


@pytest.fixture
def broken(folder, tmp_path):
    "The six with seven that can't be read beside them."
    place = tmp_path/'broken'
    shutil.copytree(folder, place)
    header = (place/'S00000.hea').read_text()
    for name, rate in (('slow', '1'), ('fast', '999999')):
        (place/f'{name}.hea').write_text(header.replace('S00000 12 500', f'{name} 12 {rate}').replace('S00000.mat', f'{name}.mat'))
        shutil.copy(place/'S00000.mat', place/f'{name}.mat')
    with h5py.File(place/'group.h5', 'w') as f: f.create_group('ecg')
    (place/'cut.edf').write_bytes(b'0       '+bytes(100))
    (place/'prose.csv').write_text('I,II\n'+'1,2\n'*5+'1,two\n')
    (place/'no.hea').write_text('twelve leads')
    (place/'empty.npy').write_bytes(b'')
    return place


BAD = {'slow.hea', 'fast.hea', 'group.h5', 'cut.edf', 'prose.csv', 'no.hea'}


def test_what_can_not_be_read_is_named_and_the_rest_is_answered(broken):
    done = predict(broken, '--format', 'jsonl', status=1)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row['record'] for row in rows] == [f'S{i:05d}' for i in range(6)]
    assert all(Path(row['file']).is_file() for row in rows)
    named = {Path(line.split(': ')[0]).name for line in done.stderr.splitlines()[:-1]}
    assert named == BAD and done.stderr.splitlines()[-1] == '6 could not be read, see above'
    assert '\r' not in done.stderr and 'Traceback' not in done.stderr


def test_the_front_page_shows_what_its_first_command_prints():
    root = Path(__file__).resolve().parents[1]
    text = (root/'README.md').read_text(encoding='utf-8')
    command, shown = re.search(r'^ecg-predict (\S+\.hea) .*?^```\n(.*?)^Why', text, re.M | re.S).groups()
    said = predict(command, '--format', 'table', cwd=root).stdout
    def without_digits(block): return re.sub(r'\d(?= )|\d$', '', textwrap.dedent(block).strip(), flags=re.M) # the third digit may differ
    assert len(said.splitlines()) >= 3 and without_digits(said) == without_digits(shown)


def test_reading_and_scanning_name_the_same_files(broken):
    cohort = scan(broken, progress=False)
    assert {Path(p).name for p in cohort.skipped.path} == BAD
    for name in BAD:
        with pytest.raises(RecordError, match=name): read_record(broken/name)


def test_formats_of_the_answer_agree(folder):
    rows = json.loads(predict(folder).stdout)
    lines = [json.loads(line) for line in predict(folder, '--format', 'jsonl').stdout.splitlines()]
    table = pd.read_csv(StringIO(predict(folder, '--format', 'csv').stdout))
    text = predict(folder, '--format', 'table').stdout
    assert rows == lines and table.record.tolist() == [row['record'] for row in rows]
    assert table.AF.tolist() == [row['probabilities']['AF'] for row in rows]
    assert all(row['file'] in text for row in rows) and 'threshold' in text


def test_a_header_and_its_signal_are_one_recording(folder):
    done = predict(folder/'S00001.mat', folder/'S00001.hea', folder/'S00001', '--format', 'jsonl')
    assert [json.loads(line)['record'] for line in done.stdout.splitlines()] == ['S00001']


def test_names_in_latin_1_and_names_that_are_too_long(folder, tmp_path):
    odd = os.fsencode(tmp_path)+b'/Ren\xe9.npz'
    record = read_record(folder/'S00002')
    with open(odd, 'wb') as f: np.savez(f, ecg=record.signal, fs=record.fs, unit='mV')
    done = predict(odd, 'A'*300, folder/'S00002.hea', '--format', 'csv', status=1)
    first, second = done.stdout.splitlines()[1:]
    assert first.startswith('Ren\\xe9,') and second.startswith('S00002,')
    assert 'AAAA' in done.stderr and 'Traceback' not in done.stderr


def test_a_stopped_run_is_continued(folder, tmp_path):
    many, out = tmp_path/'many', tmp_path/'answers.parquet'
    many.mkdir()
    for i in range(120):
        for end in ('.hea', '.mat'):
            text = (folder/f'S0000{i%6}{end}').read_bytes()
            (many/f'R{i:03d}{end}').write_bytes(text.replace(b'S0000%d' % (i % 6), b'R%03d' % i) if end == '.hea' else text)
    (many/'no.hea').write_text('twelve leads')
    journal = tmp_path/'.answers.parquet.journal'
    run = subprocess.Popen([*COMMAND, str(many), '--out', str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic()+120
    while time.monotonic() < limit and not (journal.exists() and journal.read_bytes().count(b'\n') > 8): time.sleep(.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not out.exists()
    before = journal.read_bytes().count(b'\n')-1
    done = predict(many, '--out', out, status=1)
    assert f'120 answered, {before} of them before; 1 not read' in done.stdout
    assert pd.read_parquet(out).record.tolist() == [f'R{i:03d}' for i in range(120)] and not journal.exists()
    assert pd.read_csv(tmp_path/'answers.parquet.skipped.csv').path.tolist() == [str(many/'no.hea')]


def test_the_list_of_what_was_not_read_names_its_files(tmp_path, monkeypatch):
    "Whatever their names; each result has a list of its own, and one that is written whole."
    def full(*args): raise OSError(28, 'No space left on device')
    odd = tmp_path/'ward: 3, east'
    failed = [RecordError(odd/'no.hea', 'is no header: mend it'), CohortError(f'{odd}: holds no recordings')]
    for name in ('a.csv', 'a.parquet'): _list_failures(failed, tmp_path/name)
    listed = pd.read_csv(tmp_path/'a.csv.skipped.csv', keep_default_na=False)
    assert listed.path.tolist() == [str(odd/'no.hea'), ''] and listed.reason.tolist() == ['is no header: mend it', str(failed[1])]
    _list_failures([], tmp_path/'a.parquet')
    assert sorted(file.name for file in tmp_path.glob('*.csv')) == ['a.csv.skipped.csv']
    monkeypatch.setattr(Path, 'replace', full)
    with pytest.raises(OSError): _list_failures(failed[:1], tmp_path/'a.csv')
    assert len(pd.read_csv(tmp_path/'a.csv.skipped.csv')) == 2


def test_a_journal_of_other_options_is_not_gone_on_with(folder, tmp_path):
    "Tables that do not say their rate: what was answered at 250 Hz is answered anew at 500 Hz."
    model, tables = find_model(light=True), [tmp_path/f'S{i:05d}.csv' for i in range(6)]
    for table in tables: pd.DataFrame(read_record(folder/table.stem).signal.T, columns=LEADS).to_csv(table, index=False)
    def stop(error): raise KeyboardInterrupt
    def answer(name, rate, *more):
        told = dict(rate=rate, unit='mV', leads=None)
        return answer_to(tmp_path/name, [*tables, *more], model, stop, told, show=False, at_once=1)
    def stopped():
        with pytest.raises(KeyboardInterrupt): answer('a.csv', 250, tmp_path/'gone.csv')
        return len((tmp_path/'.a.csv.journal').read_text().splitlines())-1
    assert stopped() > 0 and answer('a.csv', 500) == (6, 0) == answer('b.csv', 500)
    assert (tmp_path/'a.csv').read_bytes() == (tmp_path/'b.csv').read_bytes()
    n = stopped()
    assert answer('a.csv', 250) == (6, n) # the same options go on


def test_a_signal_file_that_was_mended_or_replaced_is_read_anew(folder, tmp_path):
    "The header as it was: neither the failure nor the answer to the earlier signal is kept."
    model, failed = find_model(light=True), []
    for name in ('S00001', 'S00002'): shutil.copy(folder/f'{name}.hea', tmp_path)
    paths, mended = sorted(tmp_path.glob('*.hea')), tmp_path/'S00002.mat'
    def answer(): return answer_parts(tmp_path/'parts', paths, model, failed.append, show=False)
    shutil.copy(folder/'S00001.mat', tmp_path)
    assert answer() == (1, 0) and len(failed) == 1
    shutil.copy(folder/'S00002.mat', tmp_path)
    assert answer() == (2, 0) and len(failed) == 1 and answer() == (2, 2)
    os.utime(mended, ns=(1, 1))
    assert answer() == (2, 0)
    (tmp_path/'many.hea').write_text('many/2 12 500 5000\nS00001 2500\nmany 2500\n') # segments, one of them itself
    before = file_stamp(tmp_path/'many.hea')
    os.utime(paths[0], ns=(1, 1))
    assert file_stamp(tmp_path/'many.hea') != before


def test_without_an_answer_there_are_the_columns_of_one(folder, tmp_path):
    "In the first part, whose columns `read_parquet` takes for all, and in a file."
    model, failed, gone = find_model(light=True), [], [tmp_path/'gone.hea', tmp_path/'lost.hea']
    paths = [folder/f'S{i:05d}.hea' for i in range(3)]
    assert answer_parts(tmp_path/'parts', [*gone, *paths], model, failed.append, show=False, size=2) == (3, 0)
    table = pd.read_parquet(tmp_path/'parts')
    pd.testing.assert_frame_equal(table, pd.DataFrame(answer_rows(paths, model, failed.append)), check_dtype=False, rtol=1e-5)
    assert answer_parts(tmp_path/'none', gone, model, failed.append, show=False) == (0, 0)
    assert answer_to(tmp_path/'none.csv', gone, model, failed.append, show=False) == (0, 0) and len(failed) == 6
    assert list(pd.read_parquet(tmp_path/'none')) == list(pd.read_csv(tmp_path/'none.csv')) == list(table)


def test_a_journal_is_held_until_it_is_gone(folder, tmp_path, monkeypatch):
    "Nobody takes it up between the last answer and its end, nor what was removed while they opened it."
    model, paths, held = find_model(light=True), [folder/'S00000.hea'], []
    def answer(): return answer_to(tmp_path/'a.csv', paths, model, held.append, show=False)
    unlink = Path.unlink
    def watched(path, **kw):
        if path.suffix == '.journal':
            with path.open('a') as f: held.append(not hold_file(f.fileno()))
        unlink(path, **kw)
    monkeypatch.setattr(Path, 'unlink', watched)
    assert answer() == (1, 0) and held == [True]
    monkeypatch.setattr('ecg_nbdev.journal.hold_file', lambda fd: not (tmp_path/'.a.csv.journal').unlink())
    with pytest.raises(ECGError, match='a.csv: another process is writing it'): answer()


@pytest.mark.skipif(os.geteuid() != 0, reason='another user can be tried by root alone')
def test_a_folder_that_can_not_be_entered_is_named(folder, tmp_path):
    "As a user who may not enter it."
    place = tmp_path/'open'
    shutil.copytree(folder, place)
    (place/'shut').mkdir(mode=0o700)
    for above in (place, *place.parents):
        if above.stat().st_uid == 0 and above != Path('/') and above != Path('/tmp'): above.chmod(0o755)
    code = ('import os, sys\nfrom ecg_nbdev.cohort import scan\nscan(sys.argv[1], progress=False)\nos.setuid(65534)\n'
            'print(scan(sys.argv[1], progress=False).skipped.to_csv())')
    done = subprocess.run([sys.executable, '-c', code, str(place)], capture_output=True, text=True)
    assert "shut,can't be entered (Permission denied): check its permissions" in done.stdout, done.stderr
