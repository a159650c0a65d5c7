"""Notebooks in a real JupyterLab: each runs from top to bottom on a fresh kernel, figures and numbers are drawn anew,
and the threshold slider moves by hand."""
import json, os, re, socket, subprocess, sys, time, urllib.request
from pathlib import Path

import pytest

from test_report import CHROMIUM, FLAGS

ROOT = Path(__file__).resolve().parents[1]
SLIDER = ("import json; from ecg_nbdev.widget import _shown\n"
    "print('chosen', json.dumps(chosen.thresholds.values.tolist()))\n"
    "print('shown', ''.join(_shown(chosen.evaluation, chosen.k)))")
QUICKSTART = ("print('compared', pd.concat(both, axis=1).loc[[*scores]].rename(scores).round(2).to_html())\n"
    "print('epochs', len(pd.read_csv('runs/quickstart/plain/history.csv')), 'recordings', len(scored), 'saved', "
    "Path('runs/quickstart/tuned/model.safetensors').stat().st_size)")
LAST = { # notebook → the cell that is added at its end and prints what Python holds
    'nbs/71a_widget.ipynb': SLIDER, 'nbs/tutorials/threshold_selection.ipynb': SLIDER,
    'nbs/tutorials/quickstart.ipynb': QUICKSTART}

# JupyterLab draws errors as it draws stderr
ERROR = '.jp-RenderedText[data-mime-type="application/vnd.jupyter.stderr"]:has-text("Traceback (most recent call last)")'
# some cell of the page has been started
STARTED = "() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].some(e => /[*0-9]/.test(e.textContent))"
READOUT = "document.querySelector('.widget-vbox .widget-readout').textContent"

def code_cells(nb): return [c for c in nb['cells'] if c['cell_type'] == 'code']

def fresh(path):
    "A notebook without any output, with its last cell."
    nb = json.loads((ROOT/path).read_text(encoding='utf-8'))
    nb['cells'].append({'cell_type': 'code', 'id': 'last', 'metadata': {}, 'source': [LAST[path]]})
    for cell in code_cells(nb): cell |= {'outputs': [], 'execution_count': None}
    # no saved state of widgets either
    nb['metadata'] = {'kernelspec': {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}}
    return json.dumps(nb)

@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "JupyterLab on this machine alone, over copies of the notebooks."
    if not CHROMIUM: pytest.skip('no Chromium on this machine: `apt-get install chromium`')
    pytest.importorskip('playwright.sync_api', reason='playwright is not installed: `make setup`')
    pytest.importorskip('jupyterlab', reason='JupyterLab is not installed: `make setup`')
    folder, home = tmp_path_factory.mktemp('lab'), tmp_path_factory.mktemp('home')
    for path in LAST: (folder/Path(path).name).write_text(fresh(path), encoding='utf-8')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    settings = home/'config/lab/user-settings/@jupyterlab'
    # all cells in the page, no question about news
    for name, value in (('notebook-extension/tracker', {'windowingMode': 'none'}),
                        ('apputils-extension/notification', {'fetchNews': 'false'})):
        (settings/name).parent.mkdir(parents=True)
        (settings/f'{name}.jupyterlab-settings').write_text(json.dumps(value))
    env = {**os.environ, 'JUPYTER_CONFIG_DIR': str(home/'config'), 'JUPYTER_RUNTIME_DIR': str(home/'runtime'),
           'IPYTHONDIR': str(home/'ipython'), 'PYTHONPATH': str(ROOT)}
    log = (home/'log').open('w')
    options = ['--no-browser', '--ip=127.0.0.1', f'--port={port}', '--ServerApp.port_retries=0',
               '--IdentityProvider.token=', '--allow-root', f'--ServerApp.root_dir={folder}', '--LabApp.news_url=',
               '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate']
    server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', *options], env=env, stdout=log, stderr=log)
    try:
        for _ in range(240):
            try: urllib.request.urlopen(f'http://127.0.0.1:{port}/api', timeout=5); break
            except OSError: time.sleep(.5)
            assert server.poll() is None, (home/'log').read_text()
        yield f'http://127.0.0.1:{port}'
    finally:
        server.terminate()
        server.wait(30)
        log.close()

@pytest.fixture(scope='module')
def browser(lab):
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()

@pytest.fixture
def run_all(lab, browser):
    "Open a copy in its own window, run all cells, and check that each ran once, in order, without an error."
    page = browser.new_page(viewport={'width': 1400, 'height': 1000})
    def run(path):
        from playwright.sync_api import TimeoutError
        page.goto(f'{lab}/lab/tree/{Path(path).name}?reset')
        page.locator('.jp-Notebook .jp-CodeCell').first.wait_for(timeout=90_000)
        page.get_by_text('Python 3 (ipykernel) | Idle').wait_for(timeout=90_000)
        assert page.locator('.jp-OutputArea-output').count() == 0, 'nothing that is seen later was saved'
        for _ in range(10): # what is asked before the browser and the kernel are connected is lost
            page.locator('.lm-MenuBar-itemLabel', has_text=re.compile('^Run$')).click()
            page.locator('.lm-Menu-itemLabel', has_text=re.compile('^Run All Cells$')).click()
            try:
                page.wait_for_function(STARTED, timeout=10_000)
                break
            except TimeoutError: continue
        last_cell(page).locator('.jp-OutputArea-output').or_(page.locator(ERROR)).first.wait_for(timeout=420_000)
        assert page.locator(ERROR).all_text_contents() == []
        n = len(code_cells(json.loads(fresh(path))))
        assert prompts(page) == [f'[{i+1}]:' for i in range(n)], 'every cell has run once, in order, on this kernel'
        return page
    yield run
    page.close()

