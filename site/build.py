#!/usr/bin/env python
"""Build `docs/` and `README.md` from the notebooks alone.

    python site/build.py            nbdev's processing of every notebook, smalldocs, what makes the site work offline
    python site/build.py --try      only docs/try/, the page that answers a recording
    python site/build.py --check    say whether docs/ is what the notebooks give (hashes only: under a second)

Nothing is executed but the `show_doc` calls behind the API pages: figures and tables are the outputs stored in the
notebooks. The pages, their places in the sidebar and the cards of the front page follow from the notebooks' paths, so a
new notebook shows up by itself.
"""
import argparse, base64, hashlib, html, importlib, inspect, io, json, os, posixpath, re, shutil, sys, tomllib
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import yaml

ROOT = Path(__file__).resolve().parents[1]
NBS, STAGE, DOCS, VENDOR = ROOT/'nbs', ROOT/'_proc', ROOT/'docs', Path(__file__).resolve().parent/'vendor'
MANIFEST, FIGURES = DOCS/'manifest.json', STAGE/'figures'
DATA = ROOT/'ecg_nbdev/data'
TRY, SAMPLES, SHIPPED = DATA/'try', DATA/'samples', DATA/'pretrained'
TOML = tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8'))
NBDEV = TOML['tool']['nbdev'] | {'git_url': TOML['project']['urls']['Repository']}
HOST = NBDEV['doc_host']+NBDEV['doc_baseurl']
SUFFIXES = {'.ipynb', '.py', '.yml', '.css', '.js', '.svg', '.woff2', '.txt'}
TOOLS = ('nbdev', 'fastcore', 'execnb', 'smalldocs', 'nbconvert')
START = ('index.ipynb', 'gallery.ipynb', 'tutorials/quickstart.ipynb', 'tutorials/your_own_data.ipynb',
         'guide/model_card.ipynb')
FOLDERS = {'guide': 'Guide', 'tutorials': 'Tutorials', 'results': 'Results', 'explore': 'Explore'}
LANGUAGES = ('_vi',)  # how the names of translated pages end
FLOORS = {  # what a library notebook's number begins with → title; the first one that fits, so the simulator is first
    '00[a-d]_|01_': 'Simulator', '0': 'Foundations', '1': 'Recordings', '2': 'Windows and signals', '3': 'Loading',
    '4': 'Models', '5': 'Training and metrics', '6': 'Decisions and scores', '7': 'Reports', '8': 'Saving and scaling',
    '9': 'Commands'}


# ---- which notebooks there are, and where each one stands

@dataclass(frozen=True)
class Page:
    "One notebook of the site."
    nb: PurePosixPath     # relative to nbs/, such as `20_windows.ipynb`
    stage: PurePosixPath  # its name without the floor's number: `windows.ipynb`

    @property
    def section(self):
        if plain(self.nb) in START: return 'Get started'
        if len(self.nb.parts) > 1: return FOLDERS.get(self.nb.parts[0], self.nb.parts[0].capitalize())
        return 'Library floors' if re.match(r'\d', self.nb.name) else 'Guide'

def plain(nb): return str(PurePosixPath(nb).with_name(re.sub(r'^\d+[a-z\d]*_', '', PurePosixPath(nb).name)))

def sources(top):
    "The files of a folder that the site is made from: not what a notebook leaves behind when it runs."
    files = (p for p in sorted(top.rglob('*')) if p.suffix in SUFFIXES)
    return [p for p in files if not any(part.startswith('.') for part in p.relative_to(top).parts)]

def translated(nb): return nb.stem.endswith(LANGUAGES)

def pages():
    "By path, but translations after the pages that they translate."
    found = sorted((p.relative_to(NBS) for p in sources(NBS) if p.suffix == '.ipynb'), key=translated)
    return [Page(PurePosixPath(p.as_posix()), PurePosixPath(plain(p.as_posix()))) for p in found]

def floor(nb):
    "The title of the floor that a library notebook stands on."
    return next(title for number, title in FLOORS.items() if re.match(number, nb))

def section_contents(name, nbs):
    "What stands in a section of the sidebar."
    if name == 'Get started':
        in_order = sorted(nbs, key=lambda nb: START.index(plain(nb)))
        return [{'text': 'Overview', 'href': nb} if nb == 'index.ipynb' else nb for nb in in_order]
    if name != 'Library floors': return nbs
    titles = dict.fromkeys(floor(nb) for nb in nbs)  # in the order of the first notebook of each
    return [{'section': title, 'contents': [nb for nb in nbs if floor(nb) == title]} for title in titles]

