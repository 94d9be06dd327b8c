// The parts of the page, when the model is one of pictures: draw, paint, complete.

import { default as notice } from "../../static/notice.js";
import { default as painting, make } from "../../static/painting.js";
import { classChoice, countSlider } from "./controls.js";
import { Figure, classifiedAs, showCandidates, showClasses } from "./figures.js";
import { showPicture, showSurprisal, sizeOf } from "./figures.js";
import { State, mount } from "./state.js";

const COMPLETIONS = 4;
const PLAY_MS = 6000; // for all codes of a picture, where they are many
const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

export function button(text, call, kind = "") {
  const node = make("button", { type: "button", class: `button ${kind}` }, text);
  node.addEventListener("click", call);
  return node;
}

/** A figure or table with the sentences that explain it. */
export const card = (...parts) => make("div", { class: "card" }, ...parts);

/** Run `work`; what goes wrong is said in `message`, a notice. */
export async function reporting(message, work) {
  try {
    await work();
  } catch (error) {
    message.set("text", `This did not work: ${error.message}.`);
  }
}

/** The picture that all parts show: the last one drawn, painted or completed. */
export class SharedPicture extends State {
  constructor() {
    super({ codes: [], description: "" });
  }

  /** Show another picture; the same one again is no news. */
  show(codes, description) {
    const same = description === this.get("description") && `${codes}` === `${this.get("codes")}`;
    if (same) return;
    this.set("description", description);
    this.set("codes", codes); // the last, because this is what the parts observe
  }
}

/** Draw a digit, and step through its codes. */
export class DrawPanel {
  constructor(page, element, controls, shared) {
    Object.assign(this, { page, controls, shared, steps: [], classes: null });
    const { book } = page;
    this.label = classChoice(element, "digit", page.nClasses, 7 % page.nClasses);
    const another = button("Draw another (next seed)", () => controls.nextSeed());
    const main = button("Draw", () => this.draw(true), "main");
    element.append(make("p", { class: "buttons" }, main, another));
    this.step = countSlider(element, "code", book.nPatches, book.nPatches, {
      help: `of ${book.nPatches}; step through them, or play`,
      playable: true,
      playing: false,
      beat: Math.min(450, PLAY_MS / book.nPatches),
    });
    this.message = mount(notice, element, { text: "" });
    const size = sizeOf(book);
    this.picture = new Figure(...size);
    this.map = new Figure(...size);
    this.candidates = make("table");
    this.classTable = make("table");
    const parts = [
      card(this.picture.root, page.how("picture")),
      card(this.map.root, page.how("surprisal")),
      card(this.candidates, page.how("next")),
      card(this.classTable),
    ];
    element.append(make("div", { class: "row" }, ...parts));
    this.map.canvas.addEventListener("click", (event) => this.point(event));
    this.label.on("change:index", () => this.draw());
    controls.observe(() => this.draw());
    this.step.on("change:value", () => this.show());
  }

  /** Draw with the settings of now; `replay` shows it code by code. */
  draw(replay = false) {
    return reporting(this.message, () => this.drawn(replay));
  }

  async drawn(replay) {
    const { client, vocabulary, codeOf } = this.page;
    const [label, settings] = [this.label.label(), this.controls.settings()];
    const steps = [];
    const onStep = (step) => {
      if (step) steps.push(step);
      else this.message.set("text", "Searching …");
    };
    this.step.set("playing", false);
    const began = performance.now();
    if (!(await client.ask("draw", { label, settings }, { onStep }))) return; // a newer one runs
    const seconds = (performance.now() - began) / 1000;
    const codes = steps.map(({ id }) => codeOf.get(id));
    const classes = await client.ask("classify", { codes }, { channel: "classify drawing" });
    if (!classes) return;
    this.name = `drawing of ${label === null ? "any digit" : `a ${label}`}`;
    Object.assign(this, { steps, codes, classes, names: vocabulary.names });
    const how = `seed ${settings.seed}, in ${seconds.toFixed(2)} s`;
    this.message.set("text", `D${this.name.slice(1)}, ${how}; ${classifiedAs(classes)}.`);
    this.shared.show(codes, this.name);
    this.step.set("value", replay && !still() ? 1 : codes.length);
    this.step.set("playing", replay && !still());
    this.show();
  }

  /** Show the picture as far as the slider says, and the next-token probabilities there. */
  show() {
    if (!this.steps.length) return;
    const { book } = this.page;
    const n = this.step.get("value");
    const image = book.decode(this.codes.slice(0, n));
    const surprisal = this.steps.map((step) => step.surprisal);
    showPicture(this.picture, book, image, `${this.name}, first ${n} of ${book.nPatches} codes`);
    showSurprisal(this.map, book, image, surprisal, n);
    const title = `Next-token probabilities, code ${n}`;
    showCandidates(this.candidates, this.names, this.page.codeOf, book, this.steps[n - 1], title);
    showClasses(this.classTable, this.classes);
  }

