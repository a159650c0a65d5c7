"""The built site is current and without dead links; in a browser it shows no errors and fits a phone."""
import hashlib, importlib.util, json, re, shutil, sys, threading
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
NBS, DOCS = ROOT/'nbs', ROOT/'docs'
PAGES = sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob('*.html'))

spec = importlib.util.spec_from_file_location('site_build', ROOT/'site/build.py')
build = importlib.util.module_from_spec(spec)
sys.modules['site_build'] = build
spec.loader.exec_module(build)


# ---- built from what is here now

def test_docs_are_current(): assert build.check() == []

def test_a_changed_notebook_is_noticed(monkeypatch):
    inputs, before = build.inputs(), build.check()
    monkeypatch.setattr(build, 'inputs', lambda: {**inputs, 'nbs/00_core.ipynb': 'another', 'nbs/99_new.ipynb': 'new'})
    said = {line.split(' since')[0] for line in set(build.check()) - set(before)}
    assert said == {'nbs/00_core.ipynb changed', 'nbs/99_new.ipynb is new'}

def test_an_edited_page_is_noticed(monkeypatch):
    page = hashlib.sha256(b'edited').hexdigest()[:16]
    monkeypatch.setattr(build, 'outputs', lambda real=build.outputs: {**real(), 'docs/index.html': page})
    assert 'docs/index.html changed since docs/ was built' in build.check()

def test_every_notebook_has_a_page_and_a_place():
    notebooks = {str(p.nb) for p in build.pages()}
    found = [p for p in NBS.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts]
    assert {p.relative_to(NBS).as_posix() for p in found} == notebooks
    assert {p.stage.with_suffix('.html').as_posix() for p in build.pages()} == {*PAGES}-{*build.BESIDE}
    def leaves(item):
        if isinstance(item, str): yield item
        elif 'href' in item: yield item['href']
        else: yield from (leaf for child in item['contents'] for leaf in leaves(child))
    bar = yaml.safe_load((NBS/'sidebar.yml').read_text(encoding='utf-8'))
    assert bar == build.sidebar(build.pages()), 'run `make docs`'
    listed = [leaf for item in bar['website']['sidebar']['contents'] for leaf in leaves(item)]
    assert sorted(listed) == sorted(notebooks)

def test_the_page_that_a_module_names_is_there():
    named = {p: re.search(r'^Docs: \S+/(\S+)"""', p.read_text(encoding='utf-8'), re.M) for p in (ROOT/'ecg_nbdev').rglob('*.py')}
    pages = {p.name: m[1] for p, m in named.items() if m}
    assert len(pages) > 40 and [name for name, page in pages.items() if not (DOCS/page).is_file()] == []

def test_a_page_opens_elsewhere_and_installs_the_package_there():
    opened = {p: build.launch_links(p) for p in build.pages()}
    opened = {p: links for p, links in opened.items() if links}
    assert len(opened) >= 15
    for page, links in opened.items():
        colab, binder = re.findall(r'\((https://\S+)\)', links)
        path = urlsplit(colab).path.removeprefix('/github/ecg-nbdev/ecg_nbdev/blob/main/')
        assert urlsplit(binder).query == f'labpath={path}' and (ROOT/path).is_file()
        cells = json.loads((ROOT/path).read_text(encoding='utf-8'))['cells']
        first = next(''.join(c['source']) for c in cells if c['cell_type'] == 'code')
        assert '[ -e /content ] && pip install' in first and f"'{build.TOML['project']['name']}[" in first
        for end in ('.html', '.html.md'): assert colab in (DOCS/page.stage.with_suffix(end)).read_text(encoding='utf-8')
    wanted = (ROOT/'.binder/requirements.txt').read_text(encoding='utf-8').splitlines() # relative to its own folder, and to the repository
    assert wanted == ['-c ../constraints.txt', '-e .[notebook]'] and (ROOT/'constraints.txt').is_file()

def test_notebooks_name_a_kernel_that_pip_brings():
    for path in NBS.rglob('*.ipynb'):
        if '.ipynb_checkpoints' in path.parts: continue
        assert json.loads(path.read_text(encoding='utf-8'))['metadata']['kernelspec']['name'] == 'python3', path.name

