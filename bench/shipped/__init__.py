"""The parts of `bench/pretrained.py`: networks, scores, reduced recordings, the model folder and its card."""