def sidebar(pages):
    "As Quarto reads it: sections in a fixed order, pages by file name, translations last, library pages by floor."
    order = ('Get started', *FOLDERS.values(), 'Library floors')
    others = sorted({p.section for p in pages}-set(order))
    nbs = {name: [str(p.nb) for p in pages if p.section == name] for name in (*order, *others)}
    sections = [{'section': name, 'contents': section_contents(name, found)} for name, found in nbs.items() if found]
    return {'website': {'sidebar': {'style': 'floating', 'contents': sections}}}


# ---- staging: nbdev's processors, links between notebooks, cards

OURS = re.compile(r'\b(?:ecg_nbdev|numpy|pandas|pathlib|torch)\.(?:\w+\.)*(\w+)')  # a type with its module's name

def without_annotations(parameters, left_out=('self',)):
    "The parameters of a signature without their types."
    return [p.replace(annotation=p.empty) for p in parameters if p.name not in left_out]

def source_link(symbol):
    "A link to the lines that define a function or class."
    _, line = inspect.getsourcelines(symbol)
    path = Path(inspect.getsourcefile(symbol)).relative_to(ROOT)
    return f'[source]({NBDEV["git_url"]}/blob/{NBDEV["branch"]}/{path}#L{line}){{.api-source}}'

def api_markdown(symbol, name, level):
    "One entry of an API page: link to the source, heading, signature, docstring, and a table of the parameters."
    from fastcore.docments import DocmentTbl
    symbol = inspect.unwrap(getattr(symbol, 'fget', symbol))
    try: bare = without_annotations(inspect.signature(symbol).parameters.values())
    except ValueError: bare = None
    parts, table = [source_link(symbol), f'{"#"*level} {name}'], ''
    if bare is not None: parts.append(f'```python\n{name}{call(bare)}\n```')
    if bare: table = OURS.sub(r'\1', words(named(DocmentTbl(symbol)._repr_markdown_())).replace('| NoneType |', '| |'))
    if inspect.isclass(symbol): table += methods(symbol)
    return '\n\n'.join(['::: {.api}', *parts, words(inspect.getdoc(symbol) or ''), table, ':::'])

def named(text):
    "Functions and classes by their names, not by where this process holds them."
    kinds = 'bound method|built-in function|function|class'
    return re.sub(rf"<(?:{kinds}) '?(?:[\w.]+\.)?(\w+)'?(?: at 0x\w+)?>", r'\1', text)

def call(parameters): return named(str(inspect.Signature(parameters)))

def words(text):
    "Comments such as `runs/<name>` are text, not markup; what stands between backticks is left as it is."
    parts = re.split(r'(`+[^`]*`+)', text)
    parts[::2] = [re.sub(r'<(?=[a-zA-Z/])', '&lt;', part) for part in parts[::2]]
    return ''.join(parts)

def method_row(cls, name, member, fn):
    "The line of a method or property in the table of its class, with the anchor that links to it use."
    bare = without_annotations(inspect.signature(fn).parameters.values(), ('self', 'cls'))
    given = '' if isinstance(member, property) else call(bare)
    about = words(inspect.getdoc(fn) or '').split('\n\n')[0].replace('\n', ' ')
    given, about = (text.replace('|', '\\|') for text in (given, about))
    return f'| <span id="{cls.__name__.lower()}.{name.lower()}"></span>`{name}{given}` | {about} |'

def methods(cls):
    "The public methods and properties that a class defines, as a table."
    rows = []
    bases = [base for base in cls.__mro__ if base is cls or base.__name__.startswith('_')]  # with its private ones
    for name, member in (item for base in bases for item in vars(base).items()):
        fn = inspect.unwrap(getattr(member, '__func__', getattr(member, 'fget', member)) or member)
        if inspect.isfunction(fn) and not name.startswith('_'): rows.append(method_row(cls, name, member, fn))
    return '\n\n' + '\n'.join(['| Methods | |', '| --- | --- |', *rows]) if rows else ''

