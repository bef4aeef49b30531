// "Copy as": a submission as a command, Python or curl, one click away from the clipboard.

import { key } from "./api.js";
import { el, fill } from "./dom.js";
import { say } from "./notices.js";
import { command, curl, script } from "./snippets.js";

const FORMS = [
  ["Command", command],
  ["Python", (submission) => script(submission, location.origin)],
  ["curl", (submission) => curl(submission, location.origin, Boolean(key.get()))],
];

export async function copy(text, what = "Copied") {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // not a secure page, or not allowed: the older way
    const area = el("textarea", { value: text, readOnly: true, className: "offscreen" });
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say(`${what}.`);
}

/** `submission()` is asked for when a form is shown. */
export function copyAs(submission) {
  let form = 0;
  const code = el("pre", { tabIndex: 0, ariaLabel: "Code" });
  const tabs = el("div.segments", { role: "group", ariaLabel: "Form" }, FORMS.map(([name], at) =>
    el("button", { type: "button", onclick: () => { form = at; draw(); } }, name)));
  const button = el("button", { type: "button", onclick: () => copy(code.textContent) }, "Copy");
  function draw() {
    [...tabs.children].forEach((tab, at) => { tab.ariaPressed = String(at === form); });
    code.textContent = FORMS[form][1](submission());
  }
  const box = el("details.copyas", { ontoggle: () => { if (box.open) draw(); else fill(code); } },
    el("summary", {}, "Copy as command or code"),
    el("div.row.between", {}, tabs, button), code);
  return box;
}
