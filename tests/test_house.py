"""The house's rules, checked on the syntax trees: floors import downwards, light floors stay light, nothing unpickles, the wheel is whole."""
import ast, builtins, configparser, email, importlib, json, re, subprocess, sys, tokenize, tomllib, zipfile
from io import StringIO
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT/'ecg_nbdev'
TORCH_FREE = lambda floor: floor[:2] <= '22' or floor[:2] in ('49', '50', '60', '61')


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


def code_cells(nb): return [''.join(c['source']) for c in json.loads(nb.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']

def cell_tree(source):
    "The tree of a notebook cell without its magics; None for a cell in another language."
    return None if source.lstrip().startswith('%%') else ast.parse('\n'.join(line for line in source.splitlines() if not re.match(r'\s*[%!]', line)))

def imports(tree, top_only=False):
    "Dotted names of all that is imported: `from a import b` gives both `a` and `a.b`."
    def walk(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import): yield from (a.name for a in child.names)
            elif isinstance(child, ast.ImportFrom):
                module = '.'.join(filter(None, ('ecg_nbdev' if child.level else '', child.module)))
                yield module
                yield from (f'{module}.{a.name}' for a in child.names)
            elif not (top_only and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))): yield from walk(child)
    return set(walk(tree))

def siblings(names): return {n.split('.')[1] for n in names if n.startswith('ecg_nbdev.')} & FLOORS.keys()


FLOORS = floors()
MODULES = {name: ast.parse((PACKAGE/f'{name}.py').read_text(encoding='utf-8')) for name in FLOORS if (PACKAGE/f'{name}.py').exists()}
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)


def test_every_notebook_is_exported_and_every_module_has_a_notebook():
    written = {p.stem for p in PACKAGE.glob('*.py')} - {'__init__', '_modidx'}
    assert written == FLOORS.keys()


@pytest.mark.parametrize('name', MODULES)
def test_a_module_imports_only_lower_floors(name):
    floor, nb = FLOORS[name]
    used = siblings(imports(MODULES[name]))
    for source in code_cells(nb):
        if tree := cell_tree(source): used |= siblings(imports(tree))
    assert not {f'{FLOORS[s][1].name}' for s in used - {name} if FLOORS[s][0] >= floor}, f'{nb.name} may import lower numbers only'


@pytest.mark.parametrize('name', [n for n in MODULES if TORCH_FREE(FLOORS[n][0])])
def test_light_floors_name_no_torch(name):
    assert not {n for n in imports(MODULES[name], top_only=True) if n.split('.')[0] in ('torch', 'fastai', 'torchvision')}


def test_light_floors_load_no_torch():
    names = [f'ecg_nbdev.{n}' for n in MODULES if TORCH_FREE(FLOORS[n][0])]
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


BANNED = ('fastai.vision', 'fastai.callback.tensorboard')  # both need torchvision's compiled operators, which the CPU wheel of torch has not

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


@pytest.mark.parametrize('name', MODULES)
def test_an_exported_cell_holds_one_idea(name):
    exported = [s for s in code_cells(FLOORS[name][1]) if re.search(r'^#\|\s*exporti?s?\b', s, re.M)]
    lines = [len([l for l in s.splitlines() if not l.startswith('#|')]) for s in exported]
    assert max(lines, default=0) <= 50, [s.splitlines()[1] for s, n in zip(exported, lines) if n > 50]


COMMON = {'self', 'cls', 'rng', 'seed', 'classes', 'epochs', 'lr', 'bs'} # mean the same everywhere

