"""The house's rules, checked on the syntax trees: floors import downwards, light floors stay light, nothing unpickles,
lines and cells are short, public names are few and documented, the wheel is whole."""
import ast, builtins, configparser, email, importlib, json, re, statistics, subprocess, sys, tokenize, tomllib, zipfile
from io import StringIO
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT/'ecg_nbdev'
BY_HAND = {'__init__', '_modidx', 'all', 'sim.__init__'} # no notebook exports these

def torch_free(floor): return floor[:2] <= '22' or floor[:2] in ('49', '50', '60', '61')


def floors():
    "Module name -> (floor such as '00a', notebook), for every library notebook."
    found = {}
    for nb in sorted((ROOT/'nbs').glob('[0-9][0-9]*_*.ipynb')):
        source = '\n'.join(code_cells(nb))
        name = re.search(r'^#\|\s*default_exp\s+(\S+)', source, re.M)
        assert name, f'{nb.name} has no `#| default_exp`'
        assert name[1] not in found, f'{nb.name} and {found[name[1]][1].name} both export {name[1]}'
        found[name[1]] = nb.name.split('_')[0], nb
    return found


def code_cells(nb):
    cells = json.loads(nb.read_text(encoding='utf-8'))['cells']
    return [''.join(c['source']) for c in cells if c['cell_type'] == 'code']

def cell_tree(source):
    "The tree of a notebook cell without its magics; None for a cell in another language."
    if source.lstrip().startswith('%%'): return None
    return ast.parse('\n'.join(line for line in source.splitlines() if not re.match(r'\s*[%!]', line)))

def module_path(name): return PACKAGE/f'{name.replace(".", "/")}.py'

def imports(tree, top_only=False, package='ecg_nbdev'):
    "Dotted names of all that is imported: `from a import b` gives both `a` and `a.b`."
    def walk(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import): yield from (a.name for a in child.names)
            elif isinstance(child, ast.ImportFrom):
                above = '.'.join(package.split('.')[:len(package.split('.'))+1-child.level]) if child.level else ''
                module = '.'.join(filter(None, (above, child.module)))
                yield module
                yield from (f'{module}.{a.name}' for a in child.names)
            elif not (top_only and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))): yield from walk(child)
    return set(walk(tree))

def package_of(name): return '.'.join(['ecg_nbdev', *name.split('.')[:-1]])

def siblings(names):
    "The library modules among dotted names."
    own = (n.removeprefix('ecg_nbdev.') for n in names if n.startswith('ecg_nbdev.'))
    return {m for n in own for m in FLOORS if n == m or n.startswith(f'{m}.')}


FLOORS = floors()
MODULES = {name: ast.parse(module_path(name).read_text(encoding='utf-8')) for name in FLOORS if module_path(name).exists()}
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)


def test_every_notebook_is_exported_and_every_module_has_a_notebook():
    written = {'.'.join(p.relative_to(PACKAGE).with_suffix('').parts) for p in PACKAGE.rglob('*.py')}
    assert written - BY_HAND == FLOORS.keys()


@pytest.mark.parametrize('name', MODULES)
def test_a_module_imports_only_lower_floors(name):
    floor, nb = FLOORS[name]
    used = siblings(imports(MODULES[name], package=package_of(name)))
    for source in code_cells(nb):
        if tree := cell_tree(source): used |= siblings(imports(tree))
    assert not {f'{FLOORS[s][1].name}' for s in used - {name} if FLOORS[s][0] >= floor}, f'{nb.name} may import lower numbers only'


@pytest.mark.parametrize('name', [n for n in MODULES if torch_free(FLOORS[n][0])])
def test_light_floors_name_no_torch(name):
    used = imports(MODULES[name], top_only=True, package=package_of(name))
    assert not {n for n in used if n.split('.')[0] in ('torch', 'fastai', 'torchvision')}


def test_light_floors_load_no_torch():
    names = [f'ecg_nbdev.{n}' for n in MODULES if torch_free(FLOORS[n][0])]
    code = ('import importlib, json, sys\nheavy = {}\n'
            f'for name in {names}:\n'
            '    importlib.import_module(name)\n'
            '    heavy[name] = [m for m in ("torch", "fastai", "torchvision", "matplotlib", "seaborn") if m in sys.modules]\n'
            'print(json.dumps(heavy))')
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    heavy = json.loads(run.stdout)
    assert list(heavy) == names
    assert not {name: found for name, found in heavy.items() if found}, 'the first module listed is the one to mend'


