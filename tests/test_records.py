"Reading and writing single recordings: parity with wfdb on real files, and every bad input met so far."
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
import wfdb
from hypothesis import given, settings, strategies as st

from ecg_nbdev.core import CLASSES, LEADS, Record, RecordError
from ecg_nbdev.filters import resample
from ecg_nbdev.headers import read_header
from ecg_nbdev.records import READERS, read_record, write_record

ECG_DATA = os.environ.get('ECG_DATA')
real = pytest.mark.skipif(not ECG_DATA, reason='ECG_DATA does not name the folder of real recordings')
SOURCES = ('cpsc2018', 'georgia', 'chapman-ningbo', 'ptbxl', 'cpsc-extra', 'ptb')


def rows(source):
    table = pd.read_csv(Path(ECG_DATA)/source/'records.csv', dtype=str, keep_default_na=False)
    for row in table.itertuples():
        yield row, Path(ECG_DATA)/source/(f'{row.form}/{row.record}' if 'form' in table else row.record)


def made_up(n=5000, **kw):
    rng = np.random.default_rng(0)
    known = {'fs': 500, 'id': 'A0001', 'labels': ('PVC', 'AF'), 'age': 61, 'sex': 'F'}
    return Record(rng.normal(0, 0.5, (12, n)), **known | kw)


# --- real recordings

@real
@pytest.mark.parametrize('source', SOURCES)
def test_agrees_with_wfdb_and_the_table(source):
    compared, refused, worst = 0, 0, 0.
    for row, path in rows(source):
        record = read_record(path)
        assert (record.id, record.n, record.fs) == (row.record, int(row.n_samples), float(row.fs))
        assert record.sex == {'Male': 'M', 'Female': 'F'}.get(row.sex, '')
        age = pd.to_numeric(row.age, errors='coerce')
        assert record.age == age or np.isnan(record.age) and not age >= 0
        if source != 'cpsc2018': assert set(record.labels)-{'Normal'} == {*row.labels9.split(';')}-{'Normal', ''}, row.record
        if not path.with_suffix('.hea').exists(): continue
        try: theirs = wfdb.rdrecord(str(path))
        except Exception: refused += 1; continue
        order = [[name.lower() for name in theirs.sig_name].index(lead.lower()) for lead in LEADS]
        units = np.abs(theirs.p_signal.T[order]-record.signal)*np.array(theirs.adc_gain)[order][:, None]
        compared, worst = compared+1, max(worst, units.max())
    assert worst < 0.5
    assert refused == (30 if source == 'georgia' else 0)
    assert compared > 5


@real
@pytest.mark.parametrize('name, fs, n', [('00001_hr', 500, 5000), ('00001_lr', 100, 1000), ('3', 500, 5000)])
def test_other_wfdb_forms(name, fs, n):
    record, theirs = read_record(Path(ECG_DATA)/'wfdb-dat'/name), wfdb.rdrecord(f'{ECG_DATA}/wfdb-dat/{name}')
    assert (record.fs, record.n) == (fs, n)
    assert (np.abs(theirs.p_signal.T-record.signal)*np.array(theirs.adc_gain)[:, None]).max() < 0.5
    assert record.age == 53 and record.sex == 'M' if name == '3' else np.isnan(record.age)


@real
def test_twelve_of_fifteen_leads_from_two_files():
    stem = f'{ECG_DATA}/odd-inputs/fifteen-leads/s0010_re'
    record, theirs = read_record(stem), wfdb.rdrecord(stem)
    assert (record.n, record.fs, record.age, record.sex) == (38400, 1000, 81, 'F')
    assert (np.abs(theirs.p_signal.T[:12]-record.signal)*2000).max() < 0.5
    assert read_record(stem, fs=500).n == 19200


@real
def test_record_line_with_mat():
    record = read_record(f'{ECG_DATA}/odd-inputs/record-name-with-mat/ETEST.hea')
    assert (record.id, record.n) == ('ETEST', 5000)
    assert np.allclose(record.signal[:, 0]*4880, [-58, -48, 9, 53, -34, -19, -19, -58, -82, -43, -58, -58], atol=0.5)


