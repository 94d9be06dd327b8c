"""The whole playground: which model it loads, and what it says of it."""

from playable import playable

from seqlm.playground import app
from seqlm.playground.app import Playground
from seqlm.workspace import NANO28, Workspace


def texts(box) -> str:
    """All texts in a box of widgets."""
    own = [getattr(box, name, "") for name in ("text", "description", "value")]
    parts = [texts(child) for child in getattr(box, "children", ())]
    return " ".join([*(part for part in own if isinstance(part, str)), *parts])


# --- the model ------------------------------------------------------------------------------------


def test_the_model_is_named_with_its_size(play):
    assert texts(play.start).strip() == (
        "Model: outputs/laptop/best_model, 2 layers, 2 heads, 32 wide; "
        f"{len(play.panels['draw'].player.images)} test images."
    )


def test_without_a_trained_model_it_plays_with_the_one_that_comes_with_seqlm(tmp_path):
    play = Playground(Workspace("laptop", tmp_path))
    assert play.find_model() == NANO28 and sorted(play.panels) == sorted(app.PANELS)
    assert play.panels["draw"].player.book.image_shape == (28, 28)
    said = texts(play.start)
    assert "5 layers" in said and "100 test images" in said and "`make report`" in said


def test_the_nano_profile_plays_with_it_and_does_not_excuse_it(tmp_path):
    play = Playground(Workspace("nano", tmp_path))
    assert play.find_model() == NANO28 and play.panels
    assert "100 test images" in texts(play.start) and "make report" not in texts(play.start)


def test_a_damaged_model_is_reported_in_one_sentence(built, opinionated, vocab, tmp_path):
    damaged = playable(tmp_path, built, opinionated(), vocab)
    (damaged.best_model / "model.safetensors").write_bytes(b"half a file")
    play = Playground(damaged)
    message = texts(play.start).strip()
    assert message.startswith("This model cannot be used.")
    assert "model.safetensors" in message and "\n" not in message and "Traceback" not in message
    assert "needs a model" in texts(play.gallery)


def test_a_directory_chooses_the_model(tmp_path, play):
    other = Playground(Workspace("laptop", tmp_path), directory=play.ws.best_model)
    assert other.panels and "2 layers" in other.message.text


def test_a_directory_is_looked_for_from_the_projects_folder(ws, tmp_path):
    (tmp_path / "my models").symlink_to(ws.best_model.parent)
    other = Playground(Workspace("laptop", tmp_path), directory="my models/best_model")
    assert other.panels, other.message.text


def test_the_profiles_model_comes_first(ws, tmp_path):
    both = Workspace("laptop", tmp_path)
    both.best_model.parent.mkdir(parents=True)
    both.best_model.symlink_to(ws.best_model)
    assert Playground(both).find_model() == both.best_model
