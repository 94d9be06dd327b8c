"""Bad settings are refused in one sentence that names the field."""

import re
from dataclasses import FrozenInstanceError, asdict, fields, replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from seqlm.checked import bounds_of
from seqlm.config import (
    SIZES,
    DataConfig,
    DataFiles,
    FinetuneConfig,
    ModelConfig,
    SampleConfig,
    ServeConfig,
    TrainConfig,
)
from seqlm.errors import ConfigError

FILES = {"data_path": Path("rows.jsonl"), "vocab_path": Path("vocab.json")}
NEEDED = {DataFiles: FILES}
CONFIGS = [
    *(DataConfig, DataFiles, ModelConfig, TrainConfig),
    *(SampleConfig, FinetuneConfig, ServeConfig),
]

# Values that are wrong for each kind of field. True is an int to Python, but not to a reader.
WRONG = {
    int: ["3", 3.0, 3.5, True, None, [3]],
    float: ["0.5", True, None, float("nan"), float("inf"), [0.5]],
    bool: ["yes", 1, 0, None],
    int | None: ["3", 300.0, True],
    float | None: ["0.5", True, float("nan"), [0.5]],
    bool | None: ["yes", 1, 0],
    str | None: [3, True, ["relu"]],
    Path: [3, None, True],
    Path | None: [3, True],
}
CHOICE = [3, "", "no such choice", True]


def wrong_types() -> list:
    cases = []
    for config in CONFIGS:
        for field in fields(config):
            kind = get_type_hints(config)[field.name]
            choice = CHOICE if type(None) in get_args(kind) else [None, *CHOICE]
            for value in WRONG.get(kind, choice):
                cases.append(pytest.param(config, field.name, value, id=f"{field.name}={value!r}"))
    return cases


