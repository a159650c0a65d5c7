"Training that is killed, at any moment, goes on and ends as if nothing had happened; a folder never mixes two runs."
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

BIN = Path(sys.executable).parent
ENV = {**os.environ, 'OMP_NUM_THREADS': '1'}
SMALL = ('--epochs', '3', '--seconds', '2.5', '--bs', '64')
RESULTS = ('metrics.json', 'history.csv', 'predictions.csv', 'model.safetensors', 'config.json', 'cohort.csv')


def run(command, *args, status=0):
    done = subprocess.run([BIN/command, *map(str, args)], capture_output=True, text=True, env=ENV)
    assert done.returncode == status, f'{command} {args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}'
    return done


def same(a, b):
    "Whether two runs have the same results, byte for byte, and nothing else is left."
    for name in RESULTS: assert (a/name).read_bytes() == (b/name).read_bytes(), name
    left = {f.name for folder in (a, b) for f in folder.iterdir()}
    assert left == {*RESULTS, 'predictions.parquet', 'skipped.csv', 'MODEL_CARD.md', 'run.json', 'store', '.lock'}


def table(stdout):
    "What a training says at its end, from its table on."
    lines = stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if 'sensitivity' in line or 'recall' in line)
    return [line for line in lines[start:] if not line.startswith('written to')]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    "A small simulated folder."
    root = tmp_path_factory.mktemp('resume')
    run('ecg-synth', root/'data', '--n', 60)
    return root


# Imports once, then forks: each child is a process of its own that trains in a folder and kills itself at a moment.
CHILDREN = """
import json, os, signal, sys
import ecg_nbdev.runs as runs, ecg_nbdev.resume as resume, ecg_nbdev.store as store
import ecg_nbdev.folders as folders, ecg_nbdev.pretrain as pretrain
from ecg_nbdev.data import WindowDataset

def die(*args, **kwargs): os.kill(os.getpid(), signal.SIGKILL)

def at(n, place, name, before):
    "Die in the n-th call of a function, after what `before` does."
    old, calls = getattr(place, name), []
    def new(*args, **kwargs):
        calls.append(1)
        if len(calls) < n: return old(*args, **kwargs)
        before(old, args, kwargs)
        die()
    setattr(place, name, new)

def nothing(old, args, kwargs): pass
def all_of_it(old, args, kwargs): old(*args, **kwargs)
def half(old, args, kwargs):
    old(*args, **kwargs)
    with open(args[1], 'r+b') as f: f.truncate(os.path.getsize(args[1])//2)

MOMENTS = {
    'packing': (store, '_append', nothing), 'batch': (WindowDataset, 'batch', nothing),
    'writing': (resume, 'save_file', half), 'written': (resume, 'save_state', all_of_it),
    'scoring': (runs, '_choose_point', nothing), 'model': (runs, 'save_bundle', nothing),
    'saved': (runs, 'save_bundle', all_of_it), 'end': (folders.shutil, 'rmtree', nothing)}

_, data, out, moments, options = sys.argv
options = json.loads(options)
if options.get('pretrain'):
    held = pretrain.simulated_store(1000, 1000, 2.5, 100)
    made = pretrain.simulated_store
    pretrain.simulated_store = lambda n, *args: held if n == 1000 else made(n, *args)
    runs.simulated_start = lambda arch, n, seed, **more: pretrain.pretrain_model(arch, 3, 48, seed, **more).model
for moment in moments.split(','):
    if not (child := os.fork()):
        name, _, n = moment.partition(' ')
        if name: at(int(n or 1), *MOMENTS[name][:2], MOMENTS[name][2])
        runs.train_run(data, out, epochs=3, seconds=2.5, resume=True, show=False, **options)
        sys.stdout.flush()
        os._exit(0)
    print(moment, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=sys.stderr, flush=True)
"""


def children(data, out, *moments, **options):
    "Train in processes that are killed at these moments, then in one that is not; returns its table."
    import json
    args = [data, out, ','.join([*moments, '']), json.dumps(options)]
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', CHILDREN, *map(str, args)],
                          capture_output=True, text=True, env=ENV)
    ends = [line.rsplit(' ', 1) for line in done.stderr.splitlines() if line.rsplit(' ', 1)[0] in (*moments, '')]
    assert done.returncode == 0 and ends == [[m, '-9'] for m in moments]+[['', '0']], done.stderr
    return table(done.stdout)


@pytest.fixture(scope='module')
def whole(root):
    "The table of a run that nobody disturbed."
    return children(root/'data', root/'whole')


