#!/usr/bin/env python
"""Build `docs/` and `README.md` from the notebooks alone.

    python site/build.py            nbdev's processing of every notebook, then smalldocs, then what makes the site work offline
    python site/build.py --check    say whether docs/ is what the notebooks give (hashes only: under a second)

Nothing is executed but the `show_doc` calls behind the API pages: figures and tables are the outputs stored in the notebooks.
The pages, their places in the sidebar and the cards of the front page follow from the notebooks' paths, so a new notebook shows up by itself.
"""
import argparse, base64, hashlib, html, importlib, inspect, io, json, os, posixpath, re, shutil, sys, tomllib
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import groupby
from pathlib import Path, PurePosixPath

import yaml

ROOT = Path(__file__).resolve().parents[1]
NBS, STAGE, DOCS, VENDOR = ROOT/'nbs', ROOT/'_proc', ROOT/'docs', Path(__file__).resolve().parent/'vendor'
MANIFEST, FIGURES = DOCS/'manifest.json', STAGE/'figures'
NBDEV = (toml := tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8')))['tool']['nbdev'] | {'git_url': toml['project']['urls']['Repository']}
SUFFIXES = {'.ipynb', '.py', '.yml', '.css', '.js', '.svg', '.woff2', '.txt'}
TOOLS = ('nbdev', 'fastcore', 'execnb', 'smalldocs', 'nbconvert')
START = ('index.ipynb', 'tutorials/quickstart.ipynb', 'tutorials/your_own_data.ipynb')
FOLDERS = {'explore': 'Explore', 'tutorials': 'Tutorials', 'results': 'Results'}
FLOORS = dict(zip('0123456789', ('Foundations', 'Recordings', 'Windows and signals', 'Loading', 'Models', 'Training and metrics',
                                 'Decisions and scores', 'Reports', 'Saving and scaling', 'Commands')))


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

def plain(nb): return str(PurePosixPath(nb).with_name(re.sub(r'^\d+[a-z]?_', '', PurePosixPath(nb).name)))

def sources(top):
    "The files of a folder that the site is made from: not what a notebook leaves behind when it runs."
    return [p for p in sorted(top.rglob('*')) if p.suffix in SUFFIXES and not any(part.startswith('.') for part in p.relative_to(top).parts)]

def pages():
    found = (p.relative_to(NBS) for p in sources(NBS) if p.suffix == '.ipynb')
    return [Page(PurePosixPath(p.as_posix()), PurePosixPath(plain(p.as_posix()))) for p in found]

def sidebar(pages):
    "The sidebar as Quarto reads it: sections in a fixed order, pages by file name within each, library pages by floor."
    order = ('Get started', *FOLDERS.values(), 'Library floors', 'Guide')
    names = sorted({p.section for p in pages}, key=lambda s: (order.index(s) if s in order else len(order), s))
    def contents(name):
        nbs = [str(p.nb) for p in pages if p.section == name]
        if name == 'Get started': return [{'text': 'Overview', 'href': nb} if nb == 'index.ipynb' else nb for nb in sorted(nbs, key=lambda nb: START.index(plain(nb)))]
        if name != 'Library floors': return nbs
        return [{'section': title, 'contents': floor} for digit, title in FLOORS.items() if (floor := [nb for nb in nbs if nb[0] == digit])]
    return {'website': {'sidebar': {'style': 'floating', 'contents': [{'section': n, 'contents': contents(n)} for n in names]}}}


# ---- staging: nbdev's processors, links between notebooks, cards

def api_markdown(symbol, name, level):
    "One entry of an API page: link to the source, heading, signature, docstring, and a table of the parameters' docments."
    from fastcore.docments import DocmentTbl
    symbol = inspect.unwrap(getattr(symbol, 'fget', symbol))
    _, line = inspect.getsourcelines(symbol)
    path = Path(inspect.getsourcefile(symbol)).relative_to(ROOT)
    parts = [f'[source]({NBDEV["git_url"]}/blob/{NBDEV["branch"]}/{path}#L{line}){{.api-source}}', f'{"#"*level} {name}']
    try: bare = [p.replace(annotation=p.empty) for p in inspect.signature(symbol).parameters.values() if p.name != 'self']
    except ValueError: bare = None
    if bare is not None: parts.append(f'```python\n{name}{call(bare)}\n```')
    parts.append(words(inspect.getdoc(symbol) or ''))
    table = words(named(DocmentTbl(symbol)._repr_markdown_())) if bare else ''
    table = re.sub(r'\b(?:ecg_nbdev|numpy|pandas|pathlib|torch)\.(?:\w+\.)*(\w+)', r'\1', table.replace('| NoneType |', '| |'))
    if inspect.isclass(symbol): table += methods(symbol)
    return '\n\n'.join(['::: {.api}', *parts, table, ':::'])

def named(text):
    "Functions and classes by their names, not by where this process holds them."
    return re.sub(r"<(?:bound method|built-in function|function|class) '?(?:[\w.]+\.)?(\w+)'?(?: at 0x\w+)?>", r'\1', text)

def call(parameters): return named(str(inspect.Signature(parameters)))

def words(text):
    "Comments such as `runs/<name>` are text, not markup; what stands between backticks is left as it is."
    return ''.join(part if i % 2 else re.sub(r'<(?=[a-zA-Z/])', '&lt;', part) for i, part in enumerate(re.split(r'(`+[^`]*`+)', text)))

def methods(cls):
    "The public methods and properties that a class defines, with the anchors that links to them use."
    rows = []
    for name, member in vars(cls).items():
        fn = inspect.unwrap(getattr(member, '__func__', getattr(member, 'fget', member)) or member)
        if name.startswith('_') or not inspect.isfunction(fn): continue
        bare = [p.replace(annotation=p.empty) for p in inspect.signature(fn).parameters.values() if p.name not in ('self', 'cls')]
        given = '' if isinstance(member, property) else call(bare).replace('|', '\\|')
        about = words(inspect.getdoc(fn) or '').split('\n\n')[0].replace('\n', ' ').replace('|', '\\|')
        rows.append(f'| <span id="{cls.__name__.lower()}.{name.lower()}"></span>`{name}{given}` | {about} |')
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
            names = [c.directives_['default_exp'] for c in self.nb.cells if c.cell_type == 'code' and 'default_exp' in c.directives_]
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
        svg = (NBS/page.nb.parent/m[2]).read_text(encoding='utf-8').strip().replace('<svg ', f'<svg aria-label="{html.escape(m[1])}" ', 1)
        return f'```{{=html}}\n<div class="drawing">{svg}</div>\n```'
    return re.sub(r'^!\[([^]]*)\]\(([^)\s:]+\.svg)\)$', one, text, flags=re.M)

def name_figures(nb):
    "Every figure gets a text for people who can't see it: the cell's own `fig-alt`, or the heading it stands under."
    heading = title_of(nb)[0]
    for cell in nb.cells:
        if cell.cell_type == 'markdown': heading = ([heading]+re.findall(r'^#+ (.+)$', cell.source, re.M))[-1]
        elif any(m.startswith('image/') for o in cell.get('outputs', []) for m in o.get('data', {})) and 'fig-alt' not in cell.source:
            cell.source = f'#| fig-alt: {json.dumps(f"Figure: {heading}", ensure_ascii=False)}\n{cell.source}'

def title_of(nb):
    "Title and one-line summary of a staged notebook."
    front = yaml.safe_load(nb.cells[0].source.strip().strip('-')) if nb.cells and nb.cells[0].cell_type == 'raw' else {}
    return front.get('title', ''), front.get('description', '')

def first_picture(nb):
    "The bytes and suffix of the first figure among the stored outputs, or None."
    for out in (o for c in nb.cells if c.cell_type == 'code' for o in c.get('outputs', [])):
        for mime, suffix in (('image/png', '.webp'), ('image/svg+xml', '.svg')):
            if mime not in out.get('data', {}): continue
            data = ''.join(out['data'][mime])
            return (thumbnail(base64.b64decode(data)) if suffix == '.webp' else data.encode()), suffix

def thumbnail(png, width=640):
    from PIL import Image
    picture = Image.open(io.BytesIO(png)).convert('RGBA')
    picture = Image.alpha_composite(Image.new('RGBA', picture.size, 'white'), picture).convert('RGB')
    if picture.width > width: picture = picture.resize((width, round(picture.height*width/picture.width)), Image.LANCZOS)
    picture.save(buffer := io.BytesIO(), 'webp', quality=82, method=6)
    return buffer.getvalue()

def gallery(folder, staged):
    "Cards for every page of a folder: its first figure, its title and its summary."
    cards = []
    for page, nb in staged.items():
        if len(page.nb.parts) < 2 or page.nb.parts[0] != folder: continue
        title, text = (html.escape(t) for t in title_of(nb))
        shown, name = '<span class="card-trace" aria-hidden="true"></span>', str(page.stage.with_suffix('')).replace('/', '-')
        if picture := first_picture(nb):
            path = FIGURES/f'{name}{picture[1]}'
            path.write_bytes(picture[0])
            shown = f'<img src="figures/{path.name}" alt="" loading="lazy">'
        cards.append(f'<a class="nb-card" href="{page.stage.with_suffix(".html")}"><span class="nb-card-figure">{shown}</span>'
                     f'<span class="nb-card-title">{title}</span><span class="nb-card-text">{text}</span></a>')
    return f'### {FOLDERS[folder]}\n\n```{{=html}}\n<div class="nb-cards">\n{chr(10).join(cards)}\n</div>\n```' if cards else ''

def stage(pages):
    "Write the processed notebooks and the configuration to _proc/, as smalldocs reads them."
    from fastcore.nbio import read_nb, write_nb
    from nbdev.quarto import refresh_quarto_yml
    refresh_quarto_yml()
    (NBS/'sidebar.yml').write_text(yaml.safe_dump(sidebar(pages), sort_keys=False, allow_unicode=True), encoding='utf-8')
    shutil.rmtree(STAGE, ignore_errors=True)
    for path in sources(NBS):
        if path.suffix != '.ipynb':
            (STAGE/path.relative_to(NBS)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, STAGE/path.relative_to(NBS))
    FIGURES.mkdir()
    where = {str(p.nb): str(p.stage) for p in pages}
    for name in ('_quarto.yml', 'sidebar.yml'):
        text = (STAGE/name).read_text(encoding='utf-8')
        for nb, to in where.items(): text = re.sub(rf'(?<![\w/]){re.escape(nb)}', to, text)
        (STAGE/name).write_text(text, encoding='utf-8')
    run, staged = processors(), {}
    for page in pages:
        nb = read_nb(NBS/page.nb)
        run(nb)
        for cell in nb.cells:
            if cell.cell_type == 'markdown': cell.source = inline_svg(relink(cell.source, page, where), page)
        name_figures(nb)
        staged[page] = nb
    for page, nb in staged.items():
        for cell in nb.cells:
            cell.pop('has_sd', None) # nbdev's mark and execnb's timing are no part of the format
            cell.get('metadata', {}).pop('execution', None)
            if cell.cell_type == 'markdown':
                cell.source = re.sub(r'<!-- gallery: (\w+) -->', lambda m: gallery(m[1], staged) or m[0], cell.source)
        (STAGE/page.stage).parent.mkdir(parents=True, exist_ok=True)
        write_nb(nb, STAGE/page.stage)


# ---- rendering, and mending what smalldocs leaves to the network

def render():
    from smalldocs.site import build
    site = build(STAGE, quiet=True)
    return site.out, [w for w in site.warnings if not any(key in w for key in ('keep-md', 'commonmark', 'format-links', 'output-file'))]

ACCESS = {  # what smalldocs writes, and what keyboards and screen readers need
    '<nav class="navbar ': '<nav aria-label="Site" class="navbar ',
    '<nav class="quarto-secondary-nav"': '<nav aria-label="Place" class="quarto-secondary-nav"',
    '<nav id="quarto-sidebar"': '<nav aria-label="Pages" id="quarto-sidebar"',
    '<div id="quarto-margin-sidebar"': '<div role="complementary" aria-label="Beside the text" id="quarto-margin-sidebar"',
    ' role="navigation" aria-expanded': ' role="button" tabindex="0" aria-expanded',
    'role="img"></i>': 'aria-hidden="true"></i>',
    '<th></th>': '<td></td>',
}

HEADER = re.compile(r'<tr[^>]*>((?:\s*<th></th>)+)((?:\s*<th>[^<]+</th>)+)\s*</tr>\s*<tr>((?:\s*<th>[^<]*</th>)+?)((?:\s*<th></th>)+)\s*</tr>')

def one_header(text):
    "pandas writes the name of an index in a second row of its own; it fits into the empty corner of the first."
    n = lambda cells: cells.count('<th>')
    return HEADER.sub(lambda m: f'<tr>{m[3]}{m[2]}</tr>' if (n(m[1]), n(m[2])) == (n(m[3]), n(m[4])) else m[0], text)

def mend_page(text, offset, host):
    "Maths from the site itself, links to the published site made relative, and names for what has none."
    text = re.sub(r'https://cdn\.jsdelivr\.net/npm/katex@[\d.]+/dist(?:/contrib)?/', f'{offset}site_libs/katex/', text)
    text = re.sub(rf'(href=")({re.escape(host)}/?)', lambda m: m[1]+(offset or './'), text)
    text = re.sub(r'(<section id="([^"]+)"[^>]*>\s*<h\d) id="\2"', r'\1', text)  # smalldocs gives section and heading the same id
    text = one_header(text)
    for old, new in ACCESS.items(): text = text.replace(old, new)
    return text

FETCH = 'const r = await fetch(offset + "search.json");\n      index = await r.json();'
LOAD = ('await new Promise((ok, no) => { const s = document.createElement("script"); s.src = offset + "search.js"; '
        's.onload = ok; s.onerror = no; document.head.append(s); });\n      index = window.searchIndex;')

KEYS = """
document.querySelectorAll("pre, .sd-table, .cell-output-display, .drawing").forEach((e) => { if (e.scrollWidth > e.clientWidth) e.tabIndex = 0; });
document.querySelectorAll('.sidebar-navigation [role="button"]').forEach((e) => e.addEventListener("keydown", (ev) => {
  if (ev.key === "Enter" || ev.key === " ") { ev.preventDefault(); e.click(); }
}));
"""

def mend(out):
    "Everything a page needs comes from the site: maths, fonts, and a search that also works from file://, where `fetch` is refused."
    host = NBDEV['doc_host']+NBDEV['doc_baseurl']
    for page in out.rglob('*.html'):
        offset = '../'*len(page.relative_to(out).parent.parts)
        page.write_text(mend_page(page.read_text(encoding='utf-8'), offset, host), encoding='utf-8')
    shutil.copytree(VENDOR/'katex', out/'site_libs/katex', dirs_exist_ok=True)
    shutil.copytree(FIGURES, out/'figures', dirs_exist_ok=True)
    for css in (*out.glob('site_libs/themes/*.css'), out/'site_libs/katex/katex.min.css'):
        text = re.sub(r'@import url\(https:[^)]*\);?', '', css.read_text(encoding='utf-8'))
        css.write_text(re.sub(r',url\(fonts/[^)]*\.(?:woff|ttf)\) format\("\w+"\)', '', text), encoding='utf-8')
    script = out/'site_libs/smalldocs.js'
    text = script.read_text(encoding='utf-8')
    if FETCH not in text: raise SystemExit('site/build.py: smalldocs.js reads its search index in another way than version 0.5.4 does: change FETCH')
    script.write_text(text.replace(FETCH, LOAD)+KEYS, encoding='utf-8')
    (out/'search.js').write_text(f"window.searchIndex = {(out/'search.json').read_text(encoding='utf-8')};\n", encoding='utf-8')
    (out/'search.json').unlink()
    sitemap = out/'sitemap.xml'
    sitemap.write_text(re.sub(r'\s*<lastmod>.*?</lastmod>', '', sitemap.read_text(encoding='utf-8')), encoding='utf-8')
    (out/'.nojekyll').touch()


# ---- Markdown: README.md for the code host, and a copy of every page for readers without a browser

def markdown(path, figures=None):
    "A staged notebook as Markdown: its title and summary, its body, and its figures as files (none where `figures` names no folder)."
    import nbformat
    from nbconvert import MarkdownExporter
    nb = nbformat.read(path, as_version=4)
    nb.metadata['language_info'] = {'name': 'python'}
    title, about = title_of(nb)
    nb.cells = [c for c in nb.cells if c.cell_type != 'raw']
    for cell in nb.cells:
        if re.search(r'^#\|\s*echo:\s*false', cell.source, re.M): cell.metadata['tags'] = ['no-input']
        cell.source = '\n'.join(line for line in cell.source.splitlines() if not line.startswith('#|'))
    exporter = MarkdownExporter(config={'TagRemovePreprocessor': {'enabled': True, 'remove_input_tags': ['no-input']}})
    body, resources = exporter.from_notebook_node(nb, {'output_files_dir': figures or 'none', 'unique_key': 'readme'})
    body = re.sub(r'```\{=html\}(.*?)```', cards_as_list, body, flags=re.S)
    body = re.sub(r'<div>\s*<style scoped>.*?</style>\s*(<table.*?</table>)(?:\s*<p>[^<]*</p>)?\s*</div>', pipe_table, body, flags=re.S)
    body = re.sub(r'^!\[(?:png|svg)\]', f'![{title}]' if figures else '![figure]', body, flags=re.M)
    body = re.sub(r'<!--.*?-->|^:{3,}[^\n]*$|\{\.api-source\}|^[ ]+$', '', body, flags=re.S | re.M)
    if not figures: body = re.sub(r'!\[figure\]\([^)]*\)', '(figure)', body)
    return f'# {title}\n\n{about}\n\n' + re.sub(r'\n{3,}', '\n\n', body).strip() + '\n', resources['outputs'] if figures else {}

def pipe_table(block):
    "A pandas table as Markdown: lines of text a person can read; what has cells over several columns or rows stays as it is."
    if re.search(r'(?:col|row)span=', block[1]): return block[1]
    rows = [re.findall(r'<t[hd][^>]*>(.*?)</t[hd]>', row, re.S) for row in re.findall(r'<tr[^>]*>(.*?)</tr>', one_header(block[1]), re.S)]
    if [r[0] for r in rows] == ['', *map(str, range(len(rows)-1))]: rows = [r[1:] for r in rows] # numbers of rows say nothing
    lines = [f'| {" | ".join(" ".join(html.unescape(c).split()).replace("|", chr(92)+"|") for c in row)} |' for row in rows]
    return '\n'.join([lines[0], '|'+' --- |'*len(rows[0]), *lines[1:]])

def cards_as_list(block):
    card = r'<a class="nb-card" href="(.*?)\.html">.*?-title">(.*?)</span><span class="nb-card-text">(.*?)</span></a>'
    return '\n'.join(f'- [{html.unescape(title)}]({nb}.ipynb): {html.unescape(about)}' for nb, title, about in re.findall(card, block[1], re.S))

def readme(pages):
    "README.md from the front page: its figures in docs/figures, its links to the notebooks."
    text, pictures = markdown(STAGE/'index.ipynb', 'docs/figures')
    for name, data in pictures.items(): (ROOT/name).write_bytes(data)
    for page in pages: text = re.sub(rf'\]\({re.escape(str(page.stage))}(#[^)]*)?\)', f'](nbs/{page.nb})', text)
    note = '<!-- Made from nbs/index.ipynb by `make docs`: change the notebook, not this file. -->'
    (ROOT/'README.md').write_text(f'{note}\n\n{text}', encoding='utf-8')

def plain_copies(pages, out):
    "`core.html.md` beside `core.html`, where the docstring of every module points to, and a list of them all."
    lines = []
    for page in pages:
        text, _ = markdown(STAGE/page.stage)
        copy = page.stage.with_suffix('.html.md')
        (out/copy).write_text(re.sub(r'\.ipynb(?=[#)])', '.html.md', text), encoding='utf-8')
        lines.append(f'- [{text[2:].splitlines()[0]}]({copy})')
    (out/'llms.txt').write_text('\n'.join([f'# {NBDEV["title"]}', '', *lines, '']), encoding='utf-8')


# ---- is docs/ what the notebooks give?

def digest(path): return hashlib.sha256(path.read_bytes()).hexdigest()[:16]

def inputs():
    files = [*sources(NBS), *sources(ROOT/'site')]
    return {str(p.relative_to(ROOT)): digest(p) for p in files} | {tool: version(tool) for tool in TOOLS}

def outputs():
    files = [p for p in sorted(DOCS.rglob('*')) if p.is_file() and p != MANIFEST]
    return {str(p.relative_to(ROOT)): digest(p) for p in [*files, ROOT/'README.md'] if p.exists()}

def check():
    "What differs between docs/ and what it was built from, one line each."
    if not MANIFEST.exists(): return ['docs/manifest.json is missing']
    built = json.loads(MANIFEST.read_text(encoding='utf-8'))
    lines = []
    for kind, now in (('inputs', inputs()), ('outputs', outputs())):
        for name in sorted(built[kind].keys() | now.keys()):
            if built[kind].get(name) != now.get(name):
                what = 'changed' if name in built[kind] and name in now else 'is new' if name in now else 'is gone'
                lines.append(f'{name} {what} since docs/ was built')
    return lines


def main():
    parser = argparse.ArgumentParser(description='Build docs/ and README.md from the notebooks.')
    parser.add_argument('--check', action='store_true', help='only say whether docs/ is current; exit status 1 if not')
    if parser.parse_args().check:
        stale = check()
        if stale: sys.exit('\n'.join([*stale, 'run `make docs`']))
        return print('docs/ is current')
    os.chdir(ROOT)
    found = pages()
    before = inputs()
    stage(found)
    out, warnings = render()
    mend(out)
    plain_copies(found, out)
    shutil.rmtree(DOCS, ignore_errors=True)
    shutil.move(out, DOCS)
    readme(found)
    sources = {**before, **{f'nbs/{n}': digest(NBS/n) for n in ('sidebar.yml', 'nbdev.yml')}}
    MANIFEST.write_text(json.dumps({'inputs': sources, 'outputs': outputs()}, indent=1)+'\n', encoding='utf-8')
    for line in warnings: print(f'warning: {line}', file=sys.stderr)
    size = sum(p.stat().st_size for p in DOCS.rglob('*') if p.is_file())
    print(f'{len(found)} pages, {size/1e6:.1f} MB: open docs/index.html')

if __name__ == '__main__': main()
