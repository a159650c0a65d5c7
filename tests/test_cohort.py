"Scanning data sets: labels row by row, records that stand twice, what is skipped, folds."
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
import wfdb
from hypothesis import given, settings, strategies as st

from ecg_nbdev.cohort import COLUMNS, find_records, join_cohorts, scan
from ecg_nbdev.folds import make_folds, split_cohort
from ecg_nbdev.parallel import in_order
from ecg_nbdev.core import CLASSES, LEADS, CohortError, Record, RecordError
from ecg_nbdev.labels import multi_hot, read_reference
from ecg_nbdev.rules import label_rules
from ecg_nbdev.records import read_record, write_record

ECG_DATA = os.environ.get('ECG_DATA')
real = pytest.mark.skipif(not ECG_DATA, reason='ECG_DATA does not name the folder of real recordings')


def made_up(name, seed=0, n=1000, **kw):
    signal = np.random.default_rng(seed).normal(0, 0.5, (12, n))
    return Record(signal, **{'fs': 500, 'id': name, 'labels': ('AF',), **kw})


# --- real data sets

@real
@pytest.mark.parametrize('source', ['georgia', 'chapman-ningbo', 'ptbxl', 'cpsc-extra', 'ptb'])
def test_labels_row_by_row(source):
    known = pd.read_csv(Path(ECG_DATA)/source/'records.csv', dtype=str, keep_default_na=False).set_index('record')
    cohort = scan(Path(ECG_DATA)/source)
    table = cohort.table.set_index('id')
    assert sorted([*table.index, *cohort.duplicates.id]) == sorted(known.index) and not len(cohort.skipped)
    known = known.loc[table.index]
    decoded = [label_rules().decode(dx) for dx in known.dx]
    assert [(';'.join(labels), ';'.join(unknown)) for labels, unknown in decoded] == list(zip(table.labels, table.unknown))
    assert table.n_samples.tolist() == known.n_samples.astype(int).tolist()
    assert table.fs.tolist() == known.fs.astype(float).tolist()
    assert table.sex.tolist() == known.sex.str[0].tolist() and table.source.unique().tolist() == [source]
    assert np.allclose(table.age, pd.to_numeric(known.age, errors='coerce'), equal_nan=True)
    assert table.other.tolist() == [sum(not label_rules().decode(c)[0] for c in set(dx.split(','))) for dx in known.dx]


@real
def test_cpsc2018():
    known = pd.read_csv(Path(ECG_DATA)/'cpsc2018/records.csv', dtype=str, keep_default_na=False)
    cohort = scan(Path(ECG_DATA)/'cpsc2018', progress=False)
    table = cohort.table.set_index('id')
    assert len(table) == known.record.nunique() == 123 and not len(cohort.skipped)
    assert table.labels.to_dict() == dict(zip(known.record, known.labels))
    assert (cohort.duplicates.case == 'copy').all() and len(cohort.duplicates) == len(known)-123
    for row in cohort.duplicates.itertuples():
        assert np.array_equal(read_record(row.path, missing='nan').signal,
                              read_record(row.same_as, missing='nan').signal, equal_nan=True)
    assert cohort.unread == 6877-123
    assert list(cohort.table.columns) == COLUMNS and cohort.table.id.is_monotonic_increasing
    counts = cohort.summary()['all']
    names = ('RBBB', 'AF', 'Normal', 'STD', 'PVC', 'PAC', 'STE', 'I-AVB', 'LBBB')
    assert [counts[name] for name in names] == [25, 19, 16, 16, 14, 12, 10, 8, 7]
    assert set(table.source) == {'records-textdx', 'records-snomed', 'records-original-mat'}
    # a subfolder alone finds the table above it
    assert scan(Path(ECG_DATA)/'cpsc2018/records-original-mat').table.labels.ne('').all()
    assert scan(Path(ECG_DATA)/'cpsc2018/records-textdx').table.set_index('id').labels['A0043'] == 'RBBB;AF'


