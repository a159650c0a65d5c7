"""From an empty clone to a first answer: `python bench/newcomer.py`; table in bench/results/newcomer.csv.

What README.md tells somebody who only wants to see the demo, in an environment of its own, twice: `python -m venv`,
`pip install --no-compile -c constraints.txt -e .`, `ecg-predict` on the recording that ships. Beside it, once each: the few
packages that `ecg-predict` alone needs, where onnxruntime predicts in place of torch; and an installation that writes the
bytecode of all packages at once, also of the many modules that nobody calls for. Wheels are downloaded before, and not
counted. `clock` is that of a machine on which other work goes on: `cpu` is what these processes spent of the processor,
`load` how many processes wanted one in the last minute.
"""
import os, resource, shutil, subprocess, sys, tempfile, time
from pathlib import Path

import pandas as pd
from fastcore.script import call_parse

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 60 # s of set-up beyond downloads
PINNED = '-c', 'constraints.txt'
ALONE = 'numpy', 'pandas', 'fastcore', 'filelock', 'safetensors', 'onnxruntime'
WAYS = { # name → what pip installs, one command after the other
    'as README says': [('--no-compile', *PINNED, '-e', '.')],
    'ecg-predict alone': [('--no-compile', *PINNED, *ALONE), ('--no-compile', '--no-deps', '-e', '.')],
    'with bytecode': [(*PINNED, '-e', '.')]}


def spent():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime+used.ru_stime

def timed(step, *command, **kw):
    "A row of the table: what one command took."
    clock, cpu = time.perf_counter(), spent()
    env = {name: value for name, value in os.environ.items() if not name.startswith(('PYTHON', 'VIRTUAL_ENV'))}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=env, **kw)
    if done.returncode: sys.exit(f'{step}: {done.stdout}{done.stderr}')
    return {'step': step, 'clock s': time.perf_counter()-clock, 'cpu s': spent()-cpu, 'load': os.getloadavg()[0]}, done.stdout

def wheels(place, python, what):
    "Every wheel that an installation needs, in a folder."
    timed('download', python, '-m', 'pip', 'wheel', '--quiet', '--wheel-dir', place, '-c', ROOT/'constraints.txt', what)
    timed('download', python, '-m', 'pip', 'wheel', '--quiet', '--wheel-dir', place, 'setuptools>=77')

def once(place, python, files, installs):
    "The steps of one set-up."
    clone, env = place/'clone', place/'env'
    place.mkdir()
    rows = [timed('git clone', 'git', 'clone', '--quiet', '--depth', 1, f'file://{ROOT}', clone)[0],
            timed('python -m venv', python, '-m', 'venv', env)[0]]
    offline = 'install', '--quiet', '--no-index', '--find-links', files
    for words in installs: rows.append(timed(f'pip install {" ".join(words)}', env/'bin/pip', *offline, *words, cwd=clone)[0])
    for nth in ('first', 'second'):
        row, said = timed(f'ecg-predict, the {nth} time', env/'bin/ecg-predict', 'ecg_nbdev/data/samples/A5215.hea', cwd=clone)
        assert 'RBBB' in said, said
        rows.append(row)
    size = sum(p.stat().st_size for p in env.rglob('*') if p.is_file() and not p.is_symlink())
    n = len([*(env/'lib').glob('*/site-packages/*.dist-info')])
    return [{**row, 'packages': n, 'MB': size/1e6} for row in rows]


@call_parse
def main(
    python:str=sys.executable, # what makes the environments
    turns:int=2, # of the way that README.md tells
    downloaded:str=None, # folder of wheels that are there already
    out:str=str(ROOT/'bench/results/newcomer.csv'), # the table
):
    "Set up as a newcomer does, and ask for an answer."
    rows = []
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        files = Path(downloaded or place/'wheels').resolve()
        if not downloaded: wheels(files, python, f'{ROOT}[onnx]')
        for way, turn in [(way, turn+1) for way in WAYS for turn in range(turns if way == 'as README says' else 1)]:
            done = once(place/'now', python, files, WAYS[way])
            total = {'step': 'all', **{name: sum(row[name] for row in done) for name in ('clock s', 'cpu s')}}
            rows += [{'way': way, 'turn': turn, **row} for row in (*done, {**done[-1], **total})]
            shutil.rmtree(place/'now')
            table = pd.DataFrame(rows)
            table.to_csv(out, index=False, float_format='%.4g')
    print(table.to_string(index=False))
    best = table[(table.step == 'all') & (table.way == 'as README says')].min(numeric_only=True)
    print(f'set-up and a first answer beyond downloads: {best["clock s"]:.0f} s by the clock, {best["cpu s"]:.0f} s of the '
          f'processor; the limit is {LIMIT} s')
