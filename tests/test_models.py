"""Networks: padding and absent leads, parity with torch's own LSTM, threads, export, repeatability."""
import json, multiprocessing, os
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from ecg_nbdev.blocks import (Pool, Recurrent, one_by_one, reading_order, recurrent_block, run_blocks, side_by_side,
                              together)
from ecg_nbdev.core import LEADS
from ecg_nbdev.losses import create_loss
from ecg_nbdev.models import MODELS, JointLSTM, LeadLSTM, MultiLeadLSTM, create_model, hide_leads, model_cost

VARIANTS = {**{arch: {} for arch in MODELS}, 'joint-gru': {'cell': 'gru'},
            'multilead-one-way': {'bidirectional': False, 'pool': ('last',)},
            'multilead-supervised': {'supervise': True},
            'crnn-separate': {'stem': 'separate'}, 'crnn-joint': {'stem': 'joint'}}

@pytest.fixture(params=VARIANTS)
def model(request):
    torch.manual_seed(0)
    return create_model(request.param.split('-')[0], n_classes=4, **VARIANTS[request.param])

@pytest.fixture(autouse=True)
def two_threads():
    "As many threads as a small machine has, whatever the tests run with."
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)

def batch(n=500):
    "A whole window, a short one, one without chest leads, one without any lead."
    x = torch.randn(4, 12, n, generator=torch.Generator().manual_seed(1))
    x[1, :, 330:], x[2, 6:], x[3] = float('nan'), float('nan'), float('nan')
    return x

def padded(x, n): return nn.functional.pad(x, (0, n), value=float('nan'))

@torch.no_grad()
@pytest.mark.parametrize('n', [1, 7, 250])
def test_padding_changes_nothing(model, n):
    model.eval()
    x = batch()
    torch.testing.assert_close(model(padded(x, n)), model(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model(x[1:2, :, :330]), model(x)[1:2], rtol=1e-5, atol=1e-5)

@torch.no_grad()
@pytest.mark.parametrize('n', [1, 3, 9, 1001])
def test_any_length(model, n): assert model.eval()(batch(1001)[..., :n]).isfinite().all()

def test_gradients_are_finite_with_leads_missing(model):
    target = torch.tensor([[1., 0, 0, 1]]*4)
    create_loss()(model.train()(batch()), target).backward()
    used = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(used) == len(list(model.parameters())) and all(g.isfinite().all() for g in used)

def test_deep_supervision_marks_absent_leads():
    for arch in ('multilead', 'multilead_shared', 'crnn'):
        _, by_lead = create_model(arch, supervise=True, lead_dropout=0.).train()(batch())
        assert torch.equal(by_lead.isnan().all(-1), batch().isnan().all(-1))

@torch.no_grad()
@pytest.mark.parametrize('lead', LEADS)
def test_one_lead_reads_its_lead_alone(lead):
    model, x, k = LeadLSTM(lead=lead).eval(), batch()[:1], LEADS.index(lead)
    others = x.clone(); others[:, [i for i in range(12) if i != k]] = 5.
    assert torch.equal(model(others), model(x))
    others = x.clone(); others[:, k] *= 2
    assert not torch.equal(model(others), model(x))

def test_config_rebuilds(model):
    again = create_model(**json.loads(json.dumps(model.config)))
    again.load_state_dict(model.state_dict())
    with torch.no_grad(): assert torch.equal(again.eval()(batch()), model.eval()(batch()))
    assert again.config == model.config

# ---- parity with torch's LSTM

def both_ways(blocks, x, run):
    "Output, gradient of the input, gradients of the weights."
    x = x.clone().requires_grad_()
    out = run(blocks, x)
    weighted = (out*torch.linspace(-1, 1, out.numel()).view_as(out)).sum()
    return out, *torch.autograd.grad(weighted, [x, *blocks.parameters()])

@pytest.mark.parametrize('run', [side_by_side, together, run_blocks])
@pytest.mark.parametrize('features, hidden', [(1, 64), (4, 32)])
def test_twelve_blocks_are_twelve_lstms(run, features, hidden):
    torch.manual_seed(0)
    blocks, x = nn.ModuleList(nn.LSTM(features, hidden) for _ in LEADS), torch.randn(12, 60, 8, features)
    for got, expected in zip(both_ways(blocks, x, run), both_ways(blocks, x, one_by_one)):
        assert (got-expected).abs().max() <= 1e-5*max(1, expected.abs().max())

@pytest.mark.parametrize('frozen', ['weights', 'input', 'one block'])
def test_threads_leave_frozen_parts_alone(frozen):
    blocks, x = nn.ModuleList(nn.LSTM(3, 5) for _ in range(4)), torch.randn(4, 9, 2, 3, requires_grad=frozen != 'input')
    still = {'weights': blocks, 'input': nn.ModuleList(), 'one block': blocks[1]}[frozen]
    for p in still.parameters(): p.requires_grad_(False)
    grads = []
    for run in (side_by_side, one_by_one):
        blocks.zero_grad(); x.grad = None
        run(blocks, x).sum().backward()
        grads.append([None if t.grad is None else t.grad.clone() for t in (x, *blocks.parameters())])
    for a, b in zip(*grads): assert (a is None and b is None) or torch.allclose(a, b, atol=1e-6)

def test_going_back_twice():
    blocks, x = nn.ModuleList(nn.LSTM(3, 5) for _ in range(4)), torch.randn(4, 9, 2, 3, requires_grad=True)
    out = side_by_side(blocks, x).sum()
    first, second = (torch.autograd.grad(out, [x, *blocks.parameters()], retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))

def test_bidirectional_is_torchs_packed_lstm():
    torch.manual_seed(0)
    ours, theirs = Recurrent(5, 7, layers=2, bidirectional=True).eval(), nn.LSTM(5, 7, 2, bidirectional=True)
    for i, layer in enumerate(ours.layers):
        for block, way in zip(layer, ('', '_reverse')):
            for name, p in block.named_parameters(): getattr(theirs, name.replace('l0', f'l{i}')+way).data = p.data
    x, lengths = torch.randn(40, 3, 5), [40, 23, 8]
    there = torch.stack([torch.arange(40) < n for n in lengths])[:, None]
    expected = pad_packed_sequence(theirs(pack_padded_sequence(x, lengths))[0])[0]
    got = ours(x[None], reading_order(there))[0]*there.permute(2, 0, 1)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)

