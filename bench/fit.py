"""One training under a budget of processor seconds, the same for every network: what `bench/study.py` starts, in this package's environment and in that of the peers.

Reads jobs as lines of JSON, answers each with a line. A job names two files: `x`, windows (n, 12, samples) mV with NaN where there is no sample (.npy), and `split`, an .npz with `train`, `valid` and `test` windows,
`target` of each window, `record` of each window, `truth` of each record, and for a powerset `sets`. AdamW, one-cycle schedule over the budget, clipped gradient; validated at even shares of the budget, outside of it; the best weights are kept.
"""
import copy, json, math, sys, time, warnings

import numpy as np
import torch

from ecg_nbdev.augment import Augment
from ecg_nbdev.losses import create_loss
from ecg_nbdev.metrics import auroc
from ecg_nbdev.models import create_model
from ecg_nbdev.windows import stitch
from train import PEERS, keep_memory, peer


def network(job, outputs):
    "The network of a job with new weights; peers answer `outputs` logits as well."
    if job['system'] in PEERS: return peer(job['system'])()[0]
    return create_model(job['arch'], n_classes=outputs, fs=job['fs'], **job['options'])


def one_cycle(done, lr):
    "Learning rate and momentum at a share of the budget: up for a quarter of it, down for the rest (Smith 2018, arXiv:1803.09820; fastai's shape)."
    cosine = lambda a, b, t: a+(b-a)*(1-math.cos(math.pi*t))/2
    if done < .25: return cosine(lr/25, lr, done/.25), cosine(.95, .85, done/.25)
    t = min((done-.25)/.75, 1)
    return cosine(lr, lr/1e5, t), cosine(.85, .95, t)


def batches(rows, size, seed):
    "Batches without end, another order each epoch; what does not fill a batch waits for the next epoch."
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(rows)
        yield from (np.sort(order[i:i+size]) for i in range(0, len(order)-size+1, size))


class Fit:
    "The training of one job."
    def __init__(self, job):
        self.job, self.s = job, np.load(job['split'])
        self.x = np.load(job['x'], mmap_mode='r')
        y = self.s['target']
        torch.manual_seed(job['seed'])
        self.model = network(job, len(self.s['sets']) if y.ndim == 1 else y.shape[1])
        truth = self.s['truth'][self.s['record'][self.s['train']]]
        self.loss = create_loss(job['loss'], targets=truth)
        self.augment = Augment(job['augment'], job['seed']) if job['augment'] else None
        self.y = torch.as_tensor(y)

    def windows(self, rows):
        x = torch.from_numpy(np.array(self.x[rows]))
        return x.nan_to_num(0.) if self.job['system'] in PEERS else x

    def step(self, model, optimizer, rows):
        x, y = self.windows(rows), self.y[rows]
        if self.augment: x, y = self.augment(x, y) if y.ndim == 2 else (self.augment(x), y)
        optimizer.zero_grad()
        self.loss(model(x), y).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
        optimizer.step()

    def optimizer(self, model): return torch.optim.AdamW(model.parameters(), self.job['lr'], weight_decay=.01)

    @torch.inference_mode()
    def logits(self, rows):
        self.model.eval()
        out = torch.cat([self.model(self.windows(part)).float() for part in np.array_split(rows, -(-len(rows)//64))])
        self.model.train()
        return out.double()

    def record_prob(self, part):
        "Probabilities of label sets or classes, mean over a record's windows: (records of the part, outputs)."
        rows, z = self.s[part], self.logits(self.s[part])
        prob = (z.sigmoid() if self.y.ndim == 2 else z.softmax(-1)).numpy()
        return stitch(prob, np.unique(self.s['record'][rows], return_inverse=True)[1])

    def score(self):
        "Macro AUROC of the validation records."
        prob, truth = self.record_prob('valid'), self.s['truth'][np.unique(self.s['record'][self.s['valid']])]
        return float(np.nanmean(auroc(truth, prob if self.y.ndim == 2 else prob@self.s['sets'])))

    def warm_up(self):
        "A step of a copy, so that what the first step alone costs is outside the budget."
        model = copy.deepcopy(self.model)
        self.step(model, self.optimizer(model), self.s['train'][:self.job['batch']])
        if self.augment: self.augment.generator = None

    def run(self):
        job, used, steps, scores, best = self.job, 0., 0, [], None
        self.model.train(); self.warm_up(); torch.manual_seed(job['seed'])
        optimizer = self.optimizer(self.model)
        for rows in batches(self.s['train'], job['batch'], job['seed']):
            start = time.process_time()
            lr, momentum = one_cycle(used/job['budget'], job['lr'])
            for group in optimizer.param_groups: group['lr'], group['betas'] = lr, (momentum, .999)
            self.step(self.model, optimizer, rows)
            used, steps = used+time.process_time()-start, steps+1
            if used >= job['budget']*(len(scores)+1)/job['checks']:
                scores.append(self.score())
                if best is None or scores[-1] > best[0]: best = scores[-1], copy.deepcopy(self.model.state_dict())
                if used >= job['budget']: break
        self.model.load_state_dict(best[1])
        return {'cpu_s': used, 'steps': steps, 'windows': steps*job['batch'], 'epochs': steps*job['batch']/len(self.s['train']), 'valid_auroc': best[0], 'valid_scores': scores,
                'parameters': sum(p.numel() for p in self.model.parameters()), 'torch': torch.__version__}


def main():
    warnings.simplefilter('ignore')
    torch.set_num_threads(1); keep_memory()
    for line in sys.stdin:
        job = json.loads(line)
        fit = Fit(job)
        about = fit.run()
        np.savez(job['out'], **{part: fit.record_prob(part) for part in ('valid', 'test')})
        print(json.dumps(about), flush=True)

if __name__ == '__main__': main()