def processors():
    "nbdev's own list; only, `show_doc` sees the exported module instead of running the notebook's import cells."
    from execnb.shell import CaptureShell
    from nbdev import processors as np
    from nbdev.process import Processor
    from nbdev.showdoc import BasicMarkdownRenderer, show_doc

    class Api(BasicMarkdownRenderer):
        def _repr_markdown_(self): return api_markdown(self.sym, self.nm, self.title_level)

    class ShowDocs(Processor):
        "Run the `show_doc` cells in the namespace of the module that the notebook exports."
        def begin(self):
            told = (c.directives_ for c in self.nb.cells if c.cell_type == 'code')
            names = [directives['default_exp'] for directives in told if 'default_exp' in directives]
            if not names: return
            self.shell = CaptureShell()
            self.shell.user_ns.update(vars(importlib.import_module(f'ecg_nbdev.{names[0]}')))
            self.shell.user_ns['show_doc'] = partial(show_doc, renderer=Api)
        def cell(self, cell):
            if not hasattr(self, 'shell') or not np._is_showdoc(cell): return
            self.shell.cell(cell)
            if self.shell.exc: raise RuntimeError(f'{self.nb.path_}: {cell.source}: {self.shell.exc}')

    class InOrder(np.add_show_docs):
        "Entries in the order of the source: nbdev puts those of one cell the other way round."
        def begin(self):
            super().begin()
            runs = groupby(self.nb.cells, key=lambda c: bool(getattr(c, 'has_sd', False)))
            self.nb.cells[:] = [c for shown, run in runs for c in (reversed(list(run)) if shown else run)]
            for i, cell in enumerate(self.nb.cells): cell.idx_ = i

    class Filter(np.FilterDefaults):
        def base_procs(self):
            ours = {np.exec_show_docs: ShowDocs, np.add_show_docs: InOrder}
            return [ours.get(p, p) for p in super().base_procs()]
    return Filter()

def relink(text, page, where):
    "Links to notebooks, such as `../20_windows.ipynb#plan_windows`, become links to the staged pages."
    def one(m):
        target = posixpath.normpath(posixpath.join(page.nb.parent, m[1]))
        return f']({posixpath.relpath(where[target], page.stage.parent)}{m[2] or ""})' if target in where else m[0]
    return re.sub(r'\]\(([^)\s#:]+\.ipynb)(#[^)\s]*)?\)', one, text)

def inline_svg(text, page):
    "Drawings stand in the page itself, so that they follow its light and dark colours."
    def one(m):
        svg = (NBS/page.nb.parent/m[2]).read_text(encoding='utf-8').strip()
        svg = svg.replace('<svg ', f'<svg aria-label="{html.escape(m[1])}" ', 1)
        return f'```{{=html}}\n<div class="drawing">{svg}</div>\n```'
    return re.sub(r'^!\[([^]]*)\]\(([^)\s:]+\.svg)\)$', one, text, flags=re.M)

def shows_figure(cell): return any(m.startswith('image/') for o in cell.get('outputs', []) for m in o.get('data', {}))

def name_figures(nb):
    "Every figure gets a text for people who can't see it: the cell's own `fig-alt`, or the heading it stands under."
    heading = title_of(nb)[0]
    for cell in nb.cells:
        if cell.cell_type == 'markdown': heading = ([heading]+re.findall(r'^#+ (.+)$', cell.source, re.M))[-1]
        elif shows_figure(cell) and 'fig-alt' not in cell.source:
            cell.source = f'#| fig-alt: {json.dumps(f"Figure: {heading}", ensure_ascii=False)}\n{cell.source}'

def title_of(nb):
    "Title and one-line summary of a staged notebook."
    front = yaml.safe_load(nb.cells[0].source.strip().strip('-')) if nb.cells and nb.cells[0].cell_type == 'raw' else {}
    return front.get('title', ''), front.get('description', '')

def figures_of(nb):
    "Every figure among the stored outputs: its text for people who can't see it, its bytes, and their suffix."
    for cell in nb.cells:
        named = re.search(r'^#\| fig-alt: (.*)$', cell.source, re.M)
        for data in (o.get('data', {}) for o in cell.get('outputs', [])):
            for mime, suffix in (('image/png', '.webp'), ('image/svg+xml', '.svg')):
                if mime not in data: continue
                raw = ''.join(data[mime])
                picture = thumbnail(base64.b64decode(raw)) if suffix == '.webp' else raw.encode()
                yield (yaml.safe_load(named[1]) if named else 'Figure'), picture, suffix
                break

def thumbnail(png, width=640):
    from PIL import Image
    picture = Image.open(io.BytesIO(png)).convert('RGBA')
    picture = Image.alpha_composite(Image.new('RGBA', picture.size, 'white'), picture).convert('RGB')
    height = round(picture.height*width/picture.width)
    if picture.width > width: picture = picture.resize((width, height), Image.LANCZOS)
    picture.save(buffer := io.BytesIO(), 'webp', quality=82, method=6)
    return buffer.getvalue()

CARD = ('<a class="nb-card" href="{href}">{shown}'
        '<span class="nb-card-title">{title}</span><span class="nb-card-text">{text}</span></a>')
SHOWN = '<span class="nb-card-figure"><img src="figures/{name}" alt="" loading="lazy"></span>'

