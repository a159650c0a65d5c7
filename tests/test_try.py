"""The page that answers a recording, in a browser and served by `ecg-try`: it says what Python says of the same file,
one line where a file can't be used, asks no other machine, and fits a phone."""
import json, os, re, subprocess, sys, tempfile, threading, warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecg_nbdev.core import CLASS_TITLES, CLASSES, LEADS
from ecg_nbdev.page_server import page_server
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
    there |= {Path('samples')/p.name: p for p in SAMPLES.iterdir()} | {Path('model.onnx'): PAGE.parent/'pretrained/model.onnx'}
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
    with page_server() as server:
        for port in (server.server_port, 70000):
            done = subprocess.run([COMMAND, '--no-browser', '--port', str(port)], capture_output=True, text=True, timeout=60)
            assert done.returncode == 1 and 'give another one' in done.stderr and done.stderr.count('\n') == 1


# ---- in a browser

@pytest.fixture(scope='module')
def address():
    with page_server() as server:
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
        self.page.wait_for_selector('#result[data-record], #status.wrong', timeout=120_000)
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


# ---- other files, and faults that are named in the same words

@pytest.fixture(scope='module')
def record(): return read_record(SAMPLE)

def columns(record, names=LEADS): return [record.signal[LEADS.index(name)].astype(float) for name in names]

def write_csv(path, record, names=LEADS, mark=',', scale=1., clock=True, header=True, comment=''):
    rows = np.stack(columns(record, names), 1)*scale
    if clock: rows = np.column_stack([np.arange(record.n)/record.fs, rows])
    names = (['time (s)'] if clock else []) + list(names)
    np.savetxt(path, rows, '%.5f', mark, header=f'{comment}{mark.join(names) if header else ""}', comments='')
    return path

def write_edf(path, record):
    edfio = pytest.importorskip('edfio')
    signals = [edfio.EdfSignal(row, record.fs, label=f'ECG {lead}', physical_dimension='mV')
               for lead, row in zip(LEADS, columns(record))]
    edfio.Edf(signals).write(path)
    return path

def write_212(folder, record):
    import wfdb
    rows = np.stack(columns(record), 1)
    wfdb.wrsamp('packed', fs=record.fs, units=['mV']*12, sig_name=list(LEADS), p_signal=rows, fmt=['212']*12,
                adc_gain=[200.]*12, baseline=[0]*12, write_dir=str(folder))
    return folder/'packed.hea'

FORMATS = {
    'csv': lambda d, r: write_csv(d/'clock.csv', r), 'tsv': lambda d, r: write_csv(d/'tabs.tsv', r, mark='\t'),
    'uV': lambda d, r: write_csv(d/'micro.csv', r, scale=1000), 'edf': lambda d, r: write_edf(d/'made.edf', r),
    '212': write_212, 'eight leads': lambda d, r: write_csv(d/'eight.csv', r, ('I', 'II', *LEADS[6:])),
    'two leads': lambda d, r: write_csv(d/'two.csv', r, ('I', 'II')),
    'no names': lambda d, r: write_csv(d/'bare.csv', r, clock=False, header=False, comment='# sampling rate: 500 Hz'),
}

@pytest.mark.browser
@pytest.mark.parametrize('kind', FORMATS)
def test_every_format_is_read_as_python_reads_it(desk, predictor, record, tmp_path, kind):
    path = FORMATS[kind](tmp_path, record)
    with warnings.catch_warnings(record=True) as assumed:
        warnings.simplefilter('always')
        read_record(path, missing='nan')
    row, prob = asked_in_python(predictor, path)
    said = desk.give(*files_of(path))
    notes = [str(w.message).replace(': ', ' ') for w in assumed]
    assert [note for note in notes if note not in said['warnings']] == []
    check_same({**said, 'warnings': [w for w in said['warnings'] if w not in notes]}, row, prob)

def fault(change):
    def changed(record, rng):
        x = record.signal.astype(float)
        change(x, rng, record.fs)
        return replace(record, signal=x)
    return changed

def swap(x, a, b): x[[a, b]] = x[[b, a]]

def reverse_arms(x):
    x[0] *= -1
    swap(x, 1, 2)
    swap(x, 3, 4)

def hum(x, fs, at): x += .2*np.sin(2*np.pi*at*np.arange(x.shape[1])/fs)