def test_a_new_notebook_finds_its_place():
    names = ('00a_rhythm.ipynb', '83_later.ipynb', 'explore/05_noise.ipynb', 'tutorials/quickstart.ipynb',
             'guide/faq.ipynb', 'index.ipynb')
    new = [build.Page(build.PurePosixPath(nb), build.PurePosixPath(build.plain(nb))) for nb in names]
    assert [str(p.stage) for p in new[:3]] == ['rhythm.ipynb', 'later.ipynb', 'explore/noise.ipynb']
    sections = [p.section for p in new]
    assert sections == ['Library floors', 'Library floors', 'Explore', 'Get started', 'Guide', 'Get started']
    titles = [s['section'] for s in build.sidebar(new)['website']['sidebar']['contents']]
    assert titles == ['Get started', 'Guide', 'Explore', 'Library floors']
    tutorials = [str(p.nb) for p in build.pages() if p.section == 'Tutorials']
    assert tutorials[-1] == 'tutorials/quickstart_vi.ipynb' and tutorials[:-1] == sorted(tutorials[:-1])

@pytest.mark.parametrize('nb', [p.nb for p in build.pages()], ids=str)
def test_a_title_cell_holds_the_title_alone(nb):
    "nbdev makes title and summary of this cell; anything else in it is lost on the page."
    cells = json.loads((NBS/nb).read_text(encoding='utf-8'))['cells']
    cells = [''.join(c['source']) for c in cells if c['cell_type'] == 'markdown']
    title = next(c for c in cells if c.startswith('# '))
    lost = [line for line in title.splitlines()[1:] if line.strip() and not line.startswith(('>', '- '))]
    assert not lost, 'put this text into a cell of its own'

def test_comments_are_text_and_functions_have_names():
    written = build.words('an <svg> element, `a<b>` and runs/<name>, 1 < 2')
    assert written == 'an &lt;svg> element, `a<b>` and runs/&lt;name>, 1 < 2'
    signature = "(f=<function fit at 0x7fcb18651e40>, kind=<class 'torch.nn.Adam'>, n=1)"
    assert build.named(signature) == '(f=fit, kind=Adam, n=1)'
    for page in [*DOCS.rglob('*.html'), *DOCS.rglob('*.md')]:
        assert not re.search(r'(?:at|function \w+) 0x[0-9a-f]{6,}', page.read_text(encoding='utf-8')), page

HEADED = ('<thead><tr style="text-align: right;"><th></th><th>value</th><th>low</th></tr>'
          '<tr><th>score</th><th></th><th></th></tr></thead>'
          '<tbody><tr><th>F1|x</th><td>1</td><td>a &amp; b</td></tr></tbody>')

def test_the_name_of_an_index_shares_the_header_row():
    head = build.one_header(HEADED).split('<tbody>')[0]
    assert head == '<thead><tr><th>score</th><th>value</th><th>low</th></tr></thead>'
    # columns have a name too: both rows say something
    named = '<tr><th>kind</th><th>a</th></tr><tr><th>class</th><th></th></tr>'
    assert build.one_header(named) == named

def test_words_stand_left_and_numbers_right():
    table = ('<table class="dataframe"><tr><th></th><th>n</th><th>look for</th></tr>'
             '<tr><th>AF</th><td>0.97 (0.9 to 1)</td><td>no P wave</td></tr></table>')
    marked = build.words_left(re.match('(.*)', table))
    assert marked.count('class=text') == 4 and '<td>0.97' in marked and '<td class=text>no P' in marked
    spanned = table.replace('<th>AF</th>', '<th rowspan="2">AF</th>')+'<tr><td>1</td></tr>'
    assert build.words_left(re.match('(.*)', spanned)) == spanned

def test_cards_without_backticks_and_without_empty_paper():
    page = (DOCS/'gallery.html').read_text(encoding='utf-8')
    cards = re.findall(r'<a class="nb-card".*?</a>', page, re.S)
    assert len(cards) > 20 and not [c for c in cards if '`' in c or '<img' not in c]
    assert all((DOCS/name).is_file() for name in re.findall(r'src="(figures/[^"]+)"', page))