def written_figure(page, number, picture, suffix):
    "The name of a figure in the site's figures, where it is written to."
    path = FIGURES/f'{str(page.stage.with_suffix("")).replace("/", "-")}{f"-{number}" if number else ""}{suffix}'
    path.write_bytes(picture)
    return path.name

def card(page, nb):
    "A link to a page: its first figure, where it has one, its title and its summary."
    title, text = (html.escape(t.replace('`', '')) for t in title_of(nb))
    first = next(figures_of(nb), None)
    shown = SHOWN.format(name=written_figure(page, 0, *first[1:])) if first else ''
    return CARD.format(href=page.stage.with_suffix('.html'), shown=shown, title=title, text=text)

def pictures(page, nb, most=4):
    "Cards of the figures of a page, the first ones."
    title = html.escape(title_of(nb)[0].replace('`', ''))
    for number, (named, *figure) in enumerate(islice(figures_of(nb), most)):
        about = html.escape(re.sub(r'^Figure: ', '', named).replace('`', ''))
        shown = SHOWN.format(name=written_figure(page, number, *figure))
        href, text = page.stage.with_suffix('.html'), '' if about == title else title
        yield CARD.format(href=href, shown=shown, title=about, text=text)

def of_folder(folder, staged):
    return [(page, nb) for page, nb in staged.items() if page.nb.parts[:-1] == (folder,)]

def gallery(folder, staged):
    "Cards for every page of a folder, those with a picture first and translations last."
    cards = [(translated(page.nb), card(page, nb)) for page, nb in of_folder(folder, staged)]
    cards = [c for _, c in sorted(cards, key=lambda c: (c[0], 'nb-card-figure' not in c[1]))]
    return in_html(f'### {FOLDERS[folder]}', cards) if cards else ''

def picture_gallery(folder, staged):
    "Cards for the figures of every page of a folder."
    cards = [c for page, nb in of_folder(folder, staged) if not translated(page.nb) for c in pictures(page, nb)]
    return in_html(f'## {FOLDERS[folder]}', cards) if cards else ''

def in_html(title, cards):
    cards = '\n'.join(cards)
    return f'{title}\n\n```{{=html}}\n<div class="nb-cards">\n{cards}\n</div>\n```'

def stage_other_files():
    "Copy what is no notebook."
    for path in sources(NBS):
        to = STAGE/path.relative_to(NBS)
        if path.suffix == '.ipynb': continue
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)

def stage_configuration(where):
    "The configuration, its links pointing to the staged pages."
    for name in ('_quarto.yml', 'sidebar.yml'):
        text = (STAGE/name).read_text(encoding='utf-8')
        for nb, to in where.items(): text = re.sub(rf'(?<![\w/]){re.escape(nb)}', to, text)
        (STAGE/name).write_text(text, encoding='utf-8')

def processed(page, run, where):
    "A notebook as nbdev makes it for the site, its links and drawings mended."
    from fastcore.nbio import mk_cell, read_nb
    nb = read_nb(NBS/page.nb)
    run(nb)
    for cell in nb.cells:
        if cell.cell_type == 'markdown': cell.source = inline_svg(relink(cell.source, page, where), page)
    name_figures(nb)
    if links := launch_links(page): nb.cells.insert(1, mk_cell(links, 'markdown'))
    return nb

LAUNCH = {'Colab': 'https://colab.research.google.com/github/{repo}/blob/{branch}/nbs/{nb}',
          'Binder': 'https://mybinder.org/v2/gh/{repo}/{branch}?labpath=nbs/{nb}'}

def launch_links(page):
    "Links that open a notebook in Colab and on Binder, as Markdown; none where it reads files of the repository."
    source = (NBS/page.nb).read_text(encoding='utf-8')
    if page.nb.parts[0] not in ('tutorials', 'explore') or '../bench' in source: return ''
    repo = NBDEV['git_url'].removeprefix('https://github.com/')
    links = (f'[{name}]({url.format(repo=repo, branch=NBDEV["branch"], nb=page.nb)})' for name, url in LAUNCH.items())
    return 'Open this page as a notebook: '+' · '.join(links)

def finish_cell(cell, staged):
    "Take away what is no part of the format, nbdev's mark and execnb's timing; put in the cards."
    cell.pop('has_sd', None)
    cell.get('metadata', {}).pop('execution', None)
    makers = {'gallery': gallery, 'pictures': picture_gallery}
    def cards(m): return makers[m[1]](m[2], staged) or m[0]
    if cell.cell_type == 'markdown': cell.source = re.sub(r'<!-- (gallery|pictures): (\w+) -->', cards, cell.source)

