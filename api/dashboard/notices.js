// What the page says at its foot: errors, and that something was done.

import { ApiError } from "./api.js";

const SHOWN = 8000; // milliseconds
const box = document.getElementById("notice");
let timer = null;
let locked = () => {};

/** `open` is called when the farm asks for a key, or for another one. */
export function onLocked(open) { locked = open; }

export function say(text, kind = "") {
  box.textContent = text;
  box.className = `notice ${kind}`;
  box.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => { box.hidden = true; }, SHOWN);
}

/** An error in words. */
export function words(error) {
  if (error instanceof TypeError) return "The farm does not answer.";
  return (error.line ? `Line ${error.line}: ` : "") + error.message;
}

/** Says what went wrong; a request that was given up is nothing wrong. */
export function complain(error) {
  if (error.name === "AbortError") return;
  if (error instanceof ApiError && error.status === 401) locked();
  else say(words(error), "bad");
}