@real
def test_no_recording_stands_twice_unnoticed():
    "Every signal of every data set is compared, not only the suspects of the scan."
    cohort = scan(ECG_DATA, progress=False)
    first = {}
    for row in cohort.table.itertuples():
        key = np.rint(np.nan_to_num(read_record(row.path, missing='nan').signal.astype(float))*1000).tobytes()
        other = first.setdefault(key, row)
        assert other.patient == row.patient, (other.path, row.path)
    twins = cohort.duplicates[cohort.duplicates.case == 'twin']
    pairs = {frozenset((Path(a).stem, Path(b).stem)) for a, b in zip(twins.path, twins.same_as)}
    exported = {frozenset(('Example', name)) for name in ('subject1_0', 'subject2_1')} # one recording, two formats
    assert pairs == {frozenset(('E07509', 'E07510')), frozenset(('HR00001', '00001_hr')), *exported}


@real
@pytest.mark.parametrize('kind', ['no checksum', 'finer units', 'no header'])
def test_copies_are_found_whatever_their_headers_say(tmp_path, kind):
    "Samples are compared: neither a lost checksum nor another gain or format hides a copy, in a folder or in two."
    for path in scan(f'{ECG_DATA}/georgia').table.path[:6]:
        r = read_record(path)
        write_record(r, tmp_path/'one')
        copy = Record(r.signal, r.fs, f'Z{r.id}')
        header = write_record(copy, tmp_path/'two')
        if kind == 'no checksum': header.write_text(re.sub(r'(?m)^(\S+\.mat(?: \S+){5}) \S+', r'\1 0', header.read_text()))
        if kind == 'finer units':
            units = np.rint(r.signal.T*2000).astype(int)
            wfdb.wrsamp(copy.id, r.fs, ['mV']*12, list(LEADS), d_signal=units, fmt=['16']*12, adc_gain=[2000]*12,
                        baseline=[0]*12, write_dir=str(tmp_path/'two'))
        if kind == 'no header':
            header.unlink()
            scipy.io.savemat(header.with_suffix('.mat'), {'ECG': dict(sex='Male', age=5, data=r.signal.astype(float))})
    both = join_cohorts(scan(tmp_path/'one'), scan(tmp_path/'two'))
    for cohort in (both, scan(tmp_path)):
        assert len(cohort) == 6 and cohort.duplicates.case.tolist() == ['twin']*6


@real
def test_a_recording_of_two_data_sets_counts_once():
    "PTB-XL's first recording, as PhysioNet and as the challenge publish it: one row, in whichever order."
    sets = [scan(f'{ECG_DATA}/{name}', progress=False) for name in ('ptbxl', 'wfdb-dat')]
    for cohorts in (sets, sets[::-1]):
        both = join_cohorts(*cohorts)
        assert len(both) == sum(map(len, sets))-1 and (both.duplicates.case == 'twin').sum() == 1
        assert len({'ptbxl/HR00001', 'wfdb-dat/00001_hr'} & set(both.table.id)) == 1
        assert both.table.id.is_unique and set(both.table.source) == {'ptbxl', 'wfdb-dat'}


@real
def test_odd_inputs():
    cohort = scan(f'{ECG_DATA}/odd-inputs')
    few = [f'{folder}-E0750{i}' for folder in ('four_leads', 'six_leads', 'three_leads', 'two_leads') for i in range(3)]
    assert sorted(cohort.table.id) == sorted(['A0001', 'A0002', 'A0003', 'ETEST', 's0010_re', *few])
    assert (cohort.table.labels[~cohort.table.id.isin(few)] == '').all()
    n_found = len(find_records(f'{ECG_DATA}/odd-inputs'))
    assert len(cohort.skipped) == 3+2
    twins = (cohort.duplicates.case != 'namesake').sum() # a namesake stays, under a longer name
    assert len(cohort)+len(cohort.skipped)+twins == n_found
    assert cohort.skipped.reason.str.contains('Git LFS').sum() == 2
    with pytest.raises(CohortError, match='none of its 3 recordings can be used.*missing'):
        scan(f'{ECG_DATA}/odd-inputs/header-without-signal')
    with pytest.raises(RecordError): scan(f'{ECG_DATA}/odd-inputs', on_error='raise')


