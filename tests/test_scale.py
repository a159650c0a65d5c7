"""Past one machine: training in two processes, work on a dask cluster, recordings behind a URL.

What several processes do is what one does: the same losses, the same bytes, whoever is killed meanwhile. What takes long is
marked nightly."""
import json, os, shutil, signal, socket, subprocess, sys, time
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import psutil
import pytest

from ecg_nbdev.answers import answer_parts, answer_rows, answer_to, find_model
from ecg_nbdev.cohort import scan
from ecg_nbdev.core import ECGError
from ecg_nbdev.mirror import local_copy
from ecg_nbdev.packing import build_store
from ecg_nbdev.parallel import in_order
from ecg_nbdev.signal import Preparation
from ecg_nbdev.simulated_set import synth_run
from ecg_nbdev.store import Store

BIN = Path(sys.executable).parent
ENV = {**os.environ, 'OMP_NUM_THREADS': '1'}


@pytest.fixture(scope='module')
def data(tmp_path_factory): return synth_run(tmp_path_factory.mktemp('scale')/'data', n=30, seed=3)


# ---- training

# Imports once, then forks two ranks for each job.
RANKS = """
import json, os, signal, socket, sys, time, warnings
import numpy as np
import ecg_nbdev.runs as runs
from ecg_nbdev.core import ECGError
from ecg_nbdev.data import WindowDataset, ecg_dls
from ecg_nbdev.learner import ecg_learner, train_learner
from ecg_nbdev.ranks import ShareFit, joined
from ecg_nbdev.signal import Preparation
from ecg_nbdev.sim.synth import simulate_cohort
from ecg_nbdev.store import MemoryStore

warnings.simplefilter('ignore')
data, folder = sys.argv[1:]
scored = runs.evaluate
runs.evaluate = lambda *args, **more: scored(*args, **{**more, 'n_boot': 0})

def together(name, work):
    "Two processes that do the same work, each with its rank; how they ended, and the longest time it took after a kill."
    with socket.create_server(('127.0.0.1', 0)) as s: port = s.getsockname()[1]
    children = {}
    for rank in range(2):
        if child := os.fork():
            children[child] = rank
            continue
        os.environ |= {'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
        os.dup2(os.open(f'{folder}/{name}-{rank}.txt', os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        code = 0
        try: work(rank)
        except ECGError as e:
            print('ERROR', e)
            code = 1
        sys.stdout.flush()
        os._exit(code)
    ends, first = {}, None
    while len(ends) < 2:
        child, status = os.wait()
        first = first or time.monotonic()
        ends[children[child]] = os.waitstatus_to_exitcode(status)
    print(json.dumps([name, ends[0], ends[1], time.monotonic()-first]), flush=True)

cohort = MemoryStore(simulate_cohort(40, seed=0), 100, Preparation(fs=100))

def curve(ranks=None):
    "Losses of each step and rows of each epoch, nothing hidden at random: what is drawn differs from process to process."
    split = np.where(np.arange(len(cohort)) % 4 == 0, 'valid', 'train')
    dls = ecg_dls(cohort, split, seconds=2.5, bs=33, jitter=.5)
    learn = ecg_learner(dls, cbs=[ShareFit(ranks)] if ranks else [], dropout=0., lead_dropout=0., hidden=16)
    train_learner(learn, 2, 1e-3, show=False)
    return [list(map(float, learn.recorder.losses)), [list(map(float, row)) for row in learn.recorder.values]]

def compare(rank):
    with joined() as ranks:
        ranks.tell(None)
        print(json.dumps(curve(ranks)))

SMALL = dict(epochs=2, seconds=2.5, bs=16, resume=True, show=False)

def train(out, kill=None, at=0, **options):
    def work(rank):
        if rank == kill:
            batch, calls = WindowDataset.batch, []
            def dying(*args):
                calls.append(1)
                if len(calls) == at: os.kill(os.getpid(), signal.SIGKILL)
                return batch(*args)
            WindowDataset.batch = dying
        runs.train_run(data, f'{folder}/{out}', **{**SMALL, **options})
    return work

print(json.dumps(curve()))
together('curve', compare)
together('whole', train('whole'))
together('killed', train('killed', 1, 10))
together('first', train('killed', 0, 4))
together('again', train('killed'))
"""

def ran_ranks(code, data, folder, *names):
    "How its jobs ended, and what the two processes of each said."
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, data, folder], capture_output=True, text=True, env=ENV)
    alone, *ends = map(json.loads, [line for line in done.stdout.splitlines() if line.startswith('[')])
    assert [end[0] for end in ends] == list(names), done.stderr
    said = {name: [(folder/f'{name}-{rank}.txt').read_text().splitlines() for rank in (0, 1)] for name, *_ in ends}
    return folder, alone, {name: end for name, *end in ends}, said


