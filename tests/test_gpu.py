"""What runs on a GPU, where there is none: tensors on the `meta` device refuse others beside them, as a GPU's do."""
import subprocess, sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.callback.all import MixedPrecision

import ecg_nbdev.blocks as blocks
from ecg_nbdev.augment import AUGMENTS, Augment
from ecg_nbdev.data import ecg_dls
from ecg_nbdev.engines import window_logits
from ecg_nbdev.explain import integrated_gradients
from ecg_nbdev.export import _trace
from ecg_nbdev.learner import AugmentBatches, AverageWeights, ecg_learner, predict_windows
from ecg_nbdev.losses import LOSSES, create_loss
from ecg_nbdev.models import MODELS, create_model, model_cost
from ecg_nbdev.predictor import Predictor
from ecg_nbdev.pretrain import SoftTargets
from ecg_nbdev.resume import _generators, _set_generators
from ecg_nbdev.signal import Preparation
from ecg_nbdev.sim.synth import cohort_record
from ecg_nbdev.store import MemoryStore

BENCH = Path(__file__).resolve().parents[1]/'bench'/'gpu.py'


@pytest.fixture
def there():
    "A batch that is elsewhere."
    return torch.empty(4, 12, 12, device='meta')

@pytest.fixture(scope='module')
def dls():
    store = MemoryStore([cohort_record(i, 0, seconds=4) for i in range(16)], fs=100, prepare=Preparation(fs=100))
    return ecg_dls(store, np.where(np.arange(16) % 4 == 0, 'valid', 'train'), seconds=2, bs=8)


# ---- nothing is left behind on the CPU

def test_meta_tensors_refuse_others_beside_them(there):
    "What the tests below build on."
    with pytest.raises(RuntimeError, match='device'): there+torch.ones(12)

OPTIONS = {'multilead': {'supervise': True, 'lead_dropout': .3}, 'crop': {'size': 10}, 'wander': {'fs': 100}}

@pytest.mark.parametrize('arch', MODELS)
def test_a_training_step_stays_on_its_device(arch, there, monkeypatch):
    "All blocks at once, as on a GPU, or one by one; of the values it is said that there are gaps, and all leads."
    monkeypatch.setattr(torch.Tensor, '__bool__', lambda self: True)
    def where(mask, *values, where=torch.where):
        if values: return where(mask, *values)
        return [torch.empty(mask.numel(), dtype=torch.long, device='meta')]*mask.ndim
    monkeypatch.setattr(torch, 'where', where)
    options = OPTIONS.get(arch, {})
    for way in (blocks.one_by_one, blocks.together):
        monkeypatch.setattr(blocks, 'one_by_one', way)
        model = create_model(arch, n_classes=4, **options).to('meta').train()
        out = model(there)
        loss = create_loss()(out, torch.empty(4, 4, device='meta'))
        loss.backward()
        torch.optim.Adam(model.parameters()).step()
        assert {loss.device.type, *(p.grad.device.type for p in model.parameters() if p.grad is not None)} == {'meta'}
        assert model.eval()(there).shape == (4, 4)

@pytest.mark.parametrize('name', LOSSES)
def test_a_loss_follows_its_logits(name):
    targets = torch.tensor([0, 1, 2]) if name == 'powerset' else torch.eye(3)
    loss = create_loss(name, targets=targets).to('meta')
    assert loss(torch.empty(3, 3, device='meta'), targets.to('meta')).device.type == 'meta'

def test_changes_of_batches_draw_where_the_batch_is(there, monkeypatch):
    "A generator is asked for on the batch's device; `meta` has none."
    asked = []
    def generator(device):
        asked.append(torch.device(device).type)
        return SimpleNamespace(manual_seed=lambda seed: None)
    monkeypatch.setattr(torch, 'Generator', generator)
    augment = Augment({name: OPTIONS.get(name, {}) for name in AUGMENTS})
    changed, y = augment(there, torch.empty(4, 3, device='meta'))
    assert asked == ['meta'] and changed.device.type == y.device.type == 'meta'

def test_a_teacher_comes_along(there):
    callback = SoftTargets(create_model('lead', n_classes=3))
    callback.learn = SimpleNamespace(xb=(there,), training=True)
    callback.before_batch()
    assert callback.learn.yb[0].device.type == 'meta' and callback.learn.yb[0].shape == (4, 3)

def test_a_network_is_counted_where_it_is():
    model = create_model('lead', n_classes=3)
    assert model_cost(model, .2) == model_cost(model.to('meta'), .2)


class Elsewhere(torch.nn.Module):
    "A network on another device, whose answers can be fetched."
    def __init__(self):
        super().__init__()
        self.weight, self.asked = torch.nn.Parameter(torch.empty(9, device='meta')), []
    def forward(self, x):
        self.asked.append(x.device.type)
        return torch.zeros(len(x), 9)

def test_windows_go_to_the_network(dls):
    "In prediction by files, and by a loader whose batches are still here."
    model = Elsewhere()
    assert window_logits(model, np.zeros((5, 12, 200), np.float32), bs=2).shape == (5, 9)
    assert len(predict_windows(model, dls.valid)) == len(dls.valid.dataset)
    assert set(model.asked) == {'meta'}

