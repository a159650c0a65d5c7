"""The threshold slider in a real JupyterLab: the notebook runs from top to bottom on a fresh kernel, and the slider moves by hand."""
import json, os, re, shutil, socket, subprocess, sys, time, urllib.request
from pathlib import Path

import pytest

from test_report import CHROMIUM, FLAGS

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT/'nbs/71a_widget.ipynb'
LAST = "print('chosen', chosen.thresholds.values.tolist()); print('shown', chosen.table.value)"

ERROR = '.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"]'

def code_cells(nb): return [c for c in nb['cells'] if c['cell_type'] == 'code']

@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "JupyterLab on this machine alone, over a copy of the notebook with no outputs and a last cell that prints what was chosen."
    if not CHROMIUM: pytest.skip('no Chromium on this machine: `apt-get install chromium`')
    pytest.importorskip('playwright.sync_api', reason='playwright is not installed: `make setup`')
    pytest.importorskip('jupyterlab', reason='JupyterLab is not installed: `make setup`')
    folder, home = tmp_path_factory.mktemp('lab'), tmp_path_factory.mktemp('home')
    nb = json.loads(NOTEBOOK.read_text(encoding='utf-8'))
    for cell in code_cells(nb): cell |= {'outputs': [], 'execution_count': None}
    nb['cells'].append({'cell_type': 'code', 'id': 'last', 'metadata': {}, 'outputs': [], 'execution_count': None, 'source': [LAST]})
    nb['metadata']['kernelspec'] = {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}
    (folder/NOTEBOOK.name).write_text(json.dumps(nb), encoding='utf-8')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    settings = home/'config/lab/user-settings/@jupyterlab'
    for name, value in (('notebook-extension/tracker', {'windowingMode': 'none'}), ('apputils-extension/notification', {'fetchNews': 'false'})): # all cells in the page, no question about news
        (settings/name).parent.mkdir(parents=True)
        (settings/f'{name}.jupyterlab-settings').write_text(json.dumps(value))
    env = {**os.environ, 'JUPYTER_CONFIG_DIR': str(home/'config'), 'JUPYTER_RUNTIME_DIR': str(home/'runtime'), 'IPYTHONDIR': str(home/'ipython'), 'PYTHONPATH': str(ROOT)}
    log = (home/'log').open('w')
    server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--ip=127.0.0.1', f'--port={port}', '--ServerApp.port_retries=0', '--IdentityProvider.token=', '--allow-root',
        f'--ServerApp.root_dir={folder}', '--LabApp.news_url=', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate'], env=env, stdout=log, stderr=log)
    try:
        for _ in range(240):
            try: urllib.request.urlopen(f'http://127.0.0.1:{port}/api', timeout=5); break
            except OSError: time.sleep(.5)
            assert server.poll() is None, (home/'log').read_text()
        yield f'http://127.0.0.1:{port}', folder
    finally:
        server.terminate()
        server.wait(30)
        log.close()

@pytest.mark.browser
def test_the_slider_in_jupyterlab(lab):
    from playwright.sync_api import TimeoutError, sync_playwright
    url, folder = lab
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={'width': 1400, 'height': 1000})
        page.goto(f'{url}/lab/tree/{NOTEBOOK.name}')
        page.locator('.jp-Notebook .jp-CodeCell').first.wait_for(timeout=90_000)
        page.get_by_text('Python 3 (ipykernel) | Idle').wait_for(timeout=90_000)
        for _ in range(10): # what is asked before the browser and the kernel are connected is lost
            page.locator('.lm-MenuBar-itemLabel', has_text=re.compile('^Run$')).click()
            page.locator('.lm-Menu-itemLabel', has_text=re.compile('^Run All Cells$')).click()
            try: page.wait_for_function("() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].some(e => /[*0-9]/.test(e.textContent))", timeout=10_000); break
            except TimeoutError: continue
        last_cell(page).locator('.jp-OutputArea-output').or_(page.locator(ERROR)).first.wait_for(timeout=180_000)
        assert page.locator(ERROR).all_text_contents() == []
        assert prompts(page) == [f'[{i+1}]:' for i in range(len(prompts(page)))], 'every cell has run once, in order, on this kernel'
        chosen, shown = last_output(page)
        widget = page.locator('.jp-OutputArea-output .widget-vbox')
        widget.locator('select').select_option('PAC')
        handle = widget.locator('.noUi-handle')
        before = widget.locator('.widget-readout').text_content()
        handle.focus()
        for _ in range(4): page.keyboard.press('ArrowRight')
        page.wait_for_function("before => document.querySelector('.widget-vbox .widget-readout').textContent !== before", arg=before)
        page.wait_for_timeout(1000)
        live = widget.locator('table').inner_html()
        run = len(prompts(page))+1
        last_cell(page).locator('.jp-InputArea-editor').click()
        page.keyboard.press('Control+Enter')
        last_cell(page).locator('.jp-InputPrompt', has_text=f'[{run}]:').wait_for()
        after, table = last_output(page)
        browser.close()
    assert after[5] > chosen[5] and after[:5]+after[6:] == chosen[:5]+chosen[6:] # PAC moved, and PAC alone
    assert cells(live) == cells(table) != cells(shown) # what stands on the page is what the kernel computed
    assert f'{after[5]:.3f}' in cells(live)

def cells(html): return re.findall(r'<td[^>]*>\s*(.*?)\s*</td>', html)

def prompts(page): return page.locator('.jp-CodeCell .jp-InputPrompt').all_text_contents()

def last_cell(page): return page.locator('.jp-CodeCell', has_text="print('chosen'")

def last_output(page):
    text = last_cell(page).locator('.jp-OutputArea-output').last.text_content()
    return json.loads(re.search(r'chosen (\[.*?\])', text)[1]), text.split('shown', 1)[1]
