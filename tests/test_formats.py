"""Files of electrocardiographs, hospitals and spreadsheets: those of independent writers, their truncations, and the
line that names what can't be read."""
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import numpy as np
import pandas as pd
import pytest

from ecg_nbdev.core import LEADS, RecordError
from ecg_nbdev.formats import is_recording
from ecg_nbdev.kinds import FormatWarning, find_format
from ecg_nbdev.records import read_record
from ecg_nbdev.sim.synth import simulate

ECG_DATA = os.environ.get('ECG_DATA')
FILES = Path(ECG_DATA or '/nowhere')/'formats'
needs_data = pytest.mark.skipif(not FILES.is_dir(), reason='ECG_DATA does not name the folder of real recordings')

# file, format, sampling rate (Hz), samples, leads that it does not hold
SAMPLES = (
    ('aecg/hl7aecg-Example2.xml', 'HL7 aECG', 1000, 10_000, 0), ('aecg/hl7aecg_example.xml', 'HL7 aECG', 100, 1000, 0),
    ('aecg/subject1_0.xml', 'HL7 aECG', 500, 5000, 0), ('aecg/subject2_1.xml', 'HL7 aECG', 500, 5000, 0),
    ('cardiosoft-xml/example-XML1.xml', 'GE CardioSoft', 500, 5000, 0),
    ('dicom/anonymous_ecg.dcm', 'DICOM', 1000, 10_000, 0), ('dicom/test_ecg.dcm', 'DICOM', 240, 2400, 0),
    ('ecg/ECG_P28.01.ecg', 'ISHNE', 1000, 95_573, 0),
    ('muse/muse_ecg_deidentified_1.xml', 'GE MUSE', 240, 2500, 4),
    ('philips/129DYPRG.XML', 'Philips Sierra', 500, 5264, 0),
    ('philips/2020-5-18_15-48-11.xml', 'Philips Sierra', 500, 5300, 0),
    ('philips/3191723_ZZDEMOPTONLY_1-04_orig.xml', 'Philips Sierra', 500, 5300, 0),
    ('philips/deid_3.xml', 'Philips Sierra', 500, 5000, 0), ('philips/ecg-example.xml', 'Philips Sierra', 500, 5300, 0),
    ('scp/Example.scp', 'SCP-ECG', 500, 5000, 0), ('xml/sample.xml', 'Schiller', 500, 5000, 0))
KIT = {'HL7 aECG', 'DICOM', 'ISHNE', 'GE MUSE', 'Philips Sierra', 'SCP-ECG', 'EDF'}


def kit_for(name):
    "Skip where the extra `formats` is not installed."
    if name in KIT: pytest.importorskip('ecgdatakit')
    if name == 'DICOM': pytest.importorskip('pydicom')


@needs_data
@pytest.mark.parametrize('file,name,fs,n,absent', SAMPLES)
def test_files_of_vendors_and_their_programs_are_read(file, name, fs, n, absent):
    kit_for(name)
    record = read_record(FILES/file, missing='nan')
    assert find_format(FILES/file) == name and is_recording(FILES/file)
    assert (record.fs, record.n) == (fs, n) and len(record.missing) in (0, absent)
    limb = record.signal[:3]
    made_up = file == 'aecg/hl7aecg_example.xml' # its lead I is V6 and its aVR stands upright
    assert np.median(np.abs(limb[2]-(limb[1]-limb[0]))) < 0.02 or absent or made_up # Einthoven: leads and units are right
    assert 0.2 < np.nanquantile(np.abs(record.signal), .999) < 20


@needs_data
def test_two_writers_of_one_recording_agree():
    "FDA's aECG of subject 1 and the SCP-ECG example of ECGToolkit hold the same ten seconds."
    kit_for('SCP-ECG')
    scp, aecg = read_record(FILES/'scp/Example.scp'), read_record(FILES/'aecg/subject1_0.xml')
    np.testing.assert_array_equal(scp.signal, aecg.signal)


@needs_data
@pytest.mark.parametrize('file,name,fs,n,absent', [s for s in SAMPLES if s[0].split('/')[0] != 'aecg' or '1_0' in s[0]])
def test_a_file_cut_off_anywhere_is_refused_in_a_line(file, name, fs, n, absent, tmp_path):
    kit_for(name)
    whole, content = read_record(FILES/file, missing='nan'), (FILES/file).read_bytes()
    for share in (.001, .02, .1, .5, .9, .97, .9995):
        part = tmp_path/f'part{Path(file).suffix}'
        part.write_bytes(content[:int(len(content)*share)])
        try: read = read_record(part, missing='nan')
        except RecordError as e: assert len(str(e).splitlines()) == 1 and part.name in str(e)
        else: np.testing.assert_array_equal(read.signal, whole.signal)


@needs_data
@pytest.mark.parametrize('file', ['philips/invalid-doc-type.xml', 'philips/invalid-doc-version.xml', 'edf/sample.edf'])
def test_what_is_not_read_is_named(file):
    kit_for('EDF')
    with pytest.raises(RecordError, match='unsupported|none of the twelve leads'): read_record(FILES/file)


