// For a vocabulary that is no picture's: the prompt, the table of next tokens, the text.

import { default as notice } from "../../static/notice.js";
import { make } from "../../static/painting.js";
import { showCandidates } from "./figures.js";
import { button, card, reporting } from "./panels.js";
import { mount } from "./state.js";

const SOON = 250; // milliseconds after the last key
const MOST_NAMES = 2000; // of the vocabulary, in the list

export class TextPanel {
  /** `onText` gets the tokens that stand there whenever they change. */
  constructor(page, element, controls, onText) {
    Object.assign(this, { page, controls, onText });
    this.prompt = make("textarea", { id: "prompt", rows: "3", spellcheck: "false" });
    this.prompt.value = "<IMG>";
    const label = make("label", { for: "prompt" }, "prompt: tokens, separated by spaces");
    this.write = button("Generate", () => this.generate(), "main");
    this.end = button("Stop", () => page.client.ask("stop", {}, { channel: "write" }));
    this.message = mount(notice, element, { text: "" });
    this.text = make("p", { class: "text", tabindex: "0", role: "region", "aria-label": "text" });
    this.table = make("table");
    const { names } = page.vocabulary;
    const shown = page.vocabulary.suggestions().slice(0, MOST_NAMES).join(" ");
    const more = names.length > MOST_NAMES ? " …" : "";
    const known = make(
      "details",
      {},
      make("summary", {}, `the ${names.length} tokens it knows`),
      make("p", { class: "names" }, shown + more),
    );
    const buttons = make("p", { class: "buttons" }, this.write, this.end);
    element.append(label, this.prompt, known, buttons, this.text);
    element.append(card(this.table, page.how("next")));
    this.prompt.addEventListener("input", () => {
      clearTimeout(this.clock);
      this.clock = setTimeout(() => this.look(), SOON);
    });
  }

  tokens() {
    return this.prompt.value.split(/\s+/).filter(Boolean);
  }

  /** Refuse a prompt that the model cannot read. */
  check(tokens) {
    const most = this.page.config.n_positions;
    if (!tokens.length) throw new Error("the prompt is empty; give at least one token");
    if (tokens.length > most) throw new Error(`the model reads at most ${most} tokens`);
    this.page.vocabulary.ids(tokens);
  }

  /** The most likely next tokens after the prompt. */
  look() {
    return reporting(this.message, async () => {
      const tokens = this.tokens();
      this.check(tokens);
      const candidates = await this.page.client.ask("next", { tokens });
      if (!candidates) return;
      this.message.set(
        "text",
        `Most likely next: ${this.page.vocabulary.names[candidates[0].id]}.`,
      );
      this.showTable(candidates);
      this.onText(tokens);
    });
  }

  showTable(candidates) {
    const { names } = this.page.vocabulary;
    const title = "Next-token probabilities after the prompt";
    showCandidates(this.table, names, new Map(), null, { candidates }, title);
  }

  generate() {
    return reporting(this.message, async () => {
      const tokens = this.tokens();
      this.check(tokens);
      const written = [];
      const { names } = this.page.vocabulary;
      const onStep = (step) => {
        if (!step) return;
        written.push(names[step.id]);
        this.text.replaceChildren(tokens.join(" "), " ", make("b", {}, written.join(" ")));
      };
      const settings = this.controls.settings();
      this.message.set("text", "Generating …");
      const done = await this.page.client.ask("write", { tokens, settings }, { onStep });
      const how = done ? "" : ", stopped";
      this.message.set("text", `${written.length} new tokens${how}.`);
      this.onText([...tokens, ...written].slice(0, this.page.config.n_positions));
    });
  }
}
