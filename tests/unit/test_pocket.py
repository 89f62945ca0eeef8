"""The pocket foundation's parts."""

from models.origins.pocket import pocket_tokenizer
from models.scenes import BACKGROUNDS, COLOURS, SHAPES


def test_the_tokenizer_is_the_same_each_time_and_knows_the_words_of_the_captions():
    tokenizers = [pocket_tokenizer() for _ in range(4)]
    assert len({tokenizer.backend_tokenizer.to_str() for tokenizer in tokenizers}) == 1
    for word in ("a", "and", "background", *COLOURS, *BACKGROUNDS, *SHAPES):
        assert len(tokenizers[0](word).input_ids) == 2 + len(word.split()), word
    assert len(tokenizers[0]("zq").input_ids) == 4