@needs_data
def test_text_with_twelve_columns_needs_a_rate_and_says_what_it_assumes():
    with pytest.raises(RecordError, match='names no sampling rate'): read_record(FILES/'txt/testing_ecg.txt')
    with pytest.warns(FormatWarning) as said: record = read_record(FILES/'txt/testing_ecg.txt', rate=500)
    assert [str(w.message).split(': ')[1].split(',')[0] for w in said] == ['names no leads', 'names no unit']
    assert record.n == 5000 and 0.3 < np.quantile(np.abs(record.signal), .999) < 8


@pytest.fixture(scope='module')
def made(): return simulate(('RBBB',), seconds=10, fs=500, rng=np.random.default_rng(3))


@pytest.mark.parametrize('plus', [False, True])
@pytest.mark.parametrize('labels', ['{}', 'ECG {}', 'EKG {}'])
def test_edf_of_pyedflib(made, tmp_path, plus, labels):
    kit_for('EDF')
    pyedflib = pytest.importorskip('pyedflib')
    path = tmp_path/'made.edf'
    kind = pyedflib.FILETYPE_EDFPLUS if plus else pyedflib.FILETYPE_EDF
    with pyedflib.EdfWriter(str(path), 12, file_type=kind) as f:
        f.setSignalHeaders([dict(label=labels.format(lead), dimension='uV', sample_frequency=500, physical_max=3276.7,
                                 physical_min=-3276.8, digital_max=32767, digital_min=-32768) for lead in LEADS])
        f.writeSamples(list(made.signal.astype(float)*1000))
    read = read_record(path)
    assert read.fs == 500 and np.abs(read.signal-made.signal).max() < 0.001
    content = path.read_bytes()
    for n in (100, 3000, 60_000, len(content)-1):
        path.write_bytes(content[:n])
        with pytest.raises(RecordError): read_record(path)


def test_edf_of_edfio_whose_leads_stand_in_another_order(made, tmp_path):
    kit_for('EDF')
    edfio = pytest.importorskip('edfio')
    signals = [edfio.EdfSignal(made.signal[LEADS.index(lead)].astype(float), 500, label=lead, physical_dimension='mV',
                               physical_range=(-10, 10)) for lead in reversed(LEADS)]
    edfio.Edf(signals).write(tmp_path/'made.edf')
    assert np.abs(read_record(tmp_path/'made.edf').signal-made.signal).max() < 0.001


