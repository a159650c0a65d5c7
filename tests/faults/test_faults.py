"""Commands as real processes on a full disk, with a file in the way, stopped by Ctrl-C, killed at any moment, two at once.

Each says one line, leaves nothing half-written, and the same command again ends as if nothing had happened. What takes
long is marked nightly: `python -m pytest tests/faults -m nightly`."""
import hashlib, os, random, resource, shutil, signal, subprocess, sys, time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ecg_nbdev.answers import answer_to, find_model
from ecg_nbdev.cohort import scan
from ecg_nbdev.core import UNFINISHED, CohortError, ECGError, hold_file
from ecg_nbdev.records import write_record
from ecg_nbdev.simulated_set import synth_run

BIN = Path(sys.executable).parent


def start(command, *args, env=None, **kw):
    env = {**os.environ, 'OMP_NUM_THREADS': '1'} if env is None else env
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([BIN/command, *map(str, args)], env=env, **pipes, **kw)

def ended(process):
    "Exit status, the lines on stderr that are no progress, and stdout."
    out, err = process.communicate(timeout=480) # a machine may be busy
    return process.returncode, [line for line in err.splitlines() if line.strip() and ' a second, ' not in line], out

def run(command, *args, **kw): return ended(start(command, *args, **kw))

def says_one_line(done, text, status=1):
    assert done[0] == status and len(done[1]) == 1 and text in done[1][0], done

def contents(folder, but=()):
    "Path → digest of all files, hidden ones too."
    folder = Path(folder)
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob('*'))
            if p.is_file() and p.name not in but}


@pytest.fixture(scope='module')
def data(tmp_path_factory): return synth_run(tmp_path_factory.mktemp('cohort')/'data', n=30, seed=5)


def small_files(size): return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def until(process, condition, seconds=60):
    "Wait until something holds, as long as a process runs."
    end = time.monotonic()+seconds
    while not condition() and process.poll() is None and time.monotonic() < end: time.sleep(.02)


@pytest.fixture
def mirror(data, tmp_path):
    "A slow server of the cohort."
    web = tmp_path/'web'
    shutil.copytree(data, web/'training'/'cpsc_2018')
    sums = [f'{hashlib.sha256(p.read_bytes()).hexdigest()} {p.relative_to(web).as_posix()}\n' for p in sorted(web.rglob('S*'))]
    (web/'SHA256SUMS.txt').write_text(''.join(sums))
    class Slow(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
        def do_GET(self):
            time.sleep(.1)
            try: super().do_GET()
            except OSError: pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Slow, directory=web))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


def test_a_disk_that_takes_no_more_and_a_file_in_the_way(data, tmp_path):
    says_one_line(run('ecg-ingest', data, tmp_path/'store', preexec_fn=small_files(50_000)), 'File too large')
    (tmp_path/'file').write_text('here')
    says_one_line(run('ecg-predict', data/'S00001.hea', '--out', tmp_path/'file'/'answers.csv'), 'in the way')
    assert (tmp_path/'file').read_text() == 'here' and not list(tmp_path.rglob('*.parquet'))


def test_a_bare_environment(data, tmp_path):
    "Neither a home nor a language: names and answers come out all the same."
    path = shutil.copy(data/'S00001.hea', tmp_path/'Zoë.hea')
    shutil.copy(data/'S00001.mat', tmp_path)
    status, lines, out = run('ecg-predict', path, '--format', 'json', env={'LANG': 'C', 'PYTHONPATH': os.environ.get('PYTHONPATH', '')})
    assert status == 0 and not lines and 'Zo' in out


def test_ctrl_c_is_one_line(mirror, tmp_path):
    def heard(): signal.signal(signal.SIGINT, signal.SIG_DFL) # a shell's background processes do not hear it
    process = start('ecg-fetch', 'cpsc2018', tmp_path/'new', '--host', mirror, preexec_fn=heard)
    until(process, lambda: list((tmp_path/'new').rglob('S*')))
    process.send_signal(signal.SIGINT)
    says_one_line(ended(process), 'stopped', 130)
    assert not list((tmp_path/'new').rglob('.S*'))


def test_a_simulation_that_was_stopped_is_continued(tmp_path, monkeypatch):
    folder, mark = tmp_path/'new', tmp_path/'new'/UNFINISHED
    def stop(record, folder):
        if record.id == 'S00004': raise KeyboardInterrupt
        return write_record(record, folder)
    with monkeypatch.context() as m:
        m.setattr('ecg_nbdev.simulated_set.write_record', stop)
        with pytest.raises(KeyboardInterrupt): synth_run(folder, n=6)
    assert len(list(folder.glob('S*.hea'))) == 3 and mark.exists()
    with pytest.raises(CohortError, match='is not finished'): scan(folder)
    with pytest.raises(CohortError, match='was begun with'): synth_run(folder, n=7)
    with open(mark) as f:
        assert hold_file(f.fileno())
        with pytest.raises(CohortError, match='another process'): synth_run(folder, n=6)
    assert contents(synth_run(folder, n=6)) == contents(synth_run(tmp_path/'whole', n=6))


def test_answers_are_written_by_one_process(data, tmp_path):
    model = find_model(light=True)
    with open(tmp_path/'.a.csv.journal', 'w') as f:
        assert hold_file(f.fileno())
        with pytest.raises(ECGError, match='another process'): answer_to(tmp_path/'a.csv', [], model, print)
    (tmp_path/'b.csv').mkdir()
    with pytest.raises(ECGError, match='is a folder'): answer_to(tmp_path/'b.csv', [], model, print)


