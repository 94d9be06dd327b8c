"""The panels of the playground that look at one picture: draw, read, complete, attend.

Each is a thin shell: its controls ask a `Player`, its pictures come from views.py.
"""

import ipywidgets as widgets
import numpy as np
import traitlets

from seqlm.models.tracing import first_patches
from seqlm.playground import html as views
from seqlm.playground.choices import Choice, Notice
from seqlm.playground.controls import Settings
from seqlm.playground.painting import FULL, PEN, PaintGrid
from seqlm.playground.player import Player
from seqlm.playground.sliders import Slider

ANY = "any"
BESIDE = {"flex": "1 1 38em", "width": "auto"}  # the settings, as wide as the page allows
WRAPPED = {"flex_flow": "row wrap", "grid_gap": "0 1.5em"}
WAYS = 5  # in which half a picture is completed


class Desk(traitlets.HasTraits):
    """The picture that all panels talk about: the last one drawn, painted or picked.

    Attributes:
        codes: (P,) int64; None before there is one.
        origin: what it is, in words.
    """

    codes = traitlets.Any(None, allow_none=True)
    origin = traitlets.Unicode()

    def put(self, codes: np.ndarray, origin: str) -> None:
        """Another picture takes the place of the one before."""
        with self.hold_trait_notifications():
            self.origin = origin
            self.codes = codes


def digits(player: Player, label: str, first: int = -1) -> Choice:
    """Every class, and a last one for none; the one at `first` is chosen to begin with."""
    return Choice(label, {**{str(k): k for k in range(player.n_classes)}, ANY: None}, first)


def read_as(opinion: np.ndarray) -> str:
    """The likeliest of the class probabilities (C,), in words."""
    return f"The model says {opinion.argmax()} ({opinion.max():.0%})"


class DrawPanel:
    """Ask for a digit, and see it drawn code by code."""

    def __init__(self, player: Player, settings: Settings, desk: Desk):
        self.player, self.settings, self.desk = player, settings, desk
        self.digit = digits(player, "digit", 7 % player.n_classes)
        self.again = widgets.Button(description="Draw", button_style="primary")
        self.other = widgets.Button(
            description="Draw another (next seed)", layout={"width": "15em"}
        )
        last = player.book.n_patches
        self.place = Slider(
            label="code", min=1, max=last, step=1, value=last, playable=True,
            help=f"of {last}; step through them, or play",
        )  # fmt: skip
        self.told, self.shown = Notice(), widgets.HTML()
        self.box = widgets.VBox(
            [
                self.digit,
                widgets.HBox([self.again, self.other], layout=WRAPPED),
                self.place,
                self.told,
                self.shown,
            ],
            layout=BESIDE,
        )
        self.again.on_click(lambda _: self.draw(replay=True))
        self.other.on_click(lambda _: self.settings.next_seed())
        self.digit.observe(lambda _: self.draw(), "index")
        self.settings.observe(self.draw)
        self.place.observe(lambda _: self.show(), "value")
        self.draw()

    def draw(self, replay: bool = False) -> None:
        """Draw anew with what the controls say; `replay` shows it code by code."""
        label, config = self.digit.value, self.settings.config()
        (self.codes,) = self.player.draw([label], config)
        self.trace = self.player.traced(self.codes, label, config)
        (self.image,) = self.player.book.decode(self.codes[None])
        (self.opinion,) = self.player.classes(self.codes[None])
        asked = "a digit of its own choice" if label is None else f"a {label}"
        self.told.text = f"Drawn: {asked}, seed {config.seed}. {read_as(self.opinion)}."
        self.desk.put(self.codes, f"the model’s drawing of {asked}")
        if replay:
            self.place.playing = False
            self.place.value = 1
            self.place.playing = True
        self.show()

    def show(self) -> None:
        """The picture as far as the slider says, and what might have come there."""
        done, (rows, columns) = self.place.whole, self.player.book.grid
        surprisal = self.trace.surprisal
        so_far = first_patches(self.image, done, self.player.book.patch)
        label = self.digit.value
        asked = "of any digit" if label is None else f"of a {label}"
        self.shown.value = views.page(
            views.figure(
                views.picture(so_far, f"The model’s drawing {asked}, {done} codes of it."),
                f"the first {done} of {rows * columns} codes",
            ),
            views.surprisal_map(
                so_far, np.where(np.arange(rows * columns) < done, surprisal, np.nan),
                (rows, columns), "Surprisal of each code in nats.",
                "surprisal of each code, −ln p in nats", surprisal.max(), marked=done - 1,
            ),
            views.classes(self.opinion, "How the model reads it"),
            views.candidates(
                self.trace.candidates(done - 1), self.player.book,
                f"What might have come as code {done}",
            ),
        )  # fmt: skip