@real
@pytest.mark.parametrize('path, text', [
    ('two_leads/E07500', 'no sample in V1, V2'),
    ('six_leads/E07500.mat', 'no sample in V1, V2, V3, V4, V5, V6'),
    ('header-without-signal/I0001', 'I0001.mat is missing'),
    ('header-without-signal/A0001_fake', 'A0001.mat is missing'),
    ('pointer-text-not-signal/00001_hr.hea', 'Git LFS pointer'),
    ('pointer-text-not-signal/00002_hr.dat', 'Git LFS pointer')])
def test_odd_inputs_refused_in_one_line(path, text):
    with pytest.raises(RecordError, match=text) as e: read_record(f'{ECG_DATA}/odd-inputs/{path}')
    assert '\n' not in str(e.value) and Path(path).stem in str(e.value)


@real
@pytest.mark.parametrize('folder, held', [
    ('two_leads', ('I', 'II')), ('three_leads', ('I', 'II', 'V2')), ('four_leads', ('I', 'II', 'III', 'V2')),
    ('six_leads', LEADS[:6])])
def test_few_leads_for_prediction(folder, held):
    record = read_record(f'{ECG_DATA}/odd-inputs/{folder}/E07501', missing='nan')
    assert set(record.missing) == set(LEADS[6:])-set(held) and set(record.computed) == set(LEADS[:6])-set(held)
    assert np.isfinite(record.signal[[LEADS.index(lead) for lead in held]]).all()


@real
def test_blank_dx_and_other_layouts():
    assert read_record(f'{ECG_DATA}/odd-inputs/blank-dx/A0001').labels == ()
    sph = read_record(f'{ECG_DATA}/sph/SPH00002.h5')
    assert (sph.n, sph.fs) == (6000, 500) and 0.3 < np.abs(sph.signal).max() < 10
    code = read_record(f'{ECG_DATA}/code15/code_15_438277.mat')
    assert (code.n, code.fs) == (2934, 400)


@real
def test_cpsc_struct_equals_wfdb_twin():
    mine = read_record(f'{ECG_DATA}/cpsc2018/records-original-mat/A1980.mat')
    assert (mine.fs, mine.sex, mine.age) == (500, 'M', 52)
    raw = scipy.io.loadmat(f'{ECG_DATA}/cpsc2018/records-original-mat/A1980.mat')['ECG'][0, 0]['data']
    assert np.abs(mine.signal-raw).max() < 1e-5


# --- what wfdb must read for us

def write_wfdb(folder, name, signal, fs, leads=LEADS, fmt='16', gain=1000):
    wfdb.wrsamp(name, fs=fs, units=['mV']*12, sig_name=list(leads), p_signal=signal, fmt=[fmt]*12, adc_gain=[gain]*12,
                baseline=[0]*12, write_dir=str(folder))

@pytest.mark.parametrize('fmt', ['80', '212', '24', '32', '16'])
def test_formats(tmp_path, fmt):
    signal = np.random.default_rng(1).normal(0, 0.4, (2000, 12))
    gain = 100 if fmt == '80' else 1000
    signal = np.clip(signal, -1.2, 1.2)
    write_wfdb(tmp_path, 'r1', signal, 250, LEADS[::-1], fmt, gain)
    assert np.abs(read_record(tmp_path/'r1').signal-signal.T[::-1]).max() <= 0.5001/gain
    text = (tmp_path/'r1.hea').read_text()
    # the name that wfdb refuses, in a format that only wfdb reads
    (tmp_path/'r1.hea').write_text(text.replace('r1 ', 'r1.mat ', 1))
    assert np.abs(read_record(tmp_path/'r1').signal-signal.T[::-1]).max() <= 0.5001/gain


def test_several_samples_a_frame_and_segments(tmp_path):
    signal = np.random.default_rng(1).normal(0, 0.4, (1000, 12))
    for name in ('s1', 's2'): write_wfdb(tmp_path, name, signal, 500)
    (tmp_path/'both.hea').write_text('both/2 12 500 2000\ns1 1000\ns2 1000\n#Dx: AF\n')
    both = read_record(tmp_path/'both')
    assert (both.n, both.labels) == (2000, ('AF',))
    assert np.abs(both.signal-np.tile(signal.T, 2)).max() < 0.00051
    text = (tmp_path/'s1.hea').read_text().replace('s1.dat 16 ', 's1.dat 16x2 ')
    (tmp_path/'s1.hea').write_text(text.replace('s1 12 500 1000', 's1 12 250 500'))
    assert read_record(tmp_path/'s1').n == 500


