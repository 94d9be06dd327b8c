"""The diagram of the model: its sizes are those of the model it is drawn for."""

from figure_samples import drawn, words

from seqlm.config import ModelConfig
from seqlm.data.tokens import default_vocab
from seqlm.models.gpt2 import build_lm, count_parameters
from seqlm.plots.architecture import plot_architecture


def test_it_counts_the_parameters_of_the_model_it_shows():
    size, vocab = ModelConfig(2, 2, 8, 12), default_vocab(20)
    figure = plot_architecture(size, len(vocab), 3, 11)
    assert f"n = {count_parameters(build_lm(size, vocab)):,} parameters" in words(figure)


def test_the_sizes_beside_the_arrows_are_those_of_the_layers():
    model, sizes = build_lm(ModelConfig(4, 4, 128, 21), default_vocab()), set()
    for layer in model.modules():
        layer.register_forward_hook(
            lambda layer, inputs, out: sizes.add(tuple(getattr(out, "shape", ())))
        )
    model(model.dummy_inputs["input_ids"].new_zeros(64, 20))
    of_batch = {size for size in sizes if size[:1] == (64,)}
    assert len(of_batch) == 4  # the stream, q with k and v, inside the MLP, logits
    shown = words(drawn("architecture"))
    assert all(str(size) in shown for size in of_batch)
    assert "cut into 4 heads of 32" in shown and "√32" in shown


def test_each_residual_connection_is_drawn():
    assert words(drawn("architecture")).count("+ what came in") == 2
