"""The page that answers a recording, in a browser and served by `ecg-try`: it says what Python says of the same file,
one line where a file can't be used, asks no other machine, and fits a phone."""
import json, os, re, subprocess, sys, threading, warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecg_nbdev.cli import _page_server
from ecg_nbdev.core import CLASS_TITLES, CLASSES, LEADS, ECGError
from ecg_nbdev.records import read_record, write_record
from test_site import AXE, CHROMIUM, FLAGS, build

ROOT = Path(__file__).resolve().parents[1]
PAGE, SAMPLES = ROOT/'ecg_nbdev/data/try', ROOT/'ecg_nbdev/data/samples'
DATA = Path(os.environ.get('ECG_DATA', ROOT/'no-data'))
SAMPLE = next(SAMPLES.glob('*.hea'))
real = pytest.mark.skipif(not DATA.is_dir(), reason='needs the real recordings in ECG_DATA')


# ---- what is served, without a browser

def test_the_page_has_the_shipped_model():
    facts = json.loads((PAGE/'model.json').read_text(encoding='utf-8'))
    assert facts['made_from'] == build.made_from(), 'run `python site/build.py --try`'

def test_the_site_has_the_same_page():
    there = {p.relative_to(PAGE): p for p in PAGE.rglob('*') if p.is_file()}
    there |= {Path('samples')/p.name: p for p in SAMPLES.iterdir()}
    copies = {p.relative_to(ROOT/'docs/try') for p in (ROOT/'docs/try').rglob('*') if p.is_file()}
    assert copies == there.keys(), 'run `python site/build.py --try`'
    assert [str(name) for name, p in there.items() if (ROOT/'docs/try'/name).read_bytes() != p.read_bytes()] == []

def test_the_samples_are_few_and_attributed():
    told = (SAMPLES/'SAMPLES.md').read_text(encoding='utf-8')
    names = {p.stem for p in SAMPLES.glob('*.hea')}
    assert 1 <= len(names) <= 3 and all(f'`{name}`' in told for name in names)
    assert 'CC BY 4.0' in told and 'CC BY 4.0' in (PAGE/'index.html').read_text(encoding='utf-8')

COMMAND = Path(sys.executable).with_name('ecg-try')

def test_the_command_serves_this_machine_alone():
    with subprocess.Popen([COMMAND, '--no-browser'], stdout=subprocess.PIPE, text=True) as p:
        line = p.stdout.readline()
        p.terminate()
    assert re.match(r'http://127\.0\.0\.1:\d+/ ', line)

def test_a_wrong_port_costs_one_line():
    with _page_server() as server:
        for port in (server.server_port, 70000):
            done = subprocess.run([COMMAND, '--no-browser', '--port', str(port)], capture_output=True, text=True, timeout=60)
            assert done.returncode == 1 and 'give another one' in done.stderr and done.stderr.count('\n') == 1


# ---- in a browser

@pytest.fixture(scope='module')
def address():
    with _page_server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()

@pytest.fixture(scope='module')
def browser():
    if not CHROMIUM: pytest.skip('no Chromium on this machine: `apt-get install chromium`')
    sync = pytest.importorskip('playwright.sync_api', reason='playwright is not installed: `make setup`')
    with sync.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()

class Seen:
    "A page that is open, what it asked for and what went wrong."
    def __init__(self, browser, address, width):
        self.page, self.wrong, self.asked = browser.new_page(viewport={'width': width, 'height': 900}), [], []
        self.page.on('console', lambda m: self.wrong.append(m.text) if m.type in ('error', 'warning') else None)
        self.page.on('pageerror', lambda e: self.wrong.append(str(e)))
        self.page.on('request', lambda r: self.asked.append(r.url))
        self.page.goto(address)
        self.page.wait_for_selector('html[data-ready]')

    def give(self, *files):
        "What the page says of some files."
        self.page.set_input_files('#files', list(map(str, files)))
        return self.said()

    def said(self):
        self.page.wait_for_selector('#result[data-record], #status.wrong')
        return self.page.evaluate('''() => {
          const text = (id) => document.getElementById(id).textContent, all = (at) => [...document.querySelectorAll(at)];
          return {error: text('status'), warnings: all('#warnings li').map((e) => e.textContent),
            refused: text('reason'), prob: all('#classes li').map((e) => Number(e.dataset.probability)),
            labels: all('#classes li.reached').map((e) => e.dataset.class), none: !document.getElementById('none').hidden,
            named: all('#diagnoses strong').map((e) => e.textContent),
            wide: document.documentElement.scrollWidth, name: text('name')};
        }''')

@pytest.fixture(scope='module', params=[1400, 390], ids=['desk', 'phone'])
def seen(request, browser, address):
    seen = Seen(browser, address, request.param)
    yield seen
    assert seen.wrong == []
    assert [url for url in seen.asked if not url.startswith((address, 'blob:', 'data:'))] == []
    seen.page.close()

@pytest.fixture(scope='module')
def desk(browser, address):
    seen = Seen(browser, address, 1400)
    yield seen
    seen.page.close()

@pytest.fixture(scope='module')
def predictor():
    from ecg_nbdev.bundle import load_pretrained
    return load_pretrained()

def files_of(path):
    "A recording's file, and the signal that belongs to a header."
    return [path, *(p for p in (path.with_suffix('.mat'), path.with_suffix('.dat')) if path.suffix == '.hea' and p.exists())]

def asked_in_python(predictor, path, **told):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        record = read_record(path, missing='nan', **told)
    row = predictor.predict(record).iloc[0]
    return row, row[list(CLASSES)].to_numpy(float)

def check_same(said, row, prob):
    "The page and Python say the same: probabilities, labels, warnings, refusals."
    assert said['error'] == '' and said['name'] == row['record']
    assert said['refused'] == row['refused']
    if row['refused']: return
    np.testing.assert_allclose(said['prob'], prob, rtol=0, atol=1e-4)
    assert ';'.join(said['labels']) == row['labels']
    named = row['labels'].split(';') if row['labels'] else [row['nearest']]
    assert sorted(said['named']) == sorted(CLASS_TITLES[name] for name in named) and said['none'] == (not row['labels'])
    assert '; '.join(said['warnings']) == row['warnings']

def real_recordings():
    "Fifty real recordings of every kind that the page reads."
    if not DATA.is_dir(): return []
    kinds = {'cpsc2018/records-snomed/*.hea': 8, 'cpsc2018/records-textdx/*.hea': 8, 'cpsc2018/records-original-mat/*.mat': 8,
             'georgia/*.hea': 6, 'ptbxl/*.hea': 6, 'ptbxl-own/records/*_hr.hea': 6, 'chapman-ningbo/*.hea': 6, 'wfdb-dat/*.hea': 3,
             'cpsc-extra/*.hea': 3}
    found = [path for kind, n in kinds.items() for path in sorted(DATA.glob(kind))[::-1][:n]]
    return [p for p in found if p.stem != '00001_lr']

@real
@pytest.mark.browser
def test_fifty_real_recordings_are_answered_as_python_does(desk, predictor):
    paths = real_recordings()
    assert len(paths) >= 50
    for path in paths: check_same(desk.give(*files_of(path)), *asked_in_python(predictor, path))
    assert desk.wrong == []
