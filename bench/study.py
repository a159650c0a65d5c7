"""Which network for twelve leads? Every member of the family and three peers, on the same simulated recordings.

    python bench/study.py --cost                 what it will cost here, measured; nothing is trained
    python bench/study.py                        all fits that are not kept yet, then the tables
    python bench/study.py --epochs 10 --seeds 2  a smaller one
    python bench/study.py --tables               the tables of the fits there are

All networks see one stream of simulated recordings (runs/stream, 4,096 an epoch). Of three learning rates, each tried
for some epochs, the one best on a thousand simulated recordings that do not report is used; then each network is
trained with every seed and scored on other simulated and on all real recordings, without tuning. The two best and the
one that ships are tuned and scored without one data set in turn. Intervals draw patients and seeds together; `best in`
is the share of draws in which a network comes first.

Start it in several processes at once: each takes fits that no other works on. A fit keeps a checkpoint after each epoch
and goes on from there. Tables: networks_*.csv in bench/results. The parts are in bench/family.
"""
import argparse
from pathlib import Path

import torch

from baselines import Real
from ecg_nbdev.parallel import keep_memory
from family.plan import NETWORKS, RESULTS, RUNS, Plan
from family.stages import Stages, cost
from family.tables import write_tables
from real import data_folder
from shipped.stream import stream


def options():
    "The command line."
    plan = Plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', help='folder of real recordings; else ECG_DATA')
    parser.add_argument('--networks', nargs='+', choices=NETWORKS, default=plan.networks)
    parser.add_argument('--epochs', type=int, default=plan.epochs, help='stores of the stream')
    parser.add_argument('--search', type=int, default=plan.search, help='epochs of a fit that chooses the rate')
    parser.add_argument('--rates', type=float, nargs='+', default=plan.rates)
    parser.add_argument('--seeds', type=int, default=len(plan.seeds))
    parser.add_argument('--n', type=int, default=plan.n, help='recordings of each store that are used')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the tables')
    parser.add_argument('--cost', action='store_true', help='say what it costs, and train nothing')
    parser.add_argument('--tables', action='store_true', help='train nothing')
    return parser.parse_args()

def main():
    args = options()
    torch.set_num_threads(1)
    keep_memory()
    runs = RUNS if args.n == Plan.n else RUNS/f'n-{args.n}'  # fits on smaller stores are others
    plan = Plan(tuple(args.networks), tuple(range(args.seeds)), tuple(args.rates), args.epochs, args.search, args.n,
                runs=runs)
    table = None
    if not args.tables:
        table = cost(plan, stream(0))
        print(table.round(3).to_string(index=False))
        print(f'processor hours in all: {table.search.sum()+table.final.sum():.1f}, left: {table.left.sum():.1f}',
              flush=True)
        if args.cost: return
    stages = Stages(plan, stream, Real(data_folder(args.data)))
    if not args.tables: stages.run()
    write_tables(stages, table, args.out)

if __name__ == '__main__': main()