# both need torchvision's compiled operators, which the CPU wheel of torch has not
BANNED = ('fastai.vision', 'fastai.callback.tensorboard')

@pytest.mark.parametrize('nb', NOTEBOOKS, ids=lambda p: p.stem)
def test_nothing_imports_fastai_vision(nb):
    for source in code_cells(nb):
        if tree := cell_tree(source): assert not {n for n in imports(tree) if n.startswith(BANNED)}


def bound(tree, everywhere):
    "Names that a cell defines: those that remain, or also those inside its functions and comprehensions."
    inner = () if everywhere else (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    def walk(node):
        yield node
        if not isinstance(node, inner):
            for child in ast.iter_child_nodes(node): yield from walk(child)
    for node in walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): yield node.name
        elif isinstance(node, ast.arg): yield node.arg
        elif isinstance(node, ast.ExceptHandler) and node.name: yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store): yield node.id
        elif isinstance(node, ast.alias): yield (node.asname or node.name).split('.')[0]
        elif isinstance(node, ast.ImportFrom) and node.names[0].name == '*':
            module = importlib.import_module(node.module)
            yield from getattr(module, '__all__', [n for n in vars(module) if not n.startswith('_')])

@pytest.mark.parametrize('name', MODULES)
def test_documentation_can_be_built_by_nbdev_too(name):
    "`nbdev-docs` runs the exported cells and those that import, and no others: these may use only what such cells define."
    known = set(dir(builtins)) | {'__file__'}
    for source in code_cells(FLOORS[name][1]):
        exported = re.search(r'^#\|\s*exporti?s?\b', source, re.M)
        tree = None if re.search(r'^#\|\s*eval:\s*false', source, re.M) else cell_tree(source)
        if not tree or not (exported or imports(tree)): continue
        known |= set(bound(tree, False))
        used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        assert exported or not used - known - set(bound(tree, True)), f'move the import of this cell to a cell of its own:\n{source}'


UNPICKLERS = {'pickle', 'cPickle', 'cloudpickle', 'dill', 'joblib', 'shelve', 'marshal'}
UNPICKLING_CALLS = {'torch.load', 'pd.read_pickle', 'pandas.read_pickle', 'load_learner', 'load_pickle'}

@pytest.mark.parametrize('name', MODULES)
def test_nothing_is_unpickled(name):
    assert not {n for n in imports(MODULES[name]) if n.split('.')[0] in UNPICKLERS}
    for call in (n for n in ast.walk(MODULES[name]) if isinstance(n, ast.Call)):
        assert ast.unparse(call.func) not in UNPICKLING_CALLS, f'line {call.lineno}: {ast.unparse(call)}'
        allowed = [k.value for k in call.keywords if k.arg == 'allow_pickle']
        assert all(isinstance(v, ast.Constant) and v.value is False for v in allowed), f'line {call.lineno}: {ast.unparse(call)}'


# ---- how it reads

def exported_cells(nb):
    return [s for s in code_cells(nb) if re.search(r'^#\|\s*exporti?s?\b', s, re.M)]

def length(cell): return sum(1 for line in cell.splitlines() if line.strip() and not line.startswith('#|'))

@pytest.mark.parametrize('name', MODULES)
def test_an_exported_cell_holds_one_idea(name):
    long = {s.splitlines()[1]: length(s) for s in exported_cells(FLOORS[name][1]) if length(s) > 50}
    assert not long

def test_half_of_the_exported_cells_are_short():
    assert statistics.median(length(s) for _, nb in FLOORS.values() for s in exported_cells(nb)) <= 10


LIBRARY = [*(nb for _, nb in FLOORS.values())]
PAGES = [nb for nb in NOTEBOOKS if nb not in LIBRARY]
SCRIPTS = sorted(p for folder in ('bench', 'tests', 'site', 'ecg_nbdev') for p in (ROOT/folder).rglob('*.py')
                 if 'vendor' not in p.parts and p.name != '_modidx.py')