FAULTS = {
    'microvolts': fault(lambda x, rng, fs: np.multiply(x, 20, out=x)), 'tiny': fault(lambda x, rng, fs: np.divide(x, 200, out=x)),
    'small': fault(lambda x, rng, fs: np.divide(x, 12, out=x)), 'large': fault(lambda x, rng, fs: np.multiply(x, 4, out=x)),
    'flat lead': fault(lambda x, rng, fs: x[7].fill(0)), 'a lead off': fault(lambda x, rng, fs: x[8].fill(3)),
    'missing leads': fault(lambda x, rng, fs: x[6:9].fill(np.nan)), 'gap': fault(lambda x, rng, fs: x[:, 3000:].fill(np.nan)),
    'noise': fault(lambda x, rng, fs: np.add(x, .2*rng.standard_normal(x.shape), out=x)),
    'noise alone': fault(lambda x, rng, fs: np.copyto(x, rng.standard_normal(x.shape))),
    'clipped': fault(lambda x, rng, fs: np.clip(x, -.6, .6, out=x)), 'arms': fault(lambda x, rng, fs: reverse_arms(x)),
    'hum': fault(lambda x, rng, fs: hum(x, fs, 50)), 'wander': fault(lambda x, rng, fs: hum(x, fs, .2) or np.multiply(x, 1, out=x)),
    'swapped': fault(lambda x, rng, fs: swap(x, 1, 7)),
    'short': lambda record, rng: replace(record, signal=record.signal[:, :1200]),
    'too short': lambda record, rng: replace(record, signal=record.signal[:, :400]),
}

@pytest.mark.browser
@pytest.mark.parametrize('kind', FAULTS)
def test_faults_are_named_in_the_same_words(desk, predictor, record, tmp_path, kind):
    faulty = replace(FAULTS[kind](record, np.random.default_rng(0)), id='faulty')
    path = write_record(replace(faulty, signal=np.clip(faulty.signal, -32, 32)), tmp_path) if kind != 'microvolts' else None
    if path is None: # beyond what a WFDB pair of this package can hold
        path = write_csv(tmp_path/'faulty.csv', faulty, scale=1000, comment='# unit: mV\n')
    row, prob = asked_in_python(predictor, path)
    said = desk.give(*files_of(path))
    check_same(said, row, prob)
    assert row['warnings'] or row['refused'] or kind == 'gap'


# ---- files that can't be used, and what a file may try

def bad_files(folder):
    header, signal = SAMPLE.read_text(), SAMPLE.with_suffix('.mat').read_bytes()
    flipped = bytearray(signal)
    flipped[5000] ^= 64
    def files(**contents):
        paths, own = [], Path(tempfile.mkdtemp(dir=folder))
        for name, content in contents.items():
            paths.append(own/name.replace('__', '.'))
            paths[-1].write_bytes(content if isinstance(content, bytes) else content.encode())
        return paths
    stem = SAMPLE.stem
    return {
        'header alone': (files(A__hea=header), f'{stem}.mat is missing'),
        'signal alone': (files(lonely__mat=signal), 'without its header'),
        'cut off': (files(**{'cut__hea': header, f'{stem}__mat': signal[:9000]}), 'is cut off'),
        'changed': (files(**{'changed__hea': header, f'{stem}__mat': bytes(flipped)}), 'do not belong together'),
        'no header': (files(words__hea='hello\n'), 'is not a WFDB header'),
        'empty': (files(empty__csv=b''), 'is empty'), 'words': (files(words__csv='some words\nand more\n'), 'no row of numbers'),
        'mixed': (files(mixed__csv='I,II\n'+'0.1,0.2\n'*20+'0.1\n'), 'line 22 is no row like the others'),
        'flat': (files(flat__csv='time,I (mV),II (mV)\n'+''.join(f'{i/500:.3f},0.5,0.5\n' for i in range(2000))), 'is flat'),
        'MATLAB': (files(broken__mat=b'MATLAB 5.0 MAT-file'.ljust(128)+b'\x0f\0\0\0\xff\xff\0\0xx'), 'no readable MATLAB'),
        'EDF': (files(broken__edf=b'0       '+b' '*300), 'header is damaged'),
        'picture': (files(scan__png=b'\x89PNG\r\n\x1a\n'+b'\0'*100), 'is a PNG picture'),
        'bytes': (files(any__bin=bytes(range(256))*4), 'is in no known format'),
        'pointer': (files(lfs__hea='version https://git-lfs.github.com/spec/v1\n'), 'Git LFS pointer'),
    }

