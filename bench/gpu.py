"""What a GPU gives, and whether it gives the same: `python bench/gpu.py`, some minutes; table in bench/results/gpu.csv.

It has run on no GPU yet: the machines at hand have none, and there it says so in one line. `--device cpu` goes through
all of it on the processor, to try the script itself; nothing is written then unless `--out` names a folder.

- `same`: the same weights and the same windows (simulated; a short one, leads missing) on the processor and on the GPU,
  both in float32 with TF32 switched off: probabilities at most 1e-4 apart, gradients of each weight at most 1e-3 of the
  largest one of that weight; and as a GPU has it unasked, where convolutions and LSTMs are in TF32: at most 1e-2.
- `half`: probabilities by autocast in float16 and in bfloat16 against float32 of the same device: at most 2e-2.
- `train`, `predict`: windows of 10 s at 100 Hz a second, of one training step (forward, backward, Adam; float16 with a
  scaled loss) and of prediction, in each precision; the median of several turns, and the largest memory that was taken.
- `learner`: `ecg_learner` as it is used: an epoch on simulated recordings, saved, read again, written as ONNX,
  explained; the answers of the saved model on the processor at most 1e-3 from those on the GPU.
"""
import copy, sys, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastcore.script import call_parse

OUT = Path(__file__).resolve().parent/'results'
FS, SECONDS = 100, 10
APART = 'largest difference of probabilities'
HALF = {'float16': torch.float16, 'bfloat16': torch.bfloat16}


def row(what, network, value, unit, most=None, **more):
    "A line of the table; `most` is the largest value that holds."
    return {'what': what, 'network': network, 'value': value, 'unit': unit, 'most': most,
            'holds': '' if most is None else bool(value <= most), **more}

