"""Unseen names: which are sampled, and what another CLIP says of the images."""

import torch

from benchmarks.unseen_names import chosen_names, found_first


class Judge:
    """Sees an image's first pixel as a vector; texts are unit vectors of their own."""

    def encode_images(self, images):
        return images[:, :, 0, 0]

    def encode_texts(self, texts):
        return torch.eye(3)[: len(texts)]


def test_held_out_combinations_come_first():
    names = ["apple", "green circle", "house", "purple heart"]
    assert chosen_names(names, ("^(green|purple) ",), 3) == [
        "green circle",
        "purple heart",
        "apple",
    ]


def test_a_name_is_found_where_no_other_fits_better():
    images = torch.tensor([[1.0, 0.2, 0.0], [0.1, 0.9, 1.0]]).reshape(2, 3, 1, 1)
    assert found_first(Judge(), images, [0, 1], ["a", "b", "c"]) == [True, False]
