"""The parts of `bench/study.py`: what is fitted, the data, the fits, the tables."""
