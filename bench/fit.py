"""One training under a budget of processor seconds, the same for every network: `bench/study.py` starts this script, in
this package's environment and in that of the peers.

Reads jobs (`bench/job.py`), a line of JSON each, and answers each with a line. A job names two files: `x`, windows
(n, 12, samples) mV with NaN where there is no sample (.npy), and `split`, an .npz with `train`, `valid` and `test`
windows, `target` of each window, `record` of each window, `truth` of each record, and for a powerset `sets`. AdamW,
one-cycle schedule over the budget, clipped gradient; validated at even shares of the budget, outside of it; the best
weights are kept.
"""
import copy, math, sys, time, warnings

import numpy as np
import torch

from ecg_nbdev.augment import Augment
from ecg_nbdev.blocks import keep_memory
from ecg_nbdev.losses import create_loss
from ecg_nbdev.metrics import auroc
from ecg_nbdev.models import create_model
from ecg_nbdev.windows import stitch
from job import Fitted, Job
from train import PEERS, peer


def network(job, outputs):
    "The network of a job with new weights; peers answer `outputs` logits as well."
    if job.system in PEERS: return peer(job.system)()[0]
    return create_model(job.arch, n_classes=outputs, fs=job.fs, **job.options)


def cosine(a, b, t): return a+(b-a)*(1-math.cos(math.pi*t))/2

def one_cycle(done, lr):
    "Learning rate and momentum at a share of the budget: a quarter up, the rest down (Smith 2018, arXiv:1803.09820)."
    if done < .25: return cosine(lr/25, lr, done/.25), cosine(.95, .85, done/.25)
    t = min((done-.25)/.75, 1)
    return cosine(lr, lr/1e5, t), cosine(.85, .95, t)


def batches(rows, size, seed):
    "Batches without end, another order each epoch; what does not fill a batch waits for the next epoch."
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(rows)
        for i in range(0, len(order)-size+1, size): yield np.sort(order[i:i+size])


class Fit:
    "The training of one job."
    def __init__(self, job):
        self.job, self.split = job, np.load(job.split)
        self.x = np.load(job.x, mmap_mode='r')
        self.y = torch.as_tensor(self.split['target'])
        self.powerset = self.y.ndim == 1
        torch.manual_seed(job.seed)
        self.model = network(job, len(self.split['sets']) if self.powerset else self.y.shape[1])
        self.loss = create_loss(job.loss, targets=self.split['truth'][self.split['record'][self.split['train']]])
        self.augment = Augment(job.augment, job.seed) if job.augment else None
        self.scores, self.best = [], None

    def windows(self, rows):
        "The signals of some windows; peers read a missing sample as 0."
        x = torch.from_numpy(np.array(self.x[rows]))
        return x.nan_to_num(0.) if self.job.system in PEERS else x

    def augmented(self, x, y):
        "A batch as the network trains on it; a number of a label set can't be mixed."
        if not self.augment: return x, y
        return (self.augment(x), y) if self.powerset else self.augment(x, y)

    def optimizer(self, model): return torch.optim.AdamW(model.parameters(), self.job.lr, weight_decay=.01)

    def step(self, model, optimizer, rows):
        "One step of a network."
        x, y = self.augmented(self.windows(rows), self.y[rows])
        optimizer.zero_grad()
        self.loss(model(x), y).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
        optimizer.step()

    @torch.inference_mode()
    def logits(self, rows):
        "What the network answers for some windows, (windows, outputs)."
        self.model.eval()
        parts = np.array_split(rows, -(-len(rows)//64))
        out = torch.cat([self.model(self.windows(part)).float() for part in parts])
        self.model.train()
        return out.double()

    def record_prob(self, part):
        "Probabilities of label sets or classes, mean over a record's windows: (records of the part, outputs)."
        rows = self.split[part]
        z = self.logits(rows)
        prob = z.softmax(-1) if self.powerset else z.sigmoid()
        return stitch(prob.numpy(), np.unique(self.split['record'][rows], return_inverse=True)[1])

    def score(self):
        "Macro AUROC of the validation records."
        prob = self.record_prob('valid')
        if self.powerset: prob = prob@self.split['sets']
        truth = self.split['truth'][np.unique(self.split['record'][self.split['valid']])]
        return float(np.nanmean(auroc(truth, prob)))

    def check(self):
        "Score the network, and keep its weights where they are the best so far."
        self.scores.append(self.score())
        if self.best is None or self.scores[-1] > self.best[0]:
            self.best = self.scores[-1], copy.deepcopy(self.model.state_dict())

    def warm_up(self):
        "A step of a copy, so that what the first step alone costs is outside the budget."
        model = copy.deepcopy(self.model)
        self.step(model, self.optimizer(model), self.split['train'][:self.job.batch])
        if self.augment: self.augment.generator = None

    def timed_step(self, optimizer, rows, used):
        "Processor seconds of one step with the rate that is due."
        start = time.process_time()
        lr, momentum = one_cycle(used/self.job.budget, self.job.lr)
        for group in optimizer.param_groups: group['lr'], group['betas'] = lr, (momentum, .999)
        self.step(self.model, optimizer, rows)
        return time.process_time()-start

    def train(self):
        "Steps until the budget is used; processor seconds, steps."
        job, used = self.job, 0.
        optimizer = self.optimizer(self.model)
        for steps, rows in enumerate(batches(self.split['train'], job.batch, job.seed), 1):
            used += self.timed_step(optimizer, rows, used)
            if used >= job.budget*(len(self.scores)+1)/job.checks: self.check()
            if used >= job.budget: return used, steps

    def run(self):
        "Train, keep the best weights, say what it took."
        self.model.train()
        self.warm_up()
        torch.manual_seed(self.job.seed)
        used, steps = self.train()
        self.model.load_state_dict(self.best[1])
        seen = steps*self.job.batch
        return Fitted(cpu_s=used, steps=steps, windows=seen, epochs=seen/len(self.split['train']),
                      valid_auroc=self.best[0], valid_scores=self.scores,
                      parameters=sum(p.numel() for p in self.model.parameters()), torch=torch.__version__)


def main():
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    keep_memory()
    for line in sys.stdin:
        fit = Fit(Job.from_json(line))
        fitted = fit.run()
        np.savez(fit.job.out, **{part: fit.record_prob(part) for part in ('valid', 'test')})
        print(fitted.to_json(), flush=True)

if __name__ == '__main__': main()