def undocumented(name):
    "What lacks a docstring, or a comment behind a parameter, in public functions and classes. A docstring that names it in backticks will do, or a class of this package as its type."
    classes = {n.name for tree in MODULES.values() for n in tree.body if isinstance(n, ast.ClassDef)}
    source = (PACKAGE/f'{name}.py').read_text(encoding='utf-8')
    comments = {t.start[0] for t in tokenize.generate_tokens(StringIO(source).readline) if t.type == tokenize.COMMENT}
    def parameters(fn):
        args = [*fn.args.posonlyargs, *fn.args.args, *([fn.args.vararg] if fn.args.vararg else []), *fn.args.kwonlyargs]
        defaults = dict(zip((a.arg for a in reversed([*fn.args.posonlyargs, *fn.args.args])), reversed(fn.args.defaults)))
        defaults |= {a.arg: d for a, d in zip(fn.args.kwonlyargs, fn.args.kw_defaults) if d}
        for a in args:
            end = defaults[a.arg].end_lineno if a.arg in defaults else a.end_lineno
            types = {n.id for n in ast.walk(a.annotation) if isinstance(n, ast.Name)} if a.annotation else set()
            told = end in comments and end != fn.body[0].lineno or types & (classes | {'Annotated'}) or f'`{a.arg}`' in (ast.get_docstring(fn) or '')
            if a.arg not in COMMON and not told: yield f'{fn.name}({a.arg})'
    for node in MODULES[name].body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith('_'): continue
        if not ast.get_docstring(node): yield node.name
        if isinstance(node, ast.FunctionDef): yield from parameters(node)
        for fn in node.body:
            if isinstance(node, ast.ClassDef) and isinstance(fn, ast.FunctionDef) and fn.name == '__init__':
                yield from (f'{node.name}.{p}' for p in parameters(fn))

@pytest.mark.parametrize('name', MODULES)
def test_public_functions_are_documented(name): assert list(undocumented(name)) == []


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
    pins = [Requirement(line) for line in (ROOT/'constraints.txt').read_text(encoding='utf-8').splitlines() if line and not line.startswith('#')]
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
    files = [ROOT/f for f in tracked.stdout.splitlines()] + [ROOT/f for f in ('settings.ini', 'setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE')]
    for f in files:
        if f.is_file():
            (src/f.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            (src/f.relative_to(ROOT)).write_bytes(f.read_bytes())
    built = subprocess.run([sys.executable, '-m', 'build', '--no-isolation', '--outdir', out, src], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout+built.stderr
    return next(out.glob('*.whl')), [f.relative_to(ROOT).as_posix() for f in files if f.is_file() and PACKAGE in f.parents]

def test_the_wheel_holds_every_module_and_data_file(wheel):
    path, files = wheel
    with zipfile.ZipFile(path) as z: names = set(z.namelist())
    assert f"ecg_nbdev-{settings()['version']}" in path.name
    assert files and set(files) <= names
    assert not {n for n in names if not n.startswith('ecg_nbdev') or '__pycache__' in n}
    assert any(n.endswith('licenses/LICENSE') for n in names)

def test_the_wheel_carries_commands_extras_and_readme(wheel):
    with zipfile.ZipFile(wheel[0]) as z:
        read = lambda end: z.read(next(n for n in z.namelist() if n.endswith(f'dist-info/{end}'))).decode()
        meta, entry = email.message_from_string(read('METADATA')), configparser.ConfigParser()
        entry.read_string(read('entry_points.txt'))
    cfg = settings()
    assert dict(entry['console_scripts']) == dict(s.split('=') for s in cfg['console_scripts'].split())
    extras = set(meta.get_all('Provides-Extra'))
    assert extras == {'dev', 'notebook', 'onnx', 'explain', 'formats'} and all(f'ecg_nbdev[{extra}]' in meta.get_payload() for extra in extras-{'dev'})
    assert {Requirement(r).name for r in cfg['requirements'].split()} <= {Requirement(r).name for r in meta.get_all('Requires-Dist')}
    assert meta['License'] == cfg['license'] or meta['License-Expression'] == cfg['license']
    assert meta.get_payload().strip() == (ROOT/'README.md').read_text(encoding='utf-8').strip()


@pytest.mark.parametrize('module', sorted(PACKAGE.glob('[a-z]*.py')), ids=lambda m: m.stem)
def test_every_name_is_defined(module):
    "Lesson cells run many paths, not all of them."
    said = subprocess.run([sys.executable, '-m', 'pyflakes', module], capture_output=True, text=True)
    assert said.returncode in (0, 1) and not said.stderr, said.stderr
    assert [line for line in said.stdout.splitlines() if 'undefined name' in line] == []
