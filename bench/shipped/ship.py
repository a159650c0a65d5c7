"""The model folder: one network tuned on every real recording, thresholds and calibration from cross-validation."""
from pathlib import Path
from ecg_nbdev.bundle import save_bundle
from ecg_nbdev.calibration import fit_calibration
from ecg_nbdev.core import CLASSES, whole_file
from ecg_nbdev.evaluation import evaluate
from ecg_nbdev.export import export_onnx
from ecg_nbdev.signal import Preparation
from ecg_nbdev.fingerprint import seen_of
from ecg_nbdev.predictor import Predictor
from ecg_nbdev.thresholds import fit_thresholds
from .card import card
from .networks import FOLDS, HOW, ONE, SEEDS, predict
from .scores import RESULTS, SHIPS, choosing, nested, sources_of


def about(store, evaluation):
    "What the model folder says of itself; `seen` tells recordings that it was tuned on."
    found, counts = evaluation.to_dict(), store.index.source.value_counts()
    kept = ('per_class', 'three_ways', 'none_of_the_classes', 'intervals')
    return {
        'name': 'The model that ships with ecg_nbdev', 'arch': 'crnn, distilled from three and a forest', 'seed': list(SEEDS),
        'data': 'simulated recordings, then '+', '.join(f'{n} of {source}' for source, n in counts.items()),
        'scored_on': f'{len(evaluation)} labelled real recordings by {FOLDS}-fold cross-validation of the same recipe, '
                     f'{found["n_unknown"]} unknown labels left out; calibration and thresholds of each fold come from '
                     'the other folds',
        'seen': seen_of(store, range(len(store))), **{name: found[name] for name in kept},
        'metrics': {k: v for k, v in found.items() if isinstance(v, float)}}

def write_ids(store):
    "The recordings that were used, so that an outsider can repeat it."
    columns = ['source', 'id', 'labels', 'unknown', 'mark']
    with whole_file(RESULTS/'real_recordings.csv') as f: store.index[columns].to_csv(f, index=False)

def ship(networks, folder):
    "Write the model folder."
    model, preds, store = networks.tuned(ONE), predict(networks, SHIPS), networks.store
    calibration = fit_calibration(choosing(preds))
    thresholds = fit_thresholds(calibration(choosing(preds)))
    scored = nested(preds, networks.folds)
    evaluation = evaluate(scored, sources=sources_of(scored))
    predictor = Predictor(model, Preparation(), 10., None, HOW, CLASSES, thresholds, calibration=calibration,
                          about=about(store, evaluation))
    save_bundle(predictor, folder, card(predictor, evaluation))
    export_onnx(predictor, Path(folder)/'model.onnx', alone=False)
    write_ids(store)