def test_dicom_of_pydicom(made, tmp_path):
    "A 12-lead ECG object as PS3.3 A.34.3 has it, written with pydicom alone."
    kit_for('DICOM')
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = '1.2.840.10008.5.1.4.1.1.9.1.1', generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(tmp_path/'made'), {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID, file.Modality = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, 'ECG'
    file.PatientID, file.PatientSex, file.PatientAge = 'P1', 'F', '061Y'
    channels = []
    code = dict(zip(('I', 'II', *LEADS[6:], 'III', 'aVR', 'aVL', 'aVF'), (*range(1, 9), *range(61, 65)), strict=True))
    for lead in LEADS:
        source, unit, channel = Dataset(), Dataset(), Dataset()
        source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = f'5.6.3-9-{code[lead]}', 'SCPECG', f'Lead {lead}'
        unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = 'uV', 'UCUM', 'microvolt'
        channel.ChannelSourceSequence, channel.ChannelSensitivityUnitsSequence = [source], [unit]
        channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor, channel.ChannelBaseline = '2.5', '1', '0'
        channel.ChannelSampleSkew, channel.WaveformBitsStored = '0', 16
        channels.append(channel)
    group = Dataset()
    group.WaveformOriginality, group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = 'ORIGINAL', 12, 5000
    group.SamplingFrequency, group.ChannelDefinitionSequence = '500', channels
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, 'SS'
    group.WaveformData = np.rint(made.signal.T*400).astype('<i2').tobytes()
    file.WaveformSequence = [group]
    file.save_as(tmp_path/'made')
    read = read_record(tmp_path/'made')
    assert np.abs(read.signal-made.signal).max() < 0.0013 and (read.sex, read.age, read.patient) == ('F', 61, 'P1')


def frame_of(made): return pd.DataFrame(made.signal.T, columns=LEADS)


@pytest.mark.parametrize('layout', [
    dict(), dict(sep='\t'), dict(header=range(12)), dict(sep=';', decimal=','), dict(index_label='sample'), dict(lineterminator='\r\n')])
def test_csv_of_pandas_in_any_layout(made, tmp_path, layout):
    path = tmp_path/'made.csv'
    frame_of(made).round(4).to_csv(path, **({'index': False} if 'index_label' not in layout else {}) | layout)
    assert is_recording(path)
    with pytest.warns(FormatWarning, match='is taken for mV'): read = read_record(path, rate=500)
    assert np.abs(read.signal-made.signal).max() < 1e-3


@pytest.mark.parametrize('unit,factor', [('mV', 1), ('uV', 1000), ('V', .001)])
def test_the_unit_is_read_or_told_by_the_amplitude(made, tmp_path, unit, factor):
    path = tmp_path/'made.csv'
    (frame_of(made)*factor).to_csv(path, index=False)
    with pytest.warns(FormatWarning, match=f'is taken for {unit}$'): guessed = read_record(path, rate=500)
    (frame_of(made)*factor).add_suffix(f' [{unit}]').to_csv(path, index=False)
    with warnings.catch_warnings(action='error'): said = read_record(path, rate=500)
    for read in (guessed, said): assert np.abs(read.signal-made.signal).max() < 1e-4


@pytest.mark.parametrize('name,step', [('time', 1/500), ('t (s)', 1/500), ('Time [ms]', 2), ('seconds', 1/500)])
def test_a_column_of_times_gives_the_rate(made, tmp_path, name, step):
    frame = frame_of(made)
    frame.insert(0, name, np.arange(5000)*step)
    frame.to_csv(tmp_path/'made.csv', index=False)
    assert read_record(tmp_path/'made.csv', unit='mV').fs == 500


def test_eight_leads_in_a_told_order(made, tmp_path):
    order = ['V6', 'V5', 'V4', 'V3', 'V2', 'V1', 'II', 'I']
    frame_of(made)[order].to_csv(tmp_path/'made.csv', index=False, header=False)
    read = read_record(tmp_path/'made.csv', missing='nan', rate=500, unit='mV', leads=order)
    rows = [LEADS.index(lead) for lead in order]
    assert np.abs(read.signal[rows]-made.signal[rows]).max() < 1e-5
    with pytest.raises(RecordError, match='3 leads were given'):
        read_record(tmp_path/'made.csv', rate=500, leads=('I', 'II', 'III'))


@pytest.mark.parametrize('damage', ['cut', 'word', 'empty', 'prose', 'binary'])
def test_a_table_that_is_none_is_refused_in_a_line(made, tmp_path, damage):
    path = tmp_path/'made.csv'
    frame_of(made).to_csv(path, index=False)
    text = path.read_text()
    path.write_bytes({'cut': text[:len(text)//2].rsplit(',', 3)[0].encode(), 'word': text.replace('\n', '\nsaline,', 40).encode(),
                      'empty': b'', 'prose': b'I felt well.\nThen I did not.\n', 'binary': bytes(range(256))*40}[damage])
    with pytest.raises(RecordError) as e: read_record(path, rate=500)
    assert len(str(e.value).splitlines()) == 1 and 'made.csv' in str(e.value)


def test_arrays_and_parquet_cut_off_anywhere(made, tmp_path):
    np.save(tmp_path/'a.npy', made.signal)
    np.savez(tmp_path/'a.npz', signal=made.signal, fs=500., leads=LEADS, unit='mV')
    frame_of(made).assign(time=np.arange(5000)/500).to_parquet(tmp_path/'a.parquet')
    for file in ('a.npy', 'a.npz', 'a.parquet'):
        path = tmp_path/file
        assert np.array_equal(read_record(path, rate=500, unit='mV').signal, made.signal)
        content = path.read_bytes()
        for n in (0, 3, 40, len(content)//2, len(content)-1):
            path.write_bytes(content[:n])
            with pytest.raises(RecordError): read_record(path, rate=500, unit='mV')


def test_a_missing_library_is_named_with_the_extra(tmp_path):
    (tmp_path/'a.edf').write_bytes(b'0       '+bytes(600))
    code = ('import sys; sys.modules["ecgdatakit"] = None\n'
            'from ecg_nbdev.records import read_record\n'
            'try: read_record(sys.argv[1])\nexcept Exception as e: print(type(e).__name__, e)')
    done = subprocess.run([sys.executable, '-c', code, tmp_path/'a.edf'], capture_output=True, text=True)
    assert done.stdout.startswith('RecordError') and "pip install 'ecg_nbdev[formats]'" in done.stdout


def test_threads_hear_the_warnings_of_their_own_file(tmp_path, monkeypatch):
    "Two at once, where they could meet: each damaged file is refused for what was said of it."
    from ecg_nbdev import formats
    both, before = Barrier(2), warnings.filters[:]
    def meet():
        with suppress(BrokenBarrierError): both.wait(.3)
    class Parser:
        @staticmethod
        def parse(path):
            meet() # another one in here, if it can come in
            warnings.warn(f'{path.name} is truncated')
            meet()
    monkeypatch.setattr(formats, '_import_kit', lambda *_: Parser)
    def refused(name):
        with pytest.raises(RecordError, match=f'{name} is truncated'): formats._parse_kit(tmp_path/name, 'EDF')
    with ThreadPoolExecutor(2) as pool: list(pool.map(refused, ('a.edf', 'b.edf')))
    assert warnings.filters == before


def test_tables_that_commands_write_are_no_recordings(tmp_path):
    for name in ('windows', 'episodes', 'answers', 'skipped'):
        table = tmp_path/f'{name}.csv'
        table.write_text('I,II\n'+'0.1,0.2\n'*100)
        assert find_format(table) == 'table' and not is_recording(table)