def stage(pages):
    "Write the processed notebooks and the configuration to _proc/, as smalldocs reads them."
    from fastcore.nbio import write_nb
    from nbdev.quarto import refresh_quarto_yml
    refresh_quarto_yml()
    bar = yaml.safe_dump(sidebar(pages), sort_keys=False, allow_unicode=True)
    (NBS/'sidebar.yml').write_text(bar, encoding='utf-8')
    shutil.rmtree(STAGE, ignore_errors=True)
    stage_other_files()
    FIGURES.mkdir()
    where, run = {str(p.nb): str(p.stage) for p in pages}, processors()
    stage_configuration(where)
    staged = {page: processed(page, run, where) for page in pages}
    for page, nb in staged.items():
        for cell in nb.cells: finish_cell(cell, staged)
        (STAGE/page.stage).parent.mkdir(parents=True, exist_ok=True)
        write_nb(nb, STAGE/page.stage)


# ---- rendering, and mending what smalldocs leaves to the network

EXPECTED = ('keep-md', 'commonmark', 'format-links', 'output-file')  # settings of Quarto that smalldocs does not know
BESIDE = 'try/index.html', 'samples/recording.html', 'samples/evaluation.html'  # pages that no notebook makes
EXPECTED += tuple(f'broken link {slash}{page}' for slash in ('', '/') for page in BESIDE)

def render():
    "The folder of the rendered site, and the warnings that matter."
    from smalldocs.site import build
    site = build(STAGE, quiet=True)
    return site.out, [w for w in site.warnings if not any(setting in w for setting in EXPECTED)]

ACCESS = {  # what smalldocs writes, and what keyboards and screen readers need
    '<nav class="navbar ': '<nav aria-label="Site" class="navbar ',
    '<nav class="quarto-secondary-nav"': '<nav aria-label="Place" class="quarto-secondary-nav"',
    '<nav id="quarto-sidebar"': '<nav aria-label="Pages" id="quarto-sidebar"',
    '<div id="quarto-margin-sidebar"':
        '<div role="complementary" aria-label="Beside the text" id="quarto-margin-sidebar"',
    ' role="navigation" aria-expanded': ' role="button" tabindex="0" aria-expanded',
    'role="img"></i>': 'aria-hidden="true"></i>',
    '<th></th>': '<td></td>',
}

EMPTY, HEAD, TITLE = r'(?:\s*<th></th>)+', r'(?:\s*<th>[^<]+</th>)+', r'(?:\s*<th>[^<]*</th>)+?'
HEADER = re.compile(rf'<tr[^>]*>({EMPTY})({HEAD})\s*</tr>\s*<tr>({TITLE})({EMPTY})\s*</tr>')

def joined_header(match):
    "Two rows of a header as one, where the names of the second fit into the empty cells of the first."
    first, second = ([match[i].count('<th>') for i in pair] for pair in ((1, 2), (3, 4)))
    return f'<tr>{match[3]}{match[2]}</tr>' if first == second else match[0]

def one_header(text):
    "pandas writes the name of an index in a second row of its own; it fits into the empty corner of the first."
    return HEADER.sub(joined_header, text)

ROW, CELL = re.compile(r'<tr[^>]*>(.*?)</tr>', re.S), re.compile(r'<(t[hd])((?: [^>]*)?)>(.*?)</\1>', re.S)
ONE_NUMBER = r'[-+−±<>≥≤~]?\s*\d[\d,.]*\s*(?:%|e[-+]?\d+)?'
NUMBER = re.compile(rf'\s*(?:{ONE_NUMBER}(?:\s*\(.*\)|\s*(?:to|–|±|of)\s*{ONE_NUMBER})?|NaN|[–—-]?)\s*$')

def words_left(match):
    "A table of pandas whose columns of words are set left; numbers stay right, one below the other."
    rows = [[cell[3] for cell in CELL.finditer(row)] for row in ROW.findall(match[0])]
    if len(rows) < 2 or len({len(row) for row in rows}) > 1: return match[0]
    wordy = [not all(NUMBER.match(cell) for cell in column[1:]) for column in zip(*rows)]
    def one(row):
        place = iter(wordy)
        return CELL.sub(lambda c: f'<{c[1]}{c[2]}{" class=text" if next(place) else ""}>{c[3]}</{c[1]}>', row[0])
    return ROW.sub(one, match[0])