def lines_of(path):
    "(place, line) of every line of code in a file."
    if path.suffix == '.py':
        yield from ((f'{path.name}:{i}', line) for i, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1))
    else:
        for i, source in enumerate(code_cells(path)): yield from ((f'{path.name} cell {i}', line) for line in source.splitlines())

@pytest.mark.parametrize('path', [*LIBRARY, *SCRIPTS], ids=lambda p: p.stem)
def test_no_line_is_wider_than_140_columns(path):
    assert not [(place, len(line)) for place, line in lines_of(path) if len(line) > 140]

def test_hardly_a_line_is_wider_than_120_columns():
    widths = [len(line) for path in [*LIBRARY, *SCRIPTS] for _, line in lines_of(path) if line.strip()]
    assert sum(w > 120 for w in widths) <= .02*len(widths)

@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_the_code_of_a_page_fits_its_column(page):
    assert not [(place, len(line)) for place, line in lines_of(page) if len(line) > 95]

@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_a_page_needs_one_import_line_and_three_more(page):
    "`from ecg_nbdev.all import *`, and what others make: seaborn and its like are free."
    free = ('seaborn', 'matplotlib', 'wfdb', 'sklearn', 'scipy', 'torch', 'IPython', 'fastai', 'fastcore')
    lines = [line for source in code_cells(page) for line in source.splitlines() if re.match(r'(from|import)\s', line)]
    own = [line for line in lines if not line.split()[1].startswith(free)]
    assert len(own) <= 4 and all('ecg_nbdev' not in line or line == 'from ecg_nbdev.all import *' for line in own), own


# ---- public names

def public(name):
    "`__all__` of a module."
    return next(ast.literal_eval(n.value) for n in MODULES[name].body
                if isinstance(n, ast.Assign) and n.targets[0].id == '__all__')

def test_public_names_are_few_and_each_means_one_thing():
    names = [n for module in MODULES for n in public(module)]
    assert len(names) <= 200
    assert len(set(names)) == len(names)
    assert not set(names) & {m.split('.')[-1] for m in MODULES}, 'a module and a function of one name'

def test_one_line_brings_everything():
    code = ("import json, sys\nimport ecg_nbdev\nlight = [m for m in ('numpy', 'torch', 'fastai') if m in sys.modules]\n"
            "import fastai.basics, fastai.callback.all\ntheirs = set(vars(fastai.basics)) | set(vars(fastai.callback.all))\n"
            "from ecg_nbdev.all import *\nprint(json.dumps([light, sorted(theirs), sorted(globals())]))")
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    light, theirs, here = json.loads(run.stdout)
    names = {n for module in MODULES for n in public(module) if module != 'cli'}
    assert light == [], '`import ecg_nbdev` alone is to stay light'
    assert names <= set(here)
    assert names & set(theirs) == {'load_learner'}, 'no name of fastai is hidden but the one that unpickles'


FRAMEWORK = {'new', 'create_batches', 'accumulate', 'read'} # overrides whose parameters fastai or `ECGNet` explains
COMMON = {'self', 'cls', 'rng', 'seed', 'classes', 'epochs', 'lr', 'bs'} # mean the same everywhere
UNITS = { # a parameter of this name → what its comment has to name
    'fs': 'Hz', 'hz': 'Hz', 'highpass': 'Hz', 'seconds': r'\bs\b|seconds?|length',
    'age': 'years', 'rr': r'\bs\b', 'pr': r'\bs\b', 'mv': 'mV', 'mm_s': 'mm/s', 'mm_mV': 'mm/mV', 'dpi': 'inch|dots'}
SHAPE = re.compile(r'\([^()]*[\w…][^()]*\)') # (n,), (B, 12, n), (n_sets, K)

def parameters(fn, source, comments):
    "(name, comment, annotation) of each parameter of a function."
    args = [*fn.args.posonlyargs, *fn.args.args, *([fn.args.vararg] if fn.args.vararg else []), *fn.args.kwonlyargs]
    defaults = dict(zip((a.arg for a in reversed([*fn.args.posonlyargs, *fn.args.args])), reversed(fn.args.defaults)))
    defaults |= {a.arg: d for a, d in zip(fn.args.kwonlyargs, fn.args.kw_defaults) if d}
    for a in args:
        end = defaults[a.arg].end_lineno if a.arg in defaults else a.end_lineno
        comment = comments.get(end, '') if end != fn.body[0].lineno else ''
        yield a.arg, comment, ast.unparse(a.annotation) if a.annotation else ''

