// One picture now: a prompt at interactive priority, answered with its bytes.

import { call } from "./api.js";

/** {url, job, seed, seconds} of the picture; `asked`: prompt, model, size, seed, … */
export async function render(asked, signal) {
  const began = performance.now();
  const json = Object.fromEntries(Object.entries(asked).filter(([, value]) =>
    value !== null && value !== undefined && value !== ""));
  const made = await call("POST", "/v1/images/generations",
    { json: { ...json, response_format: "b64_json" }, signal });
  const [image] = made.data;
  return {
    ...asked,
    url: `data:image/${made.output_format};base64,${image.b64_json}`,
    job: made.job_id,
    seed: image.seed,
    seconds: (performance.now() - began) / 1000,
  };
}

/** A seed as the farm would draw one. */
export const anySeed = () => Math.floor(Math.random() * 2 ** 31);
