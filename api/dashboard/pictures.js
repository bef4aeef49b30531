// Pictures into <img> nodes. With a key their bytes are fetched, since an <img> cannot send it.

import { checked, headers, key } from "./api.js";

const loading = new WeakMap(); // img -> what ends its request

export const content = ({ job_id: job, index }) => `/v1/jobs/${job}/images/${index}/content`;

/** The smallest thumbnail that is sharp at `pixels` of the page. */
export function thumbnail({ job_id: job, index }, pixels = 128) {
  const size = [128, 256].find((each) => each >= pixels * Math.min(2, devicePixelRatio)) ?? 512;
  return `/v1/jobs/${job}/images/${index}/thumbnail?size=${size}`;
}

/** Shows what is at `path`; the class `pending` goes when it is there, `broken` says that it
 *  could not be had. */
export function show(img, path) {
  drop(img);
  img.classList.add("pending");
  img.onload = () => img.classList.remove("pending");
  img.onerror = () => img.classList.add("broken");
  if (!key.get()) {
    img.src = path;
    return;
  }
  const ending = new AbortController();
  loading.set(img, ending);
  fetch(path, { headers: headers(), signal: ending.signal })
    .then(checked).then((response) => response.blob())
    .then((blob) => {
      if (ending.signal.aborted) return;
      const local = URL.createObjectURL(blob);
      img.addEventListener("load", () => URL.revokeObjectURL(local), { once: true });
      img.src = local;
    })
    .catch(() => { if (!ending.signal.aborted) img.classList.add("broken"); });
}

/** Ends what an <img> is still loading. */
export function drop(img) {
  loading.get(img)?.abort();
  loading.delete(img);
  img.classList.remove("broken");
  img.removeAttribute("src");
}
