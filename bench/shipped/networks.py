"""The networks behind the shipped model: each is trained when it is first asked for, and kept in runs/pretrained."""
import time
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from ecg_nbdev.folds import make_folds
from ecg_nbdev.core import CLASSES, whole_file
from ecg_nbdev.data import WindowDL, WindowDataset, make_targets
from ecg_nbdev.labels import first_labels, label_states
from ecg_nbdev.learner import predict_records, training_history
from ecg_nbdev.models import Ensemble, create_model
from ecg_nbdev.predictions import Predictions
from ecg_nbdev.pretrain import finetune, mix_weights, pretrain_model
from real import whole_names
from .forest import STUDENT, answered_stream, forest_answers, forest_targets
from .stream import N, stream

RUNS = Path('runs/pretrained')
# What lasts all the recording is averaged over windows, what may happen once counts where it happens.
HOW = tuple('max' if c in ('PAC', 'PVC') else 'mean' for c in CLASSES)
SEEDS, FOLDS = (0, 1, 2), 5
EPOCHS = 30 # passes of the three, N recordings in each
TRUST = .65 # of what teaches the one, the networks' share; the rest is the forest's
# Written out: the model that ships stays what it is when the defaults move on.
NETWORK = {'widths': (16, 32, 32), 'rates': (50, 25, 12.5), 'hidden': 96, 'layers': 2}
ONE = 'distilled'
SYSTEMS = { # name → networks that answer together, whether they are tuned on real recordings
    'simulated, three': (SEEDS, False), 'simulated, one': ((ONE,), False), 'tuned, one': ((ONE,), True)}


def new_network(): return create_model('crnn', n_classes=len(CLASSES), fs=100, **NETWORK)


def kept(path, train):
    "The network of a file; trained and written where there is none yet."
    model = new_network()
    if not path.exists():
        weights = {k: v.contiguous() for k, v in train().state_dict().items()}
        with whole_file(path) as f: save_file(weights, f)
    model.load_state_dict(load_file(path))
    return model.eval()


# ---- before any real recording

def logged(name, epochs, stream=stream, **options):
    "A network trained on the stream of simulated recordings, its history written beside it."
    start = time.perf_counter()
    learn = pretrain_model('crnn', epochs, stream=stream, **options)
    log = training_history(learn).assign(seconds=time.perf_counter()-start, simulated=epochs*N, network=name)
    with whole_file(RUNS/f'pretrain-{name}.csv') as f: log.to_csv(f, index=False)
    return learn.model

def simulation_only(seed):
    "The network that has seen simulated recordings only."
    return kept(RUNS/f'pretrained-{seed}.safetensors', lambda: logged(seed, EPOCHS, seed=seed, **NETWORK))

def distilled(trust=TRUST):
    "One network that has learned from what the three and a forest say together; it begins as the first of them."
    name = ONE if trust == TRUST else f'{ONE}-trust-{trust:g}'
    def train():
        three = [simulation_only(seed) for seed in SEEDS]
        forest_answers()  # before another process asks for them
        return logged(name, len(STUDENT), answered_stream, seed=9, lr=1e-3, targets=forest_targets, trust=trust,
                      teacher=Ensemble(three), model=simulation_only(SEEDS[0]))
    return kept(RUNS/f'{name}.safetensors', train)

def before_tuning(name): return distilled() if name == ONE else simulation_only(name)


# ---- with real recordings

class Networks:
    "Every network of the study, trained when it is first asked for."
    def __init__(self, store):
        self.store = store
        self.folds = make_folds(store.index, k=FOLDS, seed=0)  # a patient's recordings stay together
        self.before = cache(before_tuning)

    def train(self, name, rows):
        "A network tuned on real and simulated recordings, last weights."
        start, seed = time.perf_counter(), SEEDS.index(name) if name in SEEDS else 9
        learn = finetune(self.before(name), self.store, rows, rows[:1], seed=seed, share=1)
        print(f'{name}, tuned on {len(rows)} recordings: {time.perf_counter()-start:.0f} s', flush=True)
        return learn.model

    def tuned(self, name, without=None, held=None):
        """A network tuned on all recordings, or on those whose `held` is not `without`.

        It is the mean of the weights before and after."""
        rows = np.arange(len(self.store)) if held is None else np.flatnonzero(held != without)
        path = RUNS/'tuned'/f'{name}-{"all" if held is None else f"without-{without}"}.safetensors'
        model = kept(path, lambda: self.train(name, rows))
        mix_weights(self.before(name), model)
        return model


def predict(networks, system, held=None, store=None):
    """Every real recording predicted by networks that have not seen it.

    Those with one value of `held` (a fold, where not given; or a data set) are left out together; `store` may hold
    changed signals of the recordings."""
    store, held = store or networks.store, networks.folds if held is None else held
    names, tune = SYSTEMS[system]
    prob = np.zeros((len(store), len(CLASSES)))
    for without in np.unique(held):
        rows = np.flatnonzero(held == without)
        model = Ensemble([networks.tuned(n, without, held) if tune else networks.before(n) for n in names])
        windows = WindowDataset(store, rows, make_targets(store.index.iloc[rows]), 1000)
        prob[rows] = predict_records(model, WindowDL(windows, bs=128), HOW)
    (truth, known), number = label_states(store.index), np.unique(held, return_inverse=True)[1]
    # networks that are not tuned are one model for all folds
    return Predictions(whole_names(store.index), prob, truth, 'test', first=first_labels(store.index.labels),
                       fold=number if tune else None, provenance={'system': system},
                       key=store.index.mark, known=known)