# --- layouts and label tables

def test_layouts_give_the_same_table(tmp_path):
    flat, nested = tmp_path/'flat', tmp_path/'nested'
    for i in range(6):
        write_record(made_up(f'A{i}', i, labels=(CLASSES[i],)), flat)
        write_record(made_up(f'A{i}', i, labels=(CLASSES[i],)), nested/f'g{i % 2}'/'deep')
    columns = ['id', 'patient', 'fs', 'n_samples', 'labels']
    assert scan(flat).table[columns].equals(scan(nested).table[columns])
    assert scan(flat).table.source.unique().tolist() == ['flat'] and set(scan(nested).table.source) == {'g0', 'g1'}


def test_matlab_layout_in_parallel(tmp_path):
    for i in range(25):
        ecg = dict(sex='Male', age=50+i, data=made_up('x', i, 600+i).signal.astype(float))
        scipy.io.savemat(tmp_path/f'A{i:02d}.mat', {'ECG': ecg}, do_compression=True)
    (tmp_path/'A30.mat').write_bytes(b'no matlab')
    rows = ''.join(f'A{i:02d},{i % 9+1},,\n' for i in range(25))
    (tmp_path/'REFERENCE.csv').write_text('Recording,First_label,Second_label,Third_label\n'+rows)
    cohort = scan(tmp_path, progress=False)
    assert cohort.table.n_samples.tolist() == [600+i for i in range(25)]
    assert cohort.table.age.tolist() == [50.+i for i in range(25)]
    assert cohort.table.labels.tolist() == [CLASSES[i % 9] for i in range(25)]
    assert cohort.skipped.path.tolist() == [str(tmp_path/'A30.mat')]
    with pytest.raises(RecordError, match='A30.mat'): scan(tmp_path, on_error='raise', progress=False)


def test_the_label_table_wins_and_the_nearest_holds(tmp_path):
    head = 'Recording,First_label,Second_label,Third_label\n'
    for i, folder in enumerate(('a', 'b', 'b')):
        write_record(made_up(f'A{i}', i, labels=('AF', 'RBBB')), tmp_path/folder)
    (tmp_path/'REFERENCE.csv').write_text(head+'A0,5,2,\nA1,1,,\n')
    (tmp_path/'b'/'REFERENCE.csv').write_text(head+'A1,7,,\nA9,7,,\n')
    cohort = scan(tmp_path)
    assert cohort.table.labels.tolist() == ['RBBB;AF', 'PVC', 'AF;RBBB'] and cohort.unread == 1
    assert scan(tmp_path, classes=('RBBB', 'PVC')).table.labels.tolist() == ['RBBB', 'PVC', 'RBBB']
    (tmp_path/'REFERENCE.csv').write_text(head+'A0,55,,\n')
    with pytest.raises(CohortError, match='A0 has the labels 55'): scan(tmp_path)


def test_other_vocabulary(tmp_path):
    hea = write_record(made_up('A0'), tmp_path)
    hea.write_text(hea.read_text().replace('#Dx: 164889003', '#Dx: 426177001,164889003,10370003'))
    cohort = scan(tmp_path, classes={'SB': 426177001, 'PR': '10370003'})
    assert (cohort.table.labels[0], cohort.table.other[0], cohort.classes) == ('SB;PR', 1, ('SB', 'PR'))
    assert (scan(tmp_path).table.labels[0], scan(tmp_path).table.other[0]) == ('AF', 2)


# --- records that stand twice