def test_last_is_torchs_final_state():
    torch.manual_seed(0)
    net = Recurrent(5, 7, bidirectional=True)
    there = torch.stack([torch.arange(40) < n for n in (40, 23)])[:, None]
    x = torch.randn(1, 40, 2, 5)
    y = net(x, reading_order(there))
    last = Pool(14, ['last'], ways=2)(y, there.permute(1, 2, 0))[0, 1]
    held = x[0, :23, 1:]
    ahead, back = (block(part)[1][0][0, 0] for block, part in zip(net.layers[0], (held, held.flip(0))))
    torch.testing.assert_close(last, torch.cat([ahead, back]), rtol=1e-5, atol=1e-6)

def test_initial_weights():
    block = recurrent_block('lstm', 3, 16)
    assert (block.bias_ih_l0+block.bias_hh_l0).view(4, 16).mean(1).tolist() == [0, 1, 0, 0]
    for gate in block.weight_hh_l0.chunk(4):
        torch.testing.assert_close(gate@gate.T, torch.eye(16), rtol=1e-4, atol=1e-5)

# ---- training

def trained(arch, threads, steps=2):
    "Weights after a few steps of training."
    torch.set_num_threads(threads); torch.manual_seed(3)
    model = create_model(arch, n_classes=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=.1)
    for _ in range(steps):
        optimizer.zero_grad()
        create_loss()(model(batch()), torch.ones(4, 4)).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])

@pytest.mark.parametrize('arch', ['multilead', 'crnn'])
def test_a_seed_repeats(arch): assert torch.equal(trained(arch, 2), trained(arch, 2))

