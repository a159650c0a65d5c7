"""The shipped model, from simulated hearts to a folder in the package: `make pretrained`.

Three networks of one kind learn from the same stream of simulated recordings, a fourth from what the three and a forest
on hand-made features say together; this one is then tuned on the real recordings under ECG_DATA, in five folds, and on
all data sets but each:
  simulated, three   no real recording
  simulated, one     the same, distilled
  tuned, one         tuned on real and simulated recordings, mean of the weights before and after: the one that ships
Thresholds and calibration come from the cross-validated predictions of the same recipe.

Networks are kept in runs/pretrained and the stream in runs/stream, so that a run can be taken up again, or shared out:
`--stage pretrain --seed 1` makes one of the three. Without a stage all that is missing is done, scored and written:
tables to bench/results (real_*.csv, pretrain.csv), the model to ecg_nbdev/data/pretrained. The parts are in
bench/shipped. real_scores_rerun.csv is real_scores.csv of a second run from scratch, with `--threads 1`.
"""
import pandas as pd
import torch
from fastcore.script import call_parse

from ecg_nbdev.parallel import keep_memory
from real import data_folder, real_store
from shipped.networks import ONE, RUNS, SEEDS, Networks, distilled, simulation_only
from shipped.reduced import reduced
from shipped.scores import scores, write_table
from shipped.ship import ship


@call_parse
def main(
    data:str=None, # folder that holds cpsc2018, georgia, …: the real recordings; ECG_DATA where not given
    stage:str='all', # 'pretrain' stops after it
    seed:int=None, # only this one of the three
    threads:int=2, # of torch
    out:str='ecg_nbdev/data/pretrained', # the model folder
):
    "Train, measure and write the model that ships."
    torch.set_num_threads(threads)
    keep_memory()
    folder = data_folder(data)
    for s in SEEDS if seed is None else (seed,): simulation_only(s)
    if stage == 'pretrain': return
    distilled()
    networks = Networks(real_store(folder))
    write_table(pd.concat([pd.read_csv(RUNS/f'pretrain-{s}.csv') for s in (*SEEDS, ONE)]), 'pretrain')
    scores(networks)
    reduced(networks)
    ship(networks, out)
