"""Which recurrent network for twelve leads? Every member of the family and three peers, on the same windows for the
same processor seconds.

    python bench/study.py --peers-python PEERS/bin/python   all fits that are not kept yet, then the tables
    python bench/study.py --tables                          the tables from the fits there are

real       the labelled recordings under ECG_DATA, five folds; one reports, the next one chooses (weights, thresholds),
           three train
simulated  3,000 recordings simulated at 500 Hz: 2,100 train, 300 choose, 600 report
longer     on the simulated ones, `crnn` with either stem for four times as long, InceptionTime for ten times
ablations  on the simulated ones, `crnn` with one change at a time
powerset   an output for each label set

Each fit (bench/fit.py) runs on one thread and its predictions are kept in runs/study; the tables (study_*.csv in
bench/results) come from these alone. Learning rate: of two, the one with the better macro AUROC on the choosing fold of
the first real fit; it is used for all fits of that network. InceptionTime, xresnet1d101 and LSTM 2x256 need an
environment of their own (torch 2.14.1, torchvision 0.29.1, tsai) and read a missing sample as 0. The parts are in
bench/family.
"""
import argparse, sys
from functools import partial

from family.fits import Stages, Trainer, fit
from family.plan import BUDGET, MEMBERS, RUNS, STAGES
from family.tables import write_tables
from train import PEERS


def options():
    "The command line."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--peers-python', help='the Python of an environment that holds tsai; else the family alone')
    parser.add_argument('--stages', nargs='+', choices=STAGES, default=STAGES)
    parser.add_argument('--tables', action='store_true', help='train nothing')
    for name, seconds in BUDGET.items():
        parser.add_argument(f'--{name}-budget', type=float, default=seconds, help='processor seconds of a fit')
    return parser.parse_args()

def main():
    args = options()
    RUNS.mkdir(parents=True, exist_ok=True)
    if not args.tables:
        trainers = Trainer(sys.executable), Trainer(args.peers_python)
        budget = {name: getattr(args, f'{name}_budget') for name in BUDGET}
        systems = 'crnn', *(PEERS if args.peers_python else ()), *MEMBERS[1:]
        stages = Stages(partial(fit, trainers), budget, systems)
        for stage in args.stages: stages.run(stage)
    write_tables()

if __name__ == '__main__': main()