# --- nightly: killed at any moment

def commands(data, mirror):
    "Name → the command's words; `{}` is what it writes."
    return {'synth': ('ecg-synth', '{}', '--n', 40), 'ingest': ('ecg-ingest', data, '{}'),
            'fetch': ('ecg-fetch', 'cpsc2018', '{}', '--host', mirror), 'predict': ('ecg-predict', data, '--out', '{}/answers.csv'),
            'evaluate': ('ecg-evaluate', '--test-path', data, '--out', '{}'), 'export': ('ecg-export', 'shipped', '{}/model.onnx'),
            'train': ('ecg-train', '--data-path', data, '--out', '{}', '--epochs', 2, '--seconds', 2.5, '--resume')}


def descendants(pid):
    "Processes below one, by /proc."
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try: fields = stat.read_text().rsplit(')', 1)[1].split()
        except OSError: continue
        if int(fields[1]) == pid: found += [int(stat.parent.name), *descendants(int(stat.parent.name))]
    return found


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('name', ['synth', 'ingest', 'fetch', 'predict', 'evaluate', 'export', 'train'])
def test_killed_at_any_moment(name, data, mirror, tmp_path):
    "Ten times at most; then once to its end: the files are those of a run that nobody killed, and nothing else is left."
    command, *words = commands(data, mirror)[name]
    def words_for(place): return [str(w).replace('{}', str(place)) for w in words]
    begun = time.monotonic()
    assert run(command, *words_for(tmp_path/'whole'))[0] == 0
    length, r = time.monotonic()-begun, random.Random(0)
    for _ in range(10):
        process = start(command, *words_for(tmp_path/'killed'))
        time.sleep(r.uniform(.3, 1)*length)
        below = descendants(process.pid)
        process.kill()
        process.communicate()
        if process.returncode == 0: break # it has come to its end
        end = time.monotonic()+20
        while any(Path(f'/proc/{pid}').exists() for pid in below) and time.monotonic() < end: time.sleep(.1)
        assert not [pid for pid in below if Path(f'/proc/{pid}').exists()], 'a worker outlives its parent'
    time.sleep(1.1) # what is younger than a second is not taken for a remainder
    done = run(command, *words_for(tmp_path/'killed'))
    assert done[0] == 0 or 'is not empty' in done[1][0], done # a simulation that was killed when all was written
    whole, killed = contents(tmp_path/'whole'), contents(tmp_path/'killed')
    assert killed.keys() == whole.keys()
    differ = {p for p in whole if whole[p] != killed[p]}
    assert not differ-{'report.html', 'model.onnx', 'store.json', 'lock'}, differ


@pytest.mark.nightly
@pytest.mark.parametrize('kind', ['full', 'read-only'])
def test_a_disk_that_is_full_or_read_only(kind, data, mirror, tmp_path):
    place = tmp_path/'disk'
    place.mkdir()
    options = 'size=8k' if kind == 'full' else 'ro'
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'none', place], capture_output=True).returncode:
        pytest.skip('mounting is not allowed here')
    try:
        for name, (command, *words) in commands(data, mirror).items():
            done = run(command, *[str(w).replace('{}', str(place/name)) for w in words])
            assert done[0] == 1 and len(done[1]) == 1, (name, done)
            left = [p.name for p in place.rglob('.*') if p.name.count('.') > 2 and p.suffix != '.journal']
            assert not left, (name, left)
            if kind == 'full': shutil.rmtree(place/name, ignore_errors=True)
            for left in place.glob('.*'): shutil.rmtree(left)
    finally: subprocess.run(['umount', place], check=True)


@pytest.mark.nightly
def test_two_at_once(data, tmp_path):
    "One does it, the other says so; or both, one after the other."
    for command, *words in (('ecg-ingest', data, tmp_path/'store'), ('ecg-predict', data, '--out', tmp_path/'a.csv')):
        both = [start(command, *words) for _ in range(2)]
        done = [ended(process) for process in both]
        assert 0 in [d[0] for d in done]
        for d in done: assert d[0] == 0 or 'another process' in d[1][0], d
        assert run(command, *words)[0] == 0

@pytest.mark.nightly
def test_each_command_says_what_is_in_the_way_before_its_work(data, tmp_path):
    (tmp_path/'file').write_text('here')
    says_one_line(run('ecg-evaluate', '--test-path', data, '--out', tmp_path/'file'), 'in the way')
    says_one_line(run('ecg-ingest', data, tmp_path/'file'), 'in the way')
    says_one_line(run('ecg-synth', tmp_path/'file'), 'in the way')
    says_one_line(run('ecg-synth', tmp_path/'new', '--n', 3, preexec_fn=small_files(10_000)), 'File too large')
    says_one_line(run('ecg-predict', data, '--out', tmp_path/'answers.csv', preexec_fn=small_files(1000)), 'File too large')
    assert not [p for p in tmp_path.rglob('*') if p.suffix in ('.mat', '.csv', '.parquet')]
    assert run('ecg-predict', data, '--out', tmp_path/'answers.csv')[0] == 0
    assert [p.name for p in tmp_path.iterdir() if 'answers' in p.name] == ['answers.csv']