def mend_page(text, offset):
    "Maths from the site itself, links to the published site made relative, and names for what has none."
    text = re.sub(r'https://cdn\.jsdelivr\.net/npm/katex@[\d.]+/dist(?:/contrib)?/', f'{offset}site_libs/katex/', text)
    text = re.sub(rf'(href=")({re.escape(HOST)}/?)', lambda m: m[1]+(offset or './'), text)
    # smalldocs gives section and heading the same id
    text = re.sub(r'(<section id="([^"]+)"[^>]*>\s*<h\d) id="\2"', r'\1', text)
    text = re.sub(r'<script src="[^"]*fuse\.min\.js"></script>\s*', '', text)  # `site.js` searches
    text = re.sub(r'<table[^>]*class="dataframe"[^>]*>.*?</table>', words_left, one_header(text), flags=re.S)
    for old, new in ACCESS.items(): text = text.replace(old, new)
    return text

FETCH = 'const r = await fetch(offset + "search.json");\n      index = await r.json();'
# `fetch` is refused where the site is opened from file://
LOAD = ('await new Promise((ok, no) => { const s = document.createElement("script"); s.src = offset + "search.js"; '
        's.onload = ok; s.onerror = no; document.head.append(s); });\n      index = window.searchIndex;')

SEARCH = (re.compile(r'    if \(window\.Fuse\) \{.*?\n    \}\n(?=  \};)', re.S),
          re.compile(r'fuse \? fuse\.search.*?(?=\.slice\(0, limit\);)', re.S))

def rewrite(path, change):
    "Replace a file by what a function makes of its text."
    path.write_text(change(path.read_text(encoding='utf-8')), encoding='utf-8')

def local_fonts(css):
    "A style sheet that asks no other site for fonts, and names none that are not here."
    css = re.sub(r'@import url\(https:[^)]*\);?', '', css)
    return re.sub(r',url\(fonts/[^)]*\.(?:woff|ttf)\) format\("\w+"\)', '', css)

def local_search(script):
    """smalldocs' script with a search index that a page loads as a script, and with what `site.js` adds.

    Its own search takes letters that are alike for a hit: 'DICOM' found fibrillation. `findInSite` looks for words."""
    found = [len(pattern.findall(script)) for pattern in SEARCH]
    if FETCH not in script or found != [1, 1]:
        raise SystemExit('site/build.py: smalldocs.js searches in another way than version 0.5.4 does: '
                         'change FETCH and SEARCH')
    script = SEARCH[1].sub('window.findInSite(index, q)', SEARCH[0].sub('', script.replace(FETCH, LOAD)))
    return script+(Path(__file__).parent/'site.js').read_text(encoding='utf-8')

def undated(sitemap): return re.sub(r'\s*<lastmod>.*?</lastmod>', '', sitemap)

NAMED = re.compile(r'<a href="([^"#:]+\.html)#([^"]+)"[^>]*>(<code>.*?</code>)</a>', re.S)

def drop_dead_anchors(out):
    "A name that a page explains without an entry of its own (what users do not call) is code, not a link."
    ids = {page.resolve(): set(re.findall(r'\bid="([^"]+)"', page.read_text(encoding='utf-8'))) for page in out.rglob('*.html')}
    for page in out.rglob('*.html'):
        def one(m):
            target = ids.get((page.parent/m[1]).resolve())
            return m[0] if target is None or m[2] in target else m[3]
        rewrite(page, partial(NAMED.sub, one))

def mend(out):
    "Everything a page needs comes from the site: maths, fonts, and a search that also works from file://."
    for page in out.rglob('*.html'):
        offset = '../'*len(page.relative_to(out).parent.parts)
        rewrite(page, partial(mend_page, offset=offset))
    drop_dead_anchors(out)
    shutil.copytree(VENDOR/'katex', out/'site_libs/katex', dirs_exist_ok=True)
    shutil.copytree(FIGURES, out/'figures', dirs_exist_ok=True)
    for css in (*out.glob('site_libs/themes/*.css'), out/'site_libs/katex/katex.min.css'): rewrite(css, local_fonts)
    rewrite(out/'site_libs/smalldocs.js', local_search)
    shutil.rmtree(out/'site_libs/fuse')
    index = (out/'search.json').read_text(encoding='utf-8')
    (out/'search.js').write_text(f'window.searchIndex = {index};\n', encoding='utf-8')
    (out/'search.json').unlink()
    rewrite(out/'sitemap.xml', undated)
    (out/'.nojekyll').touch()


# ---- Markdown: README.md for the code host, and a copy of every page for readers without a browser

ECHO_FALSE = re.compile(r'^#\|\s*echo:\s*false', re.M)
TABLE = re.compile(r'<div>\s*<style scoped>.*?</style>\s*(<table.*?</table>)(?:\s*<p>[^<]*</p>)?\s*</div>', re.S)
MARKUP = re.compile(r'<!--.*?-->|^:{3,}[^\n]*$|\{\.api-source\}|^[ ]+$', re.S | re.M)