def test_an_export_asks_the_network_where_it_is(tmp_path, monkeypatch):
    model, seen = Elsewhere(), []
    def stop(network, args, *rest, **kw):
        seen.append(args[0].device.type)
        raise KeyError('stop')
    monkeypatch.setattr(torch.onnx, 'export', stop)
    with pytest.raises(KeyError): _trace(SimpleNamespace(model=model, **WHOLE), tmp_path/'a.onnx')
    assert seen == ['meta']

WHOLE = dict(seconds=2., preparation=Preparation(fs=100), label_sets=None)

def test_gradients_of_answers_need_no_cudnn():
    "cuDNN's LSTMs have gradients in training only."
    pytest.importorskip('captum')
    used = []
    class Watched(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = create_model('lead', n_classes=9)
        def forward(self, x):
            used.append(torch.backends.cudnn.enabled)
            return self.inner(x)
    before = torch.backends.cudnn.enabled
    predictor = Predictor(Watched(), Preparation(fs=100), seconds=2.)
    integrated_gradients(predictor, cohort_record(0, 0, seconds=3), 'AF', tolerance=9.)
    assert before and used[0] and not any(used[1:]) and len(used) > 2 and torch.backends.cudnn.enabled == before


# ---- what is asked for where there is one

@pytest.mark.parametrize('device, kind, way', [
    ('cuda', torch.nn.LSTM, 'together'), ('cuda', torch.nn.GRU, 'one_by_one'),
    ('mps', torch.nn.LSTM, 'one_by_one'), ('cpu', torch.nn.LSTM, 'side_by_side')])
def test_the_way_of_blocks_suits_the_device(device, kind, way, monkeypatch):
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 2)
    for name in ('together', 'one_by_one', 'side_by_side'):
        monkeypatch.setattr(blocks, name, lambda *args, name=name: name)
    x = SimpleNamespace(is_cuda=device == 'cuda', device=torch.device(device))
    assert blocks.run_blocks([kind(2, 3), kind(2, 3)], x) == way

def test_the_learner_asks_for_a_gpu_and_mixed_precision(dls, monkeypatch):
    before = dls.device
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    try:
        learn = ecg_learner(dls, 'lead', ema=.9)
        assert learn.dls.train.device.type == learn.dls.valid.device.type == 'cuda'
        assert [type(cb) for cb in learn.cbs if isinstance(cb, MixedPrecision)] == [MixedPrecision]
    finally: dls.to(before)

def test_bfloat16_of_the_processor_is_not_asked_for_elsewhere(there, monkeypatch):
    model, asked = create_model('lead', n_classes=3).to('meta').train(), []
    monkeypatch.setattr('ecg_nbdev.models._has_bf16', lambda: True)
    monkeypatch.setattr(model, 'read', lambda x: asked.append(torch.is_autocast_enabled('cpu')) or x)
    model(there)
    model(torch.zeros(2, 12, 12))
    assert asked == [False, True]

@pytest.mark.parametrize('half', [torch.float16, torch.bfloat16])
def test_all_blocks_at_once_in_half_precision(half):
    torch.manual_seed(0)
    lstms, x = torch.nn.ModuleList(torch.nn.LSTM(4, 8) for _ in range(3)), torch.randn(3, 20, 5, 4)
    with torch.autocast('cpu', half): out = blocks.together(lstms, x)
    assert out.dtype == half
    torch.testing.assert_close(out.float(), blocks.one_by_one(lstms, x), rtol=.05, atol=.02)

def test_states_of_a_gpu_are_kept_and_put_back(monkeypatch):
    given, state = [], torch.arange(8, dtype=torch.uint8)
    assert _generators()['cuda'] == []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_rng_state_all', lambda: [state])
    monkeypatch.setattr(torch.cuda, 'set_rng_state_all', given.append)
    _set_generators(_generators())
    assert len(given) == 1 and torch.equal(given[0][0], state)

def test_the_scale_of_the_loss_is_kept_and_put_back():
    scaler, again = torch.amp.GradScaler('cpu', init_scale=8.), torch.amp.GradScaler('cpu')
    first, second = MixedPrecision(), MixedPrecision()
    first.learn, second.learn = SimpleNamespace(scaler=scaler), SimpleNamespace(scaler=again)
    second.put_back(first.kept())
    assert again.get_scale() == 8.

def test_random_changes_and_averages_go_on(dls):
    "The generator on the device that it was on, the average beside the network's weights."
    callback = AugmentBatches(Augment({'noise': {}}))
    callback.augment.generator = torch.Generator('cpu').manual_seed(3)
    other = AugmentBatches(Augment({'noise': {}}))
    other.put_back(callback.kept())
    assert other.kept()['drawn'][0] == 'cpu' and torch.equal(other.kept()['drawn'][1], callback.kept()['drawn'][1])
    average = AverageWeights(.5)
    average.learn = SimpleNamespace(model=create_model('lead', n_classes=3).to('meta'))
    average.before_fit()
    average.after_step()
    assert {p.device.type for p in average.average.parameters()} == {'meta'}


# ---- the script

def test_the_script_says_that_there_is_no_gpu(tmp_path):
    done = subprocess.run([sys.executable, '-W', 'ignore', BENCH, '--out', tmp_path], capture_output=True, text=True,
                          env={'CUDA_VISIBLE_DEVICES': '', 'PATH': '', 'PYTHONPATH': str(BENCH.parents[1])})
    assert done.returncode == 0 and done.stdout.startswith('no GPU') and len(done.stdout.splitlines()) == 1, done
    assert not list(tmp_path.iterdir())
