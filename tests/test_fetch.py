"""Loading public data sets, from a server on this computer.

Files under way are never taken for finished ones; a busy server is asked again."""
import os
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread

import pytest

from ecg_nbdev import fetch as module
from ecg_nbdev.core import CohortError
from ecg_nbdev.fetch import _listed, fetch_dataset

NAMES = [f'g{g}/A{g}{i:03d}.{ext}' for g in (1, 2) for i in range(10) for ext in ('hea', 'mat')]


def content(name): return name.encode()*500


@pytest.fixture
def site(tmp_path, monkeypatch):
    "A web folder, the paths asked for, and what goes wrong: path → statuses it answers first."
    monkeypatch.setattr(module, '_load', partial(module._load, wait=.01))
    web, asked, trouble, lock = tmp_path/'web', [], {}, Lock()
    for name in NAMES:
        path = web/'training/cpsc_2018'/name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(name))
    sums = [f'{sha256(content(n)).hexdigest()}  training/cpsc_2018/{n}\n' for n in NAMES]
    (web/'SHA256SUMS.txt').write_text(''.join(sums)+'0'*64+' LICENSE.txt\n')
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
        def do_GET(self):
            with lock:
                asked.append(self.path)
                status = next(iter(trouble.get(self.path, ())), None)
                if status: trouble[self.path].pop(0)
            if status == 'cut': # the connection breaks within the file
                self.send_response(200)
                self.send_header('Content-Length', '4000')
                self.end_headers()
                self.wfile.write(b'x'*100)
            elif status: self.send_error(status)
            else: super().do_GET()
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=web))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}', asked, trouble
    server.shutdown()
    server.server_close()


def test_all_files_come_once(site, tmp_path):
    host, asked, _ = site
    done = fetch_dataset('cpsc2018', tmp_path/'data', host, progress=False)
    assert done.path.tolist() == NAMES and set(done.state) == {'fetched'} and len(asked) == 41
    assert all((tmp_path/'data'/n).read_bytes() == content(n) for n in NAMES)
    assert done.bytes.sum() == sum(len(content(n)) for n in NAMES)
    again = fetch_dataset('cpsc2018', tmp_path/'data', host, progress=False)
    assert set(again.state) == {'there'} and again.bytes.sum() == 0 and len(asked) == 42


def test_a_busy_server_is_asked_again(site, tmp_path):
    host, asked, trouble = site
    below = '/training/cpsc_2018/'
    trouble |= {'/SHA256SUMS.txt': [503], below+NAMES[3]: [500, 503], below+NAMES[5]: ['cut']}
    assert set(fetch_dataset('cpsc2018', tmp_path/'data', host, progress=False).state) == {'fetched'}
    assert len(asked) == 41+1+2+1


@pytest.mark.parametrize('trouble_', [[404], [500]*3, ['cut']*3], ids=['absent', 'down', 'cut'])
def test_what_does_not_come_is_counted_and_comes_the_next_time(site, tmp_path, trouble_):
    host, asked, trouble = site
    data = tmp_path/'data'
    trouble |= {'/training/cpsc_2018/'+n: list(trouble_) for n in NAMES[7:9]}
    with pytest.raises(CohortError) as e: fetch_dataset('cpsc2018', data, host, progress=False)
    assert '2 of 40 files did not come' in str(e.value) and NAMES[7] in str(e.value) and '\n' not in str(e.value)
    assert sorted(str(p.relative_to(data)) for p in data.rglob('*.*')) == sorted(set(NAMES)-set(NAMES[7:9]))
    done = fetch_dataset('cpsc2018', data, host, progress=False)
    assert (done.state == 'fetched').sum() == 2 and (data/NAMES[8]).read_bytes() == content(NAMES[8])


def test_the_list_is_not_trusted_with_other_folders():
    below, a, b = 'training/georgia', 64*'a', 64*'B'
    sums = (f'{a}  {below}/g1/E1.mat\n{b} *{below}/E2.mat\n{a} {below}/../../../.bashrc\n\n<html>\n{a} training/georgia_2/x\n'
            f'{a} /{below}/y\n{a} {below}/..\\..\\x\n\\{a}  {below}/a\\nb\n{a}  {below}/\x1b[2J\nshort {below}/z\n{a}\n')
    assert _listed(sums, below) == {'g1/E1.mat': a, 'E2.mat': 64*'b'}


class Evil(BaseHTTPRequestHandler):
    "Answers by what the path begins with."
    def log_message(self, *args): pass
    def do_GET(self):
        what = self.path.split('/')[1]
        self.send_response(200)
        self.end_headers()
        try:
            if what == 'html': self.wfile.write(b'<html><body>Sign in</body></html>')
            elif what == 'bytes': self.wfile.write(bytes(range(256))*100)
            elif what == 'drip' or what == 'stalled':
                while not self.server.ended.wait(.05): self.wfile.write(b'x' if what == 'drip' else b'')
            elif self.path.endswith('SHA256SUMS.txt'): self.wfile.write(f'{64*"a"} training/cpsc_2018/a.mat\n'.encode())
            else:
                while not self.server.ended.is_set(): self.wfile.write(bytes(1 << 20))
        except OSError: pass

def test_an_evil_mirror(tmp_path, monkeypatch, capsys):
    server = ThreadingHTTPServer(('127.0.0.1', 0), Evil)
    server.ended = Event()
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(module, '_load', partial(module._load, wait=.01, silence=.3, most=1 << 24))
    monkeypatch.setattr(module, '_SILENCE', .3)
    host = f'http://127.0.0.1:{server.server_port}'
    for what, text in {'html': 'lists no file', 'bytes': 'lists no file', 'drip': 'bytes came in', 'stalled': 'timed out',
                       'endless': 'longer than 16 MB'}.items():
        with pytest.raises(CohortError, match=text) as e: fetch_dataset('cpsc2018', tmp_path, f'{host}/{what}', progress=False)
        assert '\n' not in str(e.value) and not list(tmp_path.iterdir())
    assert 'asked again' in capsys.readouterr().err
    server.ended.set()
    server.shutdown()
    server.server_close()
    for host in ('nowhere', 'file:///etc', 'http://', 'http://[::1', 'http://a b/', 'http://127.0.0.1:x', 'http://a..b', 'ftp://x'):
        with pytest.raises(CohortError): fetch_dataset('cpsc2018', tmp_path, host, progress=False)


def test_what_is_in_the_way_is_said_and_what_was_left_is_removed(site, tmp_path):
    host, asked, _ = site
    data = tmp_path/'data'
    (data/NAMES[0]).mkdir(parents=True)
    with pytest.raises(CohortError, match="can't be written"): fetch_dataset('cpsc2018', data, host, progress=False)
    (data/NAMES[0]).rmdir()
    left, other = data/'g1'/f'.{NAMES[1][3:]}.abcdefgh.mat', data/'g1/.keep.abcdefgh.mat'
    for path in (left, other): path.write_bytes(b'half')
    for path in (left, other): os.utime(path, (0, 0))
    fetch_dataset('cpsc2018', data, host, progress=False)
    assert other.exists() and not left.exists()
    (tmp_path/'file').write_text('')
    with pytest.raises(CohortError, match="can't be written"): fetch_dataset('cpsc2018', tmp_path/'file', host, progress=False)