  /** A click on the map goes to the code of that patch. */
  point({ offsetX, offsetY }) {
    const { rows, columns } = this.page.book;
    const { clientWidth, clientHeight } = this.map.canvas;
    const column = Math.floor((offsetX / clientWidth) * columns);
    this.step.set("value", Math.floor((offsetY / clientHeight) * rows) * columns + column + 1);
  }
}

/** Paint a digit; the model reads it while one paints. */
export class PaintPanel {
  constructor(page, left, right, shared) {
    Object.assign(this, { page, shared });
    const { height, width } = page.book;
    this.grid = mount(painting, left, {
      height,
      width,
      value: Array(height * width).fill(0),
      label: "Paint a digit",
      pen: 1.35 * (Math.max(height, width) / 8) ** 0.35, // as in the playground
    });
    this.message = mount(notice, right, { text: "" });
    const size = sizeOf(page.book);
    [this.picture, this.map] = [new Figure(...size), new Figure(...size)];
    this.classTable = make("table");
    const parts = [card(this.picture.root), card(this.map.root)];
    parts.push(card(this.classTable, page.how("read")));
    right.append(make("div", { class: "row" }, ...parts));
    this.grid.on("change:value", () => this.read(true));
  }

  read(share = false) {
    return reporting(this.message, async () => {
      const { client, book } = this.page;
      const image = this.grid.get("value").map((level) => level / 16);
      const answer = await client.ask("read", { image });
      if (!answer) return;
      const { codes, classes, steps } = answer;
      const decoded = book.decode(codes);
      showPicture(this.picture, book, decoded, "as the model sees it: the nearest typical patches");
      showSurprisal(
        this.map,
        book,
        decoded,
        steps.map((step) => step.surprisal),
      );
      showClasses(this.classTable, classes);
      const blank = image.every((ink) => ink === 0);
      const words = blank
        ? "Nothing is painted yet."
        : `Your painting is ${classifiedAs(classes)}.`;
      this.message.set("text", words);
      if (share) this.shared.show(codes, "your painting");
    });
  }
}

/** Keep the upper half of the picture, and draw the lower half several times. */
export class CompletePanel {
  constructor(page, element, controls, shared) {
    Object.assign(this, { page, controls, shared });
    this.source = make("p");
    element.append(this.source);
    this.label = classChoice(element, "class", page.nClasses);
    const name = `Draw ${COMPLETIONS} completions`;
    element.append(
      make(
        "p",
        { class: "buttons" },
        button(name, () => this.complete(), "main"),
      ),
    );
    this.message = mount(notice, element, { text: "" });
    this.tiles = make("div", { class: "row" });
    element.append(this.tiles);
    shared.on("change:codes", () => this.reset());
  }

  reset() {
    this.source.textContent = `Upper half of: ${this.shared.get("description")}.`;
    this.message.set("text", "");
    this.tiles.replaceChildren();
  }

  complete() {
    return reporting(this.message, async () => {
      const { client, book, codeOf } = this.page;
      const settings = this.controls.settings();
      const whole = this.shared.get("codes");
      const codes = whole.slice(0, book.columns * Math.floor(book.rows / 2));
      const request = { label: this.label.label(), codes, settings };
      this.tiles.replaceChildren(this.tile(codes, "upper half"), this.tile(whole, "original"));
      const n = settings.strategy === "sample" ? COMPLETIONS : 1; // else all would be equal
      const digits = [];
      for (let row = 0; row < n; row++) {
        const steps = [];
        const onStep = (step) => step && steps.push(step);
        const options = { channel: "complete", onStep };
        if (!(await client.ask("draw", { ...request, row }, options))) return;
        const done = [...codes, ...steps.map(({ id }) => codeOf.get(id))];
        const classes = await client.ask("classify", { codes: done }, { channel: `half ${row}` });
        if (this.shared.get("codes") !== whole || !classes) return; // another picture came
        digits.push(classes.indexOf(Math.max(...classes)));
        this.tiles.append(this.tile(done, `${row + 1}: ${classifiedAs(classes)}`));
      }
      const single = n > 1 ? "" : ` ${settings.strategy} has only one result.`;
      this.message.set("text", `Classified as ${digits.join(", ")}.${single}`);
    });
  }

  tile(codes, caption) {
    const figure = new Figure(...sizeOf(this.page.book, 112));
    showPicture(figure, this.page.book, this.page.book.decode(codes), caption);
    return figure.root;
  }
}
