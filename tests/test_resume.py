"Training that is killed, at any moment, goes on and ends as if nothing had happened; a folder never mixes two runs."
import json, os, random, shutil, signal, subprocess, sys, time
from pathlib import Path

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
import ecg_nbdev.runs as runs, ecg_nbdev.resume as resume, ecg_nbdev.packing as packing
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
    'packing': (packing, '_append', nothing), 'batch': (WindowDataset, 'batch', nothing),
    'writing': (resume, 'save_file', half), 'written': (resume, 'save_state', all_of_it),
    'model': (runs, 'save_bundle', nothing), 'end': (folders.shutil, 'rmtree', nothing)}

held = pretrain.simulated_store(100, 1000, 2.5, 100)
made = pretrain.simulated_store
pretrain.simulated_store = lambda n, *args: held if n == 1000 else made(n, *args)
runs.simulated_start = lambda arch, n, seed, **more: pretrain.pretrain_model(arch, 3, 48, seed, **more).model

data, jobs = sys.argv[1], json.loads(sys.argv[2])
for out, moments, options in jobs:
    for moment in [*moments, '']:
        if not (child := os.fork()):
            os.dup2(os.open(out+'.txt', os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            name, _, n = moment.partition(' ')
            if name: at(int(n or 1), *MOMENTS[name])
            runs.train_run(data, out, epochs=3, seconds=2.5, resume=True, show=False, **options)
            sys.stdout.flush()
            os._exit(0)
        print(json.dumps([out, moment, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]), flush=True)
"""

# name → the moments at which its run is killed, its options
KILLED = {
    'whole': ([], {}),
    'killed': (['packing 20', f'batch {random.Random(0).randint(2, 9)}', 'writing 2', 'written', 'model', 'end'], {}),
    'pre': ([], {'pretrain': 'synth', 'seed': 2}),
    'prekilled': (['written', 'writing 2', 'written 2'], {'pretrain': 'synth', 'seed': 2})}


@pytest.fixture(scope='module')
def tables(root):
    "What each of these runs says at its end, after as many processes as it takes."
    jobs = [(str(root/name), *job) for name, job in KILLED.items()]
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', CHILDREN, root/'data', json.dumps(jobs)],
                          capture_output=True, text=True, env=ENV)
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert ends == [[out, m, -9 if m else 0] for out, moments, _ in jobs for m in [*moments, '']], done.stderr
    return {name: table((root/f'{name}.txt').read_text()) for name in KILLED}


def test_a_killed_run_ends_like_one_that_was_not(root, tables):
    "Killed while packing, within an epoch, while and after a checkpoint is written, and among the last files."
    assert tables['killed'] == tables['whole']
    same(root/'whole', root/'killed')


def test_pretraining_goes_on_too(root, tables):
    "Killed behind its first epoch, while it writes, in the training that follows."
    assert tables['prekilled'] == tables['pre'] != tables['whole']
    same(root/'pre', root/'prekilled')


def started(*args):
    "The command as a process that has begun to work, and has something to lose."
    process = subprocess.Popen([BIN/'ecg-train', *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env={**ENV, 'PYTHONUNBUFFERED': '1'})
    process.stdout.readline()
    out = Path(args[args.index('--out')+1])
    while process.poll() is None and not (out/'checkpoint'/'training.safetensors').exists(): time.sleep(.02)
    return process


def test_the_command_is_stopped_and_goes_on(root, tables):
    "Ctrl-C and SIGTERM at random moments; the same line with --resume."
    args = ('--data-path', root/'data', '--out', root/'command', *SMALL)
    rng = random.Random(1)
    for number, status, more in ((signal.SIGINT, 130, ()), (signal.SIGTERM, 143, ('--resume',))):
        process = started(*args, *more)
        time.sleep(rng.uniform(0, .2))
        process.send_signal(number)
        _, said = process.communicate()
        assert process.returncode == status
        line, = said.strip().splitlines()
        assert f'ecg-train --data-path {root}/data' in line and line.endswith(' --resume')
    assert table(run('ecg-train', *args, '--resume').stdout) == tables['whole']
    same(root/'whole', root/'command')


REFUSED = """
import json, sys
from pathlib import Path
from ecg_nbdev.core import ECGError
from ecg_nbdev.folders import run_folder
from ecg_nbdev.runs import train_run
from ecg_nbdev.simulated_set import synth_run
data, out, other = sys.argv[1:]
def refused(path=out, data=data, **options):
    try: train_run(data, path, **{'epochs': 3, 'seconds': 2.5, 'show': False, **options})
    except ECGError as e: print(e)
    else: print('done')
synth_run(other, 30, seed=1)
refused()
refused(epochs=4, resume=True)
refused(data=other, resume=True)
with run_folder(Path(out).parent/'busy', {}) as busy:
    refused(Path(out).parent/'busy')
    busy.begin()
refused(Path(out).parent/'busy')
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


def test_a_folder_never_holds_two_runs(root, tables):
    shutil.copytree(root/'whole', root/'held')
    before = {f: f.read_bytes() for f in (root/'held').rglob('*') if f.is_file()}
    folders = [root/name for name in ('data', 'held', 'other')]
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', REFUSED, *folders], capture_output=True, text=True, env=ENV)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if str(root) in line or '/proc' in line or 'training' in line]
    for why in ('finished run: name another folder', 'epochs 3, not 4', 'another run (recordings',
                'another run is writing', 'unfinished run: go on with --resume', "another run (code",
                "below: can't be written", "/proc/nowhere: can't be written", 'training diverged'):
        assert sum(why in line for line in said) == 1, (why, done.stdout)
    assert 'False False' in done.stdout and done.stdout.strip().endswith('done')
    assert all(f.read_bytes() == data for f, data in before.items())


def test_options_are_checked_before_anything_is_read(tmp_path):
    "The data folder does not exist, and nobody gets as far as to notice; see `ecg_nbdev.runs` for the other options."
    args = ('--data-path', '/nowhere', '--out', tmp_path/'out', '--stride', 20)
    line, = run('ecg-train', *args, status=1).stderr.strip().splitlines()
    assert 'stride is 20' in line
    assert not (tmp_path/'out').exists()
