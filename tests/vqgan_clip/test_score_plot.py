"""The plot of the scores."""

from dalle_mini_impl.vqgan_clip.score_plot import plot_scores


def test_the_plot_shows_both_lines():
    history = [{"step": i, "score": i / 10, "loss": -i / 20} for i in range(10)]
    colors = {color for _, color in plot_scores(history).getcolors(10**6)}
    assert {(30, 90, 200), (220, 120, 20)} <= colors