@pytest.fixture(scope='module')
def ranks(data, tmp_path_factory):
    return ran_ranks(RANKS, data, tmp_path_factory.mktemp('ranks'), 'curve', 'whole', 'killed', 'first', 'again')


def test_two_processes_train_as_one(ranks):
    "Loss for loss within 0.002, at the batches of one process; both processes see the same numbers."
    folder, (losses, rows), ends, said = ranks
    two, other = (json.loads(lines[-1]) for lines in said['curve'])
    assert two == other and ends['curve'][:2] == [0, 0]
    assert len(losses) == len(two[0]) > 10 and losses[-1] < losses[0]-.02
    np.testing.assert_allclose(two[0], losses, atol=.002)
    np.testing.assert_allclose(np.array(two[1])[:, :2], np.array(rows)[:, :2], atol=.002)
    np.testing.assert_allclose(np.array(two[1])[:, 2], np.array(rows)[:, 2], atol=.02) # ten recordings: pairs may swap


def test_a_killed_process_ends_the_others_and_the_run_goes_on(ranks):
    folder, _, ends, said = ranks
    assert ends['killed'][:2] == [1, -9] and ends['first'][:2] == [-9, 1]
    assert ends['killed'][2] < 60 and ends['first'][2] < 60
    for name, rank in (('killed', 0), ('first', 1)):
        line, = [line for line in said[name][rank] if line.startswith('ERROR')]
        assert 'another process of this training has ended' in line and '--resume' in line
    assert ends['whole'][:2] == ends['again'][:2] == [0, 0]
    for name in ('metrics.json', 'history.csv', 'predictions.csv', 'model.safetensors', 'config.json'):
        assert (folder/'whole'/name).read_bytes() == (folder/'killed'/name).read_bytes(), name
    end = {name: [line for line in said[name][0][-5:] if str(folder) not in line] for name in ('whole', 'again')}
    assert len(end['whole']) > 2 and end['whole'] == end['again'] and not said['whole'][1]


@pytest.mark.nightly
def test_what_goes_wrong_is_said_once(data, tmp_path):
    code = RANKS.split("together('curve'")[0]+"together('wild', train('wild', lr=1e3, epochs=1))"
    _, _, ends, said = ran_ranks(code, data, tmp_path, 'wild')
    assert ends['wild'][:2] == [1, 0] and 'training diverged' in said['wild'][0][-1] and not said['wild'][1]


def processes_of(launcher, module):
    "Ids of the processes of a launcher that run a module."
    return [child.pid for child in psutil.Process(launcher.pid).children(recursive=True) if module in ' '.join(child.cmdline())]