def test_twins_of_twins_are_one_patient(tmp_path):
    "A1 is A2, B1 is B2, and A2 and B2 are one patient: what is kept of the four stays in one fold."
    for name, signal, patient in (('A1', 1, 'P1'), ('A2', 1, 'P2'), ('B1', 2, 'P3'), ('B2', 2, 'P2')):
        write_record(made_up(name, signal, patient=patient), tmp_path)
    cohort = scan(tmp_path)
    assert cohort.table.patient.nunique() == 1 and cohort.table.id.tolist() == ['A1', 'B1'] and cohort.names_patients

def test_copies_twins_namesakes(tmp_path):
    write_record(made_up('A1', 1), tmp_path/'s1'); write_record(made_up('A1', 1), tmp_path/'s2')      # a copy
    write_record(made_up('A2', 2), tmp_path/'s1'); write_record(made_up('A2', 22), tmp_path/'s2')     # namesakes
    write_record(made_up('A3', 3, patient='P'), tmp_path/'s1'); write_record(made_up('B3', 3), tmp_path/'s2')  # twins
    # the copy with labels counts
    write_record(made_up('A4', 4, labels=()), tmp_path/'s1')
    write_record(made_up('A4', 4), tmp_path/'s2')
    cohort = scan(tmp_path)
    assert cohort.table.id.tolist() == ['A1', 'A3', 'A4', 's1-A2', 's2-A2']
    assert cohort.table.patient.tolist() == ['A1', 'P', 'A4', 's1-A2', 's2-A2']
    assert cohort.duplicates.case.value_counts().to_dict() == {'copy': 2, 'namesake': 1, 'twin': 1}
    assert cohort.table.path[2] == str(tmp_path/'s2'/'A4.hea') and cohort.table.labels[2] == 'AF'


def test_a_matlab_copy_of_a_wfdb_record(tmp_path):
    record = read_record(write_record(made_up('A1', 1), tmp_path/'wfdb'))
    (tmp_path/'mat').mkdir()
    ecg = dict(sex='Male', age=5, data=record.signal.astype(float))
    for name in ('A1', 'Z9'): scipy.io.savemat(tmp_path/'mat'/f'{name}.mat', {'ECG': ecg})
    cohort = scan(tmp_path)
    assert cohort.table.id.tolist() == ['A1'] and cohort.table.patient.tolist() == ['A1']
    assert cohort.table.path[0].endswith('wfdb/A1.hea') and cohort.duplicates.case.tolist() == ['copy', 'twin']


def test_a_suspect_that_cannot_be_read_is_skipped(tmp_path):
    write_record(made_up('A1', 1), tmp_path/'s1')
    write_record(Record(np.zeros((12, 1000)), 500, 'A1'), tmp_path/'s2')
    cohort = scan(tmp_path)
    assert (len(cohort), len(cohort.skipped)) == (1, 1) and 'flat' in cohort.skipped.reason[0]


def test_links_to_folders_are_followed_and_each_recording_counts_once(tmp_path):
    "Out of the folder, within it, in a circle, to what lies above, to a hidden folder, and to nothing."
    rng = np.random.default_rng(0)
    for i, place in enumerate(('data/z', 'far/deep', 'data/.hidden')):
        write_record(Record(rng.normal(size=(12, 500)), 500, f'A{i}'), tmp_path/place)
    for link, to in (('a', 'z'), ('b', '../far'), ('c', '.'), ('d', '..'), ('e', '.hidden'), ('f', 'gone'), ('z/g', '../../far')):
        (tmp_path/'data'/link).symlink_to(to)
    found = [str(path.relative_to(tmp_path)) for path in find_records(tmp_path/'data')]
    assert found == ['data/z/A0.hea', 'data/b/deep/A1.hea', 'data/e/A2.hea']
    assert scan(tmp_path/'data').table.source.tolist() == ['z', 'b', 'e']


def test_nothing_there(tmp_path):
    for folder in (tmp_path/'none', tmp_path):
        with pytest.raises(CohortError, match=str(folder)) as e: scan(folder)
        assert '\n' not in str(e.value)
    (tmp_path/'.hidden').mkdir(); write_record(made_up('A1'), tmp_path/'.hidden')
    with pytest.raises(CohortError, match='holds no recordings'): scan(tmp_path)
    with pytest.raises(ValueError): scan(tmp_path, on_error='ignore')


