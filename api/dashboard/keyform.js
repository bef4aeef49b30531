// Asks for the API key of a farm that demands one.

import { key } from "./api.js";
import { el } from "./dom.js";

/** opened(): a key was given. */
export function keyForm(opened) {
  const had = Boolean(key.get());
  const field = el("input", { type: "password", name: "key", autocomplete: "off", required: true,
    placeholder: "pm_…", ariaLabel: "API key" });
  return el("form.card.keyform", {
    onsubmit(event) {
      event.preventDefault();
      key.set(field.value.trim());
      opened();
    },
  }, el("img", { src: "/dashboard/favicon.svg", alt: "", width: 44, height: 44 }),
  el("h1", {}, "API key"),
  el("p.hint", {}, "This farm asks for a key. It stays in this tab and is gone when you close it."),
  had && el("p.bad", { role: "alert" }, "This key is not known here."),
  el("div.ask", {}, field, el("button.primary", {}, "Open")),
  el("p.hint", {}, "Whoever runs the farm makes one: ", el("code", {}, "promptmill keys create NAME")));
}