# --- headers by hand

def signal_lines(leads=LEADS, scale='1000'): return [f'R1.dat 16 {scale} 16 0 0 0 0 {lead}' for lead in leads]

def pair(folder, lines, units, name='R1', dtype='<i2'):
    (folder/f'{name}.hea').write_text('\n'.join(lines)+'\n')
    (folder/f'{name}.dat').write_bytes(np.asarray(units, dtype).tobytes())
    return folder/f'{name}.hea'


def test_order_units_gain_baseline(tmp_path):
    units = np.arange(24).reshape(2, 12)*7-40
    names = LEADS[::-1]
    spec = ['200(3)/mV', '0.5/uV', '1000.0(0)/mv', '500(-20)/MV', '2000', '1e3/mV', '3.5/nV', '250(9)/µV',
            '751(-4)/mV', '0', '100/V', '1000(1)']
    lines = [f'R1.dat 16 {g} 16 0 0 0 0 {name}' for g, name in zip(spec, names)]
    record = read_record(pair(tmp_path, ['R1 12 250 2', *lines], units))
    gain = [200, 500, 1000, 500, 2000, 1000, 3.5e6, 250e3, 751, 200, 0.1, 1000]
    zero = [3, 0, 0, -20, 0, 0, 0, 9, -4, 0, 0, 1]
    want = (units-np.array(zero))/np.array(gain)
    assert np.allclose(record.signal, want.T[::-1], rtol=1e-5, atol=1e-9)


def test_missing_fields_fall_back_on_the_format(tmp_path):
    units = np.arange(36).reshape(3, 12)
    record = read_record(pair(tmp_path, ['R1 12']+[f'R1.dat 16 200/mV 12 4 0 0 0 {name}' for name in LEADS], units))
    assert (record.fs, record.n) == (250, 3)          # no rate: 250 Hz; no length: what the file holds
    assert np.allclose(record.signal, (units.T-4)/200)  # no baseline: the ADC's zero


def test_minus_32768_is_no_sample(tmp_path):
    units = np.arange(48).reshape(4, 12)
    units[2, 5] = -32768
    record = read_record(pair(tmp_path, ['R1 12 500 4', *signal_lines()], units))
    assert np.argwhere(np.isnan(record.signal)).tolist() == [[5, 2]]


def test_the_first_of_two_equal_leads_counts(tmp_path):
    names = list(LEADS)+['MLII']
    record = read_record(pair(tmp_path, ['R1 13 500 3', *signal_lines(names)], np.arange(39).reshape(3, 13)))
    assert np.allclose(record.signal[1]*1000, [1, 14, 27])


@pytest.mark.parametrize('first, signals, text', [
    ('R1 12 500 9000', 12, 'holds 5 of 9000 samples'), ('R1 12 500 5', 11, 'describes 11 of its 12'),
    ('R1 12 0 5', 12, '0 Hz'), ('R1 twelve', 12, 'not a WFDB header'), ('', 0, 'not a WFDB header'),
    ('R1 0 500 5', 0, 'no signal')])
def test_bad_headers(tmp_path, first, signals, text):
    hea = pair(tmp_path, [first, *signal_lines(LEADS[:signals])], np.arange(60).reshape(5, 12))
    with pytest.raises(RecordError, match=text): read_record(hea)


@pytest.mark.parametrize('line, text', [
    ('R1.dat 16 1000/mmHg 16 0 0 0 0 I', 'not volts'), ('R1.dat', 'signal line'), ('R1.dat 16 1.2.3/mV', 'signal line'),
    ('R1.dat 16 1000(9999999999999999)/mV', 'signal line')])
def test_bad_signal_lines(tmp_path, line, text):
    with pytest.raises(RecordError, match=text): read_record(pair(tmp_path, ['R1 1 500 5', line], np.arange(5)))