def windows(n):
    "Windows (n, 12, samples) mV of simulated recordings: whole ones, a short one, one without chest leads."
    from ecg_nbdev.sim.synth import cohort_record
    signals = [cohort_record(i, 0, fs=FS, seconds=SECONDS).signal for i in range(min(n, 64))]
    x = torch.tensor(np.stack(signals)).repeat(-(-n//len(signals)), 1, 1)[:n]
    x[0, :, x.shape[-1]//2:], x[1, 6:] = float('nan'), float('nan')
    return x

def tf32(on):
    "Whether the device may round the factors of products to 10 bits."
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on

def network(arch, seed=0):
    "A new network, or the one that ships, which is a trained one."
    from ecg_nbdev.bundle import load_pretrained
    from ecg_nbdev.models import create_model
    if arch == 'shipped': return copy.deepcopy(load_pretrained().model)
    torch.manual_seed(seed)
    return create_model(arch, fs=FS, bf16=False)

def answers(model, x, half=None):
    "Probabilities, on the processor."
    device = next(model.parameters()).device
    with torch.inference_mode(), torch.autocast(device.type, half, enabled=half is not None):
        return model.eval()(x.to(device)).float().sigmoid().cpu()

def gradients(model, x):
    "The gradient of each weight, on the processor."
    from ecg_nbdev.losses import create_loss
    device, target = next(model.parameters()).device, (torch.arange(9*len(x)).view(-1, 9) % 4 == 0).float()
    model.eval()
    for part in model.modules():
        if isinstance(part, torch.nn.RNNBase): part.training = True # cuDNN's have gradients in training only
    loss = create_loss()(model(x.to(device)), target.to(device))
    weights = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {name: g.cpu() for name, g in zip(weights, found) if g is not None}

def same(arch, device, x):
    "Differences between the processor and the device."
    here = network(arch)
    there, rows = copy.deepcopy(here).to(device), []
    expected, slopes = answers(here, x), gradients(here, x)
    def gap(a, b): return (a-b).abs().max().item()
    for on, most in ((False, 1e-4), (True, 1e-2)):
        tf32(on)
        kind = 'TF32' if on else 'float32'
        rows.append(row('same', arch, gap(answers(there, x), expected), APART, most, precision=kind))
        if on: continue
        found = gradients(there, x)
        apart = max(gap(found[name], g)/max(g.abs().max().item(), 1e-6) for name, g in slopes.items())
        rows.append(row('same', arch, apart, 'largest relative difference of gradients', 1e-3, precision=kind))
    full = answers(there, x)
    return rows+[row('half', arch, gap(answers(there, x, kind), full), APART, 2e-2, precision=name)
                 for name, kind in HALF.items()]


# ---- speed and memory

def clocked(step, device, turns):
    "Median seconds of a turn; the largest memory taken, MB, where the device counts it."
    gpu, spent = device.type == 'cuda', []
    wait = torch.cuda.synchronize if gpu else lambda: None
    for _ in range(3): step() # what is chosen and taken only once
    if gpu: torch.cuda.reset_peak_memory_stats()
    for _ in range(turns):
        wait()
        start = time.perf_counter()
        step()
        wait()
        spent.append(time.perf_counter()-start)
    return float(np.median(spent)), torch.cuda.max_memory_allocated()/1e6 if gpu else np.nan

def training(model, x, y, half):
    "A function that does one training step."
    from ecg_nbdev.losses import create_loss
    optimizer, loss, device = torch.optim.Adam(model.train().parameters()), create_loss(), x.device.type
    scaler = torch.amp.GradScaler(device, enabled=half == torch.float16)
    def step():
        optimizer.zero_grad()
        with torch.autocast(device, half, enabled=half is not None): out = model(x) # float32, whatever it computes in
        scaler.scale(loss(out, y)).backward()
        scaler.step(optimizer)
        scaler.update()
    return step

def predicting(model, x, half):
    "A function that predicts a batch, from the memory of the processor and back to it."
    return lambda: answers(model, x, half)

def speed(arch, device, batch, turns):
    "Windows a second and memory, in each precision."
    rows, x, y = [], windows(batch), (torch.rand(batch, 9) < .2).float().to(device)
    for name, half in {'float32': None, **HALF}.items():
        model = network(arch).to(device)
        for what, step in (('train', training(model, x.to(device), y, half)), ('predict', predicting(model, x, half))):
            seconds, memory = clocked(step, device, turns)
            rows.append(row(what, arch, batch/seconds, 'windows/s', precision=name, batch=batch, memory_mb=memory))
    return rows


# ---- as it is used

def as_used(arch, device, n):
    "An epoch by the learner, and what is done with a network afterwards."
    import ecg_nbdev.saving # noqa: gives the learner `predictor` and `export`
    from ecg_nbdev.bundle import load_bundle
    from ecg_nbdev.data import ecg_dls
    from ecg_nbdev.explain import integrated_gradients
    from ecg_nbdev.export import export_onnx, load_onnx
    from ecg_nbdev.learner import ecg_learner, quiet
    from ecg_nbdev.signal import Preparation
    from ecg_nbdev.sim.synth import cohort_record
    from ecg_nbdev.store import MemoryStore
    store = MemoryStore([cohort_record(i, 0) for i in range(n)], fs=FS, prepare=Preparation(fs=FS))
    dls = ecg_dls(store, np.where(np.arange(n) % 4 == 0, 'valid', 'train'), SECONDS, bs=32)
    learn = ecg_learner(dls, model=network(arch), ema=.9, augment={'noise': {}, 'drop_leads': {}})
    start = time.perf_counter()
    with quiet(learn): learn.fit_one_cycle(1, 1e-3)
    seconds, record = time.perf_counter()-start, cohort_record(0, 9)
    on = next(learn.model.parameters()).device.type
    if on != device.type: raise SystemExit(f'the learner trained on {on}, not on {device.type}')
    with tempfile.TemporaryDirectory() as folder:
        predictor, saved = learn.predictor(), load_bundle(learn.export(Path(folder).resolve()/'model'))
        onnx = load_onnx(export_onnx(predictor, Path(folder)/'a.onnx'))
        x = [predictor.preparation(record.signal, record.fs)]
        there, *others = (p.outputs(x) for p in (predictor, saved, onnx))
    shares = integrated_gradients(predictor, record, 'AF', tolerance=.1)
    gap = max(np.abs(there-other).max() for other in others)
    return [row('learner', arch, gap, APART, 1e-3, precision='as trained'),
            row('learner', arch, seconds, 's an epoch, the first', precision='mixed', batch=32),
            row('learner', arch, float(np.isnan(shares).sum()), 'shares of the answer that are no number', 0)]


@call_parse
def main(
    device:str='cuda', # or cpu, to try the script
    batch:int=256, # windows in a batch
    turns:int=20, # of each measurement
    recordings:int=400, # of the learner's epoch
    networks:str='shipped,crnn,multilead,multilead_shared,joint,lead', # which ones
    out:str=None, # folder of the table; bench/results where not given
):
    "Compare with the processor, measure speed and memory."
    if device == 'cuda' and not torch.cuda.is_available():
        print('no GPU: torch.cuda.is_available() says so, and nothing is measured')
        return
    device = torch.device(device)
    name = torch.cuda.get_device_name() if device.type == 'cuda' else 'processor'
    rows = []
    for arch in networks.split(','):
        rows += same(arch, device, windows(16))
        rows += speed(arch, device, batch, turns)
        rows += as_used(arch, device, recordings)
        print(pd.DataFrame(rows[-14:]).to_string(index=False), file=sys.stderr)
    table = pd.DataFrame(rows).assign(device=name, torch=torch.__version__)
    print(table.to_string(index=False))
    if out or device.type == 'cuda': table.to_csv(Path(out or OUT)/'gpu.csv', index=False, float_format='%.4g')
    sys.exit(not all(table.holds.isin(['', True])))