def exported(path, figures):
    "A staged notebook as nbconvert writes it, and its figures: title, summary, text, name → bytes."
    import nbformat
    from nbconvert import MarkdownExporter
    nb = nbformat.read(path, as_version=4)
    nb.metadata['language_info'] = {'name': 'python'}
    title, about = title_of(nb)
    nb.cells = [c for c in nb.cells if c.cell_type != 'raw']
    for cell in nb.cells:
        if ECHO_FALSE.search(cell.source): cell.metadata['tags'] = ['no-input']
        cell.source = '\n'.join(line for line in cell.source.splitlines() if not line.startswith('#|'))
    no_input = {'TagRemovePreprocessor': {'enabled': True, 'remove_input_tags': ['no-input']}}
    resources = {'output_files_dir': figures or 'none', 'unique_key': 'readme'}
    body, resources = MarkdownExporter(config=no_input).from_notebook_node(nb, resources)
    return title, about, body, resources['outputs']

def markdown(path, figures=None):
    "A staged notebook as Markdown, and its figures as files; without them where `figures` names no folder."
    title, about, body, pictures = exported(path, figures)
    body = re.sub(r'```\{=html\}(.*?)```', cards_as_list, body, flags=re.S)
    body = TABLE.sub(pipe_table, body)
    body = re.sub(r'^!\[(?:png|svg)\]', f'![{title}]' if figures else '![figure]', body, flags=re.M)
    body = MARKUP.sub('', body)
    if not figures: body = re.sub(r'!\[figure\]\([^)]*\)', '(figure)', body)
    body = re.sub(r'\n{3,}', '\n\n', body).strip()
    return f'# {title}\n\n{about}\n\n{body}\n', pictures if figures else {}

def table_cells(table):
    "The cells of a table as lines of text, row by row; the numbers of rows, which say nothing, are left out."
    rows = re.findall(r'<tr[^>]*>(.*?)</tr>', one_header(table), re.S)
    cells = [re.findall(r'<t[hd][^>]*>(.*?)</t[hd]>', row, re.S) for row in rows]
    if [row[0] for row in cells] == ['', *map(str, range(len(cells)-1))]: cells = [row[1:] for row in cells]
    return [[' '.join(html.unescape(cell).split()).replace('|', '\\|') for cell in row] for row in cells]

def pipe_table(block):
    "A pandas table as Markdown; one that has cells over several columns or rows stays as it is."
    if re.search(r'(?:col|row)span=', block[1]): return block[1]
    cells = table_cells(block[1])
    head, *body = [f'| {" | ".join(row)} |' for row in cells]
    return '\n'.join([head, '|'+' --- |'*len(cells[0]), *body])

def cards_as_list(block):
    "The cards of a gallery as a list of links."
    card = r'<a class="nb-card" href="(.*?)\.html">.*?-title">(.*?)</span><span class="nb-card-text">(.*?)</span></a>'
    found = re.findall(card, block[1], re.S)
    return '\n'.join(f'- [{html.unescape(title)}]({nb}.ipynb): {html.unescape(about)}' for nb, title, about in found)

def readme(pages):
    "README.md from the front page: its figures in docs/figures, its links to the notebooks."
    text, pictures = markdown(STAGE/'index.ipynb', 'docs/figures')
    for name, data in pictures.items(): (ROOT/name).write_bytes(data)
    for page in pages: text = re.sub(rf'\]\({re.escape(str(page.stage))}(#[^)]*)?\)', f'](nbs/{page.nb})', text)
    for page in BESIDE: text = text.replace(f']({page})', f']({HOST}/{page})')
    note = '<!-- Made from nbs/index.ipynb by `make docs`: change the notebook, not this file. -->'
    (ROOT/'README.md').write_text(f'{note}\n\n{text}', encoding='utf-8')

def plain_copies(pages, out):
    "`core.html.md` beside `core.html`, where the docstring of every module points to, and a list of them all."
    lines = []
    for page in pages:
        text, _ = markdown(STAGE/page.stage)
        copy = page.stage.with_suffix('.html.md')
        (out/copy).write_text(re.sub(r'(\]\((?!\w+:)[^)\s]*)\.ipynb(?=[#)])', r'\1.html.md', text), encoding='utf-8')
        lines.append(f'- [{text[2:].splitlines()[0]}]({copy})')
    (out/'llms.txt').write_text('\n'.join([f'# {NBDEV["title"]}', '', *lines, '']), encoding='utf-8')


