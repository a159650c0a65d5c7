"""What `bench/study.py` asks a training process for, and what it answers: lines of JSON, in any environment."""
import json
from dataclasses import asdict, dataclass, field


class Line:
    "A dataclass that travels as one line of JSON."
    def to_json(self): return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line): return cls(**json.loads(line))


@dataclass(frozen=True)
class Job(Line):
    "One training."
    system:str # name in the tables; it begins with its architecture
    lr:float # largest learning rate
    budget:float # processor seconds of training
    x:str # file of windows, (n, 12, samples) mV with NaN where there is no sample, .npy
    split:str # file with the rows of each part and their targets, .npz
    out:str # file to write: probabilities of the records that choose and report, .npz
    options:dict = field(default_factory=dict) # of the network
    fs:int = 100 # sampling rate, Hz
    seconds:float = 10. # length of a window
    loss:str = 'bce' # of `ecg_nbdev.losses.LOSSES`
    augment:dict|None = None # recipe of `ecg_nbdev.augment.Augment`
    seed:int = 0
    batch:int = 32 # windows in a batch
    checks:int = 4 # validations, at even shares of the budget

    @property
    def arch(self): return self.system.split(',')[0]

    def about(self):
        "What a reader needs to repeat it: all but the files."
        told = {k: v for k, v in asdict(self).items() if k not in ('x', 'split', 'out')}
        return {**told, 'arch': self.arch}


@dataclass(frozen=True)
class Fitted(Line):
    "What a training took, and what it reached."
    cpu_s:float # processor seconds of training
    steps:int
    windows:int # seen in all
    epochs:float # passes over the training windows
    valid_auroc:float # macro AUROC of the weights that are kept, on the records that choose
    valid_scores:list # the same at each check
    parameters:int # of the network
    torch:str # its version