def complaints(fn, label, source, comments, classes):
    "What a reader of a signature misses."
    doc = ast.get_docstring(fn) or ''
    for name, comment, kind in parameters(fn, source, comments):
        if name in COMMON: continue
        named = f'`{name}`' in doc
        if not (comment or named or 'Annotated' in kind or any(c in kind for c in classes)): yield f'{label}({name}): no comment'
        elif re.search('ndarray|Tensor', kind) and not SHAPE.search(comment+(doc if named else '')): yield f'{label}({name}): no shape'
        elif name in UNITS and not re.search(UNITS[name], comment+(doc if named else '')): yield f'{label}({name}): no unit'

def undocumented(name):
    "What lacks a docstring, a comment, a shape or a unit in public functions, classes and their public methods."
    classes = {n.name for tree in MODULES.values() for n in tree.body if isinstance(n, ast.ClassDef)}
    source = module_path(name).read_text(encoding='utf-8')
    tokens = tokenize.generate_tokens(StringIO(source).readline)
    comments = {t.start[0]: t.string for t in tokens if t.type == tokenize.COMMENT}
    for node in MODULES[name].body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith('_'): continue
        if not ast.get_docstring(node): yield f'{node.name}: no docstring'
        if isinstance(node, ast.FunctionDef): yield from complaints(node, node.name, source, comments, classes)
        for fn in node.body if isinstance(node, ast.ClassDef) else ():
            if not isinstance(fn, ast.FunctionDef) or fn.name in FRAMEWORK: continue
            if fn.name == '__init__' or not fn.name.startswith('_'):
                yield from complaints(fn, f'{node.name}.{fn.name}', source, comments, classes)

@pytest.mark.parametrize('name', MODULES)
def test_public_functions_are_documented(name): assert list(undocumented(name)) == []

def test_the_documentation_check_finds_what_is_missing():
    "The check itself: a bare array, a rate without its unit, a method without comments."
    source = ('def f(x:np.ndarray, # the signal\n    fs:float, # the rate\n    y:np.ndarray, # (12, n) mV\n    z): pass\n')
    comments = {i: line.split('#', 1)[1] for i, line in enumerate(source.splitlines(), 1) if '#' in line}
    found = list(complaints(ast.parse(source).body[0], 'f', source, comments, set()))
    assert found == ['f(x): no shape', 'f(fs): no unit', 'f(z): no comment']


# ---- one version, one description, one list of requirements

def settings():
    parser = configparser.ConfigParser(delimiters=['='], interpolation=None)
    parser.read(ROOT/'settings.ini', encoding='utf-8')
    return parser['DEFAULT']

def test_repeated_fields_agree():
    cfg, toml = settings(), tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8'))
    project, nbdev = toml['project'], toml['tool']['nbdev']
    version = re.search(r'^__version__ = "(.+)"$', (PACKAGE/'__init__.py').read_text(encoding='utf-8'), re.M)[1]
    assert version == cfg['version']
    assert project['name'] == cfg['lib_name'] == nbdev['title']
    assert project['description'] == cfg['description']
    assert project['requires-python'] == f">={cfg['min_python']}"
    assert nbdev['branch'] == cfg['branch'] and nbdev['copyright'] == cfg['copyright']
    assert project['urls']['Repository'] == f"https://github.com/{cfg['user']}/{cfg['repo']}"
    assert project['urls']['Documentation'] == nbdev['doc_host']+nbdev['doc_baseurl']
    assert 'version' in project['dynamic']

def test_constraints_fit_the_requirements():
    cfg = settings()
    wanted = [Requirement(r) for key, value in cfg.items() if key.endswith('requirements') for r in value.split()]
    lines = (ROOT/'constraints.txt').read_text(encoding='utf-8').splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith('#')]
    for pin in pins:
        exact = [s.version for s in pin.specifier if s.operator == '==']
        for req in (r for r in wanted if r.name == pin.name):
            assert all(Version(v) in req.specifier for v in exact), f'constraints.txt has {pin}, settings.ini asks for {req}'

