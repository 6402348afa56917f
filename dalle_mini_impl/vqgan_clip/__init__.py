"""Painting by pushing a code map up a score's gradient, as VQGAN+CLIP does.

loop: the optimizer, which knows callables only · judge and result: what is better, and kept ·
cutouts: what the score sees of an image · prompts: the score that a CLIP gives · code_space: an
image tokenizer's codes as a continuous map · code_prior: likelier codes close by, by a
transformer · record: films and curves.
"""