def refusal(config, name, value) -> str:
    with pytest.raises(ConfigError) as caught:
        config(**{**NEEDED.get(config, {}), name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}: "), message
    assert "\n" not in message and len(message) < 200
    return message


@pytest.mark.parametrize(("config", "name", "value"), wrong_types())
def test_a_value_of_the_wrong_type_is_refused_and_its_field_named(config, name, value):
    message = refusal(config, name, value)
    assert repr(value) in message


OUT_OF_BOUNDS = {
    DataConfig: {
        "n_images": [99, 0, -1],
        "n_codes": [1, 0, 1001],
        "patch": [0, -2],
        "copies": [-1],
        "rotate": [-1.0, 181],
        "shift": [-0.1],
        "scale": [-0.1, 1.1],
        "shear": [-0.1, 1.1],
        "free_fraction": [-0.01, 1.01],
        "seed": [-1, 2**32],
    },
    DataFiles: {"test_size": [-0.1, 1.0], "val_size": [0, 1.0], "split_seed": [-1, 2**32]},
    ModelConfig: {
        "n_layer": [0],
        "n_head": [0],
        "n_embd": [0],
        "n_positions": [1],
        "dropout": [-0.1, 1.0],
        "attn_pdrop": [-0.1, 1.0],
        "resid_pdrop": [-0.1, 1.0],
        "embd_pdrop": [-0.1, 1.0],
        "n_inner": [0],
        "layer_norm_epsilon": [0, -1e-5, 1.0],
        "initializer_range": [0, -0.02, 2.0],
    },
    TrainConfig: {
        "batch_size": [0],
        "grad_accumulation": [0],
        "num_epochs": [0, -1.0],
        "learning_rate": [0, -1e-4, 1.1],
        "weight_decay": [-0.1],
        "warmup_ratio": [-0.1, 1.0],
        "max_grad_norm": [0, -1.0],
        "max_length": [3],
        "max_steps": [-2],
        "max_seconds": [0, -1.0],
        "evals": [0],
        "patience": [-1],
        "seed": [-1, 2**32],
    },
    SampleConfig: {
        "temperature": [0, -1.0, 101],
        "top_k": [-1],
        "top_p": [0, -0.1, 1.1],
        "num_beams": [0, 65],
        "guidance": [-0.1, 21],
        "max_new_tokens": [0],
        "seed": [-1, 2**32],
    },
    FinetuneConfig: {"lora_rank": [-1], "lora_alpha": [0], "replay": [-0.1, 1.0]},
    ServeConfig: {"port": [80, 65536], "workers": [0, 65], "timeout": [0, 90_000]},
}


@pytest.mark.parametrize(
    ("config", "name", "value"),
    [(c, name, v) for c, table in OUT_OF_BOUNDS.items() for name, vs in table.items() for v in vs],
)
def test_a_value_out_of_bounds_is_refused_and_its_field_named(config, name, value):
    message = refusal(config, name, value)
    assert "must be" in message and repr(value) in message


@pytest.mark.parametrize("config", CONFIGS)
def test_every_number_has_its_bounds_tested(config):
    numbers = {f.name for f in fields(config) if get_type_hints(config)[f.name] in NUMBERS}
    assert numbers == set(OUT_OF_BOUNDS[config])


NUMBERS = (int, float, int | None, float | None)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_bounds_themselves_are_allowed(config):
    for name in OUT_OF_BOUNDS[config]:
        for value in bounds_of(config, name):
            if value is not None:
                also = {"n_head": 1} if config is ModelConfig else {}
                config(**{**NEEDED.get(config, {}), **also, name: value})


def test_a_bound_on_both_sides_is_said_whole():
    assert "between 2 and 1000, got 1" in refusal(DataConfig, "n_codes", 1)
    assert "at least 1, got 0" in refusal(TrainConfig, "batch_size", 0)


def test_yamls_way_with_exponents_is_explained():
    message = refusal(TrainConfig, "learning_rate", "1e-3")
    assert "1.0e-3" in message
    # The hint would only confuse where the value is no piece of text.
    assert "YAML" not in refusal(TrainConfig, "learning_rate", float("nan"))
    assert "YAML" not in refusal(TrainConfig, "batch_size", "8")


@pytest.mark.parametrize(
    ("config", "name", "choices"),
    [
        (DataConfig, "source", ["digits", "mnist"]),
        (
            TrainConfig,
            "schedule",
            ["cosine", "linear", "constant_with_warmup", "warmup_stable_decay"],
        ),
        (TrainConfig, "precision", ["auto", "fp32", "bf16", "fp16"]),
        (SampleConfig, "strategy", ["sample", "greedy"]),
    ],
)
def test_a_choice_that_is_not_there_is_answered_with_those_that_are(config, name, choices):
    for choice in choices:
        assert getattr(config(**{name: choice}), name) == choice
    message = refusal(config, name, "frog")
    for choice in choices:
        assert choice in message


def test_a_width_that_heads_cannot_share_is_refused():
    message = refusal(ModelConfig, "n_embd", 100)
    assert re.search(r"100 .*n_head = 8", message)
    assert ModelConfig(n_embd=100, n_head=4).n_embd == 100


def test_an_activation_that_transformers_does_not_know_is_answered_with_those_it_does():
    assert ModelConfig(activation_function="relu").activation_function == "relu"
    answer = "^activation_function: .*'frog'.*gelu_pytorch_tanh.*relu"
    with pytest.raises(ConfigError, match=answer) as caught:
        ModelConfig(activation_function="frog")
    assert "\n" not in str(caught.value)


def test_what_may_be_left_to_gpt2_is_told_so_in_words():
    assert "must be a valid boolean, got 3" in refusal(ModelConfig, "tie_word_embeddings", 3)


def test_whole_numbers_will_do_for_fractions():
    assert TrainConfig(num_epochs=3).num_epochs == 3
    assert DataConfig(n_images=None).n_images is None


@pytest.mark.parametrize("config", CONFIGS)
def test_settings_cannot_be_changed_behind_a_runs_back(config):
    settings = config(**NEEDED.get(config, {}))
    with pytest.raises(FrozenInstanceError):
        setattr(settings, fields(config)[0].name, 1)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_has_its_line_in_the_docstring(config):
    described = re.findall(r"^ {8}(\w+): ", config.__doc__, flags=re.MULTILINE)
    assert described == [field.name for field in fields(config)]


def test_a_sample_is_by_default_the_model_itself_as_long_as_it_fits():
    config = SampleConfig()
    assert (config.temperature, config.top_k, config.top_p, config.guidance) == (1, 0, 1, 1)
    assert config.max_new_tokens is None


def test_the_default_model_is_the_full_one():
    size = ModelConfig()
    assert (size.n_layer, size.n_head, size.n_embd, size.n_positions) == (6, 8, 384, 1024)
    assert size.attn_pdrop == 0


@pytest.mark.parametrize("size", SIZES)
def test_a_size_fills_in_what_is_not_set_and_gives_way_to_what_is(size):
    model = ModelConfig(size=size)
    assert {name: getattr(model, name) for name in SIZES[size]} == SIZES[size]
    assert ModelConfig(size=size, n_layer=1) == replace(model, n_layer=1)


def test_settings_are_values_that_compare_copy_and_take_text_as_a_path():
    settings = TrainConfig("out", 4)
    assert settings == TrainConfig(output_dir=Path("out"), batch_size=4)
    assert replace(settings, batch_size=8) == TrainConfig("out")
    assert TrainConfig(**asdict(settings)) == settings


def test_a_mistake_by_position_names_the_field_and_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="^n_head: must be at least 1, got 0$"):
        ModelConfig(2, 0)
    with pytest.raises(ConfigError, match="^layers: "):
        ModelConfig(layers=2)


def test_no_steps_at_all_are_refused():
    with pytest.raises(ConfigError, match="^max_steps: must be at least 1, or -1 to follow"):
        TrainConfig(max_steps=0)
