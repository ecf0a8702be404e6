// Jobs that are begun here: segmenting a whole slide, and training.

import { AGAIN_MS, ask, element, send } from "../dom.js";
import { curve } from "./curves.js";

const ASK_MS = 1000;

const AT_WORK = ["waiting", "running"];

// A time as people read it.
function duration(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// How far a job is.
function told({ state, error, progress }) {
  if (state === "waiting") return [element("small", {}, "Waits for the job before it")];
  if (state === "failed") return [element("small", { className: "failed" }, error)];
  if (state !== "running") return [];
  const { what, done, total, left, note } = progress ?? { what: "", note: "", left: null };
  const bar = element("progress", progress && total ? { max: total, value: done } : {});
  bar.setAttribute("aria-label", what || "Begins");
  const parts = [
    progress && total ? `${Math.floor((100 * done) / total)} %` : "",
    note,
    left === null ? "" : `${duration(left)} left`,
  ];
  const line = [what, parts.filter(Boolean).join(", ")].filter(Boolean).join(": ");
  return [bar, element("small", {}, line || "Begins")];
}

class Jobs {
  constructor(page) {
    this.page = page;
    this.masks = element("fieldset", {}, element("legend", {}, "Whole slide"));
    this.training = element("fieldset", {}, element("legend", {}, "Train"));
    this.panel = element("div", {}, this.masks, this.training);
    this.states = new Map();
  }

  section() {
    return this.page.info ? this.panel : null;
  }

  async opened() {
    this.states.clear();
    if (this.page.info) await this.read();
  }

  async read() {
    clearTimeout(this.reading);
    const { page } = this;
    const { slide } = page;
    let masks, run;
    try {
      [masks, run] = await Promise.all(
        [`jobs/segment/${slide}`, "jobs/train"].map(async (address) => (await ask(address)).json()),
      );
    } catch (error) {
      page.tell(error.message);
      if (error.status === undefined) this.reading = setTimeout(() => this.read(), AGAIN_MS);
      return;
    }
    if (page.slide !== slide || !page.info) return;
    this.fill(this.masks, masks.flatMap((mask, model) => this.mask(mask, model)));
    this.training.hidden = run === null;
    if (run !== null) this.fill(this.training, this.run(run));
    const jobs = [...masks, ...(run?.job ? [run.job] : [])];
    if (jobs.some(({ state }) => AT_WORK.includes(state))) {
      this.reading = setTimeout(() => this.read(), ASK_MS);
    }
    masks.forEach(({ state }, model) => {
      if (this.isNew(`mask ${model}`, state)) this.showMask(slide);
    });
    if (run?.job && this.isNew("run", run.job.state)) {
      for (const part of page.parts) part.compareNewest?.();
    }
  }

  // Whether a job has ended well while somebody waited for it here.
  isNew(key, state) {
    const before = this.states.get(key);
    this.states.set(key, state);
    return state === "done" && AT_WORK.includes(before);
  }

  // What is written anew keeps the button that was pressed, for those who use keys.
  fill(place, contents) {
    const legend = place.querySelector("legend");
    const focused = document.activeElement;
    const index = [...place.querySelectorAll("button")].indexOf(focused);
    place.replaceChildren(legend, ...contents);
    if (index >= 0) place.querySelectorAll("button")[index]?.focus();
  }

  button(text, address, content) {
    const button = element("button", {}, text);
    button.onclick = async () => {
      try {
        await send(address, content);
      } catch (error) {
        this.page.tell(error.message);
      }
      await this.read();
    };
    return button;
  }

  mask(mask, model) {
    const { state } = mask;
    const { slide } = this.page;
    const act = (text, verb) => this.button(text, "jobs/segment", { slide, model, do: verb });
    const heading = element("small", {}, `${mask.model}: ${mask.mask}`);
    if (AT_WORK.includes(state)) return [heading, ...told(mask), act("Stop", "stop")];
    if (state === "done") return [heading, element("small", {}, "Finished")];
    const text = ["unfinished", "stopped"].includes(state) ? "Go on segmenting" : "Segment all";
    return [heading, ...told(mask), act(text, "start")];
  }

  run(run) {
    const act = (text, verb) => this.button(text, "jobs/train", { do: verb });
    const state = run.job?.state ?? "";
    const curves = [curve("Loss", run.loss), curve("Validation Dice", run.score)].filter(Boolean);
    const heading = element("small", {}, `From ${run.init}, with ${run.folder}`);
    const name = run.run ? [element("small", {}, run.run)] : [];
    if (AT_WORK.includes(state)) {
      return [heading, ...name, ...told(run.job), ...curves, act("Stop", "stop")];
    }
    const buttons = [
      ...(run.unfinished ? [act("Go on training", "go on")] : []),
      act("Train", "start"),
    ];
    return [heading, ...name, ...(run.job ? told(run.job) : []), ...curves, ...buttons];
  }

  // Open the slide anew, with the mask that has come over it in place of what is live; not while
  // somebody draws.
  async showMask(slide) {
    const { page } = this;
    if (page.slide !== slide || !page.info) return;
    if (page.parts.some((part) => part.isBusy)) {
      setTimeout(() => this.showMask(slide), ASK_MS);
      return;
    }
    const count = page.layers.length;
    const live = page.layers.filter(({ info }) => info.kind === "live");
    for (const layer of live) layer.visible = false;
    const words = page.layers.map((layer) => layer.word);
    words.splice(count - live.length, 0, "1-50-0");
    const { outlines } = page;
    await page.open(page.slide, { view: page.stage.view(), layers: words, outlines });
  }
}

export function plug(page) {
  return new Jobs(page);
}
