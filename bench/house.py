"""How this project is written, in numbers: `python bench/house.py`, a few seconds.

Sizes of exported cells, widths of lines, named lambdas, import lines of the pages, and the public names: how many there
are, which are never shown beside an assertion in their own notebook, which collide. `--verbose` lists what is counted,
`--csv` writes the numbers to bench/results/house.csv.
"""
import argparse, ast, csv, importlib, json, re
from collections import Counter
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
NBS, PACKAGE, OUT = ROOT/'nbs', ROOT/'ecg_nbdev', ROOT/'bench'/'results'/'house.csv'
LIBRARY = sorted(NBS.glob('[0-9]*.ipynb'))
FOLDERS = ('explore', 'tutorials', 'results', 'guide')
PAGES = [NBS/'index.ipynb', *(p for folder in FOLDERS for p in sorted((NBS/folder).glob('*.ipynb')))]
ASSERTIONS = {'assert_close', 'test_eq', 'test_close', 'test_is', 'test_fail', 'expect_fail'}
TAKEN = ('fastai.basics', 'fastai.callback.all') # what `from ecg_nbdev.all import *` brings beside our names


# ---- reading

def code_cells(path):
    "The sources of a notebook's code cells."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    return [''.join(c['source']) for c in cells if c['cell_type'] == 'code']

def exported(cell): return re.search(r'^#\|\s*export(i|s)?\b', cell, re.M)

def parsed(cell):
    "The syntax tree of a cell without its magics; an empty one for another language."
    if cell.lstrip().startswith('%%'): return ast.parse('')
    return ast.parse('\n'.join(line for line in cell.splitlines() if not re.match(r'\s*[%!]', line)))

def written(text):
    "The lines of some code, without blank ones and nbdev's directives."
    return [line for line in text.splitlines() if line.strip() and not line.startswith('#|')]

def modules():
    "The exported module of each library notebook: dotted name within the package → (notebook, file)."
    found = {}
    for nb in LIBRARY:
        name = next(m[1] for cell in code_cells(nb) if (m := re.search(r'^#\|\s*default_exp\s+(\S+)', cell, re.M)))
        found[name] = nb, PACKAGE/f'{name.replace(".", "/")}.py'
    return found

def own_files(folder):
    "Python files of a folder, without those of other people and nbdev's index."
    return [p for p in sorted(folder.rglob('*.py')) if 'vendor' not in p.parts and p.name != '_modidx.py']

def code():
    "The code of each part of the house: part → place → text."
    parts = {name: {str(p.relative_to(ROOT)): p.read_text(encoding='utf-8') for p in own_files(ROOT/name)}
             for name in ('ecg_nbdev', 'bench', 'tests', 'site')}
    for name, paths in (('library notebooks', LIBRARY), ('pages', PAGES)):
        parts[name] = {f'{p.relative_to(NBS)} cell {i}': cell for p in paths for i, cell in enumerate(code_cells(p), 1)}
    return parts


# ---- what is measured: each gives rows (where, what, number) and a list of what it has found

def cell_sizes():
    "Lines of the exported cells."
    sizes = {f'{nb.name} cell {i}': len(written(cell))
             for nb in LIBRARY for i, cell in enumerate(code_cells(nb), 1) if exported(cell)}
    rows = [('exported cells', 'number', len(sizes)), ('exported cells', 'lines, median', median(sizes.values())),
            ('exported cells', 'lines, largest', max(sizes.values()))]
    return rows, [f'{place}: {n} lines' for place, n in sizes.items() if n > 30]

def widths(part, texts, narrow):
    "The share of lines of a part that are wider than each limit, in percent, and the widest."
    lines = [(place, line) for place, text in texts.items() for line in written(text)]
    rows = [(part, f'% of lines over {limit} columns', 100*sum(len(l) > limit for _, l in lines)/len(lines))
            for limit in narrow]
    rows += [(part, 'longest line, columns', max(len(l) for _, l in lines))]
    return rows, [f'{place}: {len(l)} columns: {l.strip()[:60]}' for place, l in lines if len(l) > narrow[0]]

def named_lambdas(cell):
    "The lambdas of some code that are given a name."
    for node in ast.walk(parsed(cell)):
        if not isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)): continue
        values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        yield from (v for v in values if isinstance(v, ast.Lambda))