class PicturePanel:
    """Paint a picture, or pick one that the model has never seen; see how the model reads it."""

    def __init__(self, player: Player, desk: Desk):
        self.player, self.desk = player, desk
        height, width = player.book.image_shape
        # The pen's width was chosen for digits of 8 by 8.
        pen = PEN * max(height, width) / 8
        self.grid = PaintGrid(height=height, width=width, label="Paint a digit", pen=pen)
        n = len(player.images)
        self.number = Slider(
            label="test picture", min=0, max=max(1, n - 1), step=1,
            help=f"{n} pictures that were kept from the model; the grid shows it, paint over it",
        )  # fmt: skip
        self.told, self.shown = Notice(), widgets.HTML()
        left = widgets.VBox([*([self.number] if n else []), self.grid])
        right = widgets.VBox([self.told, self.shown], layout=BESIDE)
        self.box = widgets.HBox([left, right], layout=WRAPPED)
        if n:
            self.grid.show(player.images[0])
        self.look()
        self.grid.observe(lambda _: self.look(taken=True), "value")
        self.number.observe(lambda _: self.pick(), "value")

    def pick(self) -> None:
        """The test picture of that number goes into the grid."""
        before = self.grid.value
        self.grid.show(self.player.images[self.number.whole])
        if self.grid.value == before:  # it was there already, so nothing has told the desk
            self.look(taken=True)

    def look(self, taken: bool = False) -> None:
        """Encode what is in the grid and show how it is read; if `taken`, put it on the desk."""
        image, origin = self.grid.image(), "your painting"
        if len(self.player.images):
            index = self.number.whole
            picked = self.player.images[index]
            if np.array_equal(np.rint(picked * FULL), np.rint(image * FULL)):
                image = picked  # the grid may know fewer levels
                origin = f"test picture {index}, labelled {self.player.labels[index]}"
        (codes,) = self.player.book.encode(image[None])
        if taken:
            self.desk.put(codes, origin)
        (seen,) = self.player.book.decode(codes[None])
        (opinion,) = self.player.classes(codes[None])
        surprisal = self.player.read_along(codes).surprisal
        self.told.text = f"{read_as(opinion)}."
        self.shown.value = views.page(
            views.figure(
                views.picture(seen, f"What the code book makes of {origin}."),
                f"{origin}, through the code book: what the model is given",
            ),
            views.surprisal_map(
                seen, surprisal, self.player.book.grid,
                "Surprisal of each code in nats, read in this order.",
                "surprisal of each code in nats", surprisal.max(),
            ),
            views.classes(opinion, "How the model reads it"),
        )  # fmt: skip


