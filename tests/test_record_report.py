"""`ecg-report` run as a user would, and the page and sheet that it writes."""
import os, re, subprocess, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
from ecg_nbdev.core import LEADS, ECGError, Record
from ecg_nbdev.measurements import FS, measure
from ecg_nbdev.records import write_record
from ecg_nbdev.reasons import Diagnosis, RecordReport
from ecg_nbdev.record_report import plot_report
from ecg_nbdev.sim.synth import simulate

HOSTILE = '<script>alert("x")</script> & $\\frac{1}$'
FIRST_BYTES = {'html': b'<!doctype html>', 'pdf': b'%PDF-', 'png': b'\x89PNG\r\n'}

def report(file, out, *more):
    "The command in its own process."
    command = Path(sys.executable).parent/'ecg-report'
    return subprocess.run([command, str(file), '-o', str(out), *more], capture_output=True, text=True, timeout=300)

@pytest.fixture(scope='module')
def recordings(tmp_path_factory):
    "A simulated recording and noise, as files."
    folder = tmp_path_factory.mktemp('recordings')
    noise = Record(np.random.default_rng(0).normal(0, .3, (12, 3000)), 500, 'noise')
    return {r.id: write_record(r, folder) for r in (simulate('RBBB', rng=1, id='simulated'), noise)}

def outside(page):
    "Addresses that a page would load something from."
    return re.findall(r'(?:src|href)\s*=\s*["\']?(?!#|data:)[^"\'>\s]+|url\((?!["\']?(?:#|data:))[^)]+\)|@import', page)


@pytest.mark.parametrize('kind', FIRST_BYTES)
def test_command_writes_each_kind(recordings, tmp_path, kind):
    out = tmp_path/f'report.{kind}'
    done = report(recordings['simulated'], out)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout == f'written: {out}\n'
    assert out.read_bytes().startswith(FIRST_BYTES[kind]) and out.stat().st_size > 20_000

def test_real_recording(tmp_path):
    data = os.environ.get('ECG_DATA', '')
    file = Path(data)/'cpsc2018'/'records-snomed'/'A0001.hea'
    if not file.is_file(): pytest.skip('ECG_DATA holds no A0001')
    assert report(file, tmp_path/'a.html').returncode == 0
    page = (tmp_path/'a.html').read_text()
    for said in ('right bundle branch block', 'threshold', 'QTc Fridericia', 'Not a medical device', 'Shown: ', 'QRS 1'):
        assert said in page
    assert not outside(page)
    assert all(re.search(f'>{lead}(<|  )', page) for lead in LEADS) # the first of a row has a time behind it

def test_refused_recording_has_a_reason_and_no_diagnosis(recordings, tmp_path):
    assert report(recordings['noise'], tmp_path/'noise.html').returncode == 0
    page = (tmp_path/'noise.html').read_text()
    assert 'No answer: no heartbeat' in page and 'class="diagnosis' not in page and 'not measured' in page

def test_errors_are_one_line(recordings, tmp_path):
    for file, out in ((recordings['simulated'], tmp_path/'report.doc'), (tmp_path/'none.hea', tmp_path/'a.html')):
        done = report(file, out)
        assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert str(out if out.suffix == '.doc' else file) in done.stderr
        assert not out.exists()

def made(record, **changes):
    "A report without a model."
    said = dict(diagnoses=[Diagnosis('AF', 'atrial fibrillation', .4, .5, ('a reason',))], reached=False)
    return RecordReport(record, 0, record.seconds, measure(record), **{**said, **changes})

def test_hostile_texts_are_escaped_and_drawn(tmp_path):
    record = replace(simulate('Normal', rng=0), id=HOSTILE, labels=(HOSTILE,), sex='F')
    hostile = made(record, diagnoses=[Diagnosis(HOSTILE, HOSTILE, .9, None, (HOSTILE,))], reached=True,
                   warnings=HOSTILE, notes=HOSTILE, model=HOSTILE)
    page = hostile.save(tmp_path/'a.html').read_text()
    assert '<script' not in page and '&lt;script&gt;' in page and not outside(page)
    assert hostile.save(tmp_path/'a.png').stat().st_size > 20_000
    assert '<script' not in hostile._repr_html_()

def test_none_reached_names_the_nearest(tmp_path):
    page = made(simulate('Normal', rng=0)).save(tmp_path/'a.html').read_text()
    assert 'None of the nine reaches its threshold' in page and 'The nearest:' in page and '0.40, threshold 0.50' in page

def test_a_long_recording_says_which_part_is_shown(tmp_path):
    record = simulate('Normal', 40, rng=0)
    page = replace(made(record), start=20., stop=30., deciding=(24., 25.)).save(tmp_path/'a.html').read_text()
    assert 'Shown: 20–30 s of 40 s, around the moment that decides' in page and '24–25 s' in page

def test_sheet_is_true_to_scale():
    "25 mm a second on A4 where the sheet has the height for it, never more."
    figure = plot_report(made(simulate('Normal', rng=0)))
    paper = figure.axes[0]
    paper.apply_aspect()
    mm = paper.get_window_extent().width/figure.dpi*25.4
    assert mm/np.diff(paper.get_xlim())[0] <= 1.001
    import matplotlib.pyplot as plt
    plt.close(figure)

def test_other_ending_is_an_error(tmp_path):
    with pytest.raises(ECGError, match='report ends in'): made(simulate('Normal', rng=0)).save(tmp_path/'a.svg')


@pytest.mark.parametrize('fs', [100, 240, 257, 500, 1000])
def test_measurements_hardly_depend_on_the_sampling_rate(fs):
    same = dict(labels='Normal', noise=0., age=50., sex='F')
    m, usual = (measure(simulate(**same, fs=f, rng=6)) for f in (fs, 500))
    assert abs(m.rate-usual.rate) < 1 and abs(m.qrs-usual.qrs) < 15 and abs(m.qt-usual.qt) < 20

def test_gaps_short_and_absent_leads():
    x = simulate('Normal', rng=0).signal
    gone = x.copy()
    gone[3:6], gone[7, 1000:2000] = np.nan, np.nan
    m = measure(Record(gone, 500, 'gaps'))
    assert m.qrs and m.axis is None and np.isnan(m.st[3:6]).all() and np.isfinite(m.st[:3]).all()
    for n in (1, 40, 600): assert measure(Record(x[:, :n], 500, 'short')).rate is None or n == 600
    assert measure(Record(np.full((12, 5000), np.nan), 500, 'nothing')).rate is None

def test_quotients_of_qt():
    m = measure(simulate('Normal', rng=4))
    rr = np.median(np.diff(m.at))
    assert m.qt_bazett == pytest.approx(m.qt/rr**.5) and m.qt_fridericia == pytest.approx(m.qt/rr**(1/3))
    assert m.qrs == pytest.approx(1000*(m.points['J']-m.points['QRS'])) and m.beat.shape[1] == 1.2*FS
