"""The loop that the encoder's folder is measured next to computes what the folder does."""

from bench.encoder_alone import LONGEST, NUM_TEXTS, SHORTEST, texts


def test_texts_are_of_mixed_lengths_and_always_the_same() -> None:
    sizes = [len(text.split()) + 2 for text in texts()]

    assert len(sizes) == NUM_TEXTS
    assert min(sizes) >= SHORTEST
    assert max(sizes) <= LONGEST
    assert len(set(sizes)) > NUM_TEXTS // 3
    assert texts() == texts()