@pytest.mark.browser
def test_the_quickstart_in_jupyterlab(run_all):
    path = 'nbs/tutorials/quickstart.ipynb'
    page = run_all(path)
    sources = [''.join(c['source']) for c in code_cells(json.loads((ROOT/path).read_text(encoding='utf-8')))]
    drawn = {i for i, s in enumerate(sources) if re.search(r'^plot_\w+\(|\.plot\(', s, re.M)}
    assert len(drawn) == 2
    for i in drawn: # a recording, the curves
        image = page.locator('.jp-CodeCell').nth(i).locator('.jp-RenderedImage img')
        image.scroll_into_view_if_needed()
        page.wait_for_function('e => e.complete', arg=image.element_handle())
        assert image.evaluate('e => e.naturalWidth') > 300
    at = next(i for i, s in enumerate(sources) if 'both = {' in s)
    table = page.locator('.jp-CodeCell').nth(at).locator('.jp-OutputArea-output table')
    said = last_cell(page).locator('.jp-OutputArea-output').last.text_content()
    assert cells(table.inner_html()) == cells(said) != [] # the table on the page is what the kernel holds
    found = re.search(r'epochs (\d+) recordings (\d+) saved (\d+)', said)
    assert found and int(found[1]) == 10 and int(found[3]) > 10_000
    assert abs(int(found[2])-30) <= 2 # a fold of ten of 300, stratified

@pytest.mark.browser
@pytest.mark.parametrize('path, name', [
    ('nbs/71a_widget.ipynb', 'PAC'), pytest.param('nbs/tutorials/threshold_selection.ipynb', 'PAC', marks=pytest.mark.nightly)],
    ids=['widget', 'tutorial'])
def test_the_slider_in_jupyterlab(run_all, path, name):
    page = run_all(path)
    chosen, shown = last_output(page)
    widget = page.locator('.jp-OutputArea-output .widget-vbox').first
    widget.locator('select').select_option(name)
    handle, readout = widget.locator('.noUi-handle'), widget.locator('.widget-readout')
    k = NAMES.index(name)
    # the threshold of a class is shown once the kernel has said it
    page.wait_for_function(f'want => Math.abs({READOUT}-want) < .003', arg=chosen[k])
    page.wait_for_timeout(500)
    before, still = readout.text_content(), cells(widget.locator('table').inner_html())
    handle.focus()
    for _ in range(4): page.keyboard.press('ArrowRight')
    page.wait_for_function(f'before => {READOUT} !== before', arg=before)
    while not _shows(widget, k, float(readout.text_content())): page.wait_for_timeout(100) # until the kernel has answered the last step
    run = len(prompts(page))+1
    last_cell(page).locator('.jp-InputArea-editor').click()
    page.keyboard.press('Control+Enter')
    last_cell(page).locator('.jp-InputPrompt', has_text=f'[{run}]:').wait_for()
    live, totals = widget.locator('table').inner_html(), widget.locator('.widget-html-content').first.text_content()
    assert cells(live) != still, 'the numbers on the page follow the slider'
    after, table = last_output(page)
    assert after[k] > chosen[k] and after[:k]+after[k+1:] == chosen[:k]+chosen[k+1:] # this class moved, and it alone
    assert cells(live) == cells(table) != cells(shown) # what stands on the page is what the kernel computed
    assert f'{after[k]:.3f}' in cells(live)
    # macro F1, micro F1, exact match
    assert re.findall(r'\d\.\d{3}', totals) == re.findall(r'<b>(\d\.\d{3})</b>', table)

def _shows(widget, k, value):
    "Whether the table beside a slider holds its value as the threshold of class k."
    held = cells(widget.locator('table').inner_html())
    return abs(float(held[k*8])-value) < .0006

NAMES = ('Normal', 'AF', 'I-AVB', 'LBBB', 'RBBB', 'PAC', 'PVC', 'STD', 'STE')

def cells(html): return re.findall(r'<td[^>]*>\s*(.*?)\s*</td>', html)

def prompts(page): return page.locator('.jp-CodeCell .jp-InputPrompt').all_text_contents()

def last_cell(page): return page.locator('.jp-CodeCell').last

def last_output(page):
    text = last_cell(page).locator('.jp-OutputArea-output').last.text_content()
    return json.loads(re.search(r'chosen (\[.*?\])', text)[1]), text.split('shown', 1)[1]
