"""Loading public data sets, from a server on this computer.

Files under way are never taken for finished ones; a busy server is asked again."""
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

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
    sums = ('a1  training/georgia/g1/E1.mat\nb2 training/georgia/../../../.bashrc\n\n'
            'c3 training/georgia_2/x\nd4 /training/georgia/y\n')
    assert _listed(sums, 'training/georgia') == {'g1/E1.mat': 'a1'}