def test_tables_of_the_readme_are_markdown():
    def table(text): return build.pipe_table(re.match('(.*)', f'<table>{text}</table>', re.S))
    assert table(HEADED) == '| score | value | low |\n| --- | --- | --- |\n| F1\\|x | 1 | a & b |'
    numbered = '<tr><th></th><th>a</th></tr><tr><th>0</th><td>5</td></tr><tr><th>1</th><td>6</td></tr>'
    assert table(numbered) == '| a |\n| --- |\n| 5 |\n| 6 |'
    assert table('<tr><th colspan="2">a</th></tr>').startswith('<table>')

def test_small_enough_to_commit(): assert sum(p.stat().st_size for p in DOCS.rglob('*') if p.is_file()) < 30e6


# ---- links

class Links(HTMLParser):
    "Targets and anchors of one page, and what it loads."
    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.ids = [], [], []
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if attrs.get('id'): self.ids.append(attrs['id'])
        if tag == 'a' and attrs.get('href'): self.links.append(attrs['href'])
        if tag in ('script', 'img', 'source', 'iframe') and attrs.get('src'): self.loads.append(attrs['src'])
        if tag == 'link' and attrs.get('href'): self.loads.append(attrs['href'])

@cache
def parsed(page): return Links((DOCS/page).read_text(encoding='utf-8'))

@pytest.mark.parametrize('page', PAGES)
def test_no_dead_link(page):
    dead = []
    for link in {*parsed(page).links, *parsed(page).loads}:
        parts = urlsplit(link)
        if parts.scheme in ('http', 'https', 'mailto', 'data'): continue
        target = (DOCS/page).parent/unquote(parts.path) if parts.path else DOCS/page
        if target.is_dir(): target /= 'index.html'
        if not target.is_file() or DOCS not in target.resolve().parents: dead.append(link)
        elif parts.fragment and target.suffix == '.html':
            ids = parsed(target.resolve().relative_to(DOCS).as_posix()).ids
            if unquote(parts.fragment) not in ids: dead.append(link)
    assert dead == []

@pytest.mark.parametrize('page', PAGES)
def test_nothing_is_loaded_from_elsewhere(page):
    assert not [url for url in parsed(page).loads if urlsplit(url).scheme in ('http', 'https') or url.startswith('//')]

def test_stylesheets_load_nothing_from_elsewhere_and_nothing_missing():
    for css in DOCS.rglob('*.css'):
        for url in re.findall(r'url\(\s*["\']?([^"\')]+)', css.read_text(encoding='utf-8')):
            if url.startswith(('data:', '#')): continue
            here = urlsplit(url).scheme == '' and (css.parent/urlsplit(url).path).is_file()
            assert here, f'{css.relative_to(DOCS)}: {url}'

def state_of(notebook):
    "A digest of the words of a notebook."
    cells = json.loads(notebook.read_text(encoding='utf-8'))['cells']
    words = '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')
    return hashlib.sha256(words.encode()).hexdigest()[:12]

@pytest.mark.parametrize('translation, source', [
    ('README.vi.md', 'nbs/index.ipynb'), ('nbs/tutorials/quickstart_vi.ipynb', 'nbs/tutorials/quickstart.ipynb')])
def test_a_translation_is_of_what_stands_there_now(translation, source):
    said = re.search(r'<!-- translation of \S+, state (\w+)', (ROOT/translation).read_text(encoding='utf-8'))[1]
    assert said == state_of(ROOT/source), f'{source} has changed: bring {translation} in step and write the state'
    if translation.endswith('.ipynb'):
        cells = (json.loads((ROOT/p).read_text(encoding='utf-8'))['cells'] for p in (translation, source))
        ours, theirs = ([''.join(c['source']) for c in some if c['cell_type'] == 'code'] for some in cells)
        assert ours == theirs

