"""The panels of the playground that show one image: draw, paint, complete, attention."""

import ipywidgets
import numpy as np
import traitlets

from seqlm.playground import html
from seqlm.playground.controls import WRAPPED, SamplingControls, beside
from seqlm.playground.player import Player
from seqlm.playground.widgets import FULL, PEN, Choice, Notice, PaintGrid, Slider
from seqlm.plots.images import first_patches

COMPLETIONS = 5


class SharedImage(traitlets.HasTraits):
    """The image that all panels show, the last one drawn, painted or selected: its codes (P,)."""

    description = traitlets.Unicode()  # set it before the codes, which panels observe
    codes = traitlets.Any()


def class_choice(player: Player, label: str, index: int = -1) -> Choice:
    """Radio buttons for every class, and a last one, "any", for none."""
    return Choice(label, {**{str(k): k for k in range(player.n_classes)}, "any": None}, index)


def classified_as(probabilities: np.ndarray) -> str:
    """The most probable of the classes (C,), in words."""
    return f"classified as {probabilities.argmax()} ({probabilities.max():.0%})"


class DrawPanel:
    """Draw a digit, and step through its codes."""

    def __init__(self, player: Player, controls: SamplingControls, shared: SharedImage):
        self.player, self.controls, self.shared = player, controls, shared
        n = player.book.n_patches
        self.label = class_choice(player, "digit", 7 % player.n_classes)
        self.draw_button = ipywidgets.Button(description="Draw", button_style="primary")
        self.next_button = ipywidgets.Button(
            description="Draw another (next seed)", layout={"width": "15em"}
        )
        steps = f"of {n}; step through them, or play"
        self.step = Slider("code", 1, n, help=steps, value=n, playable=True)
        self.message, self.output = Notice(), ipywidgets.HTML()
        buttons = ipywidgets.HBox([self.draw_button, self.next_button], layout=WRAPPED)
        self.box = beside(controls.box, self.label, buttons, self.step, self.message, self.output)
        self.draw_button.on_click(lambda _: self.draw(replay=True))
        self.next_button.on_click(lambda _: self.controls.next_seed())
        self.label.observe(lambda _: self.draw(), "index")
        self.controls.observe(self.draw)
        self.step.observe(lambda _: self.show_step(), "value")
        self.draw()

    def draw(self, replay: bool = False) -> None:
        """Draw with the current settings; `replay` shows it code by code."""
        label, config = self.label.value, self.controls.config()
        (self.codes,) = self.player.draw([label], config)
        self.trace = self.player.trace_drawing(self.codes, label, config)
        (self.image,) = self.player.book.decode(self.codes[None])
        (self.classes,) = self.player.classify(self.codes[None])
        digit = "any digit" if label is None else f"a {label}"
        self.name = f"drawing of {digit}"
        seed, result = config.seed, classified_as(self.classes)
        self.message.text = f"{self.name.capitalize()}, seed {seed}; {result}."
        self.shared.description, self.shared.codes = self.name, self.codes
        if replay:
            self.step.playing = False
            self.step.value = 1
            self.step.playing = True
        self.show_step()

    def show_step(self) -> None:
        """Show the image as far as the slider says, and the next-token probabilities there."""
        n, book = self.step.whole, self.player.book
        image = first_patches(self.image, n, book.patch)
        candidates = self.trace.candidates(n - 1)
        self.output.value = html.page(
            html.image_figure(image, f"{self.name}, first {n} of {book.n_patches} codes"),
            html.surprisal_figure(image, self.trace.surprisal, book.grid, n),
            html.class_table(self.classes, "Classification"),
            html.candidate_table(candidates, book, f"Next-token probabilities, code {n}"),
        )


class PicturePanel:
    """Paint an image, or select a test image; see how the model classifies it."""

    def __init__(self, player: Player, shared: SharedImage):
        self.player, self.shared = player, shared
        height, width = player.book.image_shape
        pen = PEN * (max(height, width) / 8) ** 0.35  # as strokes grow from 8x8 digits to MNIST's
        self.grid = PaintGrid(height=height, width=width, label="Paint a digit", pen=pen)
        n = len(player.images)
        about = f"{n} images not used in training; the grid shows the image, paint over it"
        self.number = Slider("test image", 0, max(1, n - 1), help=about)
        self.message, self.output = Notice(), ipywidgets.HTML()
        left = ipywidgets.VBox([self.number, self.grid] if n else [self.grid])
        self.box = beside(left, self.message, self.output)
        if n:
            self.grid.show(player.images[0])
        self.classify()
        self.grid.observe(lambda _: self.classify(share=True), "value")
        self.number.observe(lambda _: self.select(), "value")

    def select(self) -> None:
        """Put the test image of the slider's number into the grid."""
        before = self.grid.value
        self.grid.show(self.player.images[self.number.whole])
        if self.grid.value == before:  # then the grid reports no change
            self.classify(share=True)

    def classify(self, share: bool = False) -> None:
        """Encode and classify the image in the grid; with `share` all panels show it."""
        image, description = self.grid.image(), "your painting"
        if len(self.player.images):
            number = self.number.whole
            original = self.player.images[number]
            if np.array_equal(np.rint(original * FULL), np.rint(image * FULL)):
                image = original  # the grid may have fewer levels
                description = f"test image {number}, labelled {self.player.labels[number]}"
        (codes,) = self.player.book.encode(image[None])
        if share:
            self.shared.description, self.shared.codes = description, codes
        (decoded,) = self.player.book.decode(codes[None])
        (classes,) = self.player.classify(codes[None])
        surprisal = self.player.trace_reading(codes).surprisal
        self.message.text = f"{classified_as(classes).capitalize()}."
        caption = f"{description}, encoded and decoded: the model’s input"
        self.output.value = html.page(
            html.image_figure(decoded, caption),
            html.surprisal_figure(decoded, surprisal, self.player.book.grid),
            html.class_table(classes, "Classification"),
        )