def test_a_killed_run_ends_like_one_that_was_not(root, whole):
    "Killed while packing, within epochs, while and after a checkpoint is written, and among the last files."
    rng = random.Random(0)
    within = [f'batch {rng.randint(2, 9)}' for _ in range(2)]
    moments = ['packing 20', within[0], 'writing', 'written', within[1], 'writing 2', 'model', 'end']
    assert children(root/'data', root/'killed', *moments) == whole
    same(root/'whole', root/'killed')


def test_pretraining_goes_on_too(root):
    "In its second epoch, while it writes, in the training that follows."
    options = dict(pretrain='synth', seed=2)
    unbroken = children(root/'data', root/'pre', **options)
    assert children(root/'data', root/'prekilled', 'written', 'writing 2', 'written 3', 'written 2', **options) == unbroken
    same(root/'pre', root/'prekilled')


def started(*args):
    "The command as a process that has begun to work, and has something to lose."
    process = subprocess.Popen([BIN/'ecg-train', *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env={**ENV, 'PYTHONUNBUFFERED': '1'})
    process.stdout.readline()
    out = Path(args[args.index('--out')+1])
    while process.poll() is None and not (out/'checkpoint'/'training.safetensors').exists(): time.sleep(.02)
    return process


def test_the_command_is_stopped_and_goes_on(root, whole):
    "SIGKILL, Ctrl-C and SIGTERM at random moments; the same line with --resume."
    args = ('--data-path', root/'data', '--out', root/'command', *SMALL)
    rng = random.Random(1)
    for number, status in ((signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = started(*args, *(['--resume'] if number != signal.SIGKILL else []))
        time.sleep(rng.uniform(0, .5))
        process.send_signal(number)
        _, said = process.communicate()
        assert process.returncode == status
        if number == signal.SIGKILL: continue
        line, = said.strip().splitlines()
        assert f'ecg-train --data-path {root}/data' in line and line.endswith(' --resume')
    said = run('ecg-train', *args, status=1).stderr.strip().splitlines()
    assert len(said) == 1 and 'go on with --resume' in said[0] and '--out' in said[0]
    assert table(run('ecg-train', *args, '--resume').stdout) == whole
    assert table(run('ecg-train', *args, '--resume').stdout) == whole
    same(root/'whole', root/'command')


REFUSED = """
import json, sys
from pathlib import Path
from ecg_nbdev.core import ECGError
from ecg_nbdev.folders import run_folder
from ecg_nbdev.runs import train_run
data, out, other = sys.argv[1:]
def refused(path=out, data=data, **options):
    try: train_run(data, path, **{'epochs': 3, 'seconds': 2.5, 'show': False, **options})
    except ECGError as e: print(e)
    else: print('done')
refused()
refused(epochs=4, resume=True)
refused(data=other, resume=True)
with run_folder(Path(out).parent/'busy', {}): refused(Path(out).parent/'busy')
file = Path(out)/'run.json'
held = file.read_text()
file.write_text(json.dumps({**json.loads(held), 'code': {'ecg_nbdev': '0.0.1'}}))
refused(resume=True)
file.write_text(held)
refused(Path(out)/'run.json'/'below')
refused('/proc/nowhere')
refused(Path(out).parent/'wild', lr=1e3)
print((Path(out).parent/'wild'/'checkpoint').exists(), (Path(out).parent/'wild'/'config.json').exists())
refused(Path(out).parent/'wild', epochs=1)
"""


def test_a_folder_never_holds_two_runs(root, whole):
    run('ecg-synth', root/'other', '--n', 30, '--seed', 1)
    shutil.copytree(root/'whole', root/'held')
    before = {f: f.read_bytes() for f in (root/'held').rglob('*') if f.is_file()}
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', REFUSED, *map(str, (root/'data', root/'held', root/'other'))],
                          capture_output=True, text=True, env=ENV)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if str(root) in line or '/proc' in line or 'training' in line]
    for why in ('finished run: name another folder', 'epochs 3, not 4', 'another run (recordings', 'another run is writing',
                "another run (code", "below: can't be written", "/proc/nowhere: can't be written", 'training diverged'):
        assert sum(why in line for line in said) == 1, (why, done.stdout)
    assert 'False False' in done.stdout and done.stdout.strip().endswith('done')
    assert all(f.read_bytes() == data for f, data in before.items())


@pytest.mark.parametrize('option', ['--epochs 0', '--epochs -1', '--arch nope', '--loss nope', '--stride 20', '--fold 10',
                                    '--lr 0', '--out /proc/nowhere'])
def test_options_are_checked_before_anything_is_read(option, tmp_path):
    "The data folder does not exist, and nobody gets as far as to notice."
    name, value = option.split()
    out = () if name == '--out' else ('--out', tmp_path/'out')
    line, = run('ecg-train', '--data-path', '/nowhere', *out, name, value, status=1).stderr.strip().splitlines()
    assert value in line and '/nowhere/' not in line
    assert not (tmp_path/'out').exists()
