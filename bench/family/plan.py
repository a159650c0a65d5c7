"""What the study fits: systems, budgets, and the default network with one change at a time."""
from pathlib import Path

from ecg_nbdev.pretrain import RECIPE

BENCH = Path(__file__).resolve().parents[1]
RUNS, RESULTS = Path('runs/study'), BENCH/'results'
MEMBERS = ('crnn', 'crnn, joint stem', 'multilead', 'multilead_shared', 'joint', 'lead')
OPTIONS = {'crnn, joint stem': {'stem': 'joint'}}  # a system's name begins with its architecture
RATES = (1e-3, 3e-3)  # learning rates that are tried
FOLDS, SIMULATED = 5, 3000  # of the real recordings; recordings that are simulated
BUDGET = {'real': 12., 'simulated': 60., 'ablation': 20.}  # processor seconds of training in a fit
# Times the budget of simulated recordings: what more time brings.
LONGER = {'crnn, joint stem': 4, 'crnn': 4, 'InceptionTime': 10}
KEPT = ('macro_auroc', 'macro_f1', 'cpsc2018_f1', 'exact_match')  # scores in the tables
STAGES = ('simulated', 'real', 'ablations', 'simulated-powerset', 'real-powerset', 'longer')

def option(**options): return {'options': options}

ABLATIONS = {  # factor → choice → fields of the job that differ from the default
    'default': {f'seed {s}': {'seed': s} for s in range(3)},
    'stem': {'one a lead': option(stem='separate'), 'all leads at once': option(stem='joint')},
    'pool': {kind: option(pool=(kind,)) for kind in ('mean', 'max', 'attention', 'last')},
    'cell': {'GRU': option(cell='gru'), 'forward only': option(bidirectional=False), 'two layers': option(layers=2)},
    'leads': {'no attention between leads': option(lead_attention=False),
              'no deep supervision': option(supervise=False),
              'no lead dropout': option(lead_dropout=0.), 'lead dropout 0.3': option(lead_dropout=.3)},
    'sampling rate': {'250 Hz': {'fs': 250}, '500 Hz': {'fs': 500}},
    'window': {'5 s': {'seconds': 5.}, '2.5 s': {'seconds': 2.5}},
    'loss': {'weighted BCE': {'loss': 'weighted_bce'}, 'focal': {'loss': 'focal'},
             'asymmetric': {'loss': 'asymmetric'}},
    'augmentation': {'scale, noise, leads': {'augment': RECIPE}, 'mixup': {'augment': {'mixup': {}}}},
    'arithmetic': {'float32': option(bf16=False)},
}
