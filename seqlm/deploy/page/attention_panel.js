// What each token looks at: one head of one layer, as a triangle and over the picture.

import { default as notice } from "../../static/notice.js";
import { make } from "../../static/painting.js";
import { countSlider } from "./controls.js";
import { Figure, showMap, showTriangle, sizeOf } from "./figures.js";
import { card, reporting } from "./panels.js";
import { mount } from "./state.js";
import { codeToken } from "./tokens.js";

/** What each head of each layer looks at, while the model reads the picture, or a text. */
export class AttentionPanel {
  constructor(page, element) {
    Object.assign(this, { page, element, tokens: [], codes: null });
    const { n_layer, n_head } = page.config;
    this.layer = countSlider(element, "layer", n_layer, n_layer);
    this.head = countSlider(element, "head", n_head, 1);
    this.place = make("div");
    element.append(this.place);
    this.message = mount(notice, element, { text: "" });
    this.triangle = new Figure(320, 320);
    this.map = page.book && new Figure(...sizeOf(page.book));
    const parts = [this.triangle.root, ...(this.map ? [this.map.root] : [])];
    const cards = parts.map((each) => card(each));
    element.append(make("div", { class: "row" }, ...cards, page.how("attention")));
    for (const state of [this.layer, this.head]) state.on("change:value", () => this.compute());
    this.triangle.canvas.addEventListener("click", ({ offsetY }) => {
      const row = Math.floor((offsetY / this.triangle.canvas.clientHeight) * this.tokens.length);
      this.token.set("value", row + 1);
    });
  }

  /** Look at `tokens`; `codes` of a picture stand second to third last among them. */
  read(tokens, description, codes = null) {
    if (tokens.length !== this.tokens.length) {
      this.place.replaceChildren();
      const help = `the one that looks, of ${tokens.length}`;
      this.token = countSlider(this.place, "token", tokens.length, tokens.length, { help });
      this.token.on("change:value", () => this.show());
    }
    Object.assign(this, { tokens, codes, description });
    return reporting(this.message, async () => {
      await this.page.client.ask("look", { ids: this.page.vocabulary.ids(tokens) });
      await this.attend();
    });
  }

  compute() {
    return reporting(this.message, () => this.attend());
  }

  async attend() {
    const [layer, head] = [this.layer.get("value") - 1, this.head.get("value") - 1];
    const weights = await this.page.client.ask("attention", { layer, head });
    if (!weights || weights.length !== this.tokens.length ** 2) return; // another one comes
    this.weights = weights;
    this.show();
  }

  show() {
    const n = this.tokens.length;
    const row = this.token.get("value") - 1;
    const weights = Array.from(this.weights.subarray(row * n, row * n + row + 1));
    const order = weights.map((_, i) => i).sort((a, b) => weights[b] - weights[a]);
    const percent = (i) =>
      `${(100 * weights[i]).toFixed(0)}% to ${this.tokens[i]} (token ${i + 1})`;
    const most = order.slice(0, 5).map(percent).join(", ");
    const where = `layer ${this.layer.get("value")}, head ${this.head.get("value")}`;
    const caption = `attention, ${where}: rows look at columns; each row has its own scale`;
    showTriangle(this.triangle, this.weights, n, row, caption, `. Token ${row + 1}: ${most}.`);
    const from = `${this.tokens[row]}, token ${row + 1} of ${this.description}`;
    this.message.set("text", `${from}, gives most: ${most}.`);
    if (!this.map) return;
    const { book } = this.page;
    const values = this.codes.map((_, i) => (i + 1 <= row ? 100 * weights[i + 1] : undefined));
    showMap(this.map, book, book.decode(this.codes), values, {
      caption: `from token ${row + 1} to each code, in percent`,
      full: Math.max(1e-9, ...values.map((value) => value ?? 0)),
      marked: row - 1,
      digits: 0,
    });
  }
}

/** The tokens of a picture as the attention panel shows them. */
export const readingTokens = (codes) => ["<IMG>", ...codes.map(codeToken), "</IMG>", "<CLS>"];
