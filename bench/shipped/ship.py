"""The model folder: three networks tuned on every real recording, thresholds and calibration from cross-validation."""
import numpy as np

from ecg_nbdev.bundle import Predictor, save_bundle
from ecg_nbdev.calibration import fit_calibration
from ecg_nbdev.core import CLASSES
from ecg_nbdev.evaluation import evaluate
from ecg_nbdev.models import Ensemble
from ecg_nbdev.pretrain import finetune, mix_weights
from ecg_nbdev.signal import Preparation
from ecg_nbdev.store import seen_of
from ecg_nbdev.thresholds import fit_thresholds
from .card import card
from .networks import FOLDS, HOW, RUNS, SEEDS, kept, predict
from .scores import choosing, nested


def member(networks, seed):
    "A network tuned on every real recording, mixed with what it was before."
    store, every = networks.store, np.arange(len(networks.store))
    def train(): return finetune(networks.pretrained(seed), store, every, every[:1], seed=seed, share=1).model
    model = kept(RUNS/'tuned'/f'ship-{seed}.safetensors', train)
    mix_weights(networks.pretrained(seed), model)
    return model

def about(store, scored):
    "What the model folder says of itself; `seen` tells recordings that it was tuned on."
    found, counts = evaluate(scored, n_boot=0).to_dict(), store.index.source.value_counts()
    return {
        'name': 'The model that ships with ecg_nbdev', 'arch': 'ensemble of three crnn', 'seed': list(SEEDS),
        'data': 'simulated recordings, then '+', '.join(f'{n} of {source}' for source, n in counts.items()),
        'scored_on': f'{len(scored)} real recordings by {FOLDS}-fold cross-validation of the same recipe; '
                     'calibration and thresholds of each fold from the other folds',
        'seen': seen_of(store, range(len(store))),
        'per_class': found['per_class'], 'metrics': {k: v for k, v in found.items() if isinstance(v, float)}}

def ship(networks, folder):
    "Write the model folder."
    model = Ensemble([member(networks, seed) for seed in SEEDS]).eval()
    preds = predict(networks, 'c')
    calibration = fit_calibration(choosing(preds))
    thresholds = fit_thresholds(calibration(choosing(preds)))
    scored = nested(preds, calibrate=True)
    predictor = Predictor(model, Preparation(), 10., None, HOW, CLASSES, thresholds, calibration=calibration,
                          about=about(networks.store, scored))
    save_bundle(predictor, folder, card(predictor, scored))