@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_accelerate_starts_ends_and_goes_on(data, tmp_path):
    "As a person does it: one process is killed, all end within a minute, one of them says how to go on, and that is so."
    def launched(out, *more):
        with socket.create_server(('127.0.0.1', 0)) as s: port = s.getsockname()[1]
        return subprocess.Popen(
            [BIN/'accelerate', 'launch', '--multi_gpu', '--num_machines', '1', '--num_processes', '2', '--main_process_port', str(port),
             '--mixed_precision', 'no', '--dynamo_backend', 'no', '-m', 'ecg_nbdev.train', '--data-path', data, '--out', tmp_path/out,
             '--epochs', '6', '--seconds', '2.5', '--bs', '16', *more], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    whole = launched('whole')
    assert whole.communicate()[0].count('test recordings: macro AUROC') == 1 and whole.returncode == 0
    killed, state = launched('killed'), tmp_path/'killed'/'checkpoint'/'training.safetensors'
    while not state.exists() and killed.poll() is None: time.sleep(.02)
    os.kill(processes_of(killed, 'ecg_nbdev.train')[1], signal.SIGKILL)
    start = time.monotonic()
    said = killed.communicate()[1].splitlines()
    assert time.monotonic()-start < 60 and killed.returncode not in (0, None)
    line, = [line for line in said if '--resume' in line]
    assert line.startswith(('another process', 'stopped;')), line
    resumed = launched('killed', '--resume')
    assert resumed.communicate()[0].count('test recordings: macro AUROC') == 1 and resumed.returncode == 0
    for name in ('metrics.json', 'history.csv', 'model.safetensors'):
        assert (tmp_path/'whole'/name).read_bytes() == (tmp_path/'killed'/name).read_bytes(), name


# ---- a cluster

# What a worker loads first: each kind of work ends one worker, in the middle.
DEADLY = """
import os, signal
from importlib import import_module

def deadly(place, name):
    place, calls = import_module(place), []
    work = getattr(place, name)
    def once(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            try: os.close(os.open(os.environ['DEATHS']+name, os.O_CREAT | os.O_EXCL))
            except FileExistsError: pass
            else: os.kill(os.getpid(), signal.SIGKILL)
        return work(*args, **kwargs)
    setattr(place, name, once)

for work in os.environ['DEADLY'].split(): deadly(*work.split(':'))
"""

def contents(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}

@contextmanager
def dask(room, deadly):
    "The address of a scheduler whose workers are ended by some work, one worker by each."
    (room/'deadly.py').write_text(DEADLY)
    env = {**ENV, 'DEATHS': f'{room}/died-', 'DEADLY': ' '.join(deadly)}
    def started(*args): return subprocess.Popen([BIN/'dask', *map(str, args)], env=env, cwd=room, stderr=subprocess.DEVNULL)
    here = '--scheduler-file', room/'scheduler.json'
    worker = 'worker', *here, '--no-nanny', '--nthreads', 1, '--no-dashboard', '--preload', room/'deadly.py'
    running = [started('scheduler', *here, '--port', 0, '--no-dashboard', '--host', '127.0.0.1')]
    try:
        running += [started(*worker) for _ in range(1+len(deadly))]
        while not (room/'scheduler.json').exists() or not (held := (room/'scheduler.json').read_text()): time.sleep(.05)
        yield json.loads(held)['address']
        assert {p.name for p in room.glob('died-*')} == {f'died-{work.split(":")[1]}' for work in deadly}
    finally:
        for process in running: process.kill()
        for process in running: process.wait()


@pytest.mark.timeout(300)
def test_a_cluster_answers_as_one_process_and_loses_nothing(data, tmp_path):
    "Packing and answering lose a worker each, in the middle; files are those of one process, byte for byte."
    table, prepare = scan(data).table, Preparation(fs=100)
    paths, model, failed = [*sorted(data.glob('*.hea')), tmp_path/'gone.hea'], find_model(light=True), []
    one = build_store(table, tmp_path/'one', prepare, 1, progress=False)
    answer_to(tmp_path/'one.csv', paths, model, failed.append, show=False)
    with dask(tmp_path, ['ecg_nbdev.packing:_pack', 'ecg_nbdev.answers:_answer_files']) as address:
        two = build_store(table, tmp_path/'two', prepare, address, progress=False)
        answer_to(tmp_path/'two.csv', paths, model, failed.append, show=False, cluster=address)
        parts = answer_parts(tmp_path/'parts', paths, model, failed.append, show=False, size=16, cluster=address)
    assert contents(one.path) == contents(two.path) and len(one) == len(table)
    assert (tmp_path/'one.csv').read_bytes() == (tmp_path/'two.csv').read_bytes()
    assert parts == (30, 0) and [str(e) for e in failed] == 3*[str(failed[0])] and 'gone.hea' in str(failed[0])
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path/'parts'), pd.DataFrame(answer_rows(paths, model, failed.append)))


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_commands_work_on_a_cluster(data, tmp_path):
    "Simulated, packed, answered by the commands; each loses a worker."
    def ran(command, *args, status=0):
        done = subprocess.run([BIN/command, *map(str, args)], capture_output=True, text=True, env=ENV)
        assert done.returncode == status, done.stderr
    work = 'ecg_nbdev.simulated_set:_simulated_into', 'ecg_nbdev.packing:_pack', 'ecg_nbdev.answers:_answer_files'
    with dask(tmp_path, work) as address:
        ran('ecg-synth', tmp_path/'data', '--n', 30, '--seed', 3, '--cluster', address)
        assert contents(tmp_path/'data') == contents(data)
        for name, more in (('one', ()), ('two', ('--cluster', address))):
            ran('ecg-ingest', data, tmp_path/name, *more)
            ran('ecg-predict', data, '--out', tmp_path/f'{name}.csv', *more)
            ran('ecg-predict', tmp_path/name, '--out', tmp_path/f'{name}-parts', *more)
    assert contents(tmp_path/'one') == contents(tmp_path/'two')
    assert (tmp_path/'one.csv').read_bytes() == (tmp_path/'two.csv').read_bytes()
    one, two = (pd.read_parquet(tmp_path/f'{name}-parts').drop(columns='file') for name in ('one', 'two'))
    pd.testing.assert_frame_equal(one, two)


