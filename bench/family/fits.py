"""One fit of the study: recordings of the shared stream, a checkpoint after each epoch, in safetensors and JSON.

A fit that was stopped goes on where its last checkpoint stands and ends with the weights that it would have had:
the order of windows depends on seed and epoch, the random numbers of the processor are kept with the checkpoint.
"""
import json, math, time
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ecg_nbdev.augment import Augment
from ecg_nbdev.core import whole_file
from ecg_nbdev.data import make_targets
from ecg_nbdev.losses import create_loss
from ecg_nbdev.metrics import macro_auroc
from ecg_nbdev.pretrain import RECIPE
from .plan import NETWORKS


def cosine(a, b, t): return a+(b-a)*(1-math.cos(math.pi*t))/2

def one_cycle(done, lr):
    "Learning rate and momentum at a share of the training: a quarter up, the rest down (Smith 2018, arXiv:1803.09820)."
    if done < .25: return cosine(lr/25, lr, done/.25), cosine(.95, .85, done/.25)
    t = min((done-.25)/.75, 1)
    return cosine(lr, lr/1e5, t), cosine(.85, .95, t)


# ---- checkpoints

def optimizer_tensors(optimizer):
    "The state of an optimizer as named tensors."
    state = optimizer.state_dict()['state']
    return {f'optimizer.{i}.{name}': torch.as_tensor(v) for i, values in state.items() for name, v in values.items()}

def save_checkpoint(path, model, optimizer, log):
    "Weights, optimizer, random numbers, and the log as JSON, in one file."
    tensors = {f'model.{k}': v for k, v in model.state_dict().items()} | optimizer_tensors(optimizer)
    tensors['random'] = torch.get_rng_state()
    with whole_file(path) as f:
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, f, {'log': json.dumps(log)})

def load_checkpoint(path, model, optimizer):
    "Put a checkpoint into a network and its optimizer; its log."
    tensors, state = load_file(path), {}
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith('model.')})
    for key, v in tensors.items():
        if not key.startswith('optimizer.'): continue
        _, i, name = key.split('.')
        state.setdefault(int(i), {})[name] = v
    optimizer.load_state_dict({**optimizer.state_dict(), 'state': state})
    torch.set_rng_state(tensors['random'])
    return read_log(path)

def read_log(path):
    "The log of a checkpoint: a row for each epoch."
    with safe_open(path, 'pt') as f: return json.loads(f.metadata()['log'])


# ---- training

@torch.inference_mode()
def predict(model, x, batch=128):
    "Probabilities of windows (n, 12, samples) → (n, 9)."
    model.eval()
    out = torch.cat([model(torch.as_tensor(x[i:i+batch])).float() for i in range(0, len(x), batch)])
    model.train()
    return out.sigmoid().double().numpy()

def signals_of(store, rows, samples=1000):
    "Windows (n, 12, samples) from the beginning of recordings."
    return store.gather(rows, np.zeros(len(rows), int), samples)


@dataclass(frozen=True)
class Fit:
    "A network with a learning rate and a seed."
    network:str
    lr:float
    seed:int
    epochs:int

    def path(self, runs):
        name = f'{self.network}-{self.lr:g}-{self.seed}-{self.epochs}'
        return runs/'fits'/(name.replace(', ', '-').replace(' ', '-')+'.safetensors')

    def done(self, runs):
        "Epochs that are finished."
        path = self.path(runs)
        return len(read_log(path)) if path.exists() else 0

    def new(self):
        "The network with new weights, and its optimizer."
        torch.manual_seed(self.seed)
        model = NETWORKS[self.network]()
        return model, torch.optim.AdamW(model.parameters(), self.lr, weight_decay=.01)


def step(model, optimizer, loss, x, y):
    "One step of training."
    optimizer.zero_grad()
    loss(model(x), y).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
    optimizer.step()

def train_epoch(fit, epoch, model, optimizer, store, plan):
    "A pass over one store of the stream; processor seconds."
    loss, augment = create_loss('bce', smoothing=.05), Augment(RECIPE, 1000*fit.seed+epoch)
    target, used = torch.as_tensor(make_targets(store.index)), 0.
    order = np.random.default_rng([fit.seed, epoch]).permutation(min(plan.n, len(store)))
    steps = len(order)//plan.batch
    for i in range(steps):
        start, rows = time.process_time(), order[i*plan.batch:(i+1)*plan.batch]
        rate, momentum = one_cycle((epoch+i/steps)/fit.epochs, fit.lr)
        for group in optimizer.param_groups: group['lr'], group['betas'] = rate, (momentum, .999)
        x, y = augment(torch.from_numpy(signals_of(store, rows)), target[rows])
        step(model, optimizer, loss, x, y)
        used += time.process_time()-start
    return used

def train(fit, stream, held, plan, most=None):
    "Go on with a fit until it is finished, or for `most` epochs; its network, and its log."
    model, optimizer = fit.new()
    path, log = fit.path(plan.runs), []
    if path.exists(): log = load_checkpoint(path, model, optimizer)
    last = fit.epochs if most is None else min(fit.epochs, len(log)+most)
    for epoch in range(len(log), last):
        store = stream(epoch)
        used = train_epoch(fit, epoch, model, optimizer, store, plan)
        score = macro_auroc(held.truth, predict(model, held.x), held.known)
        before = log[-1] if log else {'cpu_s': 0., 'windows': 0}
        seen = min(plan.n, len(store))//plan.batch*plan.batch
        log.append({'epoch': epoch+1, 'cpu_s': before['cpu_s']+used, 'windows': before['windows']+seen, 'auroc': score})
        save_checkpoint(path, model, optimizer, log)
        print(f'{fit.network}, lr {fit.lr:g}, seed {fit.seed}: epoch {epoch+1} of {fit.epochs}, {used:.0f} s, '
              f'AUROC {score:.4f}', flush=True)
    return model.eval(), log