def test_bfloat16_points_the_same_way():
    grads = []
    for bf16 in (True, False):
        torch.manual_seed(0)
        model = JointLSTM(bf16=bf16, dropout=0.)
        create_loss()(model(batch()[:3]), torch.ones(3, 9)).backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.cosine_similarity(*grads, dim=0) > .999

def test_lead_dropout():
    x = torch.zeros(500, 12, 3)
    hidden = hide_leads(x, .3).isnan().all(-1)
    assert .25 < hidden.float().mean() < .35
    assert not hide_leads(x, 1.).isnan().any()
    model = create_model('joint', lead_dropout=.5, dropout=0.)
    assert not torch.equal(model.train()(batch()), model(batch()))
    assert torch.equal(model.eval()(batch()), model(batch()))

def _predict(queue):
    torch.set_num_threads(1)  # as a worker of a DataLoader does; torch's own threads do not outlive a fork
    queue.put(MultiLeadLSTM().eval()(batch()).isfinite().all().item())

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system has no fork')
def test_a_forked_process_can_predict():
    with torch.no_grad(): MultiLeadLSTM().eval()(batch())  # the parent's workers are at work before the fork
    fork = multiprocessing.get_context('fork')
    queue = fork.Queue()
    child = fork.Process(target=_predict, args=(queue,)); child.start()
    try: assert queue.get(timeout=30)
    finally: child.kill()

# ---- beyond eager mode

quiet = pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::torch.jit.TracerWarning',
                                   'ignore::UserWarning')

@torch.no_grad()
@quiet
def test_tracing(model):
    traced = torch.jit.trace(model.eval(), batch()[:2], check_trace=False)
    torch.testing.assert_close(traced(batch()), model(batch()), rtol=1e-5, atol=1e-5)

@torch.no_grad()
@quiet
def test_onnx_takes_a_batch_of_any_size(model, tmp_path):
    ort = pytest.importorskip('onnxruntime', reason='the extra [onnx] is not installed')
    path = str(tmp_path/'model.onnx')
    torch.onnx.export(model.eval(), (batch(),), path, input_names=['x'], output_names=['y'],
                      dynamic_axes={'x': {0: 'windows'}, 'y': {0: 'windows'}}, dynamo=False)
    session = ort.InferenceSession(path)
    for x in (batch(), batch()[:1], torch.cat([batch(), batch()])):
        answer = torch.from_numpy(session.run(None, {'x': x.numpy()})[0])
        torch.testing.assert_close(answer, model(x), rtol=1e-4, atol=1e-5)

# ---- sizes

def test_steps_and_parameters():
    assert model_cost(create_model('multilead', patch=1))['steps'] == 1000
    assert [model_cost(create_model('crnn', fs=fs))['steps'] for fs in (100, 250, 500)] == [63]*3
    small = create_model('joint', hidden=8, layers=1, bidirectional=False, pool=('mean',), patch=1, n_classes=2)
    assert model_cost(small, 1)['parameters'] == 4*8*(12+8+2)+2*8+2
    assert model_cost(small, 1)['flops'] == 2*(100*4*8*(12+8)+2*8)

def test_bad_arguments():
    for call, text in ((lambda: create_model('gan'), 'choose one of'),
                       (lambda: create_model('joint', depth=1), "no option 'depth'"),
                       (lambda: LeadLSTM(lead='V7'), "no lead 'V7'"),
                       (lambda: create_model('crnn', stem='x'), "no stem 'x'")):
        with pytest.raises(ValueError, match=text): call()


def test_an_ensemble_trains_on_with_deep_supervision():
    "What `--pretrain shipped` starts from: members that answer with logits and logits per lead."
    from ecg_nbdev.losses import create_loss
    from ecg_nbdev.models import Ensemble
    pair = Ensemble([create_model('crnn'), create_model('crnn')]).train()
    x, y = torch.randn(4, 12, 500), torch.eye(9)[:4]
    create_loss()(pair(x), y).backward()
    assert all(p.grad is not None for m in pair.members for p in m.join.parameters())
    mixed = Ensemble([create_model('crnn'), create_model('lead')]).train()
    assert mixed(x).shape == (4, 9)