# ---- the page that answers a recording, which `ecg-try` serves too

def digest(path): return hashlib.sha256(path.read_bytes()).hexdigest()[:16]

def made_from(): return {name: digest(SHIPPED/name) for name in ('config.json', 'model.safetensors')}

def page_facts(predictor):
    "What the page has to know beside the network, and which model it is."
    from ecg_nbdev.export import page_facts as facts
    return {'made_from': made_from(), **facts(predictor)}

def write_page_facts():
    from ecg_nbdev.bundle import load_pretrained
    facts = json.dumps(page_facts(load_pretrained(light=True)), indent=1, ensure_ascii=False)
    (TRY/'model.json').write_text(facts+'\n', encoding='utf-8')

def try_page(out):
    "The page, its model and its sample in a folder of the site."
    shutil.rmtree(out/'try', ignore_errors=True)
    shutil.copytree(TRY, out/'try')
    shutil.copytree(SAMPLES, out/'try/samples')
    shutil.copy(SHIPPED/'model.onnx', out/'try')


# ---- reports to look at

def sample_reports(out):
    "What `ecg-report` writes of the shipped sample, and `ecg-evaluate` of 300 simulated recordings."
    from ecg_nbdev.all import evaluate_run, read_record, synth_run
    folder = out/'samples'
    folder.mkdir()
    read_record(SAMPLES/'A5215.hea').report().save(folder/'recording.html')
    with TemporaryDirectory() as work:
        synth_run(Path(work)/'simulated', n=300, seed=1)
        evaluate_run(Path(work)/'simulated', out=Path(work)/'scores', show=False)
        shutil.copy(Path(work)/'scores/report.html', folder/'evaluation.html')


# ---- is docs/ what the notebooks give?

def inputs():
    page = [p for folder in (TRY, SAMPLES) for p in sorted(folder.rglob('*')) if p.is_file()]+[SHIPPED/'model.onnx']
    files = [*sources(NBS), *sources(ROOT/'site'), *page]
    return {str(p.relative_to(ROOT)): digest(p) for p in files} | {tool: version(tool) for tool in TOOLS}

def outputs():
    files = [p for p in sorted(DOCS.rglob('*')) if p.is_file() and p != MANIFEST]
    return {str(p.relative_to(ROOT)): digest(p) for p in [*files, ROOT/'README.md'] if p.exists()}

def what_happened(name, before, now):
    "A difference between two lists of files, in words."
    if name not in before: return 'is new'
    return 'changed' if name in now else 'is gone'

def check():
    "What differs between docs/ and what it was built from, one line each."
    if not MANIFEST.exists(): return ['docs/manifest.json is missing']
    built = json.loads(MANIFEST.read_text(encoding='utf-8'))
    lines = []
    for kind, now in (('inputs', inputs()), ('outputs', outputs())):
        for name in sorted(built[kind].keys() | now.keys()):
            if built[kind].get(name) != now.get(name):
                lines.append(f'{name} {what_happened(name, built[kind], now)} since docs/ was built')
    return lines


def build():
    "Build docs/ and README.md."
    write_page_facts()
    found, before = pages(), inputs()
    stage(found)
    out, warnings = render()
    mend(out)
    try_page(out)
    sample_reports(out)
    plain_copies(found, out)
    shutil.rmtree(DOCS, ignore_errors=True)
    shutil.move(out, DOCS)
    readme(found)
    written = {f'nbs/{name}': digest(NBS/name) for name in ('sidebar.yml', 'nbdev.yml')}
    manifest = {'inputs': {**before, **written}, 'outputs': outputs()}
    MANIFEST.write_text(json.dumps(manifest, indent=1)+'\n', encoding='utf-8')
    for line in warnings: print(f'warning: {line}', file=sys.stderr)
    size = sum(p.stat().st_size for p in DOCS.rglob('*') if p.is_file())
    print(f'{len(found)} pages, {size/1e6:.1f} MB: open docs/index.html')

def main():
    parser = argparse.ArgumentParser(description='Build docs/ and README.md from the notebooks.')
    parser.add_argument('--check', action='store_true', help='only say whether docs/ is current; exit status 1 if not')
    parser.add_argument('--try', action='store_true', dest='only_try', help='write docs/try/ alone')
    os.chdir(ROOT)
    args = parser.parse_args()
    if args.only_try: return write_page_facts() or try_page(DOCS)
    if not args.check: return build()
    stale = check()
    if stale: sys.exit('\n'.join([*stale, 'run `make docs`']))
    print('docs/ is current')

if __name__ == '__main__': main()