def lambdas(part, texts):
    "Named lambdas per 1,000 lines of a part."
    found = [f'{place}: {ast.unparse(v)[:60]}' for place, text in texts.items() for v in named_lambdas(text)]
    lines = sum(len(written(text)) for text in texts.values())
    return [(part, 'named lambdas per 1,000 lines', 1000*len(found)/lines)], found

def import_lines(page):
    "How many lines of a page import something, those inside functions aside."
    nodes = (node for cell in code_cells(page) for node in parsed(cell).body)
    return sum(n.end_lineno-n.lineno+1 for n in nodes if isinstance(n, (ast.Import, ast.ImportFrom)))

def page_imports():
    counts = {str(p.relative_to(NBS)): import_lines(p) for p in PAGES}
    rows = [('pages', 'import lines, median', median(counts.values())),
            ('pages', 'import lines, most', max(counts.values()))]
    return rows, [f'{page}: {n} import lines' for page, n in counts.items() if n > 4]


# ---- public names

def public_names(path):
    "`__all__` of a module."
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '__all__':
            return ast.literal_eval(node.value)
    return []

def words_of(tree):
    "Every name that some code uses, also behind a dot."
    nodes = list(ast.walk(tree))
    return {n.id for n in nodes if isinstance(n, ast.Name)} | {n.attr for n in nodes if isinstance(n, ast.Attribute)}

def proves(tree):
    "Whether some code asserts something."
    return words_of(tree) & ASSERTIONS or any(isinstance(n, ast.Assert) for n in ast.walk(tree))

def asserted(nb):
    "The names that stand in a cell of a notebook that asserts something."
    trees = [parsed(cell) for cell in code_cells(nb) if not exported(cell)]
    return set().union(*(words_of(tree) for tree in trees if proves(tree)))

def names():
    "Public names, and those that no assertion cell of their own notebook shows."
    public = {module: public_names(path) for module, (_, path) in modules().items()}
    unshown = [f'{nb.name}: {name}' for module, (nb, _) in modules().items()
               for name in sorted(set(public[module])-asserted(nb))]
    rows = [('public names', 'number', sum(map(len, public.values()))),
            ('public names', 'in no assertion cell of their notebook', len(unshown))]
    return rows, unshown, public

def star(module):
    "What `from module import *` brings."
    module = importlib.import_module(module)
    return {n: getattr(module, n) for n in getattr(module, '__all__', [n for n in vars(module) if n[0] != '_'])}

def collisions(public):
    "Public names that stand for something else as well."
    ours = Counter(name for listed in public.values() for name in listed)
    theirs = set().union(*map(star, TAKEN))
    found = {'more than once': {n for n, often in ours.items() if often > 1},
             'also name of a module': set(ours) & {part for module in public for part in module.split('.')},
             'also in fastai.basics or fastai.callback.all': set(ours) & theirs}
    rows = [('public names', what, len(same)) for what, same in found.items()]
    return rows, [f'{name}: {what}' for what, same in found.items() for name in sorted(same)]


# ---- all of it

def house():
    "Every figure and every finding."
    parts, (name_rows, unshown, public) = code(), names()
    limits = {part: (120, 140) if part != 'pages' else (95,) for part in parts}
    found = [cell_sizes(), *(widths(part, texts, limits[part]) for part, texts in parts.items()),
             *(lambdas(part, texts) for part, texts in parts.items()),
             page_imports(), (name_rows, unshown), collisions(public)]
    return [row for rows, _ in found for row in rows], [line for _, lines in found for line in lines]

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--verbose', action='store_true', help='list the cells, lines and names that are counted')
    parser.add_argument('--csv', action='store_true', help='write bench/results/house.csv')
    args = parser.parse_args()
    rows, findings = house()
    if args.verbose: print('\n'.join(findings), end='\n\n')
    for where, what, number in rows: print(f'{where:18}  {what:44}  {number:8.4g}')
    if not args.csv: return
    with open(OUT, 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f, lineterminator='\n')
        writer.writerow(('where', 'what', 'number'))
        writer.writerows((where, what, f'{number:.4g}') for where, what, number in rows)

if __name__ == '__main__': main()