def test_save_and_relative_paths(tmp_path, monkeypatch):
    write_record(made_up('A1', labels=()), tmp_path/'set')
    monkeypatch.chdir(tmp_path)
    cohort = scan('set')
    cohort.save('out')
    assert sorted(os.listdir('out')) == ['cohort.csv', 'duplicates.csv', 'skipped.csv']
    assert Path(cohort.table.path[0]).is_absolute()
    assert pd.read_csv('out/cohort.csv', keep_default_na=False).labels.tolist() == ['']


# --- folds

def table_of(labels, people=1):
    rows = range(len(labels))
    return pd.DataFrame({'id': [f'A{i:05d}' for i in rows], 'patient': [f'P{i//people:05d}' for i in rows],
                         'labels': labels})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from(CLASSES), unique=True, max_size=3).map(';'.join), min_size=20, max_size=120),
       st.integers(1, 3), st.integers(2, 6), st.integers(0, 5))
def test_folds_part_no_patient_and_ignore_row_order(labels, people, k, seed):
    table = table_of(labels, people)
    fold = make_folds(table, k, seed)
    assert pd.Series(fold).groupby(table.patient).nunique().max() == 1 and set(fold) <= set(range(k))
    order = np.random.default_rng(seed).permutation(len(table))
    assert (make_folds(table.iloc[order], k, seed) == fold[order]).all()
    part = split_cohort(table, 0.2, 0.2, seed)
    assert (split_cohort(table.iloc[order], 0.2, 0.2, seed) == part[order]).all()
    assert pd.Series(part).groupby(table.patient).nunique().max() == 1


@real
def test_folds_over_the_complete_table():
    labels = read_reference(f'{ECG_DATA}/cpsc2018/REFERENCE.csv')
    table = pd.DataFrame({'id': list(labels), 'labels': [';'.join(names) for names in labels.values()]})
    fold = make_folds(table)
    counts = pd.DataFrame(multi_hot(table.labels)).groupby(fold).sum()
    assert ((counts.max()-counts.min()) <= 3).all() and np.ptp(np.bincount(fold)) <= 20
    assert not (make_folds(table, seed=1) == fold).all()


def test_too_many_folds():
    with pytest.raises(CohortError, match='3 patients make no 10 folds'): make_folds(table_of(['AF']*3))
    with pytest.raises(ValueError, match='nothing to train on'): split_cohort(table_of(['AF']*3), 0.5, 0.5)


def test_in_order_stays_close_to_its_reader():
    taken = []
    def items():
        for i in range(200): taken.append(i); yield i
    results = in_order(abs, items(), n_workers=2)
    assert next(results) == 0 and len(taken) <= 17
    assert list(results) == list(range(1, 200))


def test_the_first_label_of_cpsc2018_is_the_official_one(tmp_path):
    order = pd.read_csv(Path(__file__).parents[1]/'ecg_nbdev/data/cpsc2018_label_order.csv')
    name, labels = order.iloc[0, 0], tuple(order.iloc[0, 1].split(';'))
    write_record(made_up(name, labels=labels[::-1]), tmp_path)
    write_record(made_up('B0001', seed=1, labels=labels[::-1]), tmp_path)
    table = scan(tmp_path, progress=False).table.set_index('id')
    assert table.labels[name] == ';'.join(labels) and table.labels['B0001'] == ';'.join(labels[::-1])


def test_a_label_table_leaves_doubtful_what_the_header_doubts(tmp_path):
    write_record(made_up('A1', labels=('RBBB',), unknown=('STD',)), tmp_path)
    (tmp_path/'REFERENCE.csv').write_text('Recording,First_label,Second_label,Third_label\nA1,2,,\n')
    row = scan(tmp_path, progress=False).table.iloc[0]
    assert (row.labels, row.unknown) == ('AF', 'STD')