class CompletePanel:
    """Half a picture in, five ways to go on out."""

    def __init__(self, player: Player, settings: Settings, desk: Desk):
        self.player, self.settings, self.desk = player, settings, desk
        self.digit = digits(player, "as a")
        self.go = widgets.Button(
            description="Complete five ways", button_style="primary", layout={"width": "13em"}
        )
        self.about, self.told, self.shown = widgets.HTML(), Notice(), widgets.HTML()
        self.box = widgets.VBox(
            [self.about, self.digit, self.go, self.told, self.shown], layout=BESIDE
        )
        self.go.on_click(lambda _: self.complete())
        desk.observe(lambda _: self.announce(), "codes")
        self.announce()

    def announce(self) -> None:
        """Say whose upper half it would be."""
        origin = self.desk.origin or "nothing yet: draw, paint or pick a picture first"
        self.about.value = views.note(f"The upper half of: {origin}.")
        self.go.disabled = self.desk.codes is None
        self.told.text = self.shown.value = ""

    def complete(self) -> None:
        """Keep the upper half, draw the lower one five times, and read each."""
        whole, label, config = self.desk.codes, self.digit.value, self.settings.config()
        ways = WAYS if config.strategy == "sample" else 1
        codes = self.player.complete(whole, label, config, ways)
        images = self.player.book.decode(np.concatenate([[whole], codes]))
        says = self.player.classes(codes)
        half = first_patches(images[0], self.player.half[0], self.player.book.patch)
        alone = "" if ways > 1 else f" {config.strategy.capitalize()} knows one way only."
        self.told.text = f"Read as {', '.join(str(p.argmax()) for p in says)}.{alone}"
        captions = ["the upper half", "what it was"]
        captions += [f"{i + 1}: read as {p.argmax()} ({p.max():.0%})" for i, p in enumerate(says)]
        self.shown.value = views.page(views.gallery([half, *images], captions))


class AttentionPanel:
    """Where a head looks while the model reads the picture."""

    def __init__(self, player: Player, desk: Desk):
        self.player, self.desk = player, desk
        config = player.model.config
        self.layer = Slider(label="layer", min=1, max=config.n_layer, step=1, value=1)
        self.head = Slider(label="head", min=1, max=config.n_head, step=1, value=1)
        last = player.book.n_patches + 3  # <IMG> codes </IMG> <CLS>
        self.token = Slider(
            label="token", min=1, max=last, step=1, value=last,
            help=f"which of the {last} tokens looks; the last, <CLS>, is where the digit is named",
        )  # fmt: skip
        self.shown = widgets.HTML()
        self.box = widgets.VBox([self.layer, self.head, self.token, self.shown])
        for control in (self.layer, self.head, self.token):
            control.observe(lambda _: self.show(), "value")
        desk.observe(lambda _: self.attend(), "codes")
        self.attend()

    def attend(self) -> None:
        """Read the picture on the desk and keep where every head looked."""
        if self.desk.codes is None:
            self.shown.value = views.note("Draw, paint or pick a picture first.")
            return
        self.weights = self.player.attention(self.desk.codes)  # (L, H, T, T)
        (self.image,) = self.player.book.decode(self.desk.codes[None])
        self.show()

    def show(self) -> None:
        """The chosen head over the picture, the rest of its attention in words, all heads small."""
        if self.desk.codes is None:
            return
        tokens = self.player.reading(self.desk.codes)
        layer, head, query = (s.whole - 1 for s in (self.layer, self.head, self.token))
        (rows, columns), n = self.player.book.grid, self.player.book.n_patches
        over = self.weights[:, :, query, 1 : 1 + n].reshape(*self.weights.shape[:2], rows, columns)
        mine = self.weights[layer, head, query]
        seen = np.where(np.arange(n) <= query - 1, mine[1 : 1 + n], np.nan).reshape(rows, columns)
        beside = [0, *range(1 + n, len(tokens))]
        told = ", ".join(f"{mine[i]:.0%} to {tokens[i]}" for i in beside if i <= query)
        who = f"layer {layer + 1}, head {head + 1}, {tokens[query]}"
        place = query - 1 if 0 < query <= n else None
        self.shown.value = views.page(
            views.figure(
                views.picture(self.image, self.desk.origin), self.desk.origin, again=True
            ),
            views.figure(
                views.patch_map(
                    self.image, 100 * seen, f"Attention of {who} to each code, in percent.",
                    decimals=0, marked=place,
                ),
                f"{who}: attention to each code, %; {told}",
            ),
            views.figure(
                views.heads(
                    over, (layer, head), f"Small maps of all heads for {tokens[query]}; the chosen "
                    "one is framed."
                ),
                "all heads, each shaded by its own most: layers down, heads across",
            ),
        )  # fmt: skip
