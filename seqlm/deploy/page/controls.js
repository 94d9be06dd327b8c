// The sampling strategy and its sliders, as in the playground: the same modules, the same values.

import { default as choice } from "../../static/choice.js";
import { default as slider } from "../../static/slider.js";
import { mount } from "./state.js";

/** Radio buttons for every class, and a last one, "any", whose label is null. */
export function classChoice(element, label, nClasses, index = nClasses) {
  const names = [...Array(nClasses).keys(), "any"].map(String);
  const state = mount(choice, element, { label, names, index });
  state.label = () => (state.get("index") < nClasses ? state.get("index") : null);
  return state;
}

/** A slider from 1 to `max`, which stands at `value`. */
export function countSlider(element, label, max, value, more = {}) {
  const values = { label, min: 1, max, step: 1, value, help: "", special: {}, ...more };
  return mount(slider, element, values);
}

export class SamplingControls {
  /** `controls` is seqlm/static/sampling.json, `settings` are the values at first. */
  constructor(element, { controls, settings }) {
    this.first = settings;
    this.used = controls.used;
    this.strategies = Object.keys(controls.strategies);
    const names = Object.values(controls.strategies);
    this.strategy = mount(choice, element, { label: "strategy", names, index: 0 });
    this.sliders = Object.entries(controls.sliders).map(([name, about]) => {
      const values = { special: {}, ...about, value: settings[name] };
      return [name, mount(slider, element, values)];
    });
    this.strategy.on("change:index", () => this.disableUnused());
    this.disableUnused();
  }

  disableUnused() {
    const used = this.used[this.strategies[this.strategy.get("index")]];
    for (const [name, state] of this.sliders) state.set("disabled", !used.includes(name));
  }

  /** The settings now, with the names of SampleConfig. */
  settings() {
    const values = this.sliders.map(([name, state]) => [name, state.get("value")]);
    const strategy = this.strategies[this.strategy.get("index")];
    return { ...this.first, ...Object.fromEntries(values), strategy };
  }

  /** Add one to the seed; the first follows the last. */
  nextSeed() {
    const [, seed] = this.sliders.find(([name]) => name === "seed");
    seed.set("value", (seed.get("value") + 1) % (seed.get("max") + 1));
  }

  /** Call `call` after every change of a control. */
  observe(call) {
    this.strategy.on("change:index", call);
    for (const [, state] of this.sliders) state.on("change:value", call);
  }
}
