"""The figure of sampling settings."""

from figure_samples import SWEEPS, drawn, words


def test_each_setting_has_a_column_and_each_measure_a_row():
    figure = drawn("diversity")
    assert len(figure.axes) == 8
    assert [ax.get_title("left") for ax in figure.axes[:4]] == list(SWEEPS)
    rows = [figure.axes[4 * row].get_ylim() for row in range(2)]
    assert all(figure.axes[i].get_ylim() == rows[i // 4] for i in range(8))
    assert len(drawn("diversity, one setting").axes) == 2


def test_a_top_k_of_zero_keeps_all_tokens_and_is_called_off():
    figure = drawn("diversity")
    labels = [label.get_text() for label in figure.axes[5].get_xticklabels()]
    assert labels == ["5", "20", "50", "100", "off"]


def test_each_measure_has_its_interval():
    figure = drawn("diversity")
    assert "real\n2.20" in words(figure)
    assert "classified as asked 95.0%" in figure.alt and "at 0.5" in figure.alt
    assert "diversity 2.20 (2.17 to 2.23)." in figure.alt