def test_changelog_names_the_version():
    assert f"## {settings()['version']}" in (ROOT/'CHANGELOG.md').read_text(encoding='utf-8')


# ---- the wheel

@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "A wheel built by way of a source archive, as a release is, from a copy of the tree: no left-over of an earlier build can slip in."
    src, out = tmp_path_factory.mktemp('tree'), tmp_path_factory.mktemp('wheel')
    tracked = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard', 'ecg_nbdev'], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode: pytest.skip(f'not a git clone: {tracked.stderr.strip()}')
    beside = ('settings.ini', 'setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE')
    files = [ROOT/f for f in (*tracked.stdout.splitlines(), *beside)]
    for f in files:
        if f.is_file():
            (src/f.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            (src/f.relative_to(ROOT)).write_bytes(f.read_bytes())
    build = [sys.executable, '-m', 'build', '--no-isolation', '--outdir', out, src]
    built = subprocess.run(build, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout+built.stderr
    return next(out.glob('*.whl')), [f.relative_to(ROOT).as_posix() for f in files if f.is_file() and PACKAGE in f.parents]

def test_the_wheel_holds_every_module_and_data_file(wheel):
    path, files = wheel
    with zipfile.ZipFile(path) as z: names = set(z.namelist())
    assert f"ecg_nbdev-{settings()['version']}" in path.name
    assert files and set(files) <= names
    assert not {n for n in names if not n.startswith('ecg_nbdev') or '__pycache__' in n}
    assert any(n.endswith('licenses/LICENSE') for n in names)

def test_the_conda_recipe_asks_for_what_the_package_asks_for():
    cfg = settings()
    recipe = yaml.safe_load((ROOT/'conda/recipe.yaml').read_text(encoding='utf-8'))
    other = {'pytorch': 'torch', 'matplotlib-base': 'matplotlib'}
    asked = {other.get(name, name)+limits for name, limits in map(str.split, recipe['requirements']['run'])}
    assert asked == {*cfg['requirements'].split(), 'python>='+cfg['min_python']}
    commands = {line.replace(' ', '') for line in recipe['build']['python']['entry_points']}
    assert commands == set(cfg['console_scripts'].split()) and recipe['context']['version'] == cfg['version']
    cited = yaml.safe_load((ROOT/'CITATION.cff').read_text(encoding='utf-8'))
    assert cited['version'] == cfg['version'] and cited['license'] == cfg['license']

def test_the_wheel_carries_commands_extras_and_readme(wheel):
    with zipfile.ZipFile(wheel[0]) as z:
        def read(end): return z.read(next(n for n in z.namelist() if n.endswith(f'dist-info/{end}'))).decode()
        meta, entry = email.message_from_string(read('METADATA')), configparser.ConfigParser()
        entry.read_string(read('entry_points.txt'))
    cfg = settings()
    assert dict(entry['console_scripts']) == dict(s.split('=') for s in cfg['console_scripts'].split())
    extras = set(meta.get_all('Provides-Extra'))
    assert extras == {'dev', 'notebook', 'onnx', 'explain', 'formats', 'hub', 'search', 'audit'}
    assert all(f'ecg_nbdev[{extra}]' in meta.get_payload() for extra in extras-{'dev', 'audit'})
    assert {Requirement(r).name for r in cfg['requirements'].split()} <= {Requirement(r).name for r in meta.get_all('Requires-Dist')}
    assert meta['License'] == cfg['license'] or meta['License-Expression'] == cfg['license']
    assert meta.get_payload().strip() == (ROOT/'README.md').read_text(encoding='utf-8').strip()


@pytest.mark.parametrize('module', sorted(p for p in PACKAGE.rglob('[a-z]*.py') if p.stem != 'all'), ids=lambda m: m.stem)
def test_every_name_is_defined(module):
    "Lesson cells run many paths, not all of them."
    said = subprocess.run([sys.executable, '-m', 'pyflakes', module], capture_output=True, text=True)
    assert said.returncode in (0, 1) and not said.stderr, said.stderr
    assert [line for line in said.stdout.splitlines() if 'undefined name' in line] == []