def test_readme_links_exist():
    text = ''.join((ROOT/name).read_text(encoding='utf-8') for name in ('README.md', 'README.vi.md'))
    links = re.findall(r'\]\(([^)\s#]+)', text) + re.findall(r'(?:src|href)="([^"#]+)', text)
    assert links and [l for l in links if not urlsplit(l).scheme and not (ROOT/unquote(l)).exists()] == []

def test_readme_and_model_card_give_the_shipped_model_the_same_figures():
    folder = ROOT/'ecg_nbdev/data/pretrained'
    metrics = json.loads((folder/'config.json').read_text(encoding='utf-8'))['about']['metrics']
    rows = re.findall(r'^\| (\w[\w ]+) \|(?:.*\|)? (\d\.\d{3}) \(.*?\) \|$', (ROOT/'README.md').read_text(encoding='utf-8'), re.M)
    rows = [(score.lower().replace(' ', '_'), value) for score, value in rows]
    assert {'macro_auroc', 'macro_f1', 'exact_match'} <= {score for score, _ in rows}
    assert {score: value for score, value in rows} == {score: f'{metrics[score]:.3f}' for score, _ in rows}
    card = (folder/'MODEL_CARD.md').read_text(encoding='utf-8')
    assert not [score for score, value in rows if not re.search(rf'^\| all data sets pooled \| \d+ \| {score} \| {value} ', card, re.M)]

def test_the_license_is_whole():
    text = (ROOT/'LICENSE').read_text(encoding='utf-8')
    assert 'Apache License' in text and 'END OF TERMS AND CONDITIONS' in text


# ---- in a browser

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--no-first-run',
         '--disable-component-update', '--disable-sync']
AXE = Path(__file__).parent/'vendor/axe.min.js'
@pytest.fixture(scope='module')
def browser():
    if not CHROMIUM: pytest.skip('no Chromium on this machine: `apt-get install chromium`')
    sync = pytest.importorskip('playwright.sync_api', reason='playwright is not installed: `make setup`')
    with sync.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()

@pytest.fixture(scope='module', params=['light', 'dark'])
def views(request, browser):
    "A window as wide as a desktop's and one as wide as a phone's, with a list of what went wrong in them."
    wrong = []
    windows = []
    for width, height in ((1360, 900), (390, 844)):
        # one page lets no other script in, not even the one that looks for barriers
        context = browser.new_context(viewport={'width': width, 'height': height}, color_scheme=request.param, bypass_csp=True)
        page = context.new_page()
        page.on('console', lambda m: wrong.append(m.text) if m.type in ('error', 'warning') else None)
        page.on('pageerror', lambda e: wrong.append(str(e)))
        local = ('file:', 'data:', 'blob:')
        page.on('request', lambda r: wrong.append(f'asks {r.url}') if not r.url.startswith(local) else None)
        windows.append(page)
    yield *windows, wrong, request.param
    for page in windows: page.context.close()

@pytest.mark.browser
@pytest.mark.parametrize('name', PAGES)
def test_a_page_in_the_browser(views, name):
    desk, phone, wrong, scheme = views
    wrong.clear()
    for page in (desk, phone) if scheme == 'light' else (desk,): # colours don't change the width
        page.goto((DOCS/name).as_uri())
        page.wait_for_function('document.readyState === "complete"')
    assert wrong == []
    if scheme == 'light':
        width = phone.evaluate('document.documentElement.scrollWidth')
        assert width <= 390, 'the page scrolls sideways on a phone'
    if not name.startswith('samples/'): # reports are white paper at any hour
        assert (scheme == 'dark') == desk.evaluate('document.documentElement.classList.contains("quarto-dark")')
    desk.add_script_tag(path=str(AXE))
    desk.evaluate('document.querySelectorAll(".sd-overlapped").forEach(e => e.classList.remove("sd-overlapped"))')
    rules = ['wcag2a', 'wcag2aa'] if scheme == 'light' else ['color-contrast'] # in the dark only the colours are others
    run = 'rules => axe.run(document, {runOnly: rules, preload: false, resultTypes: ["violations"]})'
    found = desk.evaluate(run, rules)['violations']
    assert [(v['id'], n['html'][:120], [a['message'] for a in n['any'][:1]]) for v in found for n in v['nodes']] == []