def test_flat_empty_and_all_missing(tmp_path):
    write_record(made_up(), tmp_path)
    header = ['R1 12 500 5', *signal_lines()]
    flat, absent = np.full((5, 12), 7), np.full((5, 12), -32768)
    with pytest.raises(RecordError, match='flat in every lead'): read_record(pair(tmp_path, header, flat))
    with pytest.raises(RecordError, match='no sample in I, II'):
        read_record(pair(tmp_path, header, absent), missing='nan')
    with pytest.raises(RecordError, match='cut off'): read_record(pair(tmp_path, header, []))
    half = np.random.default_rng(0).integers(-90, 90, (5, 12))
    half[:, 6:] = 0
    assert read_record(pair(tmp_path, header, half)).n == 5  # some flat leads are no reason to refuse a recording


def test_paths(tmp_path):
    hea = write_record(made_up(), tmp_path)
    stem = hea.with_suffix('')
    for path in (hea, hea.with_suffix('.mat'), stem, str(stem)): assert read_record(path).id == 'A0001'
    with pytest.raises(RecordError, match='no such recording'): read_record(tmp_path/'A0002')
    with pytest.raises(RecordError, match='no such recording'): read_record(tmp_path/'A0002.hea')
    (tmp_path/'notes.txt').write_text('x')
    with pytest.raises(RecordError, match='in no known format'): read_record(tmp_path/'notes.txt')
    hea.unlink()
    with pytest.raises(RecordError, match='without its header'): read_record(tmp_path/'A0001.mat')
    with pytest.raises(ValueError): read_record(hea, missing='zero')


@pytest.mark.parametrize('content', [
    b'', b'MATLAB 5.0 MAT-file', b'\x00'*200, b'version https://git-lfs.github.com/spec/v1\noid',
    b'\x89HDF\r\n\x1a\n'+b'\x00'*64])
@pytest.mark.parametrize('suffix', list(READERS))
def test_damaged_files(tmp_path, suffix, content):
    (tmp_path/f'X{suffix}').write_bytes(content)
    with pytest.raises(RecordError) as e: read_record(tmp_path/f'X{suffix}')
    assert '\n' not in str(e.value)


def test_matlab_struct(tmp_path):
    data = made_up(900).signal.astype(float)
    def save(**ecg): scipy.io.savemat(tmp_path/'A7.mat', {'ECG': ecg})
    save(sex='Female', age=np.nan, data=data)
    record = read_record(tmp_path/'A7.mat')
    assert (record.sex, record.n, record.fs) == ('F', 900, 500) and np.isnan(record.age)
    data[3, 5] = np.inf
    save(sex='Male', age=-1, data=data)
    record = read_record(tmp_path/'A7.mat')
    assert np.isnan(record.age) and np.isnan(record.signal[3, 5])
    save(sex='Male', age=5, data=data.T)
    with pytest.raises(RecordError, match='not \\(12, samples\\)'): read_record(tmp_path/'A7.mat')
    save(sex='Male', age=5)
    with pytest.raises(RecordError, match='not laid out'): read_record(tmp_path/'A7.mat')
    scipy.io.savemat(tmp_path/'A7.mat', {'x': 1})
    with pytest.raises(RecordError, match='none of the variables ECG'): read_record(tmp_path/'A7.mat')


# --- writing

def test_written_pair_reads_in_wfdb(tmp_path):
    record = made_up(1234, fs=257.5)
    hea = write_record(record, tmp_path/'new'/'folder')
    theirs, digital = wfdb.rdrecord(str(hea.with_suffix(''))), wfdb.rdrecord(str(hea.with_suffix('')), physical=False)
    assert (theirs.fs, theirs.sig_len, theirs.sig_name) == (257.5, 1234, list(LEADS))
    assert np.abs(theirs.p_signal.T-record.signal).max() < 0.00051
    assert digital.calc_checksum() == [c % 65536 for c in digital.checksum]
    assert digital.init_value == digital.d_signal[0].tolist()
    assert scipy.io.loadmat(hea.with_suffix('.mat'))['val'].shape == (12, 1234)
    mine = read_record(hea)
    assert (mine.labels, mine.age, mine.sex, mine.patient) == (('PVC', 'AF'), 61, 'F', 'A0001')
    assert sorted(os.listdir(hea.parent)) == ['A0001.hea', 'A0001.mat']


