"""Analysis pages (explore, results) ask one question, answer it at the top and in their last cell, and say what their
figures show; every page can be read without opening a fold. `make test` runs them; nothing heavy is run here."""
import ast, json, re
from pathlib import Path

import pytest

NBS = Path(__file__).resolve().parents[1]/'nbs'
EXPLORE, RESULTS = sorted((NBS/'explore').glob('*.ipynb')), sorted((NBS/'results').glob('*.ipynb'))
PAGES = [NBS/'index.ipynb', *sorted(NBS.glob('[a-z]*/*.ipynb'))]
FREE = ('import seaborn as sns',) # what every page may import besides


@pytest.fixture(scope='module', params=EXPLORE+RESULTS, ids=lambda p: p.stem)
def notebook(request):
    return request.param, json.loads(request.param.read_text(encoding='utf-8'))['cells']


def source(cell): return ''.join(cell['source'])
def code(cells): return [source(c) for c in cells if c['cell_type'] == 'code' and '/content' not in source(c)] # that is Colab's
def markdown(cells): return [source(c) for c in cells if c['cell_type'] == 'markdown']
def images(cell): return [o for o in cell.get('outputs', []) if 'image/png' in o.get('data', {})]
def answer(cells): return ''.join(cells[-1]['outputs'][-1]['data']['text/markdown'])
def figures(text): return set(re.findall(r'(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\d)', text))


def test_starts_with_a_question_and_ends_with_an_answer(notebook):
    _, cells = notebook
    assert re.fullmatch(r'# .+\n+> .+', source(cells[0]))
    asked = r'\*\*Question\.\*\* .+\?\n\n\*\*In short\.\*\* .+\.'
    lost = 'a cell of its own: what stands below the summary is lost on the page'
    assert re.fullmatch(asked, source(cells[1]), re.S), lost
    assert markdown(cells)[-1] == '## Answer'
    text = answer(cells)
    assert text.startswith('**Answer.** ') and text.endswith('.') and 'nan' not in text
    assert re.search(r'\d', text), 'an answer has a figure in it'


def test_what_the_top_says_is_computed_below(notebook):
    "Shares and decimals of the answer in short are figures of the outputs."
    _, cells = notebook
    short = source(cells[1]).split('**In short.**')[1]
    claimed = {n for n in figures(short) if '.' in n or f'{n}%' in short}
    assert claimed <= figures(answer(cells)), f'{claimed - figures(answer(cells))}: not in the answer'


def test_the_answer_is_computed(notebook):
    _, cells = notebook
    last = source(cells[-1])
    assert '**Answer.**' in last
    words = re.search(r'^(?:Markdown\(|answer = ).*', re.sub(r'\{[^{}]*\}', '', last), re.S | re.M)[0]
    numbers = [n for n in re.findall(r'(?<![\w.])\d+\.?\d*%?', words) if n.endswith('%') or '.' in n.rstrip('.')]
    assert set(numbers) <= {'0.5'}, f'{numbers}: figures come from the data'


def test_one_import_brings_nearly_all(notebook):
    _, cells = notebook
    lines = code(cells)[0].splitlines()
    assert lines[0] == 'from ecg_nbdev.all import *'
    everywhere = [l.strip() for s in code(cells) for l in s.splitlines() if re.match(r'\s*(import|from) \w', l)]
    more = [l for l in everywhere if l not in (lines[0], *FREE)]
    assert len(more) <= 3 and all(l in lines for l in more), more
    assert not [l for l in more if 'ecg_nbdev' in l]


def test_lines_fit_the_page(notebook):
    "95 columns are what the site's column shows; an answer that is computed has a name."
    for text in code(notebook[1]):
        assert not [l for l in text.splitlines() if len(l) > 95]
        assert not re.search(r'^\s*\w+ = lambda\b', text, re.M), 'a lambda with a name is a `def`'
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FormattedValue):
                computes = any(isinstance(n, (ast.BinOp, ast.IfExp)) for n in ast.walk(node.value))
                assert not computes, ast.unparse(node.value)


def test_long_code_is_folded(notebook):
    for text in code(notebook[1]):
        lines = text.splitlines()
        assert sum(not l.startswith('#|') for l in lines) <= 25, text
        assert ('#| code-fold: true' in lines) == any(l.startswith('#| code-summary: ') for l in lines)


def test_speaks_to_its_reader(notebook):
    words = '\n'.join(markdown(notebook[1])+code(notebook[1]))
    assert not re.search(r'\bcommit [0-9a-f]{7}\b|\btarget (?:was|is|of)\b|\b(?:not )?met\b', words)
    assert not re.search(r'/work|/tmp|/home', words)