class CompletePanel:
    """Keep the upper half of the image and draw the lower half several times."""

    def __init__(self, player: Player, controls: SamplingControls, shared: SharedImage):
        self.player, self.controls, self.shared = player, controls, shared
        self.label = class_choice(player, "class")
        name, layout = f"Draw {COMPLETIONS} completions", {"width": "13em"}
        self.button = ipywidgets.Button(description=name, button_style="primary", layout=layout)
        self.source, self.message, self.output = ipywidgets.HTML(), Notice(), ipywidgets.HTML()
        self.box = beside(
            controls.box, self.source, self.label, self.button, self.message, self.output
        )
        self.button.on_click(lambda _: self.complete())
        shared.observe(lambda _: self.reset(), "codes")
        self.reset()

    def reset(self) -> None:
        """Name the image whose upper half is kept, and clear the last completions."""
        self.source.value = html.note(f"Upper half of: {self.shared.description}.")
        self.message.text = self.output.value = ""

    def complete(self) -> None:
        """Draw the lower half several times, and classify each result."""
        original, config = self.shared.codes, self.controls.config()
        n = COMPLETIONS if config.strategy == "sample" else 1
        codes = self.player.complete(original, self.label.value, config, n)
        images = self.player.book.decode(np.concatenate([[original], codes]))
        classes = self.player.classify(codes)
        half = first_patches(images[0], self.player.half[0], self.player.book.patch)
        single = "" if n > 1 else f" {config.strategy.capitalize()} search has only one result."
        digits = ", ".join(str(digit) for digit in classes.argmax(1))
        self.message.text = f"Classified as {digits}.{single}"
        captions = ["upper half", "original"]
        captions += [f"{i}: {classified_as(p)}" for i, p in enumerate(classes, 1)]
        self.output.value = html.page(html.gallery([half, *images], captions))


class AttentionPanel:
    """Attention weights while the model classifies the image."""

    def __init__(self, player: Player, shared: SharedImage):
        self.player, self.shared = player, shared
        config, n = player.model.config, player.book.n_patches + 3  # <IMG> codes </IMG> <CLS>
        self.layer = Slider("layer", 1, config.n_layer, value=1)
        self.head = Slider("head", 1, config.n_head, value=1)
        about = f"the query, of {n} tokens; at the last, <CLS>, the model predicts the class"
        self.token = Slider("token", 1, n, help=about, value=n)
        self.output = ipywidgets.HTML()
        self.box = ipywidgets.VBox([self.layer, self.head, self.token, self.output])
        for slider in (self.layer, self.head, self.token):
            slider.observe(lambda _: self.show_head(), "value")
        shared.observe(lambda _: self.compute(), "codes")
        self.compute()

    def compute(self) -> None:
        """Compute the attention weights of all heads for the shared image."""
        self.weights = self.player.attention(self.shared.codes)  # (n_layer, n_head, T, T)
        (self.image,) = self.player.book.decode(self.shared.codes[None])
        self.show_head()

    def show_head(self) -> None:
        """Show the chosen head over the image, its other weights in words, and all heads small."""
        tokens, n = self.player.prompt(self.shared.codes), self.player.book.n_patches
        layer, head, query = (s.whole - 1 for s in (self.layer, self.head, self.token))
        weights = self.weights[:, :, query]  # (n_layer, n_head, T)
        maps = weights[..., 1 : 1 + n].reshape(*weights.shape[:2], *self.player.book.grid)
        seen = np.arange(n).reshape(self.player.book.grid) < query
        others = [
            f"{weights[layer, head, i]:.0%} to {tokens[i]}"
            for i in (0, *range(1 + n, len(tokens)))
            if i <= query
        ]
        attention = f"attention of layer {layer + 1}, head {head + 1}, from {tokens[query]}"
        self.output.value = html.page(
            html.image_figure(self.image, self.shared.description),
            html.patch_figure(
                self.image,
                np.where(seen, 100 * maps[layer, head], np.nan),
                f"{attention} to each code, in percent; {', '.join(others)}",
                decimals=0,
                marked=query - 1 if 0 < query <= n else None,
            ),
            html.heads_figure(
                maps, (layer, head), f"all heads, from {tokens[query]}: layers are rows, heads "
                "columns; each map has its own scale, and the chosen one a frame",
            ),
        )  # fmt: skip