@pytest.mark.browser
def test_a_bad_file_costs_one_line_and_the_next_is_answered(seen, tmp_path):
    for kind, (paths, words) in bad_files(tmp_path).items():
        said = seen.give(*paths)
        assert any(said['error'].startswith(f'{p.name}: ') for p in paths), (kind, said['error'])
        assert words in said['error'] and '\n' not in said['error'], (kind, said['error'])
        assert not seen.page.is_visible('#result'), kind
    assert seen.give(*files_of(SAMPLE))['error'] == ''
    assert seen.page.is_visible('#result')

@pytest.mark.browser
def test_markup_in_names_is_text(seen, record, tmp_path):
    name = '<img src=x onerror="document.title=1">'
    path = write_csv(tmp_path/f'{name}.csv', record, clock=False, header=False, comment='# fs 500 Hz')
    said = seen.give(path)
    assert said['name'] == name and any(name in w for w in said['warnings'])
    assert seen.page.locator('#result img').count() == 0 and seen.page.title() != '1'
    header = tmp_path/'evil.hea'
    header.write_text(f'evil 1 500 1000\nevil.dat {name} 1\n')
    assert name[:20] in seen.give(header)['error'] and seen.page.locator('#status img').count() == 0

@pytest.mark.browser
def test_the_sample_is_answered_and_fits(seen):
    seen.page.click('#sample')
    said = seen.said()
    assert said['labels'] == list(read_record(SAMPLE).labels) and said['wide'] <= seen.page.viewport_size['width']
    assert seen.page.locator('#paper .trace').count() == 4+13
    seen.page.wait_for_selector('#source', state='visible')
    assert 'CC BY 4.0' in seen.page.inner_text('#source') and 'Not a medical device' in seen.page.inner_text('footer')
    before = seen.page.locator('#paper .trace').nth(1).get_attribute('d')
    seen.page.fill('#time', '7')
    assert seen.page.locator('#paper .trace').nth(1).get_attribute('d') != before

@pytest.mark.browser
def test_the_answer_follows_the_thresholds(seen):
    said = seen.give(*files_of(SAMPLE))
    assert said['labels'] and not said['none']
    for slider in seen.page.locator('#classes input').all(): slider.fill('0.99')
    said = seen.said()
    assert said['labels'] == [] and said['none'] and len(said['named']) == 1
    assert 'None of the nine reaches its threshold; the nearest is' in seen.page.inner_text('#answer')
    seen.page.locator('#classes li[data-class="I-AVB"] input').fill('0')
    assert seen.said()['labels'] == ['I-AVB']
    seen.page.click('#reset')
    assert seen.said()['labels'] == list(read_record(SAMPLE).labels)

@pytest.mark.browser
def test_a_table_without_a_rate_is_asked_for_it(seen, record, tmp_path):
    path = write_csv(tmp_path/'bare.csv', record, clock=False)
    assert 'names no sampling rate' in seen.give(path)['error']
    seen.page.fill('#rate', '500')
    seen.page.click('#told button')
    said = seen.said()
    assert said['error'] == '' and said['labels'] == list(read_record(SAMPLE).labels)

@pytest.mark.browser
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_the_page_can_be_used_by_everyone(browser, address, scheme):
    context = browser.new_context(viewport={'width': 1400, 'height': 900}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector('html[data-ready]')
    page.click('#sample')
    page.wait_for_selector('#result[data-record]')
    page.add_script_tag(path=str(AXE))
    found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa'], preload: false})")['violations']
    context.close()
    assert [(v['id'], n['html'][:120]) for v in found for n in v['nodes']] == []

@pytest.mark.browser
def test_opened_as_a_file_it_says_how_to_start_it(browser):
    page = browser.new_page()
    page.goto((PAGE/'index.html').as_uri())
    assert page.is_visible('#served') and 'ecg-try' in page.inner_text('#served')
    page.close()

@pytest.mark.browser
def test_of_several_recordings_the_first_is_shown_and_that_is_said(desk, record, tmp_path):
    paths = [write_csv(tmp_path/f'{name}.csv', record) for name in 'ab']
    said = desk.give(*paths)
    assert said['name'] == 'a' and 'a.csv is the first of 2 recordings: give the others one by one' in said['warnings']