def test_exports_nothing(notebook):
    assert not [s for s in code(notebook[1]) if re.search(r'^#\|\s*(export|default_exp)', s, re.M)]


def test_figures_have_titles_and_labels(notebook):
    "A cell that makes its own axes names them; the package's own charts do so themselves."
    for text in code(notebook[1]):
        if 'plt.subplots(' not in text: continue
        assert re.search(r'title\b|draw_traces\(', text), text
        assert re.search(r'heatmap\(|draw_counts\(|plot_ecg\(|label\b', text), text
        if 'heatmap(' in text: assert re.search(r"label='[^']+'|cbar=False", text), text


def test_outputs_are_stored_and_small(notebook):
    path, cells = notebook
    assert sum(len(images(c)) for c in cells) >= (3 if path in EXPLORE else 1)
    assert path.stat().st_size < 300_000
    outputs = [o for c in cells for o in c.get('outputs', [])]
    assert not [o for o in outputs if o['output_type'] == 'error' or o.get('name') == 'stderr']


# ---- any page

DIRECTIVE = r'^#\|\s*(?:hide$|echo:\s*false|code-fold:\s*true)'

@pytest.fixture(scope='module', params=PAGES, ids=lambda p: p.stem)
def page(request): return json.loads(request.param.read_text(encoding='utf-8'))['cells']

def test_open_code_is_short_and_draws_nothing_itself(page):
    "What a reader is to copy stays open; what draws, counts or arranges is folded, with a line that says what it does."
    for text in code(page):
        if re.search(DIRECTIVE, text, re.M): continue
        lines = [l for l in text.splitlines() if l.strip() and not l.startswith('#|')]
        assert len(lines) <= 12 and not re.search(r'\bplt\.subplots\(|\bsns\.\w+\(', text), text

def test_assertions_are_hidden(page):
    for text in code(page):
        assert text.startswith('#| hide') or not re.search(r'^\s*assert\b|assert_\w+\(', text, re.M), text

def test_printed_lines_fit_the_page(page):
    for cell in page:
        if source(cell).startswith('#| hide'): continue
        for output in cell.get('outputs', []):
            shown = output.get('data', {})
            if any(kind in shown for kind in ('text/html', 'text/markdown', 'image/png')): continue
            text = ''.join(output.get('text') or shown.get('text/plain', []))
            assert not [l for l in text.splitlines() if len(l) > 95]

@pytest.mark.parametrize('path', [p for p in PAGES if '**Question' in p.read_text(encoding='utf-8')], ids=lambda p: p.stem)
def test_a_question_is_answered_at_the_top_and_at_the_end(path):
    texts = markdown(json.loads(path.read_text(encoding='utf-8'))['cells'])
    asked = next(t for t in texts if t.startswith('**Question'))
    assert texts.index(asked) == 1 and '\n\n**In short.** ' in asked
    assert re.match(r'## Answer\b', texts[-1]) or re.search(r'^## Answer$', texts[-1], re.M)


@pytest.mark.parametrize('path', EXPLORE, ids=lambda p: p.stem)
def test_runs_with_and_without_real_data(path):
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    text = '\n'.join(code(cells))
    assert "os.environ.get('ECG_DATA')" in text and re.search(r'\b(simulate|simulate_cohort|draw_labels)\(', text)
    says = any('ECG_DATA' in t and re.search(r'simulated|simulator', t) for t in markdown(cells))
    assert says, 'says which data its figures show'


@pytest.mark.parametrize('path', RESULTS, ids=lambda p: p.stem)
def test_results_come_from_saved_tables(path):
    text = '\n'.join(code(json.loads(path.read_text(encoding='utf-8'))['cells']))
    assert '../../bench/' in text and not re.search(r'\b(Learner|ecg_learner|\.fit\w*)\(', text)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('path', [p for p in sorted((NBS/'tutorials').glob('*.ipynb'))
                                  if 'skip_exec' in p.read_text(encoding='utf-8') and not p.stem.endswith('_vi')], ids=lambda p: p.stem)
def test_a_page_that_takes_minutes_runs(path):
    "nbdev-test leaves them out (`skip_exec`)."
    import nbclient, nbformat
    nb = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(nb, timeout=1800, resources={'metadata': {'path': str(path.parent)}}).execute()
    assert any(c.get('outputs') for c in nb.cells)
