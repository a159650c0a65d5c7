"The parts of `bench/study.py`: what is fitted, one fit, its scores, the tables."
