"Push to a hub on loopback and open the model from there; metadata that the Hub's own library accepts."
import base64, hashlib, json, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import yaml

from ecg_nbdev.bundle import load_pretrained, save_bundle
from ecg_nbdev.core import BundleError, ECGError
from ecg_nbdev.hub import hub_card
from ecg_nbdev.predictor import Predictor
from ecg_nbdev.sim.synth import simulate_cohort

COMMIT = 'a'*40

class FakeHub(BaseHTTPRequestHandler):
    "As much of the Hub as creating a repository, a commit of small files and downloads ask for."
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args): pass

    def answer(self, body=b'', status=200, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {'Content-Length': str(len(data)), **headers}.items(): self.send_header(name.replace('_', '-'), value)
        self.end_headers()
        if self.command != 'HEAD': self.wfile.write(data)

    def body(self): return self.rfile.read(int(self.headers.get('Content-Length') or 0))

    def do_POST(self):
        told, at, held = self.body(), f'http://{self.headers["Host"]}', self.server.files
        if self.path == '/api/repos/create':
            self.server.created.append(json.loads(told))
            return self.answer({'url': f'{at}/me/ecg', 'name': 'me/ecg', 'id': 'me/ecg'})
        if self.path == '/api/validate-yaml': return self.answer({'errors': [], 'warnings': []})
        if '/preupload/' in self.path:
            files = [{'path': f['path'], 'uploadMode': 'regular', 'shouldIgnore': False, 'oid': None} for f in json.loads(told)['files']]
            return self.answer({'files': files})
        if '/commit/' in self.path:
            for line in map(json.loads, told.splitlines()):
                if line['key'] == 'file': held[line['value']['path']] = base64.b64decode(line['value']['content'])
            return self.answer({'commitOid': COMMIT, 'commitUrl': f'{at}/me/ecg/commit/{COMMIT}', 'success': True, 'hookOutput': ''})
        self.answer({'error': self.path}, 404)

    def do_GET(self):
        name = self.path.split('?')[0].rsplit('/', 1)[-1]
        if self.path.startswith('/api/models/me/ecg'):
            return self.answer({'id': 'me/ecg', 'sha': COMMIT, 'siblings': [{'rfilename': f} for f in self.server.files]})
        if not self.path.startswith('/me/ecg/resolve/') or name not in self.server.files:
            return self.answer({'error': 'none'}, 404, X_Error_Code='RepoNotFound')
        data = self.server.files[name]
        self.answer(data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


@pytest.fixture
def hub(monkeypatch, tmp_path):
    pytest.importorskip('huggingface_hub')
    server = ThreadingHTTPServer(('127.0.0.1', 0), FakeHub)
    server.files, server.created = {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, f'http://127.0.0.1:{server.server_port}'
    server.shutdown()

@pytest.fixture(scope='module')
def shipped(): return load_pretrained()

def same_answers(a, b):
    record = next(iter(simulate_cohort(1, seed=4)))
    left, right = a.predict([record]), b.predict([record])
    return np.array_equal(left[list(a.classes)], right[list(a.classes)])


def test_there_and_back(hub, shipped, tmp_path):
    server, address = hub
    url = shipped.push_to_hub('me/ecg', token='hf_loopback', endpoint=address)
    assert url.endswith(COMMIT) and set(server.files) >= {'README.md', 'config.json', 'model.safetensors'}
    assert server.created[0].get('visibility', server.created[0].get('private')) in ('private', True)
    back = Predictor.from_pretrained('me/ecg', cache=tmp_path, endpoint=address)
    assert same_answers(shipped, back)
    assert set(back.about['seen']) == set(shipped.about['seen']) and set(back.about['seen'].values()) == {''}

def test_a_name_that_is_not_there(hub, tmp_path):
    with pytest.raises(BundleError, match='neither a folder nor a model of the Hub') as said:
        Predictor.from_pretrained('me/other', cache=tmp_path, endpoint=hub[1])
    assert '\n' not in str(said.value)

def test_a_local_folder_needs_no_hub(shipped, tmp_path):
    assert same_answers(shipped, Predictor.from_pretrained(save_bundle(shipped, tmp_path/'model')))

def test_without_the_extra_it_says_what_to_install(shipped, monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(ECGError, match=r'ecg_nbdev\[hub\]'): shipped.push_to_hub('me/ecg')
    with pytest.raises(ECGError, match=r'ecg_nbdev\[hub\]'): Predictor.from_pretrained('me/ecg')

def test_the_card_begins_with_yaml(shipped):
    _, head, text = hub_card(shipped).split('---\n', 2)
    about = yaml.safe_load(head)
    assert about['license'] == 'apache-2.0' and about['library_name'] == 'ecg_nbdev' and 'ecg' in about['tags']
    metric = about['model-index'][0]['results'][0]['metrics'][0]
    assert 0 <= metric['value'] <= 1 and 'Not a medical device' in text

def test_the_hubs_own_library_reads_the_card(shipped):
    hub = pytest.importorskip('huggingface_hub')
    card = hub.ModelCard(hub_card(shipped))
    assert card.data.license == 'apache-2.0' and card.data.eval_results[0].metric_type == 'roc_auc'
