// The first view: one picture at once, and the jobs.

import { el } from "./dom.js";
import { jobsList } from "./jobs.js";
import { tryBox } from "./try.js";

export function homeView(_, signal) {
  const box = tryBox(signal);
  return { node: el("div.stack", {}, box.node, jobsList(signal)), title: "", prompt: box.focus };
}
