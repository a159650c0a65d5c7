"""The analysis notebooks ask one question, answer it in their last cell, and say what their figures show. (`make test` runs them; nothing heavy is run here.)"""
import ast, json, re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1]/'nbs'/'explore'
NOTEBOOKS = [FOLDER/f'{name}.ipynb' for name in ('record_lengths', 'label_co_occurrence', 'class_balance', 'signal_quality', 'twelve_leads', 'lead_correlations')]


@pytest.fixture(scope='module', params=NOTEBOOKS, ids=lambda p: p.stem)
def notebook(request): return request.param, json.loads(request.param.read_text(encoding='utf-8'))['cells']

def source(cell): return ''.join(cell['source'])
def code(cells): return [source(c) for c in cells if c['cell_type'] == 'code']
def images(cell): return [o for o in cell.get('outputs', []) if 'image/png' in o.get('data', {})]


def test_starts_with_a_question_and_ends_with_an_answer(notebook):
    _, cells = notebook
    assert re.fullmatch(r'# .+\n+> .+', source(cells[0]))
    assert re.match(r'\*\*Question\.\*\* .+\?', source(cells[1]), re.S), 'in a cell of its own: what stands below the summary is lost on the page'
    assert source(cells[-2]) == '## Answer'
    answer = ''.join(cells[-1]['outputs'][-1]['data']['text/markdown'])
    assert answer.startswith('**Answer.** ') and answer.endswith('.') and 'nan' not in answer
    assert re.search(r'\d', answer), 'an answer has a figure in it'

def test_the_answer_is_computed(notebook):
    _, cells = notebook
    assert "**Answer.**" in source(cells[-1])
    words = re.sub(r'\{[^{}]*\}', '', source(cells[-1]))
    numbers = [n for n in re.findall(r'(?<![\w.])\d+\.?\d*%?', re.search(r'Markdown\(.*', words, re.S)[0]) if n.endswith('%') or '.' in n.rstrip('.')]
    assert set(numbers) <= {'0.5'}, f'{numbers}: figures come from the data'

def test_runs_with_and_without_real_data(notebook):
    _, cells = notebook
    text = '\n'.join(code(cells))
    assert "os.environ.get('ECG_DATA')" in text and 'from ecg_nbdev.sim.synth import' in text
    assert any('ECG_DATA' in source(c) and 'simulated' in source(c) or 'simulator' in source(c) for c in cells if c['cell_type'] == 'markdown'), 'says which data its figures show'
    assert not re.search(r'/work|/tmp|/home', text)

def test_exports_nothing(notebook):
    assert not [s for s in code(notebook[1]) if re.search(r'^#\|\s*(export|default_exp)', s, re.M)]

def test_figures_have_titles_and_labels(notebook):
    "A cell that makes its own axes names them; the package's own charts do so themselves."
    _, cells = notebook
    for cell in cells:
        text = source(cell)
        if cell['cell_type'] != 'code' or 'plt.subplots(' not in text: continue
        assert re.search(r'title\b', text), text
        assert 'heatmap(' in text or re.search(r'xlabel\b', text), text
        if 'heatmap(' in text: assert re.search(r"label='[^']+'", text), text

def test_outputs_are_stored_and_small(notebook):
    path, cells = notebook
    assert sum(len(images(c)) for c in cells) >= 3
    assert path.stat().st_size < 300_000
    assert not [o for c in cells for o in c.get('outputs', []) if o['output_type'] == 'error' or o.get('name') == 'stderr']

def test_no_cell_is_a_program(notebook):
    for text in code(notebook[1]):
        assert len(text.splitlines()) <= 25
        ast.parse(text)