def test_write_keeps_patient_and_refuses(tmp_path):
    assert read_record(write_record(made_up(patient='P 7'), tmp_path)).patient == 'P 7'
    assert np.isnan(read_record(write_record(made_up(age=np.nan, sex='', labels=()), tmp_path)).age)
    loud = made_up().signal.copy(); loud[0, 0] = 33
    before = (tmp_path/'A0001.mat').read_bytes()
    with pytest.raises(RecordError, match='33.0 mV'): write_record(made_up().__class__(loud, 500, 'A0001'), tmp_path)
    assert (tmp_path/'A0001.mat').read_bytes() == before
    with pytest.raises(RecordError, match='no name'): write_record(made_up(id='a/b'), tmp_path)
    with pytest.raises(RecordError, match='no sample'): write_record(Record(np.zeros((12, 0)), 500, 'A1'), tmp_path)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 300), fs=st.sampled_from([100, 250, 257, 360.5, 500, 1000]), seed=st.integers(0, 999),
    labels=st.lists(st.sampled_from(CLASSES), unique=True, max_size=3).filter(lambda l: l == ['Normal'] or 'Normal' not in l),
    age=st.one_of(st.just(float('nan')), st.integers(0, 110)), sex=st.sampled_from(['M', 'F', '']), gaps=st.booleans())
def test_round_trip(n, fs, seed, labels, age, sex, gaps):
    signal = np.random.default_rng(seed).normal(0, 2, (12, n)).astype(np.float32)
    if gaps: signal[seed % 12, :n//2] = np.nan
    record = Record(signal, fs, f'r{seed}', labels, age, sex)
    with tempfile.TemporaryDirectory() as folder: again = read_record(write_record(record, folder))
    assert np.array_equal(np.isnan(again.signal), np.isnan(signal))
    assert np.nanmax(np.abs(again.signal-signal)) < 0.000502
    assert (again.fs, again.labels, again.sex) == (fs, tuple(labels), sex) and (again.age == age or np.isnan(age))


record_line = st.from_regex(r'R1(/\d)? \d{1,2} [0-9.eE-]{1,5} \d{0,5}', fullmatch=True)
signal_line = st.from_regex(
    r'R1\.dat 16(x\d|:\d|\+\d+)? [0-9.eE+-]{1,6}(\(-?\d{1,4}\))?(/[a-zA-Z]{1,3})? '
    r'16 0 -?\d+ \d+ 0 [IVavRLF1-6]{1,3}', fullmatch=True)

@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=40), signal_line, record_line), max_size=5))
def test_no_text_breaks_the_header_reader(lines):
    with tempfile.TemporaryDirectory() as folder:
        hea = Path(folder)/'R1.hea'
        hea.write_text('\n'.join(lines), errors='replace')
        try: header = read_header(hea)
        except RecordError as e: assert '\n' not in str(e); return
    assert header.fs > 0 and all(signal.gain for signal in header.signals)


# --- resampling

@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 3000), fs=st.sampled_from([100, 257, 400, 500, 1000]), to=st.sampled_from([100, 125, 250, 500]),
    shift=st.floats(-3, 3))
def test_resample_length_level_and_gaps(n, fs, to, shift):
    x = np.full((12, n), shift, np.float32)
    x[4] = np.nan
    y = resample(x, fs, to)
    assert y.dtype == np.float32 and y.shape == (12, -(-n*to//fs))
    assert np.isnan(y[4]).all()
    assert np.abs(y[:4]-shift).max() < 0.02*abs(shift)+1e-5  # a constant stays constant up to the ends


def test_resample_keeps_a_gap_where_it_was():
    x = np.sin(np.arange(5000)/20).astype(np.float32)[None].repeat(12, 0)
    x[2, 1000:2000] = np.nan
    y = resample(x, 500, 250)
    assert np.flatnonzero(np.isnan(y[2])).tolist() == list(range(500, 1000))
    assert np.abs(np.delete(y, 2, 0)[:, 50:-50]-x[0, ::2][50:-50]).max() < 0.01