@pytest.mark.browser
def test_search_finds_a_function_and_goes_there(views):
    desk, _, wrong, _ = views
    wrong.clear()
    desk.goto((DOCS/'index.html').as_uri())
    desk.keyboard.press('/')
    desk.keyboard.type('limb_leads')
    desk.locator('.search-result').first.wait_for()
    desk.locator('.search-result', has_text='limb_leads').first.click()
    desk.wait_for_url('**/core.html**')
    assert wrong == []

@pytest.mark.browser
def test_search_finds_words_and_tutorials_first(views):
    desk, _, wrong, _ = views
    wrong.clear()
    desk.goto((DOCS/'index.html').as_uri())
    def found(text):
        desk.locator('#quarto-search input').fill(text)
        desk.wait_for_timeout(300)
        return [e.text_content().lower() for e in desk.locator('.search-result').all()]
    assert found('DICOM')
    index = "window.findInSite(window.searchIndex, '%s')"
    assert all('dicom' in text.lower() for text in desk.evaluate(index % 'DICOM'+'.map(e => e.title+e.section+e.text)'))
    assert found('zebra crossing') == [] and desk.locator('.search-none').count() == 1
    hrefs = desk.evaluate(index % 'stride'+'.map(e => e.href)')
    library = [i for i, href in enumerate(hrefs) if '/' not in href and not href.startswith(('index', 'gallery'))]
    assert hrefs[0].startswith('tutorials/') and library == list(range(library[0], len(hrefs))) # the library last
    assert wrong == []

@pytest.mark.browser
def test_a_tap_opens_a_figure_at_full_size(views):
    _, phone, wrong, _ = views
    wrong.clear()
    phone.goto((DOCS/'explore/twelve_leads.html').as_uri())
    phone.locator('img.zoomable').first.click()
    sheet = phone.locator('dialog.zoom .zoom-sheet')
    assert sheet.locator('img').bounding_box()['width'] >= 900 and sheet.evaluate('e => e.scrollWidth > e.clientWidth')
    phone.get_by_role('button', name='Close').click()
    assert not sheet.is_visible() and wrong == []

@pytest.mark.browser
def test_a_plain_web_server_will_do(browser):
    "All links are relative, so that the site works under any path of a server."
    quiet = type('Quiet', (SimpleHTTPRequestHandler,), {'log_message': lambda *args: None})
    handler = partial(quiet, directory=ROOT)
    wrong = []
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.on('console', lambda m: wrong.append(m.text) if m.type in ('error', 'warning') else None)
        page.on('response', lambda r: wrong.append(f'{r.status} {r.url}') if r.status >= 400 else None)
        page.goto(f'http://127.0.0.1:{server.server_port}/docs/core.html')
        page.locator('#quarto-search input').fill('window plan')
        page.locator('.search-result').first.click()
        page.wait_for_load_state()
        page.close()
        server.shutdown()
    assert wrong == []

@pytest.mark.browser
def test_light_and_dark_are_switched_and_remembered(views):
    desk, _, wrong, scheme = views
    wrong.clear()
    desk.goto((DOCS/'index.html').as_uri())
    def color(): return desk.evaluate('getComputedStyle(document.body).backgroundColor')
    before = color()
    desk.locator('.quarto-color-scheme-toggle').first.click()
    desk.wait_for_timeout(150)
    assert color() != before
    after = color()
    desk.goto((DOCS/'core.html').as_uri())
    assert color() == after
    desk.evaluate('localStorage.clear()')
    assert wrong == []

@pytest.mark.browser
def test_maths_is_typeset(views):
    pages = [p for p in PAGES if 'site_libs/katex' in (DOCS/p).read_text(encoding='utf-8')]
    if not pages: pytest.skip('no page has maths')
    desk, *_ = views
    desk.goto((DOCS/pages[0]).as_uri())
    desk.locator('.katex').first.wait_for()
    loaded = 'f => f.family.startsWith("KaTeX") && f.status === "loaded"'
    assert desk.evaluate(f'document.fonts.ready.then(() => [...document.fonts].some({loaded}))')
