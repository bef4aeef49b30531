// One image of the grid: three nodes, filled anew when what it shows changes.

import { el, fill } from "./dom.js";
import { drop, show, thumbnail } from "./pictures.js";

/** Returns {node, set(image, place, pixels), free()}. `set` without an image shows that it is
 *  not known yet. */
export function tile() {
  const caption = el("span.caption");
  const node = el("button.tile", { type: "button", tabIndex: -1 });
  let frame = null;
  let shown = null;

  function picture(image, pixels) {
    frame = el("img.frame", { alt: "", decoding: "async", draggable: false });
    show(frame, thumbnail(image, pixels));
    return frame;
  }

  function draw(image, pixels) {
    node.className = `tile ${image?.state ?? "unknown"}`;
    caption.textContent = image?.expanded_prompt ?? "";
    const why = image?.error ? `${image.error.code}: ${image.error.message}` : "";
    const made = image?.state === "done" ? picture(image, pixels) : el("span.frame", {}, why);
    fill(node, made, caption);
    node.ariaLabel = image ? `Image ${image.index}, ${image.state}: ${image.expanded_prompt}` : "Loading";
    node.title = image?.expanded_prompt ?? "";
  }

  return {
    node,
    set(image, place, pixels) {
      node.dataset.place = place;
      const now = image ? `${image.id} ${image.state}` : "";
      if (now === shown) return;
      this.free();
      shown = now;
      draw(image, pixels);
    },
    free() {
      if (frame) drop(frame);
      frame = null;
    },
  };
}