def test_no_cluster_is_one_line(data, tmp_path, monkeypatch):
    command = [BIN/'ecg-ingest', data, tmp_path/'store', '--cluster', 'tcp://127.0.0.1:9']
    done = subprocess.run(command, capture_output=True, text=True, env=ENV)
    line, = done.stderr.splitlines()
    assert done.returncode == 1 and 'tcp://127.0.0.1:9: no dask scheduler answers' in line and not (tmp_path/'store').exists()
    monkeypatch.setitem(sys.modules, 'distributed', None)
    with pytest.raises(ECGError, match=r'pip install "ecg_nbdev\[scale\]"'): list(in_order(abs, [1], 'tcp://127.0.0.1:9'))


# ---- recordings behind an address

class Quiet(SimpleHTTPRequestHandler):
    "Lists and serves a folder, and what a test puts in the way."
    def log_message(self, *args): pass
    def do_GET(self):
        self.server.asked.append(self.path)
        if body := self.server.instead.get(self.path):
            self.send_response(200)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else: super().do_GET()

@pytest.fixture
def web(data, tmp_path, monkeypatch):
    "A server of the recordings and of a store of them."
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    shutil.copytree(data, tmp_path/'web'/'data')
    build_store(scan(data).table, tmp_path/'web'/'store', Preparation(fs=100), 1, progress=False)
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=tmp_path/'web'))
    server.asked, server.instead = [], {}
    Thread(target=server.serve_forever, daemon=True).start()
    yield server, f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


def test_an_address_is_as_good_as_a_folder(data, web, tmp_path, capfd):
    server, url = web
    assert scan(local_copy(f'{url}/data')).table.drop(columns='path').equals(scan(data).table.drop(columns='path'))
    stored = Store(local_copy(f'{url}/store'))
    assert stored.verify() == 30 and contents(stored.path)['signal-000.i16'] == contents(tmp_path/'web'/'store')['signal-000.i16']
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2 and '61 files, 61 of them new' in said[0] and f'{url}/data' in said[0] and str(tmp_path/'cache') in said[0]
    server.asked.clear()
    local_copy(f'{url}/data/')
    assert server.asked and not [path for path in server.asked if path.endswith('.mat')] # none is loaded again
    done = subprocess.run([BIN/'ecg-predict', f'{url}/data/S00001.hea', data/'S00001.hea', '--format', 'csv'],
                          capture_output=True, text=True, env={**ENV, 'XDG_CACHE_HOME': str(tmp_path/'cache')})
    one, two = (line.split(',') for line in done.stdout.splitlines()[1:])
    assert one[2:] == two[2:] and one[0] == 'S00001' and '2 files, 2 of them new' in done.stderr, done.stderr


def test_a_server_is_not_believed(web, tmp_path):
    "Names that climb, a file that ends early, an address that is none: one line that names it, and nothing outside the mirror."
    server, url = web
    server.instead['/evil'] = server.instead['/evil/'] = b'<a href="/evil/..%2f..%2fclimbed.hea">x</a>'
    server.instead['/data/S00002.mat'] = b'short'
    for place, why in (('evil', 'leads out of the folder'), ('data', 'ends early'), ('nothing', 'nothing at this address')):
        with pytest.raises(ECGError, match=why) as e: local_copy(f'{url}/{place}')
        assert f'{url}/{place}' in str(e.value) and '\n' not in str(e.value)
    del server.instead['/data/S00002.mat'] # what was loaded before is kept
    assert len(scan(local_copy(f'{url}/data'))) == 30
    assert {p.name for p in (tmp_path/'cache').rglob('*.hea')} <= {f'S{i:05d}.hea' for i in range(1, 31)}
    with pytest.raises(ECGError, match="can't be read"): local_copy('http://127.0.0.1:9/data')


def test_a_stopped_mirror_loads_only_what_is_new(tmp_path, monkeypatch, capfd):
    "Its journal is never shorter than what it has; what a killed run left is gone once it is gone there."
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    there, url = tmp_path/'there', f'file://{tmp_path}/there'
    there.mkdir()
    for name in 'abc': (there/f'{name}.hea').write_text(name)
    mirror = local_copy(url)
    (there/'d.hea').write_text('d')
    def stop(*args): raise KeyboardInterrupt
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr('ecg_nbdev.mirror.put_down', stop)
        local_copy(url)
    (mirror/'e.hea').write_text('of a killed run')
    local_copy(url)
    assert '4 files, 1 of them new' in capfd.readouterr().err
    assert sorted(file.name for file in mirror.iterdir()) == ['.loaded', *(f'{name}.hea' for name in 'abcd')]
