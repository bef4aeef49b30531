// Keys that work everywhere, and the list of all that work somewhere.

import { dialog } from "./dialogs.js";
import { el } from "./dom.js";

const KEYS = [
  ["Everywhere", [["g j", "Jobs"], ["g n", "New job"], ["g c", "Compare"], ["g w", "Workers"],
    ["/", "Type a prompt"], ["t", "Light, dark, or as the system"], ["?", "This list"]]],
  ["In a job", [["1 2 3 4", "All, done, failed, waiting"], ["← → ↑ ↓", "From picture to picture"],
    ["Enter", "Open the picture"], ["i", "Go to an image number"]]],
  ["At a picture", [["← →", "The one before, the next"], ["c", "Compare it"], ["Esc", "Close"]]],
  ["In a form", [["Ctrl Enter", "Render"]]],
];
const GO = { j: "#/", n: "#/new", c: "#/compare", w: "#/workers" };
const PATIENCE = 1200; // milliseconds between g and the next key

/** Whether a key is meant for what has the focus. */
export function typing(event) {
  const at = event.target;
  return event.ctrlKey || event.metaKey || event.altKey
    || at.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(at.tagName);
}

export function help() {
  const part = ([name, keys]) => el("section", {}, el("h3", {}, name),
    el("dl.keys", {}, keys.map(([key, does]) => [
      el("dt", {}, key.split(" ").map((one) => el("kbd", {}, one))), el("dd", {}, does)])));
  dialog("Keyboard shortcuts", "wide", el("div.columns", {}, KEYS.map(part)));
}

/** `acts`: what `/` and `t` do. */
export function install(acts) {
  let going = 0;
  document.addEventListener("keydown", (event) => {
    if (typing(event) || document.querySelector("dialog[open]")) return;
    const gone = Date.now() - going < PATIENCE ? GO[event.key] : null;
    going = event.key === "g" ? Date.now() : 0;
    const act = gone ? () => { location.hash = gone; } : { ...acts, "?": help }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
